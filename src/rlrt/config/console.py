"""What the commands print, and what the libraries do not."""

import logging
import warnings

import transformers
from rich.console import Console

from rlrt.errors import is_rank_zero

console = Console()


def say(text: str) -> None:
    """Print text as it is, once for all ranks: no markup, no line breaks of its own."""
    if is_rank_zero():
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def quiet_libraries() -> None:
    """Keep the screen for the run: no banners, no advice that does not apply."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # the teacher
    warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", ".*torch.distributed.reduce_op.*is deprecated")
    transformers.utils.logging.disable_progress_bar()
