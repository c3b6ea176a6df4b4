"""Log-probs of response tokens. The shift between a token and its prediction happens here alone."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_LOGITS = 2**25  # logits of one view that exist at a time: 128 MiB of float32


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

    def score(chunk_nH: Tensor, ids_n: Tensor) -> tuple[Tensor, Tensor]:
        logprobs_nV = torch.log_softmax(_logits(chunk_nH, head_VH, temperature), dim=-1)
        probs_nV = logprobs_nV.detach().exp()
        entropy_n = torch.special.entr(probs_nV, out=probs_nV).sum(-1)
        return _at(ids_n, logprobs_nV), entropy_n

    return _in_chunks(score, len(head_VH), hidden_NH, ids_N)


def distilled_tokens(
    student_hidden_NH: Tensor,
    student_head_VH: Tensor,
    teacher_hidden_NG: Tensor,
    teacher_head_VG: Tensor,
    ids_N: Tensor,
    temperature: float,
    divergence: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Divergence of the two views at each id and the student's log-prob of the id, in nats.

    Both are ``[N]``, at least float32, and computed in chunks like ``token_logprobs``. ``divergence``
    gets ``(student_logits_nV, teacher_logits_nV, ids_n)`` at ``temperature`` > 0; its gradient goes to
    the student's hidden states and head alone. The log-prob carries none. The teacher may be another
    model, of any width G, with the same vocabulary.
    """
    assert len(student_head_VH) == len(teacher_head_VG), (
        f"a student's vocabulary of {len(student_head_VH)}, a teacher's of {len(teacher_head_VG)}"
    )

    def score(student_nH: Tensor, teacher_nG: Tensor, ids_n: Tensor) -> tuple[Tensor, Tensor]:
        student_nV = _logits(student_nH, student_head_VH, temperature)
        with torch.no_grad():
            logprobs_n = _at(ids_n, torch.log_softmax(student_nV, dim=-1))
            teacher_nV = _logits(teacher_nG, teacher_head_VG, temperature)
        return divergence(student_nV, teacher_nV, ids_n), logprobs_n

    return _in_chunks(score, len(student_head_VH), student_hidden_NH, teacher_hidden_NG, ids_N)


def _in_chunks(
    score: Callable[..., tuple[Tensor, Tensor]], vocabulary: int, *rows_N: Tensor
) -> tuple[Tensor, Tensor]:
    """``score(*rows_N)`` over chunks of tokens that hold ``CHUNK_LOGITS`` logits at a time."""
    tokens = max(1, CHUNK_LOGITS // vocabulary)
    parts = []
    for chunk in zip(*(rows.split(tokens) for rows in rows_N), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(score, *chunk, use_reentrant=False))
        else:
            parts.append(score(*chunk))
    first, second = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(second)


def _logits(hidden_nH: Tensor, head_VH: Tensor, temperature: float) -> Tensor:
    device = hidden_nH.device.type
    if torch.is_autocast_enabled(device):
        # autocast casts the head once for all chunks, whose gradients would add up in bfloat16
        low = torch.get_autocast_dtype(device)
        hidden_nH, head_VH = hidden_nH.to(low), head_VH.to(low)
    with torch.autocast(device, enabled=False):
        logits_nV = torch.nn.functional.linear(hidden_nH, head_VH)
    dtype = torch.promote_types(logits_nV.dtype, torch.float32)
    return logits_nV.to(dtype).div_(temperature)


def _at(ids_n: Tensor, values_nV: Tensor) -> Tensor:
    return values_nV.gather(-1, ids_n[:, None]).squeeze(-1)
