"""What an optimiser update minimises, and its value and gradient for one micro-batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlrt.loss.aggregation import Aggregation
from rlrt.loss.divergences import Divergence
from rlrt.loss.policy_loss import PolicyLoss, bounded_exp
from rlrt.model.fused_head import distilled_tokens, token_logprobs
from rlrt.model.packing import joined
from rlrt.training.updates import Update

SUMS = ("surrogate", "clipped", "ratio", "tokens", "distillation", "divergence", "distilled")


@dataclass(frozen=True)
class MicroBatch:
    """Some rows of an update, as flat tokens ``[N]`` on the policy's device, row by row."""

    rows: list[int]
    ids_N: Tensor
    response_N: Tensor  # which of ``rows`` each token belongs to
    weights_N: Tensor  # of the aggregation
    sampled_N: Tensor  # bool; the others are no choice of the policy's, and only read
    student_scored_N: Tensor
    student_logprobs_N: Tensor
    engine_logprobs_N: Tensor
    advantages_N: Tensor
    distillation_N: Tensor

    @classmethod
    def of(
        cls, update: Update, weights_BT: Tensor, rows: list[int], device: torch.device
    ) -> "MicroBatch":
        mask_BT = update.mask_BT[rows]

        def flat(values_BT: Tensor) -> Tensor:
            return values_BT[rows][mask_BT].to(device)

        lengths_B = mask_BT.sum(1)
        return cls(
            rows=rows,
            ids_N=joined([update.responses[row] for row in rows]).to(device),
            response_N=torch.arange(len(rows)).repeat_interleave(lengths_B).to(device),
            weights_N=flat(weights_BT),
            sampled_N=flat(update.sampled_BT),
            student_scored_N=flat(update.student_scored_B[:, None].expand_as(update.mask_BT)),
            student_logprobs_N=flat(update.student_logprobs_BT),
            engine_logprobs_N=flat(update.engine_logprobs_BT),
            advantages_N=flat(update.advantages_BT),
            distillation_N=flat(update.distillation_BT),
        )

    def of_responses(self, chosen_N: Tensor) -> Tensor:
        """``[N]`` bool: all tokens of the responses that have a chosen one."""
        return torch.isin(self.response_N, self.response_N[chosen_N].unique())

    @property
    def distilled_rows(self) -> list[int]:
        """The update's rows of which at least one token is distilled."""
        places = self.response_N[self.distillation_N != 0].unique()
        return [self.rows[place] for place in places.tolist()]

    def student_at(self, chosen_N: Tensor, logprobs_n: Tensor) -> Tensor:
        """Student log-probs of the chosen tokens; these log-probs where no earlier pass scored them:
        the first update of a step starts from the student's own weights.
        """
        scored_n = self.student_scored_N[chosen_N]
        return torch.where(scored_n, self.student_logprobs_N[chosen_N], logprobs_n.detach())


@dataclass(frozen=True)
class Reading:
    """What an update was the first to compute of the student view, at all sampled tokens of responses."""

    rows: list[int]  # whose they are
    logprobs_N: Tensor
    entropy_N: Tensor

    @classmethod
    def of(
        cls, batch: MicroBatch, chosen_N: Tensor, logprobs_n: Tensor, entropy_n: Tensor
    ) -> "Reading":
        new_n = ~batch.student_scored_N[chosen_N]
        places: Sequence[int] = batch.response_N[chosen_N][new_n].unique().tolist()
        rows = [batch.rows[place] for place in places]
        return cls(rows, logprobs_n.detach()[new_n].cpu(), entropy_n[new_n].cpu())

    def within(self, rows: list[int]) -> "Reading":
        """The same under other names of the rows."""
        return replace(self, rows=rows)


