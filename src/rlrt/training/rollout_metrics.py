"""The metrics of a rollout step: each with its estimator and denominator."""

from collections.abc import Sequence

from torch import Tensor

from rlrt.batch import SUCCESS_REWARD, Credit, Rollout, ScoredBatch, Verdict
from rlrt.functional.groups import group_advantages, has_signal
from rlrt.training.sampler import Sampled
from rlrt.training.scoring import TeacherViews


def rollout_metrics(
    sampled: Sampled, batch: ScoredBatch, teacher: TeacherViews, credit: Credit
) -> dict[str, float]:
    """``stage/quantity`` of one step. Shares are of its B rollouts unless a comment says otherwise."""
    rollouts = sampled.rollouts
    return {
        **_sampled(rollouts, batch),
        "rollout/resampled_groups": float(sampled.resampled_groups),
        "rollout/discarded_tokens": float(sampled.discarded_tokens),
        "context/found": float(batch.has_context_B.double().mean()),
        "context/teacher_scored": float(batch.teacher_scored_B.double().mean()),
        "context/shortened": teacher.shortened / len(rollouts),
        "context/unfit": teacher.unfit / len(rollouts),
        "credit/multiplier_mean": _multiplier_mean(batch, credit),
        "credit/abs_mean": _token_mean(credit.advantages_BT.abs(), batch),
        **{f"credit/{name}": value for name, value in credit.metrics.items()},
    }


def _sampled(rollouts: Sequence[Rollout], batch: ScoredBatch) -> dict[str, float]:
    lengths = [len(rollout.response.ids) for rollout in rollouts]
    signal_B = has_signal(batch.shaped_rewards_B, batch.group_B)
    gap_BT = batch.student_logprobs_BT - batch.engine_logprobs_BT

    def share(found: int) -> float:
        return found / len(rollouts)

    return {
        "reward/mean": sum(rollout.reward for rollout in rollouts) / len(rollouts),
        "reward/correct": share(sum(r.reward >= SUCCESS_REWARD for r in rollouts)),
        "reward/flipped": share(sum(_is_flipped(r) for r in rollouts)),
        "reward/penalty_mean": sum(r.penalty for r in rollouts) / len(rollouts),
        "reward/undecided": share(sum(r.verdict is Verdict.UNDECIDED for r in rollouts)),
        "rollout/response_tokens_mean": sum(lengths) / len(lengths),
        "rollout/response_tokens_max": float(max(lengths)),
        "rollout/tokens": float(sum(lengths)),
        "rollout/truncated": share(sum(r.response.truncated for r in rollouts)),
        # groups hold equally many rollouts, so this is the share of groups too
        "rollout/zero_signal_groups": 1 - float(signal_B.double().mean()),
        "rollout/entropy": _token_mean(batch.student_entropy_BT, batch),
        # s - e and its size: what the rollout correction has to make up for
        "rollout/student_minus_engine": _token_mean(gap_BT, batch),
        "rollout/student_engine_gap": _token_mean(gap_BT.abs(), batch),
    }


def _is_flipped(rollout: Rollout) -> bool:
    right = rollout.reward >= SUCCESS_REWARD
    return rollout.verdict is not Verdict.UNDECIDED and right != (rollout.verdict is Verdict.RIGHT)


def _token_mean(values_BT: Tensor, batch: ScoredBatch) -> float:
    """Over all response tokens of the step; 0 without any."""
    tokens_N = values_BT[batch.response_mask_BT].double()
    return float(tokens_N.mean()) if len(tokens_N) else 0.0


def _multiplier_mean(batch: ScoredBatch, credit: Credit) -> float:
    """Token credit over the rollout's advantage, over the tokens of rollouts that are given any; or 1."""
    advantages_B = credit.advantages_B
    if advantages_B is None:
        advantages_B = group_advantages(batch.shaped_rewards_B, batch.group_B, standardize=False)
    given_B = (credit.advantages_BT != 0).any(1) & (advantages_B != 0)
    credited_BT = batch.response_mask_BT & given_B[:, None]
    multipliers_N = (credit.advantages_BT / advantages_B[:, None])[credited_BT].double()
    return float(multipliers_N.mean()) if len(multipliers_N) else 1.0
