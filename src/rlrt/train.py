"""Train a policy: ``python src/rlrt/train.py credit=rlrt model=qwen3_4b_base``.

Compose the configuration, build the cheap parts (a wrong setting ends here), read the problems, load
the policy, run, evaluate, export. Heavy imports wait until the configuration is known to be sound.
"""

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rlrt.assembly.configuration import (
    CONFIGS,
    compose,
    no_empty_folder,
    stop_with_a_sentence,
)

os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands errors on instead of printing them


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def train(config: DictConfig) -> None:
    """One training in its run folder, from the start or from where it was killed."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with stop_with_a_sentence(folder), no_empty_folder(folder):
        from rlrt.assembly.resume import resumption
        from rlrt.assembly.run import build_run

        going_on = resumption(config, HydraConfig.get().overrides.task, folder)
        run = build_run(going_on.config, folder, going_on.first_step)
        run.fit_and_finish(going_on.checkpoint, going_on.verified)


if __name__ == "__main__":
    with stop_with_a_sentence():
        if not any(word.startswith("-") for word in sys.argv[1:]):
            compose(sys.argv[1:])  # Hydra's own report of a wrong setting is longer
        train()
