"""The metrics of a rollout step over all ranks, each with its estimator and denominator, and their tables."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from rlrt.batch import SUCCESS_REWARD, Credit, Rollout, ScoredBatch, Verdict
from rlrt.credit.assigner import group_advantages, has_signal
from rlrt.distributed import all_reduce_sum, largest
from rlrt.errors import is_rank_zero
from rlrt.files import write_csv
from rlrt.training.sampler import Sampled

Sums = dict[str, tuple[float, float]]  # of a rank: the sum of the values to average, their number


def rollout_metrics(
    sampled: Sampled,
    batch: ScoredBatch,
    credit: Credit,
    scored_first_B: Tensor,
    prompt_counts: Counter[str],
) -> dict[str, float]:
    """``stage/quantity`` of one step, the same on every rank and true over all of them; collective.

    ``batch`` holds what the updates read, too; ``scored_first_B`` tells whose student view was scored
    before them; ``prompt_counts`` are those of the teacher prompts.

    Each takes this rank's part. Shares are of all rollouts unless a comment says otherwise. A mean
    over tokens is left out where there is none.
    """
    rollouts = sampled.rollouts
    lengths = [len(rollout.response.ids) for rollout in rollouts]
    means = {
        **_verdicts(rollouts),
        "rollout/response_tokens_mean": (sum(lengths), len(lengths)),
        "rollout/truncated": _share(rollout.response.truncated for rollout in rollouts),
        **_policy(batch),
        **_work(batch, credit, scored_first_B),
        "context/shortened": (prompt_counts["shortened"], len(rollouts)),
        "context/unfit": (prompt_counts["unfit"], len(rollouts)),
        **_credit(batch, credit),
    }
    metrics = _over_ranks(
        means,
        {
            "rollout/tokens": sum(lengths),
            "rollout/resampled_groups": sampled.resampled_groups,
            "rollout/discarded_tokens": sampled.discarded_tokens,
            "reward/verifier_errors": sampled.verifier_errors,
        },
    )
    metrics.setdefault("credit/multiplier_mean", 1.0)  # without any credit
    return metrics | {"rollout/response_tokens_max": float(largest(max(lengths, default=0)))}


def _over_ranks(means: Sums, totals: Mapping[str, float]) -> dict[str, float]:
    """Means and totals over all ranks in one message; their names are the same on each."""
    # sums and counts apart: a mean of the ranks' means would weigh a rank of few tokens like any other
    numbers = [number for sum_and_count in means.values() for number in sum_and_count]
    sums = all_reduce_sum(torch.tensor([*numbers, *totals.values()], dtype=torch.float64)).tolist()
    pairs = zip(means, sums[0 : len(numbers) : 2], sums[1 : len(numbers) : 2], strict=True)
    averaged = {name: summed / count for name, summed, count in pairs if count}
    return averaged | dict(zip(totals, sums[len(numbers) :], strict=True))


def _verdicts(rollouts: Sequence[Rollout]) -> Sums:
    return {
        "reward/mean": (sum(rollout.reward for rollout in rollouts), len(rollouts)),
        "reward/correct": _share(rollout.reward >= SUCCESS_REWARD for rollout in rollouts),
        "reward/flipped": _share(_is_flipped(rollout) for rollout in rollouts),
        "reward/penalty_mean": (sum(rollout.penalty for rollout in rollouts), len(rollouts)),
        "reward/undecided": _share(r.verdict is Verdict.UNDECIDED for r in rollouts),
    }


def _is_flipped(rollout: Rollout) -> bool:
    right = rollout.reward >= SUCCESS_REWARD
    return rollout.verdict is not Verdict.UNDECIDED and right != (rollout.verdict is Verdict.RIGHT)


def _policy(batch: ScoredBatch) -> Sums:
    mask_BT = batch.response_mask_BT
    scored_BT = mask_BT & batch.student_scored_B[:, None]
    gap_BT = batch.student_logprobs_BT - batch.engine_logprobs_BT
    return {
        # groups hold equally many rollouts, so this is the share of groups too
        "rollout/zero_signal_groups": _sums(~has_signal(batch.shaped_rewards_B, batch.group_B)),
        # -e: estimates the entropy of the sampling policy without bias, over all response tokens
        "rollout/engine_entropy": _over_tokens(-batch.engine_logprobs_BT, mask_BT),
        # three over the tokens whose student view was read, before the updates or by the first
        "rollout/entropy": _over_tokens(batch.student_entropy_BT, scored_BT),
        # s - e and its size: what the rollout correction has to make up for
        "rollout/student_minus_engine": _over_tokens(gap_BT, scored_BT),
        "rollout/student_engine_gap": _over_tokens(gap_BT.abs(), scored_BT),
    }


def _work(batch: ScoredBatch, credit: Credit, scored_first_B: Tensor) -> Sums:
    lengths_B = batch.response_mask_BT.sum(1)
    tokens = float(lengths_B.sum())
    spent_B = batch.student_scored_B | batch.teacher_scored_B | _moves(credit)
    return {
        "context/found": _sums(batch.has_context_B),
        "context/teacher_scored": _sums(batch.teacher_scored_B),
        # of the response tokens, those that a view was scored for before the updates
        "score/student_share": (float(lengths_B[scored_first_B].sum()), tokens),
        "score/teacher_share": (float(lengths_B[batch.teacher_scored_B].sum()), tokens),
        # rollouts that cost no forward and no backward at all
        "score/skipped_rollouts": _sums(~spent_B),
    }


def _moves(credit: Credit) -> Tensor:
    """``[B]`` bool: rollouts that add to an update's gradient."""
    moves_B = (credit.advantages_BT != 0).any(1)
    if credit.distillation_BT is None:
        return moves_B
    return moves_B | (credit.distillation_BT != 0).any(1)


