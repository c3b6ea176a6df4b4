"""Log-probs of response tokens. The shift between a token and its prediction happens here alone."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_TOKENS = 1024  # rows of [tokens, V] logits that exist at a time


def predicting_positions(
    prompt_lengths: Sequence[int], response_lengths: Sequence[int], padded_length: int
) -> Tensor:
    """Flat indices into hidden states ``[B * L]`` whose output predicts each response token.

    Response token t of a sequence stands at position ``prompt + t`` and is predicted one earlier.
    The order is row by row, t ascending: the order of ``x_BT[mask_BT]``. A prompt must not be empty.
    """
    assert all(length > 0 for length in prompt_lengths), "a prompt of no tokens predicts nothing"
    return torch.cat(
        [
            torch.arange(prompt - 1, prompt - 1 + response) + row * padded_length
            for row, (prompt, response) in enumerate(
                zip(prompt_lengths, response_lengths, strict=True)
            )
        ]
        or [torch.empty(0, dtype=torch.long)]
    )


def token_logprobs(
    hidden_NH: Tensor, head_VH: Tensor, ids_N: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-prob of each id and entropy of its distribution, in nats, at ``temperature`` > 0.

    Both are ``[N]`` and at least float32. Computed in chunks over tokens that are recomputed in the
    backward pass, so that ``[N, V]`` logits never exist whole. The entropy carries no gradient.
    """
    parts = []
    for chunk_nH, chunk_n in zip(
        hidden_NH.split(CHUNK_TOKENS), ids_N.split(CHUNK_TOKENS), strict=True
    ):
        if torch.is_grad_enabled() and (hidden_NH.requires_grad or head_VH.requires_grad):
            part = checkpoint(_chunk, chunk_nH, head_VH, chunk_n, temperature, use_reentrant=False)
        else:
            part = _chunk(chunk_nH, head_VH, chunk_n, temperature)
        parts.append(part)
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(
    hidden_nH: Tensor, head_VH: Tensor, ids_n: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    logits_nV = torch.nn.functional.linear(hidden_nH, head_VH)
    if logits_nV.dtype in (torch.bfloat16, torch.float16):
        logits_nV = logits_nV.float()
    logprobs_nV = torch.log_softmax(logits_nV / temperature, dim=-1)
    with torch.no_grad():
        entropy_n = -(logprobs_nV.exp() * logprobs_nV).nansum(-1)
    return logprobs_nV.gather(-1, ids_n[:, None]).squeeze(-1), entropy_n
