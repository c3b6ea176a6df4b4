"""What TensorBoard and Weights & Biases get beside the row of every step: settings, held-out scores, texts.

The project's own tables hold all of it without them. Rank 0 alone writes.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from rlrt.errors import is_rank_zero
from rlrt.files import write_text
from rlrt.training.evaluator import Completion
from rlrt.validation import validated

ID_FILE = "wandb.id"
COLUMNS = ("question", "answer", "response", "verdict")


@validated("logger.wandb")
def wandb_logger(
    save_dir: str,
    project: str = "rlrt",
    name: str | None = None,
    group: str | None = None,
    entity: str | None = None,
    offline: bool = False,
) -> WandbLogger:
    """A Weights & Biases run for the run in ``save_dir``; one that is resumed goes on with its own.

    ``name`` null: that of the run folder; ``group`` null: that of the folder above it, which runs of
    one method and model share.
    """
    folder = Path(save_dir).resolve()
    return WandbLogger(
        save_dir=save_dir,
        project=project,
        name=name or folder.name,
        group=group or folder.parent.name,
        entity=entity,
        offline=offline,
        id=_run_id(folder),
        resume="allow",
    )


def _run_id(folder: Path) -> str:
    """The name by which the service knows the run: drawn once and kept in its folder."""
    path = folder / ID_FILE
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    drawn = secrets.token_hex(8)
    if is_rank_zero():
        write_text(path, drawn + "\n")
    return drawn


def log_settings(loggers: Iterable[Logger], settings: Mapping[str, Any]) -> None:
    """The settings of a run by their full names."""
    for logger in loggers:
        logger.log_hyperparams(dict(settings))


def log_evaluation(
    loggers: Iterable[Logger],
    metrics: Mapping[str, float],
    completions: Sequence[Completion],
    step: int,
) -> None:
    """Held-out scores as ``held_out/avg@8`` …, and a table of some completions."""
    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger | WandbLogger):
            continue  # the run's own table has them
        logger.log_metrics({f"held_out/{name}": value for name, value in metrics.items()}, step)
        if not is_rank_zero():
            continue
        rows = [[getattr(completion, name) for name in COLUMNS] for completion in completions]
        if isinstance(logger, WandbLogger):
            logger.log_table("held_out/completions", columns=list(COLUMNS), data=rows, step=step)
        else:
            logger.experiment.add_text("held_out/completions", _as_markdown(rows), step)
            logger.experiment.flush()  # also after the last step, when Lightning has closed it


def _as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose texts are shown as they are: completions are untrusted."""

    def cell(text: str) -> str:
        for sign, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("\n", "<br>")):
            text = text.replace(sign, entity)
        return text

    lines = [COLUMNS, ["---"] * len(COLUMNS), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
