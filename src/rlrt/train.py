"""Train a policy: ``python src/rlrt/train.py credit=rlrt model=qwen3_4b_base``.

Compose the configuration, build the components (a wrong setting ends here), read the problems, load
the policy, run, evaluate, export. Heavy imports wait until the configuration is known to be sound.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rlrt.config.command_line import (
    grow_segments,
    print_once,
    report_errors,
    require_driver,
    require_versions,
)
from rlrt.config.compose import CONFIGS, compose
from rlrt.config.own_model import expand_own_model

os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands errors on instead of printing them
grow_segments()


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def train(config: DictConfig) -> None:
    """One training in its run folder, from the start or from where it was killed."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with report_errors(folder):
        try:
            if config.get("check"):
                _check(config, HydraConfig.get().overrides.task, folder)
                return
            from rlrt.config.assembly import build_run
            from rlrt.config.resume import find_resume_point

            start = find_resume_point(config, HydraConfig.get().overrides.task, folder)
            if start.ended:
                steps = start.first_step
                print_once(
                    f"this run has ended ({steps} of {steps} rollout steps): {folder}; "
                    f"resume={folder} trainer.max_epochs={2 * steps} continues it"
                )
                return
            run = build_run(start.config, folder, start.first_step)
            run.fit_and_finish(start.checkpoint, start.verified)
        finally:
            with suppress(OSError):
                os.removedirs(folder)  # only empty ones: the run has ended before it wrote anything


def _check(config: DictConfig, overrides: list[str], folder: Path) -> None:
    """What the run, or the one that it would go on with, comes to on its cards."""
    from rlrt.config.assembly import check_run
    from rlrt.config.resume import find_resume_point

    check_run(find_resume_point(config, overrides, folder).config)


def main(words: list[str]) -> None:
    """The command, called with these words."""
    require_versions()
    words, remark = expand_own_model(words, CONFIGS)
    sys.argv[1:] = words  # which Hydra reads
    if remark:
        print_once(remark)
    if any(word.startswith("-") for word in words):
        train()
        return
    config = compose(words)  # Hydra's own report of a wrong setting is longer
    if config.get("check"):  # here: Hydra would make a run folder
        folders = [word.partition("=")[2] for word in words if word.startswith("hydra.run.dir=")]
        _check(config, words, Path(folders[-1]) if folders else Path("logs"))
        return
    require_driver(config)
    train()


if __name__ == "__main__":
    with report_errors():
        main(sys.argv[1:])
