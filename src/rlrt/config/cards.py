"""What can be told of cards and libraries before anything heavy is imported."""

import ctypes
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from omegaconf import DictConfig
from packaging.requirements import Requirement

from rlrt.errors import UserError

BOUNDED = ("torch", "lightning", "transformers")  # whose insides the code calls


def require_versions() -> None:
    """UserError where a library is not of the versions that the project's metadata asks for."""
    try:
        lines = requires("rlrt") or []
    except PackageNotFoundError:  # run from a folder that is not installed
        return
    for wanted in map(Requirement, lines):
        if wanted.name not in BOUNDED or wanted.marker is not None:
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            raise UserError(
                f"{wanted.name} is not installed, it must be {wanted.specifier}: run scripts/setup.sh"
            ) from None
        if not wanted.specifier.contains(found, prereleases=True):
            raise UserError(
                f"{wanted.name} is {found}, it must be {wanted.specifier}: run scripts/setup.sh"
            )


def needs_card(config: DictConfig) -> bool:
    """Whether the run computes on a GPU; a check of it needs none."""
    return config.trainer.accelerator == "gpu" and not config.get("check", False)


def require_driver(config: DictConfig) -> None:
    """UserError where a run needs a GPU on a machine without a driver for any: known in no time."""
    if needs_card(config) and sys.platform == "linux" and not _driver():
        raise no_card(config)


def no_card(config: DictConfig) -> UserError:
    """What a run that computes on a GPU ends with where there is none."""
    return UserError(
        f"model={config.model.name} runs on a GPU and PyTorch finds none here: choose model=tiny, "
        "or trainer.accelerator=cpu if you mean it"
    )


def _driver() -> bool:
    if Path("/dev/kfd").exists():  # of AMD's cards
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
