"""From a step's credit to what its updates see."""

import torch

from rlrt.batch import Credit, Problem, Response, Rollout, ScoredBatch, Verdict
from rlrt.training.scoring import outcomes_of
from rlrt.training.updates import scaled_within_updates, split_updates, without_rows

GROUPS = [0, 0, 1, 1, 2, 2, 3, 3]  # two groups to an update
LENGTHS = [2, 3, 1, 4, 4, 2, 3, 1]


def step() -> tuple[list[Rollout], ScoredBatch]:
    rollouts = [
        Rollout(
            Problem(str(group), "q", "a", "test"),
            group,
            row % 2,
            (row,),
            Response((1,) * length, (-1.0,) * length, truncated=row % 3 == 0),
            "",
            Verdict.RIGHT,
            1.0,
        )
        for row, (group, length) in enumerate(zip(GROUPS, LENGTHS, strict=True))
    ]
    mask = torch.arange(4)[None] < torch.tensor(LENGTHS)[:, None]
    zeros, nobody = torch.zeros(8, 4), torch.zeros(8, dtype=torch.bool)
    outcomes = outcomes_of(rollouts)
    batch = ScoredBatch(
        **vars(outcomes),
        response_mask_BT=mask,
        engine_logprobs_BT=zeros,
        student_scored_B=~nobody,
        student_logprobs_BT=zeros,
        student_entropy_BT=zeros,
        has_context_B=nobody,
        teacher_scored_B=nobody,
        teacher_logprobs_BT=zeros,
        teacher_entropy_BT=zeros,
        divergence_BT=zeros,
    )
    return rollouts, batch


def test_relative_weights_have_a_mean_of_one_in_every_update() -> None:
    rollouts, batch = step()
    mask = batch.response_mask_BT
    weights = torch.arange(1.0, 33.0).view(8, 4) * mask
    weights[1] = 0  # not distilled
    credit = Credit(torch.zeros(8, 4), weights, relative_distillation=True)
    scaled = scaled_within_updates(batch, credit, 2)
    assert not scaled.relative_distillation
    assert scaled.distillation_BT is not None
    for rows in (slice(0, 4), slice(4, 8)):
        found, before = scaled.distillation_BT[rows], weights[rows]
        assert abs(float(found[found > 0].mean()) - 1) < 1e-6
        torch.testing.assert_close(found / found.max(), before / before.max())
    updates = split_updates(rollouts, [None] * 8, batch, scaled, 2)
    assert [update.prompts for update in updates] == [
        ((0,), (1,), (2,), (3,)),
        ((4,), (5,), (6,), (7,)),
    ]
    torch.testing.assert_close(updates[1].distillation_BT, scaled.distillation_BT[4:])

    absolute = Credit(torch.zeros(8, 4), weights)
    assert scaled_within_updates(batch, absolute, 2) is absolute


def test_rollouts_left_out_have_no_loss_and_no_part_in_the_denominator() -> None:
    rollouts, batch = step()
    mask = batch.response_mask_BT
    cut = torch.tensor([rollout.response.truncated for rollout in rollouts])
    credit = without_rows(batch, Credit(mask.float(), 2 * mask.float()), cut)
    (update,) = split_updates(rollouts, [None] * 8, batch, credit, 4)
    for row in range(8):
        kept = mask[row] & ~cut[row]
        assert torch.equal(update.counted_BT[row], kept)
        assert torch.equal(update.advantages_BT[row], kept.float())
        assert torch.equal(update.distillation_BT[row], 2 * kept.float())
    assert torch.equal(update.mask_BT, mask)
