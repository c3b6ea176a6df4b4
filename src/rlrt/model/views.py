"""Scoring responses behind a prompt: the same functions serve the student and the teacher view.

Work is done in passes, packs of at most ``token_budget`` tokens. With a sharded policy a pass is
collective, so all ranks make the same number of them; a rank that has none left makes an empty one.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlrt import distributed
from rlrt.batch import Ids
from rlrt.model.fused_head import token_logprobs
from rlrt.model.packed_attention import decoder_hidden
from rlrt.model.packing import Packed, joined, pack, split_packs
from rlrt.model.sharding import unsharded

Seen = Callable[[Packed], None]  # is told of every pack that is read


def unnoticed(packed: Packed) -> None:
    """For readings that nobody counts."""


def passes(
    prompts: Sequence[Ids], responses: Sequence[Ids], rows: Sequence[int], token_budget: int
) -> list[list[int]]:
    """These rows in passes of at most ``token_budget`` tokens, as many on every rank; collective."""
    behind, chosen = of(rows, prompts), of(rows, responses)
    parts = [[rows[index] for index in part] for part in split_packs(behind, chosen, token_budget)]
    return parts + [[] for _ in range(distributed.largest(len(parts)) - len(parts))]


def response_hidden(
    policy: PreTrainedModel,
    prompts: Sequence[Ids],
    responses: Sequence[Ids],
    seen: Seen = unnoticed,
) -> Tensor:
    """Last hidden states ``[N, H]`` that predict all response tokens, row by row, with gradient.

    The response ids are scored as they are; nothing is tokenized again. Called while the policy is
    gathered. Without rows a single token is read, so that sharded layers are passed all the same.
    """
    if not responses:
        return decoder_hidden(policy, pack([(0,)], [()]))[:0]
    packed = pack(prompts, responses)
    seen(packed)
    hidden_LH = decoder_hidden(policy, packed)
    # a shared prompt predicts several first tokens; plain indexing would add their gradients in any order
    return hidden_LH.index_select(0, packed.predicting_N.to(hidden_LH.device))


def teacher_hidden(
    teacher: PreTrainedModel,
    prompts: Sequence[Ids],
    responses: Sequence[Ids],
    token_budget: int,
    seen: Seen = unnoticed,
) -> Tensor:
    """As ``response_hidden``, without gradient and in passes of its own; collective."""
    parts: list[Tensor] = [torch.empty(0)] * len(responses)

    def read(rows: list[int]) -> Tensor:
        behind, chosen = of(rows, prompts), of(rows, responses)
        return response_hidden(teacher, behind, chosen, seen)

    with torch.no_grad():
        for rows in passes(prompts, responses, range(len(responses)), token_budget):
            hidden_NH = unsharded(teacher, partial(read, rows))
            for row, part_TH in zip(
                rows, hidden_NH.split([len(responses[row]) for row in rows]), strict=True
            ):
                parts[row] = part_TH
    return torch.cat(parts) if parts else torch.empty(0, teacher.config.hidden_size)


def head_weight(policy: PreTrainedModel) -> Tensor:
    """The output head ``[V, H]``; called while the policy is gathered."""
    head: Tensor = policy.get_output_embeddings().weight
    return head


def score_responses(
    policy: PreTrainedModel,
    prompts: Sequence[Ids],
    responses: Sequence[Ids],
    temperature: float,
    token_budget: int,
    seen: Seen = unnoticed,
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies ``[B, T]`` on the CPU, without gradient; 0 behind each response's end.

    An empty response costs nothing. Collective with a sharded policy.
    """
    logprobs_BT = torch.zeros(len(responses), longest(responses), dtype=score_dtype(policy))
    entropy_BT = torch.zeros_like(logprobs_BT)

    def read(rows: list[int]) -> tuple[Tensor, Tensor]:
        behind, chosen = of(rows, prompts), of(rows, responses)
        hidden_NH = response_hidden(policy, behind, chosen, seen)
        ids_N = joined(chosen).to(hidden_NH.device)
        logprobs_N, entropy_N = token_logprobs(hidden_NH, head_weight(policy), ids_N, temperature)
        assert entropy_N is not None
        return logprobs_N, entropy_N

    rows_with_tokens = [row for row, response in enumerate(responses) if len(response)]
    with torch.no_grad():
        for rows in passes(prompts, responses, rows_with_tokens, token_budget):
            logprobs_N, entropy_N = unsharded(policy, partial(read, rows))
            sizes = [len(responses[row]) for row in rows]
            fill(logprobs_BT, rows, sizes, logprobs_N)
            fill(entropy_BT, rows, sizes, entropy_N)
    return logprobs_BT, entropy_BT


def fill(values_BT: Tensor, rows: Sequence[int], sizes: Sequence[int], values_N: Tensor) -> None:
    """Put flat values of some rows, row by row, where they belong."""
    for row, size, values_t in zip(rows, sizes, values_N.cpu().split(list(sizes)), strict=True):
        values_BT[row, :size] = values_t


def of(rows: Sequence[int], sequences: Sequence[Ids]) -> list[Ids]:
    return [sequences[row] for row in rows]


def longest(responses: Sequence[Ids]) -> int:
    return max((len(response) for response in responses), default=0)


def score_dtype(policy: PreTrainedModel) -> torch.dtype:
    return torch.float64 if policy.dtype == torch.float64 else torch.float32
