"""The computation that holds all [T, V] logits at once. It is kind: nothing lives longer than it must."""

import torch
from torch import Tensor
from transformers import PreTrainedModel
from workload import Workload

TOP_K = 100  # ids that the divergence tells apart, which is a Jensen-Shannon one


def score(policy: PreTrainedModel, load: Workload) -> None:
    """Log-probs and entropies of all responses."""
    for prompt, response in zip(load.prompts, load.responses, strict=True):
        with torch.no_grad():
            logprobs_TV = _log_softmax(policy, prompt, response)
            _at(logprobs_TV, response)
            torch.special.entr(logprobs_TV.exp_()).sum(-1)


def update(policy: PreTrainedModel, load: Workload) -> None:
    """The gradient of GRPO's token mean: the rewards of a group of two, their mean taken away."""
    tokens = load.response_tokens
    mean = sum(load.rewards) / len(load.rewards)
    for prompt, response, reward in zip(load.prompts, load.responses, load.rewards, strict=True):
        logprobs_T = _at(_log_softmax(policy, prompt, response), response)
        (-(reward - mean) * logprobs_T.sum() / tokens).backward()


def distillation(policy: PreTrainedModel, load: Workload, teacher_prompt: tuple[int, ...]) -> None:
    """The gradient of SDPO on the first response, whose teacher prompt is ``teacher_prompt``."""
    prompt, response = load.prompts[0], load.responses[0]
    student_TV = _log_softmax(policy, prompt, response)
    with torch.no_grad():
        teacher_TV = _log_softmax(policy, teacher_prompt, response)
    ids_TK = student_TV.detach().topk(TOP_K).indices
    student_TK, teacher_TK = _with_tail(student_TV, ids_TK), _with_tail(teacher_TV, ids_TK)
    del student_TV, teacher_TV
    mixture_TK = torch.logaddexp(student_TK, teacher_TK) - torch.log(torch.tensor(2.0))
    student_kl_TK = student_TK.exp() * (student_TK - mixture_TK)
    teacher_kl_TK = teacher_TK.exp() * (teacher_TK - mixture_TK)
    ((student_kl_TK + teacher_kl_TK).sum() / 2 / len(response)).backward()


def _log_softmax(
    policy: PreTrainedModel, prompt: tuple[int, ...], response: tuple[int, ...]
) -> Tensor:
    ids = torch.tensor([[*prompt, *response[:-1]]])
    logits_TV = policy(input_ids=ids, use_cache=False, logits_to_keep=len(response)).logits[0]
    return torch.log_softmax(logits_TV, -1)


def _at(logprobs_TV: Tensor, response: tuple[int, ...]) -> Tensor:
    return logprobs_TV.gather(-1, torch.tensor(response)[:, None]).squeeze(-1)


def _with_tail(logprobs_TV: Tensor, ids_TK: Tensor) -> Tensor:
    top_TK = logprobs_TV.gather(-1, ids_TK)
    mass_T1 = top_TK.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
    return torch.cat([top_TK, (-mass_T1.expm1()).log()], -1)
