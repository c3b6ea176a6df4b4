"""From judged rollouts to the scored batch: both views, each only where it is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlrt.batch import Rollout, ScoredBatch
from rlrt.context.context import Demonstration
from rlrt.data.prompts import Prompts

Ids = Sequence[int]
Score = Callable[[Sequence[Ids], Sequence[Ids]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TeacherViews:
    """Prompts of the teacher view: None where it is not read or has no context."""

    prompts: tuple[tuple[int, ...] | None, ...]
    shortened: int  # demonstrations that had to be cut
    unfit: int  # contexts left out since not even an empty demonstration fits


def teacher_views(
    rollouts: Sequence[Rollout],
    demonstrations: Sequence[Demonstration | None],
    reads_teacher_B: Tensor,
    prompts: Prompts,
    max_model_tokens: int,
) -> TeacherViews:
    """The teacher's prompt of each rollout that is read, short enough that the response fits too."""
    ids: list[tuple[int, ...] | None] = []
    shortened = unfit = 0
    for rollout, shown, read in zip(
        rollouts, demonstrations, reads_teacher_B.tolist(), strict=True
    ):
        if shown is None or not read or not rollout.response.ids:
            ids.append(None)
            continue
        room = max_model_tokens - len(rollout.response.ids)
        prompt = prompts.teacher_ids(rollout.problem.question, shown.template, shown.text, room)
        ids.append(None if prompt is None else prompt.ids)
        shortened += prompt is not None and prompt.shortened
        unfit += prompt is None
    return TeacherViews(tuple(ids), shortened, unfit)


def scored_batch(rollouts: Sequence[Rollout], teacher: TeacherViews, score: Score) -> ScoredBatch:
    """All rollouts behind their plain prompt, some behind their teacher prompt; same response ids."""
    responses = [rollout.response.ids for rollout in rollouts]
    student_BT, entropy_BT = score([rollout.prompt_ids for rollout in rollouts], responses)
    mask_BT = torch.zeros_like(student_BT, dtype=torch.bool)
    engine_BT = torch.zeros_like(student_BT)
    for row, rollout in enumerate(rollouts):
        mask_BT[row, : len(responses[row])] = True
        engine_BT[row, : len(responses[row])] = torch.tensor(rollout.response.engine_logprobs)

    teacher_BT = torch.zeros_like(student_BT)
    rows = [row for row, prompt in enumerate(teacher.prompts) if prompt is not None]
    if rows:
        behind = [prompt for prompt in teacher.prompts if prompt is not None]
        scored_bT, _ = score(behind, [responses[row] for row in rows])
        teacher_BT[rows, : scored_bT.shape[1]] = scored_bT
    teacher_scored_B = torch.zeros(len(rollouts), dtype=torch.bool)
    teacher_scored_B[rows] = True
    return ScoredBatch(
        group_B=torch.tensor([rollout.group for rollout in rollouts]),
        rewards_B=torch.tensor([rollout.reward for rollout in rollouts], dtype=student_BT.dtype),
        response_mask_BT=mask_BT,
        engine_logprobs_BT=engine_BT,
        student_logprobs_BT=student_BT,
        student_entropy_BT=entropy_BT,
        teacher_logprobs_BT=teacher_BT,
        teacher_scored_B=teacher_scored_B,
        responses=tuple(rollout.text for rollout in rollouts),
    )
