"""Settings that belong to the run as a whole and to no exchangeable part of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlrt.hub import is_local, refuse_unused
from rlrt.model.load import ATTENTION, KERNELS
from rlrt.training.optimization import Optimization

MAX_SEED = 2**32 - 1  # NumPy takes no larger one


def _at_least(least: int, group: str, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{group}.{name} is {value}, it must be at least {least}")


@dataclass(frozen=True)
class Training:
    """The size of a rollout step and of an update. Lengths and the budget are in tokens."""

    rollout_steps: int
    problems_per_step: int
    problems_per_update: int
    rollouts_per_problem: int
    max_prompt_tokens: int
    max_response_tokens: int
    temperature: float
    token_budget: int  # of a micro-batch
    score_all: bool  # read the student view of every rollout, needed or not
    resample_rounds: int  # times that groups without a signal are replaced by other problems'
    overlong_buffer: int | None  # last tokens of a response that are penalized; null: none
    mask_truncated: bool  # leave responses that were cut out of the loss and its denominator
    optimization: Optimization

    def __post_init__(self) -> None:
        others = ("temperature", "resample_rounds", "mask_truncated", "optimization", "score_all")
        sizes = {k: v for k, v in vars(self).items() if k not in others and v is not None}
        _at_least(1, "training", **sizes)
        _at_least(0, "training", resample_rounds=self.resample_rounds)
        if self.overlong_buffer is not None and self.overlong_buffer > self.max_response_tokens:
            raise ValueError(
                f"training.overlong_buffer is {self.overlong_buffer}, it must be null or lie in "
                f"[1, {self.max_response_tokens}] (training.max_response_tokens)"
            )
        if self.temperature <= 0:
            raise ValueError(
                f"training.temperature is {self.temperature}, it must be above 0: greedy responses "
                "of a group are all the same"
            )
        if self.problems_per_step % self.problems_per_update:
            raise ValueError(
                f"training.problems_per_step is {self.problems_per_step}, it must be a multiple of "
                f"training.problems_per_update ({self.problems_per_update})"
            )
        if self.token_budget < self.longest_sequence:
            raise ValueError(
                f"training.token_budget is {self.token_budget}, it must hold one sequence of "
                f"max_prompt_tokens + max_response_tokens = {self.longest_sequence}"
            )

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest student prompt with the longest response."""
        return self.max_prompt_tokens + self.max_response_tokens


@dataclass(frozen=True)
class Model:
    """Which policy is trained. ``path`` is a folder or a name on the hub, there of ``revision``; a run
    stores as ``commit`` what that stood for when it began.

    ``shape`` holds what its config.json says of its sizes, for a check where that cannot be reached.
    ``accelerator`` and ``precision`` are what its preset hands to the trainer, checked there; whether
    ``kernels`` and ``attention`` can be had here, model/load.py.
    """

    name: str
    path: str
    kind: str
    enable_thinking: bool | None
    random_init_seed: int | None
    accelerator: str
    precision: str
    gradient_checkpointing: bool
    save_attention: bool
    kernels: str
    attention: str
    shape: dict[str, Any] | None = None
    revision: str | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        kinds = ("base", "instruct", "thinking")
        for name, allowed in (("kind", kinds), ("kernels", KERNELS), ("attention", ATTENTION)):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"model.{name} is {value}, it must be one of {', '.join(allowed)}")
        if self.save_attention and not self.gradient_checkpointing:
            raise ValueError(
                "model.save_attention is true, which is for model.gradient_checkpointing=true: without "
                "it everything is saved"
            )
        if self.random_init_seed is not None:
            _at_least(0, "model", random_init_seed=self.random_init_seed)
        folder = Path(self.path).expanduser()
        if not self.path or (self.path.startswith((".", "/", "~")) and not folder.is_dir()):
            raise ValueError(
                f"model.path is {self.path!r}, and no such folder exists; allowed: a model folder or "
                "a name on the hub such as Qwen/Qwen3-4B-Base"
            )
        local = "model.path" if is_local(self.path) else ""
        refuse_unused(self.revision, self.commit, "model", local)

    @property
    def at(self) -> str | None:
        """The commit, where it is known, else the revision."""
        return self.commit or self.revision


@dataclass(frozen=True)
class PromptSettings:
    """What follows every question, on a line of its own, and the chat template's thinking switch in
    either view; null leaves the template's default.
    """

    instruction: str
    student_thinking: bool | None
    teacher_thinking: bool | None


@dataclass(frozen=True)
class CheckpointSettings:
    """A checkpoint after every so many rollout steps, and how many of them stay.

    The weights alone, in the engine's dtype, also stay from every ``export_every_n_steps``-th step,
    0 included, and from those that ``export_steps`` names.
    """

    every_n_steps: int
    keep: int
    export_every_n_steps: int | None = None
    export_steps: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        _at_least(1, "checkpoint", every_n_steps=self.every_n_steps)
        _at_least(2, "checkpoint", keep=self.keep)  # one may be damaged
        if self.export_every_n_steps is not None:
            _at_least(1, "checkpoint", export_every_n_steps=self.export_every_n_steps)
        if self.export_steps:
            _at_least(0, "checkpoint", export_steps=min(self.export_steps))


@dataclass(frozen=True)
class RunSettings:
    """The settings without a group."""

    seed: int
    record_rollouts: bool
    check: bool = False  # everything, and start nothing
    card_gb: float | None = None  # 1e9 bytes of a card; null: as found

    def __post_init__(self) -> None:
        if self.card_gb is not None and self.card_gb <= 0:
            raise ValueError(f"card_gb is {self.card_gb}, it must be null or above 0")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}, it must lie in [0, {MAX_SEED}]")
