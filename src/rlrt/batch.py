"""The records of a rollout step, token ids, and the one legend of dimensions.

Dimensions (tensor names end in them): P problems, K rollouts of each, B = P * K rollouts,
T response tokens (right-padded), N real response tokens without padding, L prompt and response
tokens, H hidden units, V vocabulary. Column t of every ``*_BT`` tensor belongs to response token t.

Log-probs are natural logarithms at the sampling temperature and have four names:
``engine_logprobs`` (what the engine sampled with), ``student_logprobs`` (the policy given the plain
prompt, before any update of the step), ``teacher_logprobs`` (the same response ids given a prompt
with a privileged context) and ``logprobs`` (the current policy, with gradient).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

SUCCESS_REWARD = 0.5  # a rollout with at least this reward is correct


Ids = Sequence[int] | NDArray[np.int32]


def as_array(ids: Ids) -> NDArray[np.int32]:
    """The ids as an array; an array of this type is not copied."""
    return np.asarray(ids, dtype=np.int32)


def token_mask(sequences: Sequence[Ids]) -> Tensor:
    """``[B, T]`` bool: True on the tokens of each sequence, padded on the right to the longest."""
    lengths_B = torch.tensor([len(ids) for ids in sequences], dtype=torch.long)
    longest = max(map(len, sequences), default=0)
    return torch.arange(longest) < lengths_B[:, None]


@dataclass(frozen=True)
class Problem:
    """A question with an answer that can be verified."""

    id: str
    question: str
    answer: str
    source: str
    solution: str | None = None  # a worked reference solution, where the data has one
    feedback: str | None = None  # free text about it, where the data has some
    other_answers: tuple[str, ...] = ()  # that are right as well
    preceding: tuple[tuple[str, str], ...] = ()  # chat messages before it, (role, content)

    @property
    def accepted_answers(self) -> tuple[str, ...]:
        """What a right response may answer."""
        return (self.answer, *self.other_answers)


@dataclass(frozen=True)
class ProblemSet:
    """What a data source yields: its problems, and how many rows it left out for which reason."""

    problems: tuple[Problem, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)


class Verdict(StrEnum):
    """What the verifier says of a response. UNDECIDED: a limit was hit before it could say."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


@dataclass(frozen=True, init=False, eq=False)
class Response:
    """One sampled response: the engine's own token ids, an end-of-text token included.

    ``sampled`` is false for tokens that stand in the response and are not the policy's choice; None
    where all of them are. The log-prob of such a token says nothing and is read nowhere.
    """

    ids: NDArray[np.int32]
    engine_logprobs: NDArray[np.float32]
    truncated: bool  # cut at the length limit
    sampled: NDArray[np.bool_] | None

    def __init__(
        self,
        ids: ArrayLike,
        engine_logprobs: ArrayLike,
        truncated: bool,
        sampled: ArrayLike | None = None,
    ) -> None:
        """Takes any sequences of equal length; arrays of the fields' types are not copied."""
        vars(self).update(  # past the frozen fields
            ids=np.asarray(ids, np.int32),
            engine_logprobs=np.asarray(engine_logprobs, np.float32),
            truncated=truncated,
            sampled=None if sampled is None else np.asarray(sampled, np.bool_),
        )
        lengths = {len(part) for part in vars(self).values() if isinstance(part, np.ndarray)}
        assert len(lengths) == 1, lengths

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Response):
            return NotImplemented
        return self.truncated == other.truncated and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("ids", "engine_logprobs", "sampled")
        )


@dataclass(frozen=True)
class Rollout:
    """A response with its problem and verdict. Rollouts with the same ``group`` share a prompt."""

    problem: Problem
    group: int  # position of the problem in the rollout step
    sample: int  # 0 .. K-1 within the group
    prompt_ids: tuple[int, ...]
    response: Response
    text: str  # the response decoded without special tokens
    verdict: Verdict
    reward: float
    penalty: float = 0.0  # 0 or below, of a length rule


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What is known of the B rollouts of a step before either view is scored.

    ``rewards_B`` are the verifier's and decide what is correct; ``penalty_B`` (0 or below) is what a
    length rule takes away on top. Advantages are formed from their sum, ``shaped_rewards_B``.
    """

    group_B: Tensor  # long
    rewards_B: Tensor
    penalty_B: Tensor
    responses: tuple[str, ...]  # decoded text

    def __post_init__(self) -> None:
        for name in ("group_B", "rewards_B", "penalty_B"):
            assert getattr(self, name).shape == (len(self.responses),), name

    @property
    def shaped_rewards_B(self) -> Tensor:
        return self.rewards_B + self.penalty_B

    @property
    def correct_B(self) -> Tensor:
        return self.rewards_B >= SUCCESS_REWARD


@dataclass(frozen=True, kw_only=True)
class ScoredBatch(Outcomes):
    """All rollouts of one rollout step as a credit assigner sees them; everything is detached.

    The student's tensors hold values only in rows where ``student_scored_B`` is true: the trainer scores
    the student view before the updates where the assigner's credit reads it; other rows are 0.

    The teacher's tensors hold values only in rows where ``teacher_scored_B`` is true: the trainer scores
    the teacher view where the assigner asked for it and a context exists; other rows are 0. A rollout
    that has a context is not scored where the assigner only distills it.
    """

    response_mask_BT: Tensor  # bool, True on real response tokens
    engine_logprobs_BT: Tensor
    student_scored_B: Tensor  # bool
    student_logprobs_BT: Tensor
    student_entropy_BT: Tensor  # nats over the full vocabulary
    has_context_B: Tensor  # bool: a context was asked for, exists, and fits
    teacher_scored_B: Tensor  # bool
    teacher_logprobs_BT: Tensor
    teacher_entropy_BT: Tensor
    divergence_BT: (
        Tensor  # KL(student || teacher), where the assigner says that it reads it; else 0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.response_mask_BT.shape
        for name, values in vars(self).items():
            expected = shape if name.endswith("_BT") else shape[:1]
            actual = (len(values),) if name == "responses" else values.shape
            assert actual == expected, f"{name} is {tuple(actual)}, the mask is {tuple(shape)}"


@dataclass(frozen=True)
class Credit:
    """What a credit assigner returns: detached, and 0 outside the response mask.

    An update's loss is the aggregation, over the tokens that count, of the surrogate with
    ``advantages_BT`` plus ``distillation_BT`` times the assigner's divergence.

    ``metrics`` have the same names at every call; each is a 1-D tensor of the values that it averages,
    of tokens or of rollouts. The trainer averages over all ranks; one without any value is left out.
    """

    advantages_BT: Tensor
    distillation_BT: Tensor | None = None  # weight of the divergence per token; 0 or above
    relative_distillation: bool = False  # scale these weights to a mean of 1 in every update
    counted_BT: Tensor | None = None  # bool, tokens of the denominator; None: all response tokens
    advantages_B: Tensor | None = None  # the rollout's advantage before any token weight, recorded
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
