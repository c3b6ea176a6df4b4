"""The parts of a run from its settings: all that can be refused before anything slow begins."""

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console

from rlrt.assembly.configuration import build, checked
from rlrt.batch import ProblemSet
from rlrt.context.context import Context
from rlrt.credit.assigner import CreditAssigner
from rlrt.data.module import fitting
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine
from rlrt.errors import UserError
from rlrt.evaluation.evaluator import Evaluator
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.surrogate import ClippedSurrogate
from rlrt.reward.verifier import Verifier
from rlrt.training.module import Optimization

console = Console()


@dataclass(frozen=True)
class CheapParts:
    """All that can be built, and refused, before anything is read or loaded."""

    credit: CreditAssigner
    context: Context | None
    loss: ClippedSurrogate
    aggregation: Aggregation
    optimization: Optimization
    engine: Engine
    verifier: Verifier
    evaluator: Evaluator
    source: Any
    dtype: torch.dtype


def build_cheap_parts(config: DictConfig) -> CheapParts:
    """Every component from its settings; UserError for the first that is out of range."""
    parts = CheapParts(
        credit=build(config.credit),
        context=build(config.context),
        loss=build(config.loss),
        aggregation=build(config.aggregation),
        optimization=build(config.training.optimization),
        engine=build(config.engine),
        verifier=build(config.reward),
        evaluator=build(config.evaluation),
        source=build(config.data),
        dtype=_dtype(config.trainer.precision),
    )
    if parts.credit.uses_context and parts.context is None:
        raise UserError(
            f"{type(parts.credit).__name__} reads a teacher behind a privileged context, and context "
            "is none: choose one, for example context=correct_peer"
        )
    if parts.context is not None and not parts.credit.uses_context:
        raise UserError(
            f"{type(parts.credit).__name__} reads no teacher, so context would not be used: leave "
            "context away"
        )
    _check_lengths(config)
    _check_hardware(config)
    return parts


def _dtype(precision: str) -> torch.dtype:
    dtypes = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
    if precision not in dtypes:
        raise UserError(f"trainer.precision is {precision}, it must be one of {', '.join(dtypes)}")
    return dtypes[precision]


def _check_lengths(config: DictConfig) -> None:
    training = config.training
    longest = training.max_prompt_tokens + training.max_response_tokens
    if training.max_prompt_tokens < 1:
        raise UserError(
            f"training.max_prompt_tokens is {training.max_prompt_tokens}, it must be >= 1"
        )
    if training.token_budget < longest:
        raise UserError(
            f"training.token_budget is {training.token_budget}, it must hold one sequence of "
            f"max_prompt_tokens + max_response_tokens = {longest}"
        )
    if config.trainer.max_epochs < 1:
        raise UserError(f"trainer.max_epochs is {config.trainer.max_epochs}, it must be at least 1")


def _check_hardware(config: DictConfig) -> None:
    if config.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(
            f"model={config.model.name} runs on a GPU and PyTorch finds none here: choose model=tiny, "
            "or trainer.accelerator=cpu if you mean it"
        )


def read_problems(
    parts: CheapParts, prompts: Prompts, config: DictConfig
) -> tuple[ProblemSet, ProblemSet]:
    """Training and held-out problems whose prompts fit; prints rows kept, and dropped and why."""
    found = []
    for name, read in (("train", parts.source.train), ("held out", parts.source.held_out)):
        problems = fitting(checked(read), prompts, config.training.max_prompt_tokens)
        found.append(problems)
        reasons = ", ".join(f"{count} {reason}" for reason, count in problems.dropped.items())
        console.print(
            f"{name} problems: {len(problems.problems)} kept; dropped: {reasons or 'none'}"
        )
    if not found[1].problems:
        raise UserError("no held-out problem is left to evaluate on")
    return found[0], found[1]
