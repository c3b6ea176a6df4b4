"""Scoring responses behind a prompt: the same functions serve the student and the teacher view."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.functional.divergences import kl
from rlrt.functional.logprobs import distilled_tokens, predicting_positions, token_logprobs
from rlrt.functional.microbatches import split_by_tokens

Ids = Sequence[int]


def response_hidden(
    policy: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids]
) -> Tensor:
    """Last hidden states ``[N, H]`` that predict all response tokens, row by row, with gradient.

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
    return hidden_BLH.flatten(0, 1)[positions_N]


def response_hidden_split(
    policy: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids], token_budget: int
) -> Tensor:
    """As ``response_hidden``, without gradient and in passes of at most ``token_budget`` tokens."""
    parts: list[Tensor] = [torch.empty(0)] * len(responses)
    lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    for rows in split_by_tokens(lengths, token_budget):
        with torch.no_grad():
            hidden_NH = response_hidden(
                policy, [prompts[row] for row in rows], [responses[row] for row in rows]
            )
        sizes = [len(responses[row]) for row in rows]
        for row, part_TH in zip(rows, hidden_NH.split(sizes), strict=True):
            parts[row] = part_TH
    return torch.cat(parts)


def flat_ids(responses: Sequence[Ids], device: torch.device) -> Tensor:
    """Response ids ``[N]``, row by row."""
    return torch.tensor([token for r in responses for token in r], dtype=torch.long, device=device)


def head_weight(policy: PreTrainedModel) -> Tensor:
    """The output head ``[V, H]``."""
    head: Tensor = policy.get_output_embeddings().weight
    return head


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
    logprobs_BT = torch.zeros(len(responses), _longest(responses), dtype=_score_dtype(policy))
    entropy_BT = torch.zeros_like(logprobs_BT)
    lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    for rows in _passes(responses, lengths, token_budget):
        behind, chosen = [prompts[row] for row in rows], [responses[row] for row in rows]
        with torch.no_grad():
            logprobs_N, entropy_N = token_logprobs(
                response_hidden(policy, behind, chosen),
                head_weight(policy),
                flat_ids(chosen, policy.device),
                temperature,
            )
        _fill(logprobs_BT, rows, chosen, logprobs_N)
        _fill(entropy_BT, rows, chosen, entropy_N)
    return logprobs_BT, entropy_BT


def score_divergence(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    student_prompts: Sequence[Ids],
    teacher_prompts: Sequence[Ids],
    responses: Sequence[Ids],
    temperature: float,
    token_budget: int,
) -> Tensor:
    """``D̄_t = KL(P_S || P_T)`` over the vocabulary (arXiv:2605.10781, eq. 3), ``[B, T]`` on the CPU.

    Both views are read once more, together: a [T, V] distribution is nothing to keep.
    """
    divergence_BT = torch.zeros(len(responses), _longest(responses), dtype=_score_dtype(student))
    lengths = [len(p) + len(r) for p, r in zip(teacher_prompts, responses, strict=True)]
    for rows in _passes(responses, lengths, token_budget):
        chosen = [responses[row] for row in rows]
        with torch.no_grad():
            divergence_N, _ = distilled_tokens(
                response_hidden(student, [student_prompts[row] for row in rows], chosen),
                head_weight(student),
                response_hidden(teacher, [teacher_prompts[row] for row in rows], chosen),
                head_weight(teacher),
                flat_ids(chosen, student.device),
                temperature,
                lambda student_nV, teacher_nV, ids_n: kl(student_nV, teacher_nV),
            )
        _fill(divergence_BT, rows, chosen, divergence_N)
    return divergence_BT


def _longest(responses: Sequence[Ids]) -> int:
    return max((len(response) for response in responses), default=0)


def _passes(responses: Sequence[Ids], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    rows = [row for row, response in enumerate(responses) if len(response)]
    groups = split_by_tokens([lengths[row] for row in rows], token_budget)
    return [[rows[index] for index in group] for group in groups]


def _fill(values_BT: Tensor, rows: list[int], responses: list[Ids], values_N: Tensor) -> None:
    sizes = [len(response) for response in responses]
    for row, size, values_t in zip(rows, sizes, values_N.cpu().split(sizes), strict=True):
        values_BT[row, :size] = values_t


def _score_dtype(policy: PreTrainedModel) -> torch.dtype:
    return torch.float64 if policy.dtype == torch.float64 else torch.float32
