"""What an optimiser update minimises, and its value and gradient for one micro-batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlrt.functional.divergences import Divergence
from rlrt.functional.logprobs import distilled_tokens, token_logprobs
from rlrt.functional.ratios import bounded_exp
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.policy_loss import PolicyLoss
from rlrt.training.updates import Update


@dataclass(frozen=True)
class MicroBatch:
    """Some rows of an update, as flat tokens ``[N]`` on the policy's device, row by row."""

    rows: list[int]
    ids_N: Tensor
    response_N: Tensor  # the row of each token
    weights_N: Tensor  # of the aggregation
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
            ids_N=torch.tensor([i for row in rows for i in update.responses[row]], device=device),
            response_N=torch.arange(len(rows)).repeat_interleave(lengths_B).to(device),
            weights_N=flat(weights_BT),
            student_logprobs_N=flat(update.student_logprobs_BT),
            engine_logprobs_N=flat(update.engine_logprobs_BT),
            advantages_N=flat(update.advantages_BT),
            distillation_N=flat(update.distillation_BT),
        )


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
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss with gradient, and sums over the tokens of responses that have an advantage."""
        credited_N = batch.response_N[batch.advantages_N != 0].unique()
        chosen_N = torch.isin(
            batch.response_N, credited_N
        )  # whole responses: some losses need them
        logprobs_n, _ = token_logprobs(
            hidden_NH[chosen_N], head_VH, batch.ids_N[chosen_N], temperature
        )
        student_n, advantages_n = batch.student_logprobs_N[chosen_N], batch.advantages_N[chosen_N]
        response_n = batch.response_N[chosen_N]
        engine_n = batch.engine_logprobs_N[chosen_N]
        token_loss_n = self.loss(logprobs_n, student_n, engine_n, advantages_n, response_n)
        loss = (token_loss_n * batch.weights_N[chosen_N]).sum()
        seen_n = logprobs_n.detach()
        return loss, {
            "surrogate": loss.detach().double(),
            "clipped": self.loss.clipped(seen_n, student_n, advantages_n, response_n)
            .double()
            .sum(),
            "ratio": bounded_exp(seen_n - student_n).double().sum(),
            "tokens": chosen_N.double().sum(),
        }

    def distillation(
        self,
        batch: MicroBatch,
        hidden_NH: Tensor,
        head_VH: Tensor,
        teacher: Callable[[list[int]], tuple[Tensor, Tensor]],
        temperature: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss with gradient, and sums over the distilled tokens.

        ``teacher(rows)`` gives the teacher's hidden states of all tokens of these rows, and its head.
        """
        assert self.divergence is not None, "credit distils and names no divergence"
        distilled_N = batch.distillation_N != 0
        positions = sorted(set(batch.response_N[distilled_N].tolist()))
        of_rows_N = torch.isin(batch.response_N, torch.tensor(positions, device=distilled_N.device))
        teacher_hidden, teacher_head = teacher([batch.rows[position] for position in positions])
        divergence_n, logprobs_n = distilled_tokens(
            hidden_NH[distilled_N],
            head_VH,
            teacher_hidden[distilled_N[of_rows_N]],
            teacher_head,
            batch.ids_N[distilled_N],
            temperature,
            self.divergence,
        )
        student_n = batch.student_logprobs_N[distilled_N]
        factor_n = batch.distillation_N[distilled_N] * self.loss.correction(
            student_n, batch.engine_logprobs_N[distilled_N]
        )
        if self.importance_limit is not None:
            factor_n = factor_n * bounded_exp(logprobs_n - student_n).clamp(
                max=self.importance_limit
            )
        loss = (factor_n * divergence_n * batch.weights_N[distilled_N]).sum()
        return loss, {
            "distillation": loss.detach().double(),
            "divergence": divergence_n.detach().double().sum(),
            "distilled": distilled_N.double().sum(),
        }