@dataclass(frozen=True)
class Objective:
    """The sum over an update's tokens of aggregation weight times

    surrogate(advantage) + distillation weight · min(exp(ℓ - s), limit) · divergence,

    both times the rollout correction. Each part is computed only where its credit is not 0.
    """

    loss: PolicyLoss
    aggregation: Aggregation
    divergence: Divergence | None = None
    importance_limit: float | None = None

    def surrogate(
        self, batch: MicroBatch, hidden_NH: Tensor, head_VH: Tensor, temperature: float
    ) -> tuple[Tensor, dict[str, Tensor], Reading | None]:
        """Loss with gradient, sums over the tokens of responses that have an advantage, and what was
        read of them for the first time, if anything.
        """
        # whole responses: some losses need them
        chosen_N = batch.of_responses(batch.advantages_N != 0) & batch.sampled_N
        is_first = not bool(batch.student_scored_N[chosen_N].all())
        logprobs_n, entropy_n = token_logprobs(
            hidden_NH[chosen_N], head_VH, batch.ids_N[chosen_N], temperature, entropy=is_first
        )
        student_n, advantages_n = (
            batch.student_at(chosen_N, logprobs_n),
            batch.advantages_N[chosen_N],
        )
        response_n = batch.response_N[chosen_N]
        engine_n = batch.engine_logprobs_N[chosen_N]
        token_loss_n = self.loss(logprobs_n, student_n, engine_n, advantages_n, response_n)
        loss = (token_loss_n * batch.weights_N[chosen_N]).sum()
        seen_n = logprobs_n.detach()
        sums = {
            "surrogate": loss.detach(),
            "clipped": self.loss.clipped(seen_n, student_n, advantages_n, response_n).sum(),
            "ratio": bounded_exp(seen_n - student_n).double().sum(),
            "tokens": chosen_N.sum(),
        }
        if entropy_n is None:
            return loss, sums, None
        return loss, sums, Reading.of(batch, chosen_N, logprobs_n, entropy_n)

    def distillation(
        self,
        batch: MicroBatch,
        hidden_NH: Tensor,
        taught_MH: Tensor,
        heads: tuple[Tensor, Tensor],
        temperature: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss with gradient, and sums over the distilled tokens.

        ``taught_MH`` are the teacher's hidden states of all tokens of ``batch.distilled_rows``;
        ``heads`` are the student's and the teacher's.
        """
        assert self.divergence is not None, "credit distils and names no divergence"
        distilled_N = batch.distillation_N != 0
        divergence_n, logprobs_n = distilled_tokens(
            hidden_NH[distilled_N],
            heads[0],
            taught_MH[distilled_N[batch.of_responses(distilled_N)]],
            heads[1],
            batch.ids_N[distilled_N],
            temperature,
            self.divergence,
        )
        assert logprobs_n is not None
        student_n = batch.student_at(distilled_N, logprobs_n)
        factor_n = batch.distillation_N[distilled_N] * self.loss.correction(
            student_n, batch.engine_logprobs_N[distilled_N]
        )
        if self.importance_limit is not None:
            factor_n = factor_n * bounded_exp(logprobs_n - student_n).clamp(
                max=self.importance_limit
            )
        loss = (factor_n * divergence_n * batch.weights_N[distilled_N]).sum()
        return loss, {
            "distillation": loss.detach(),
            "divergence": divergence_n.detach().double().sum(),
            "distilled": distilled_N.sum(),
        }

    def metrics(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Of an update, from the ``SUMS`` over all its micro-batches and ranks."""
        tokens, distilled = totals["tokens"], totals["distilled"]
        found = {
            "loss/total": totals["surrogate"] + totals["distillation"],
            "loss/surrogate": totals["surrogate"],
            # both over the tokens of responses with an advantage
            "update/clip_fraction": totals["clipped"] / tokens if tokens else 0.0,
            "update/ratio_mean": totals["ratio"] / tokens if tokens else 1.0,
        }
        if self.divergence is not None:
            found["loss/distillation"] = totals["distillation"]
            found["update/divergence_mean"] = totals["divergence"] / distilled if distilled else 0.0
            found["update/distilled_tokens"] = distilled
        return found
