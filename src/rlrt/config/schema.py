"""Settings that belong to the run as a whole and to no exchangeable part of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from rlrt.hub import is_local, refuse_unused
from rlrt.model.load import Attention, Kernels
from rlrt.training.optimization import Optimization
from rlrt.validation import validated

MAX_SEED = 2**32 - 1  # NumPy takes no larger one


@validated("training")
@dataclass(frozen=True)
class Training:
    """The size of a rollout step and of an update. Lengths and the budget are in tokens."""

    rollout_steps: PositiveInt
    problems_per_step: PositiveInt
    problems_per_update: PositiveInt
    rollouts_per_problem: PositiveInt
    max_prompt_tokens: PositiveInt
    max_response_tokens: PositiveInt
    temperature: Annotated[
        float,
        Field(gt=0, description="it must be above 0: greedy responses of a group are all the same"),
    ]
    token_budget: PositiveInt  # of a micro-batch
    score_all: bool  # read the student view of every rollout, needed or not
    # times that groups without a signal are replaced by other problems'
    resample_rounds: NonNegativeInt
    # last tokens of a response that are penalized; null: none
    overlong_buffer: Annotated[PositiveInt | None, Field(description="it must be at least 1")]
    mask_truncated: bool  # leave responses that were cut out of the loss and its denominator
    optimization: Optimization

    def __post_init__(self) -> None:
        if self.overlong_buffer is not None and self.overlong_buffer > self.max_response_tokens:
            raise ValueError(
                f"training.overlong_buffer is {self.overlong_buffer}, it must be null or lie in "
                f"[1, {self.max_response_tokens}] (training.max_response_tokens)"
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


@validated("model")
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
    kind: Literal["base", "instruct", "thinking"]
    enable_thinking: bool | None
    random_init_seed: NonNegativeInt | None
    accelerator: str
    precision: str
    gradient_checkpointing: bool
    save_attention: bool
    kernels: Kernels
    attention: Attention
    shape: dict[str, Any] | None = None
    revision: str | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        if self.save_attention and not self.gradient_checkpointing:
            raise ValueError(
                "model.save_attention is true, which is for model.gradient_checkpointing=true: without "
                "it everything is saved"
            )
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


@validated("prompts")
@dataclass(frozen=True)
class PromptSettings:
    """What follows every question, on a line of its own, and the chat template's thinking switch in
    either view; null leaves the template's default.
    """

    instruction: str
    student_thinking: bool | None
    teacher_thinking: bool | None


@validated("checkpoint")
@dataclass(frozen=True)
class CheckpointSettings:
    """A checkpoint after every so many rollout steps, and how many of them stay.

    The weights alone, in the engine's dtype, also stay from every ``export_every_n_steps``-th step,
    0 included, and from those that ``export_steps`` names.
    """

    every_n_steps: PositiveInt
    keep: Annotated[int, Field(ge=2)]  # one may be damaged
    export_every_n_steps: Annotated[
        PositiveInt | None, Field(description="it must be at least 1")
    ] = None
    export_steps: list[NonNegativeInt] = field(default_factory=list)


@validated("")
@dataclass(frozen=True)
class RunSettings:
    """The settings without a group."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    record_rollouts: bool
    check: bool = False  # everything, and start nothing
    card_gb: PositiveFloat | None = None  # 1e9 bytes of a card; null: as found
