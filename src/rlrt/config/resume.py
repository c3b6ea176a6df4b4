"""Where a run goes on: its checkpoint, and the configuration that it began with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from rlrt.config.compose import compose, flatten, load_yaml
from rlrt.config.stored_policies import DAMAGE
from rlrt.errors import UserError, is_rank_zero, launched_together
from rlrt.training.checkpoint import completed_steps, find_checkpoint, run_folder
from rlrt.validation import spelled

# What may differ from the run that is resumed: nothing of it changes what a step computes.
FREE = (
    "resume",
    "check",
    "card_gb",
    "logger",
    "checkpoint",
    "record_rollouts",
    "engine.attention_backend",
    "engine.max_logprob_gap",
    "engine.gpu_memory_utilization",
    "engine.tensor_parallel",
    "reward.workers",
    "trainer.devices",  # and how the work is divided over them
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.max_epochs",
    "training.rollout_steps",  # the default of trainer.max_epochs
    "training.score_all",
    "training.optimization.moments",
)


@dataclass(frozen=True)
class ResumePoint:
    """The configuration of the run, where it starts, and the checkpoint to load (None: none).

    Where other ranks already wait for this one, it is verified once they have met: by one for all.
    """

    config: DictConfig
    first_step: int
    checkpoint: Path | None
    verified: bool = True


def find_resume_point(config: DictConfig, overrides: Sequence[str], folder: Path) -> ResumePoint:
    """How a run starts. Without ``resume`` in an empty folder, from step 0.

    With it, from the newest checkpoint of the run folder (or the one named), under the configuration
    stored there; settings given beside ``resume`` must agree with it, those in FREE excepted, which
    are taken over. UserError where the folder is taken, a checkpoint damaged, or a setting differs.
    """
    if config.resume is None:
        # on any other rank it may be rank 0's, of this run
        if is_rank_zero() and (folder / "config.yaml").exists():
            raise UserError(
                f"{folder} already holds a run: go on with it by resume={folder} "
                f"hydra.run.dir={folder}, or choose another folder"
            )
        return ResumePoint(config, 0, None)
    source = Path(str(config.resume))
    verified = is_rank_zero() and not launched_together()
    checkpoint = find_checkpoint(source, verified)
    done = _completed(checkpoint, source) if checkpoint else 0
    stored_path = run_folder(source) / "config.yaml"
    if stored_path.exists():
        config = _stored_with_changes(stored_path, config, overrides)
    elif not checkpoint:
        raise UserError(f"resume is {source}, which holds no run: no config.yaml, no checkpoint")
    if done > config.trainer.max_epochs:
        raise UserError(
            f"trainer.max_epochs is {config.trainer.max_epochs}, and the run that resume names has "
            f"{done} rollout steps behind it"
        )
    return ResumePoint(config, done, checkpoint, verified)


def _completed(checkpoint: Path, source: Path) -> int:
    try:
        return completed_steps(checkpoint)
    except (*DAMAGE, OSError, EOFError) as error:
        find_checkpoint(source)  # says so where it is damaged
        raise UserError(
            f"resume is {checkpoint}, which is no checkpoint of a run ({type(error).__name__})"
        ) from error


def _stored_with_changes(path: Path, given: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The stored configuration with what FREE lets the command line change."""
    stored, default = load_yaml(path), compose([])
    before, now, defaults = flatten(stored), flatten(given), flatten(default)
    named = [override.lstrip("+~").split("=")[0] for override in overrides]
    if "strategy" in named:  # a group whose settings are the trainer's
        named += ["trainer.strategy", "trainer.devices", "trainer.num_nodes"]
    for name in sorted(before.keys() | now.keys()):
        chosen = _within(name, named) or now.get(name) != defaults.get(name)
        if not chosen or _within(name, FREE) or before.get(name) == now.get(name):
            continue
        raise UserError(
            f"{name} is {spelled(now.get(name))} here and {spelled(before.get(name))} in the run that "
            "resume names: a resumed run keeps its settings; leave it away or start a new run"
        )
    for name in FREE:
        node = OmegaConf.select(given, name)
        if node is None and OmegaConf.select(stored, name) is None:
            continue  # no setting of this run: another engine has it
        if _within(name, named) or node != OmegaConf.select(default, name):
            OmegaConf.update(stored, name, node, merge=False)
    return stored


def _within(name: str, groups: Sequence[str]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)
