"""Two readings of the same responses, token by token over the whole vocabulary.

Student and teacher view of one policy, or two policies behind one prompt: the same work.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.batch import Ids
from rlrt.loss.divergences import kl
from rlrt.model.fused_head import Read, over_vocabulary
from rlrt.model.packing import joined
from rlrt.model.sharding import both_unsharded, unsharded
from rlrt.model.views import (
    Seen,
    fill,
    head_weight,
    longest,
    of,
    passes,
    response_hidden,
    score_dtype,
    unnoticed,
)


def compare(
    first: PreTrainedModel,
    second: PreTrainedModel,
    first_prompts: Sequence[Ids],
    second_prompts: Sequence[Ids],
    responses: Sequence[Ids],
    temperature: float,
    token_budget: int,
    read: Read,
    seen: Seen = unnoticed,
) -> list[dict[str, Tensor]]:
    """What ``read`` makes of the two distributions at every token of each response, on the CPU.

    ``read`` is as in ``over_vocabulary``; each of its tensors comes back as ``[T, …]`` for a response of
    T tokens. The ids are scored as they are, at ``temperature``, without gradient, in passes of
    at most ``token_budget`` tokens; no [T, V] tensor is kept. An empty response has an empty dict.
    Collective with sharded policies.
    """
    found: list[dict[str, Tensor]] = [{} for _ in responses]

    def work(rows: list[int], second_NH: Tensor) -> dict[str, Tensor]:
        behind, chosen = of(rows, first_prompts), of(rows, responses)
        first_NH = response_hidden(first, behind, chosen, seen)
        ids_N = joined(chosen).to(first_NH.device)
        views = (first_NH, head_weight(first)), (second_NH, head_weight(second))
        return over_vocabulary(*views, ids_N, temperature, read)

    with_tokens = [row for row, response in enumerate(responses) if len(response)]
    with torch.no_grad():
        for rows in passes(second_prompts, responses, with_tokens, token_budget):
            behind, chosen = of(rows, second_prompts), of(rows, responses)
            second_NH = unsharded(second, partial(response_hidden, second, behind, chosen, seen))
            values = both_unsharded(first, second, partial(work, rows, second_NH))
            sizes = [len(responses[row]) for row in rows]
            for name, values_N in values.items():
                for row, values_T in zip(rows, values_N.cpu().split(sizes), strict=True):
                    found[row][name] = values_T
    return found


def score_divergence(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    student_prompts: Sequence[Ids],
    teacher_prompts: Sequence[Ids],
    responses: Sequence[Ids],
    temperature: float,
    token_budget: int,
    seen: Seen = unnoticed,
) -> Tensor:
    """``D̄_t = KL(P_S || P_T)`` over the vocabulary (arXiv:2605.10781, eq. 3), ``[B, T]`` on the CPU."""

    def divergence(student_nV: Tensor, teacher_nV: Tensor, ids_n: Tensor) -> dict[str, Tensor]:
        return {"divergence": kl(student_nV, teacher_nV)}

    views = (student, teacher, student_prompts, teacher_prompts, responses)
    compared = compare(*views, temperature, token_budget, divergence, seen)
    divergence_BT = torch.zeros(len(responses), longest(responses), dtype=score_dtype(student))
    for row, values in enumerate(compared):
        if values:
            fill(divergence_BT, [row], [len(responses[row])], values["divergence"])
    return divergence_BT
