"""Where a run goes on: its checkpoint, and the configuration that it began with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlrt.errors import UserError
from rlrt.training.checkpoint import completed_steps, find_checkpoint

# What may differ from the run that is resumed: nothing of it changes what a step computes.
FREE = ("resume", "logger", "checkpoint", "record_rollouts", "trainer.max_epochs")


@dataclass(frozen=True)
class Resumption:
    """The configuration of the run, where it starts, and the checkpoint to load (None: none)."""

    config: DictConfig
    first_step: int
    checkpoint: Path | None


def resumption(config: DictConfig, overrides: Sequence[str], folder: Path) -> Resumption:
    """How a run starts. Without ``resume`` in an empty folder, from step 0.

    With it, from the newest checkpoint of the run folder (or the one named), under the configuration
    stored there; settings given beside ``resume`` must agree with it, those in FREE excepted.
    UserError where the folder is taken, a checkpoint damaged, or a setting differs.
    """
    if config.resume is None:
        if (folder / "config.yaml").exists():
            raise UserError(
                f"{folder} already holds a run: go on with it by resume={folder} "
                f"hydra.run.dir={folder}, or choose another folder"
            )
        return Resumption(config, 0, None)
    source = Path(config.resume)
    checkpoint = find_checkpoint(source)
    stored_path = (source if source.is_dir() else source.resolve().parents[1]) / "config.yaml"
    if stored_path.exists():
        stored = OmegaConf.load(stored_path)
        assert isinstance(stored, DictConfig)
        if any(not override.startswith("resume=") for override in overrides):
            _require_same(stored, config)
            stored.trainer.max_epochs = config.trainer.max_epochs
        stored.resume = config.resume
        config = stored
    return Resumption(config, completed_steps(checkpoint) if checkpoint else 0, checkpoint)


def _require_same(stored: DictConfig, given: DictConfig) -> None:
    before, now = _leaves(stored), _leaves(given)
    for name in sorted(before.keys() | now.keys()):
        if name.startswith(FREE) or before.get(name) == now.get(name):
            continue
        raise UserError(
            f"{name} is {now.get(name)} here and {before.get(name)} in the run that resume names: a "
            "resumed run keeps its settings; leave it away or start a new run"
        )


def _leaves(config: DictConfig) -> dict[str, Any]:
    leaves: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        items = node.items() if isinstance(node, dict) else None
        if items is None:
            leaves[prefix] = node
            return
        for key, value in items:
            walk(value, f"{prefix}.{key}" if prefix else str(key))

    walk(OmegaConf.to_container(config, resolve=True), "")
    return leaves