def _credit(batch: ScoredBatch, credit: Credit) -> Sums:
    return {
        "credit/multiplier_mean": _multipliers(batch, credit),
        "credit/abs_mean": _over_tokens(credit.advantages_BT.abs(), batch.response_mask_BT),
        **{f"credit/{name}": _sums(values) for name, values in credit.metrics.items()},
    }


def _multipliers(batch: ScoredBatch, credit: Credit) -> tuple[float, float]:
    """Token credit over the rollout's advantage, over the tokens of rollouts that are given any."""
    advantages_B = credit.advantages_B
    if advantages_B is None:
        advantages_B = group_advantages(batch.shaped_rewards_B, batch.group_B, standardize=False)
    given_B = (credit.advantages_BT != 0).any(1) & (advantages_B != 0)
    credit_B = credit.advantages_BT[given_B].sum(1, dtype=torch.float64)
    tokens = batch.response_mask_BT[given_B].sum()
    return float((credit_B / advantages_B[given_B]).sum()), float(tokens)


def _share(cases: Iterable[bool]) -> tuple[float, float]:
    values = list(cases)
    return sum(values), len(values)


def _over_tokens(values_BT: Tensor, chosen_BT: Tensor) -> tuple[float, float]:
    # at tens of millions of tokens a product is far faster than picking the chosen ones out
    summed = (values_BT * chosen_BT).sum(dtype=torch.float64)
    return float(summed), float(chosen_BT.sum())


def _sums(values: Tensor) -> tuple[float, float]:
    return float(values.sum(dtype=torch.float64)), len(values)


class StepTable:
    """A CSV with a ``step`` column that a resumed run continues.

    Rows of ``first_step`` and later, left by a run that went on past its last checkpoint, are
    dropped. The file is rewritten whole at each row: a run has hundreds of rows, and a reader or a
    killed process never sees half of one. Of several ranks rank 0 alone writes.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists() and first_step > 0:
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) < first_step]
        self._write()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; columns not seen before are empty in earlier rows."""
        self.rows.append(dict(row))
        self._write()

    def _write(self) -> None:
        if not is_rank_zero():
            return
        if not self.rows:
            self.path.unlink(missing_ok=True)
            return
        write_csv(self.rows, self.path)


class MetricsCSV(Logger):
    """One row per rollout step; a resumed run continues the file, each step stands there once."""

    def __init__(self, folder: str | Path, first_step: int) -> None:
        super().__init__()
        self.table = StepTable(Path(folder) / "metrics.csv", first_step)

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the resolved configuration stands in config.yaml."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.table.append({"step": step, **metrics})
