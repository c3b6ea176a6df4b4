"""What the commands share: their options, what they print, how they end, what the machine must have.

Imports nothing heavy: all of it is known before PyTorch is imported.
"""

import ctypes
import errno
import logging
import os
import re
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from packaging.requirements import Requirement
from rich.console import Console

from rlrt.errors import DISK_FULL, RunStoppedError, UserError, error_file, is_rank_zero, one_line

REFUSED, STOPPED, INTERRUPTED = 2, 3, 130  # exit statuses
RUST_ERROR = re.compile(r"\(os error (\d+)\)")
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
BOUNDED = ("torch", "lightning", "transformers")  # whose internals the code calls
ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # PyTorch's, new and old

console = Console()


def print_once(text: str) -> None:
    """Print text as it is, once for all ranks: no markup, no line breaks of its own."""
    if is_rank_zero():
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def quiet_libraries() -> None:
    """Keep the screen for the run: no banners, no advice that does not apply."""
    import transformers  # takes seconds

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # the teacher
    warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", ".*torch.distributed.reduce_op.*is deprecated")
    transformers.utils.logging.disable_progress_bar()


def grow_segments() -> None:
    """Have PyTorch's segments of a card's memory grow instead of lying about in pieces: updates and
    engine take turns on a card.

    Before CUDA starts. What the user has set stays. vLLM leaves its own pools out of it.
    """
    if not any(name in os.environ for name in ALLOCATOR_SETTINGS):
        os.environ[ALLOCATOR_SETTINGS[0]] = "expandable_segments:True"


def print_help(arguments: Sequence[str], usage: str) -> bool:
    """Whether the words ask for help, which is printed then; a reader may leave early, as ``head``."""
    if not {"--help", "-h"} & set(arguments):
        return False
    try:
        print(usage.strip(), flush=True)
    except BrokenPipeError:  # Python would complain once more when it closes its output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def command_options(
    arguments: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The values of those ``names`` that are given, and all other words, in their order.

    UserError where one of ``names`` has no value or stands there twice, and for an option.
    """
    options: dict[str, str] = {}
    rest = []
    for word in arguments:
        if word.startswith("-"):
            raise UserError(f"{word} is no word of this command: --help lists them")
        name, _, value = word.partition("=")
        if name not in names:
            rest.append(word)
            continue
        if not value:
            raise UserError(f"{name}= has no value")
        if name in options:
            raise UserError(
                f"{name}= is given twice: several values go into one, with commas between"
            )
        options[name] = value
    return options, tuple(rest)


def parse_list(name: str, value: str) -> tuple[str, ...]:
    """The items of ``a,b`` or ``[a,b]``; UserError where one is empty or stands there twice."""
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    items = tuple(item.strip() for item in value.split(","))
    if not all(items):
        raise UserError(f"{name} is {value}, in which an item between commas is empty")
    if doubled := sorted({item for item in items if items.count(item) > 1}):
        raise UserError(f"{name} names {', '.join(doubled)} twice")
    return items


def require_at_least(options: Namespace, **least: float) -> None:
    """UserError naming the first option below its ``least``; one that was not given may be None."""
    for name, lowest in least.items():
        value = getattr(options, name)
        if value is not None and not value >= lowest:  # also where it is NaN
            raise UserError(f"--{name.replace('_', '-')} is {value}, it must be at least {lowest}")


@contextmanager
def report_errors(folder: Path | None = None, advice: str = "") -> Iterator[None]:
    """Turn what a user can understand into one line on stderr and a non-zero exit status.

    Of what can be continued the line says how: where a run in ``folder`` has begun, or by ``advice``.
    The traceback of the error that ends that run is kept there until it ends well, by each rank in a
    file of its own; ``RLRT_TRACEBACK=1`` in the environment shows every one at once.
    """
    had_begun = _has_begun(folder)
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        ending = _sentence_and_status(error, _how_to_go_on(folder, advice))
        ends_run = (
            ending is None or ending[1] == STOPPED or (ending[1] == REFUSED and not had_begun)
        )
        kept = _keep_traceback(error, folder) if ends_run else None
        if ending is None:
            raise
        if os.environ.get("RLRT_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exception(error)
        sentence, status = ending
        if is_rank_zero():  # which also speaks of what stopped another rank
            where = f"; traceback in {kept}" if kept else ""
            print(f"error: {sentence}{where}", file=sys.stderr, flush=True)
        raise SystemExit(status) from None
    if folder is not None and is_rank_zero():
        for path in (folder / "error.txt", *folder.glob("error-rank-*.txt")):
            path.unlink(missing_ok=True)


def _sentence_and_status(error: BaseException, going_on: str) -> tuple[str, int] | None:
    """What to say of an error, and the exit status; None of a bug, which speaks by its traceback."""
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return one_line(error), REFUSED
    if isinstance(error, RunStoppedError):
        return str(error), STOPPED
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted{going_on}", INTERRUPTED
    trouble = _file_trouble(error)
    return None if trouble is None else (f"{trouble}{going_on}", STOPPED)


def _keep_traceback(error: BaseException, folder: Path | None) -> Path | None:
    """Where the error's traceback is now; None where no run has begun, or the disk is full."""
    if folder is None or not _has_begun(folder):
        return None
    path = folder / error_file()
    try:
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return None
    return path


def _file_trouble(error: BaseException) -> str | None:
    """What the operating system said no to, also as the cause of another library's error; else None.

    An error that came up while another was handled is no consequence of that: it is a bug of its own.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:  # causes may go in a ring
        code = RUST_ERROR.search(str(cause))  # safetensors has no other way to tell
        number = int(code[1]) if code else getattr(cause, "errno", None)
        if number in DISK_FULL:
            return f"the disk is full ({os.strerror(number)})"
        if isinstance(cause, OSError) and number in UNUSABLE and cause.filename:
            return f"{cause.filename} cannot be used ({cause.strerror})"
        seen.add(id(cause))
        cause = cause.__cause__
    return None


def _has_begun(folder: Path | None) -> bool:
    return folder is not None and (folder / "config.yaml").exists()


def _how_to_go_on(folder: Path | None, advice: str) -> str:
    if not _has_begun(folder):
        return f"; {advice}" if advice else ""
    return f"; go on with resume={folder} hydra.run.dir={folder}"


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
            installed = version(wanted.name)
        except PackageNotFoundError:
            installed = "not installed"
        else:
            if wanted.specifier.contains(installed, prereleases=True):
                continue
        raise UserError(
            f"{wanted.name} is {installed}, it must be {wanted.specifier}: run scripts/setup.sh"
        )


def needs_gpu(config: DictConfig) -> bool:
    """Whether the run computes on a GPU; a check of it needs none."""
    return config.trainer.accelerator == "gpu" and not config.get("check", False)


def require_driver(config: DictConfig) -> None:
    """UserError where a run needs a GPU on a machine without a driver for any: known in no time."""
    if not needs_gpu(config) or sys.platform != "linux":
        return
    if Path("/dev/kfd").exists():  # of AMD's cards
        return
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise no_gpu_error(config) from None


def no_gpu_error(config: DictConfig) -> UserError:
    """What a run that computes on a GPU ends with where there is none."""
    return UserError(
        f"model={config.model.name} runs on a GPU and PyTorch finds none here: choose model=tiny, "
        "or trainer.accelerator=cpu if you mean it"
    )
