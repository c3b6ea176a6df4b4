"""What the trainer's settings must be, and whether the work can be divided over its ranks."""

import os

import torch
from omegaconf import DictConfig

from rlrt.config.cards import needs_card, no_card
from rlrt.config.configuration import checked, require_part
from rlrt.config.settings import Training
from rlrt.config.types import shown
from rlrt.engine.engine import Engine
from rlrt.errors import UserError


def check_trainer(config: DictConfig) -> torch.dtype:
    """The dtype of ``trainer.precision``; UserError for what this project does not run on."""
    dtypes = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
    for name, allowed in (
        ("precision", list(dtypes)),
        ("accelerator", ["cpu", "gpu"]),
    ):
        _require(config, name, config.trainer[name] in allowed, f"one of {', '.join(allowed)}")
    epochs, strategy = config.trainer.max_epochs, config.trainer.strategy
    _require(config, "max_epochs", type(epochs) is int and epochs > 0, "a whole number from 1")
    named = isinstance(strategy, str) and strategy != "auto"
    _require(config, "strategy", not named, "auto; strategy=<name> chooses another")
    for node in (config.trainer, *config.logger.values()):
        require_part(node)
    if needs_card(config) and not torch.cuda.is_available():
        raise no_card(config)
    return dtypes[config.trainer.precision]


def check_ranks(config: DictConfig, training: Training, engine: Engine) -> None:
    """UserError where the ranks are not those that were launched, or cannot share the work evenly."""
    count = rank_count(config)
    launched = int(os.environ.get("WORLD_SIZE", count))
    if launched != count:
        raise UserError(
            f"trainer.devices x trainer.num_nodes is {count}, and {launched} processes were launched: "
            "they must be equal"
        )
    if training.problems_per_update % count:
        raise UserError(
            f"training.problems_per_update is {training.problems_per_update}, it must be a multiple of "
            f"the {count} ranks: a group stays on one of them"
        )
    checked(engine.require_ranks, count)


def rank_count(config: DictConfig) -> int:
    """How many processes the run has, one for each device."""
    trainer = config.trainer
    devices, nodes = trainer.devices, trainer.num_nodes
    if trainer.strategy == "auto":
        one = type(devices) is int and devices == 1 and nodes == 1
        _require(config, "devices", one, "1 with strategy=single; strategy=fsdp uses several")
        return 1
    if devices == "auto" and trainer.accelerator == "gpu":
        devices = torch.cuda.device_count() or int(config.get("check", False))
    whole = type(devices) is int and devices > 0
    _require(
        config, "devices", whole, "a whole number from 1, on GPUs also auto: all of the machine"
    )
    _require(config, "num_nodes", type(nodes) is int and nodes > 0, "a whole number from 1")
    return int(devices) * int(nodes)


def _require(config: DictConfig, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise UserError(f"trainer.{name} is {shown(config.trainer[name])}, it must be {allowed}")
