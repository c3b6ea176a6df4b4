"""A small scored rollout step to measure and to record."""

from collections import Counter

import torch
from torch import Tensor

from rlrt.batch import Credit, Problem, Response, Rollout, ScoredBatch, Verdict
from rlrt.training.sampler import Sampled
from rlrt.training.scoring import outcomes_of

LENGTHS = (2, 3, 1, 4, 0, 2, 3, 1)  # of two rollouts in each of four groups; the longest has 4
REWARDS = (1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0)
STUDENT = (0, 1, 6)  # rollouts whose student view is scored
TEACHER = (0,)
MIXED = (0, 1, 6, 7)  # rollouts of groups with a signal

Step = tuple[Sampled, ScoredBatch, Credit, Counter[str]]


def step_of(groups: tuple[int, ...] = (0, 1, 2, 3)) -> Step:
    """The part of the step that holds these groups; entry t of row b of a tensor is a number of b, t."""
    rows = [row for row in range(8) if row // 2 in groups]
    lengths = torch.tensor(LENGTHS)
    width = int(lengths[rows].max())
    numbers_BT = torch.arange(32.0).view(8, 4)
    mask_BT = torch.arange(4)[None] < lengths[:, None]

    def only(chosen: tuple[int, ...]) -> Tensor:
        return torch.isin(torch.arange(8), torch.tensor(chosen))

    def values(factor: float, chosen_B: Tensor | None = None) -> Tensor:
        kept_BT = mask_BT if chosen_B is None else mask_BT & chosen_B[:, None]
        return (factor * (numbers_BT + 1)) * kept_BT

    rollouts = [_rollout(row, values(-0.02)[row, : LENGTHS[row]].tolist()) for row in range(8)]
    outcomes = outcomes_of(rollouts)
    batch = ScoredBatch(
        **vars(outcomes),
        response_mask_BT=mask_BT,
        engine_logprobs_BT=values(-0.02),
        student_scored_B=only(STUDENT),
        student_logprobs_BT=values(-0.03, only(STUDENT)),
        student_entropy_BT=values(0.1, only(STUDENT)),
        has_context_B=only((0, 2)),
        teacher_scored_B=only(TEACHER),
        teacher_logprobs_BT=values(-0.04, only(TEACHER)),
        teacher_entropy_BT=values(0.0),
        divergence_BT=values(0.0),
    )
    signs_B = (2 * torch.tensor(REWARDS) - 1) * only(MIXED) / 2
    credit_BT = signs_B[:, None] * mask_BT * (1 + 0.5 * only(TEACHER)[:, None])
    taught_BT = only(TEACHER)[:, None].expand(8, 4)
    credit = Credit(
        advantages_BT=credit_BT[rows, :width],
        advantages_B=signs_B[rows],
        metrics={"taught": taught_BT[rows][mask_BT[rows]], "never": torch.ones(0)},
    )
    part = ScoredBatch(
        **{
            name: tuple(value[row] for row in rows)
            if name == "responses"
            else (value[rows, :width] if name.endswith("_BT") else value[rows])
            for name, value in vars(batch).items()
        }
    )
    sampled = Sampled([rollouts[row] for row in rows], len(groups), 10 * len(groups))
    return sampled, part, credit, Counter(shortened=len(groups))


def _rollout(row: int, logprobs: list[float]) -> Rollout:
    ids = tuple(100 * row + t for t in range(LENGTHS[row]))
    return Rollout(
        Problem(f"p{row // 2}", "q", "a", "test"),
        row // 2,
        row % 2,
        (row // 2,),
        Response(ids, tuple(logprobs), truncated=row == 3),
        f"text {row}",
        _verdict(row),
        REWARDS[row],
    )


def _verdict(row: int) -> Verdict:
    if row == 4:
        return Verdict.UNDECIDED
    return Verdict.RIGHT if REWARDS[row] else Verdict.WRONG
