"""Scoring responses behind a prompt: the same function serves the student and the teacher view."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.functional.logprobs import predicting_positions, token_logprobs
from rlrt.functional.microbatches import split_by_tokens

Ids = Sequence[int]


def response_logprobs(
    policy: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids], temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies ``[N]`` of all response tokens, row by row, with gradient.

    The response ids are scored as they are; nothing is tokenised again. Sequences are padded on the
    right, where causal attention keeps padding out of every real token, so no mask is needed.
    """
    lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    longest, device = max(lengths), policy.device
    input_ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        input_ids[row, : lengths[row]] = torch.tensor([*prompt, *response])
    hidden_BLH = policy.get_decoder()(
        input_ids=input_ids.to(device), use_cache=False
    ).last_hidden_state
    positions_N = predicting_positions(
        [len(p) for p in prompts], [len(r) for r in responses], longest
    ).to(device)
    ids_N = torch.tensor([token for r in responses for token in r], dtype=torch.long, device=device)
    head = policy.get_output_embeddings()
    return token_logprobs(hidden_BLH.flatten(0, 1)[positions_N], head.weight, ids_N, temperature)


def score_responses(
    policy: PreTrainedModel,
    prompts: Sequence[Ids],
    responses: Sequence[Ids],
    temperature: float,
    token_budget: int,
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies ``[B, T]`` on the CPU, without gradient; 0 behind each response's end.

    Works in micro-batches of at most ``token_budget`` padded tokens; an empty response costs nothing.
    """
    longest = max((len(response) for response in responses), default=0)
    logprobs_BT = torch.zeros(len(responses), longest, dtype=_score_dtype(policy))
    entropy_BT = torch.zeros_like(logprobs_BT)
    rows = [row for row, response in enumerate(responses) if len(response)]
    lengths = [len(prompts[row]) + len(responses[row]) for row in rows]
    for group in split_by_tokens(lengths, token_budget):
        chosen = [rows[index] for index in group]
        with torch.no_grad():
            logprobs_N, entropy_N = response_logprobs(
                policy, [prompts[r] for r in chosen], [responses[r] for r in chosen], temperature
            )
        sizes = [len(responses[row]) for row in chosen]
        for row, size, logprobs_t, entropy_t in zip(
            chosen, sizes, logprobs_N.cpu().split(sizes), entropy_N.cpu().split(sizes), strict=True
        ):
            logprobs_BT[row, :size] = logprobs_t
            entropy_BT[row, :size] = entropy_t
    return logprobs_BT, entropy_BT


def _score_dtype(policy: PreTrainedModel) -> torch.dtype:
    return torch.float64 if policy.dtype == torch.float64 else torch.float32
