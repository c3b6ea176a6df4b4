"""The metrics of a rollout step: each with its estimator and denominator."""

from collections.abc import Sequence

from torch import Tensor

from rlrt.batch import SUCCESS_REWARD, Credit, Rollout, ScoredBatch, Verdict
from rlrt.functional.groups import group_advantages, has_signal
from rlrt.training.scoring import TeacherViews


def rollout_metrics(
    rollouts: Sequence[Rollout], batch: ScoredBatch, teacher: TeacherViews, credit: Credit
) -> dict[str, float]:
    """``stage/quantity`` of one step. Shares are of its B rollouts unless a comment says otherwise."""
    mask_BT = batch.response_mask_BT
    lengths = [len(rollout.response.ids) for rollout in rollouts]
    reads = sum(prompt is not None for prompt in teacher.prompts)
    signal_B = has_signal(batch.rewards_B, batch.group_B)
    gap_BT = batch.student_logprobs_BT - batch.engine_logprobs_BT

    def share(found: int) -> float:
        return found / len(rollouts)

    def token_mean(values_BT: Tensor) -> float:  # over all response tokens of the step
        return float(values_BT[mask_BT].double().mean()) if mask_BT.any() else 0.0

    # Token credit over the rollout's advantage, averaged over the tokens of rollouts that have one.
    advantages_B1 = (
        group_advantages(batch.rewards_B, batch.group_B, standardize=False)
        if credit.advantages_B is None
        else credit.advantages_B
    )[:, None]
    credited_BT = mask_BT & (advantages_B1 != 0)
    multipliers_N = (credit.advantages_BT / advantages_B1)[credited_BT]

    return {
        "reward/mean": sum(rollout.reward for rollout in rollouts) / len(rollouts),
        "reward/correct": share(sum(r.reward >= SUCCESS_REWARD for r in rollouts)),
        "reward/undecided": share(sum(r.verdict is Verdict.UNDECIDED for r in rollouts)),
        "rollout/response_tokens_mean": sum(lengths) / len(lengths),
        "rollout/response_tokens_max": float(max(lengths)),
        "rollout/tokens": float(sum(lengths)),
        "rollout/truncated": share(sum(r.response.truncated for r in rollouts)),
        # groups of equal rewards hold equally many rollouts, so this is the share of groups too
        "rollout/zero_signal_groups": 1 - float(signal_B.double().mean()),
        "rollout/entropy": token_mean(batch.student_entropy_BT),
        # mean of s - e: what the correction has to make up for
        "rollout/student_minus_engine": token_mean(gap_BT),
        "rollout/student_engine_gap": token_mean(gap_BT.abs()),
        "context/teacher_scored": share(reads),
        "context/shortened": share(teacher.shortened),
        "context/unfit": share(teacher.unfit),
        "credit/multiplier_mean": float(multipliers_N.double().mean())
        if len(multipliers_N)
        else 1.0,
        **{f"credit/{name}": value for name, value in credit.metrics.items()},
        "credit/abs_mean": token_mean(credit.advantages_BT.abs()),
    }
