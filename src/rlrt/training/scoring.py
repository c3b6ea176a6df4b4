"""From judged rollouts to the scored batch: both views, each only where it is read."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from rlrt.batch import Ids, Outcomes, Rollout, ScoredBatch, token_mask
from rlrt.context.context import Demonstration
from rlrt.credit.assigner import CreditAssigner
from rlrt.data.prompts import Prompts, TeacherRendering
from rlrt.model.policy import BothViews
from rlrt.training.updates import Reading


class Views(Protocol):
    """What scores: log-probs and entropies ``[B, T]`` of either view, or of both and their divergence."""

    def score(self, prompts: Sequence[Ids], responses: Sequence[Ids]) -> tuple[Tensor, Tensor]: ...

    def score_teacher(
        self, prompts: Sequence[Ids], responses: Sequence[Ids]
    ) -> tuple[Tensor, Tensor]: ...

    def score_both_views(
        self,
        prompts: Sequence[Ids],
        teacher_prompts: Sequence[Ids],
        responses: Sequence[Ids],
    ) -> BothViews: ...


# of each rollout; None where the teacher view plays no part or has no context
TeacherPrompts = Sequence[tuple[int, ...] | None]


def rows_to_score(
    assigner: CreditAssigner,
    outcomes: Outcomes,
    has_context_B: Tensor,
    step: int,
    problems_per_update: int,
) -> tuple[Tensor, Tensor]:
    """``[B]`` bool each: rollouts to read before the updates in the student and in the teacher view.

    The student view is read where the credit reads it, and where an update after the first gives
    credit. In the first update the policy still is the student, so its own log-probs serve.
    """
    later_B = outcomes.group_B // problems_per_update > 0
    credited_B = assigner.credited(outcomes, has_context_B, step)
    student_B = assigner.reads_student(outcomes, has_context_B, step) | (credited_B & later_B)
    return student_B, assigner.reads_teacher(outcomes, step) & has_context_B


def outcomes_of(rollouts: Sequence[Rollout]) -> Outcomes:
    """What is known before either view is scored."""
    return Outcomes(
        group_B=torch.tensor([rollout.group for rollout in rollouts]),
        rewards_B=torch.tensor([rollout.reward for rollout in rollouts]),
        penalty_B=torch.tensor([rollout.penalty for rollout in rollouts]),
        responses=tuple(rollout.text for rollout in rollouts),
    )


def has_prompt(teacher_prompts: TeacherPrompts) -> Tensor:
    """``[B]`` bool: rollouts that have a teacher view."""
    return torch.tensor([prompt is not None for prompt in teacher_prompts])


def render_teacher_prompts(
    rollouts: Sequence[Rollout],
    demonstrations: Sequence[Demonstration | None],
    used_B: Tensor,
    prompts: Prompts,
    max_model_tokens: int,
) -> tuple[TeacherPrompts, Counter[str]]:
    """The teacher's prompt of each rollout that is read or distilled, short enough for its response.

    Counted beside them: demonstrations that had to be cut (``shortened``), and contexts left out since
    not even an empty demonstration fits (``unfit``). Rendered once for all rollouts of a group that have
    the same demonstration.
    """
    ids: list[tuple[int, ...] | None] = []
    renderings: dict[tuple[int, Demonstration], TeacherRendering] = {}
    counts: Counter[str] = Counter()
    for rollout, demonstration, used in zip(rollouts, demonstrations, used_B.tolist(), strict=True):
        if demonstration is None or not used or not len(rollout.response.ids):
            ids.append(None)
            continue
        key = rollout.group, demonstration
        if key not in renderings:
            if any(group != rollout.group for group, _ in renderings):
                renderings.clear()  # groups follow each other, and a rendering is large
            renderings[key] = prompts.render_teacher(
                rollout.problem.question,
                demonstration.template,
                demonstration.text,
                demonstration.keep_start,
                rollout.problem.preceding,
            )
        prompt = renderings[key].fit(max_model_tokens - len(rollout.response.ids))
        ids.append(None if prompt is None else prompt.ids)
        counts["shortened"] += prompt is not None and prompt.shortened
        counts["unfit"] += prompt is None
    return ids, counts


def scored_batch(
    rollouts: Sequence[Rollout],
    outcomes: Outcomes,
    teacher_prompts: TeacherPrompts,
    student_B: Tensor,
    teacher_B: Tensor,
    divergence: bool,
    views: Views,
) -> ScoredBatch:
    """Rollouts given their plain prompt and given their teacher prompt, each where it is read; the
    same response ids. Collective.
    """
    responses = [rollout.response.ids for rollout in rollouts]
    mask_BT = token_mask(responses)
    engine_BT = torch.zeros(mask_BT.shape)
    student_B = student_B & mask_BT.any(1)  # an empty response has nothing to read
    for row, rollout in enumerate(rollouts):
        response = rollout.response
        if response.sampled is not None:
            mask_BT[row, : len(response.ids)] = torch.from_numpy(response.sampled)
        engine_BT[row, : len(response.ids)] = torch.from_numpy(response.engine_logprobs)
        engine_BT[row].masked_fill_(~mask_BT[row], 0)
    has_context_B = has_prompt(teacher_prompts)
    teacher_B = teacher_B & has_context_B
    return ScoredBatch(
        group_B=outcomes.group_B,
        rewards_B=outcomes.rewards_B,
        penalty_B=outcomes.penalty_B,
        responses=outcomes.responses,
        response_mask_BT=mask_BT,
        engine_logprobs_BT=engine_BT,
        student_scored_B=student_B,
        has_context_B=has_context_B,
        teacher_scored_B=teacher_B,
        **_read_views(
            rollouts, teacher_prompts, student_B, teacher_B, divergence, views, mask_BT
        )._asdict(),
    )


def _read_views(
    rollouts: Sequence[Rollout],
    teacher_prompts: TeacherPrompts,
    student_B: Tensor,
    teacher_B: Tensor,
    divergence: bool,
    views: Views,
    mask_BT: Tensor,
) -> BothViews:
    """Each view where it is read, 0 elsewhere: a forward of a response costs a third of its update.

    Where the divergence is read, one reading of both views gives it and the rest. Every rank makes
    the same calls, whatever rows it has, since sharded layers are gathered by all ranks together.
    """
    prompts = [rollout.prompt_ids for rollout in rollouts]
    responses = [rollout.response.ids for rollout in rollouts]

    def read(chosen_B: Tensor, score: Callable[..., Sequence[Tensor]], *given: Any) -> list[Tensor]:
        rows = chosen_B.nonzero().flatten().tolist()
        values = score(*([each[row] for row in rows] for each in (*given, responses)))
        return [_placed(values_bT, rows, mask_BT) for values_bT in values]

    if not divergence:
        student = read(student_B, views.score, prompts)
        teacher = read(teacher_B, views.score_teacher, teacher_prompts)
        nothing_BT = torch.zeros(()).expand(mask_BT.shape)  # takes no memory
        return BothViews(*[*student, *teacher, nothing_BT])
    student_only = read(student_B & ~teacher_B, views.score, prompts)
    both = read(teacher_B, views.score_both_views, prompts, teacher_prompts)
    student = [
        one_BT + two_BT * student_B[:, None]
        for one_BT, two_BT in zip(student_only, both[:2], strict=True)
    ]
    return BothViews(*[*student, *both[2:]])


def _placed(values_bT: Tensor, rows: Sequence[int], mask_BT: Tensor) -> Tensor:
    """The values of some rows among all, float32, 0 outside them and outside the mask."""
    values_BT = torch.zeros(mask_BT.shape)
    values_BT[rows, : values_bT.shape[1]] = values_bT.float()
    return values_BT.mul_(mask_BT)


def completed(batch: ScoredBatch, readings: Sequence[Reading]) -> ScoredBatch:
    """The batch with what the step's first update was the first to read of the student view."""
    scored_B = batch.student_scored_B.clone()
    logprobs_BT, entropy_BT = batch.student_logprobs_BT.clone(), batch.student_entropy_BT.clone()
    for reading in readings:
        sizes = batch.response_mask_BT[reading.rows].sum(1).tolist()
        logprobs, entropies = reading.logprobs_N.split(sizes), reading.entropy_N.split(sizes)
        for row, logprobs_t, entropy_t in zip(reading.rows, logprobs, entropies, strict=True):
            mask_T = batch.response_mask_BT[row]
            logprobs_BT[row, mask_T], entropy_BT[row, mask_T] = logprobs_t, entropy_t
        scored_B[reading.rows] = True
    return replace(
        batch,
        student_scored_B=scored_B,
        student_logprobs_BT=logprobs_BT,
        student_entropy_BT=entropy_BT,
    )
