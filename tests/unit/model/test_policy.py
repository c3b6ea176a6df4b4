from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlrt.batch import Ids
from rlrt.context.correct_peer import TEMPLATE
from rlrt.data.prompts import Prompts
from rlrt.model.packing import joined
from rlrt.model.policy import (
    Policy,
    TokenValues,
    packed_rows,
    response_states,
    score_both_views,
    score_responses,
)

MakePolicy = Callable[[torch.dtype], PreTrainedModel]
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [3, 4]]
RESPONSES = [[20, 21, 22], [30, 31, 32, 33, 34, 35], [40], []]


def read(policy: PreTrainedModel, prompts: list[Ids], responses: list[Ids]) -> TokenValues:
    """A forward of all rows at once, with gradient."""
    packed = packed_rows(prompts, responses, range(len(prompts)))
    return Policy(policy)(packed, joined(responses), keep_hidden=True)


def slow_logprob(
    policy: PreTrainedModel, prefix: list[int], token: int, temperature: float
) -> float:
    """One token at a time, nothing batched, nothing padded, nothing shifted."""
    logits = policy(input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1]
    return float(torch.log_softmax(logits / temperature, -1)[token])


@pytest.mark.parametrize("budget", [1, 9, 1000])
def test_scores_equal_one_forward_per_token(random_policy: MakePolicy, budget: int) -> None:
    policy = random_policy(torch.float64)
    logprobs, entropy = score_responses(Policy(policy), PROMPTS, RESPONSES, 0.8, budget)
    assert logprobs.shape == entropy.shape == (4, 6)
    with torch.no_grad():
        for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
            for t, token in enumerate(response):
                expected = slow_logprob(policy, prompt + response[:t], token, 0.8)
                assert float(logprobs[row, t]) == pytest.approx(expected, abs=1e-10)
            assert (logprobs[row, len(response) :] == 0).all()
            assert (entropy[row, len(response) :] == 0).all()


def test_both_views_line_up_token_by_token(
    random_policy: MakePolicy, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Column t is response token t in either view: a token's score moves with its own id alone."""
    policy = random_policy(torch.float64)
    prompts = Prompts(tokenizer)
    student = prompts.student_ids("Compute 3 + 4 + 5.")
    teacher = prompts.teacher_ids(
        "Compute 3 + 4 + 5.", TEMPLATE, "3 + 4 = 7, so \\boxed{12}.", 1000
    )
    assert teacher is not None
    response = list(tokenizer("7 + 5 = 12.\n\\boxed{12}", add_special_tokens=False)["input_ids"])
    for prompt in (student, teacher.ids):
        (base,), _ = score_responses(Policy(policy), [prompt], [response], 1.0, 1000)
        with torch.no_grad():
            for t, token in enumerate(response):
                expected = slow_logprob(policy, [*prompt, *response[:t]], token, 1.0)
                assert float(base[t]) == pytest.approx(expected, abs=1e-10)
        for t in range(len(response)):
            changed = [*response[:t], (response[t] + 1) % 200, *response[t + 1 :]]
            (moved,), _ = score_responses(Policy(policy), [prompt], [changed], 1.0, 1000)
            torch.testing.assert_close(moved[:t], base[:t], rtol=0, atol=1e-12)
            assert moved[t] != base[t]


def test_gradient_flows_through_either_view(random_policy: MakePolicy) -> None:
    policy = random_policy(torch.float32)
    logprobs = read(policy, PROMPTS[:2], RESPONSES[:2]).logprobs_n
    assert logprobs is not None
    logprobs.sum().backward()
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0
        for name, p in policy.named_parameters()
    )


def test_hidden_states_in_passes_keep_the_order_of_the_rows(random_policy: MakePolicy) -> None:
    policy = random_policy(torch.float64)
    whole = read(policy, PROMPTS[:3], RESPONSES[:3]).hidden_NH
    for budget in (1, 9, 1000):
        split = response_states(Policy(policy), PROMPTS[:3], RESPONSES[:3], budget)
        assert not split.requires_grad
        torch.testing.assert_close(split, whole, rtol=1e-6, atol=1e-9)  # norms in float32


@pytest.mark.parametrize("budget", [1, 12, 1000])
def test_the_divergence_of_two_views_is_that_of_their_distributions(
    random_policy: MakePolicy, tiny: PreTrainedModel, budget: int
) -> None:
    student, teacher = random_policy(torch.float64), tiny.double()
    behind = [[7, 8, 9, *prompt] for prompt in PROMPTS]
    views = (Policy(student), Policy(teacher), PROMPTS, behind, RESPONSES, 0.8, budget)
    found = score_both_views(*views).divergence_BT
    assert found.shape == (4, 6)
    for row, response in enumerate(RESPONSES):
        for t in range(len(response)):
            with torch.no_grad():
                p, q = (
                    torch.log_softmax(
                        policy(input_ids=torch.tensor([[*prompt, *response[:t]]])).logits[0, -1]
                        / 0.8,
                        -1,
                    )
                    for policy, prompt in ((student, PROMPTS[row]), (teacher, behind[row]))
                )
            expected = float((p.exp() * (p - q)).sum())
            assert float(found[row, t]) == pytest.approx(expected, abs=1e-6)
        assert (found[row, len(response) :] == 0).all()


def test_the_gradient_of_a_shared_prompt_is_the_same_to_the_bit(tiny: PreTrainedModel) -> None:
    """Several first tokens are predicted at one position: threads must not add them up in any order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        # more elements than one thread takes by itself
        prompts, responses = [[7, 8, 9]] * 600, [[20 + row % 200, 30] for row in range(600)]
        found = set()
        for _ in range(5):
            tiny.zero_grad()
            hidden = read(tiny, prompts, responses).hidden_NH
            (hidden * torch.linspace(-1, 1, len(hidden))[:, None]).sum().backward()
            grads = [part.grad.flatten() for part in tiny.parameters() if part.grad is not None]
            found.add(torch.cat(grads).numpy().tobytes())
        assert len(found) == 1
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("budget", [1, 12, 1000])
def test_both_views_at_once_are_what_each_is_alone(
    random_policy: MakePolicy, tiny: PreTrainedModel, budget: int
) -> None:
    student, teacher = Policy(random_policy(torch.float64)), Policy(tiny.double())
    behind = [[7, 8, 9, *prompt] for prompt in PROMPTS]
    both = score_both_views(student, teacher, PROMPTS, behind, RESPONSES, 0.8, budget)
    alone = (
        *score_responses(student, PROMPTS, RESPONSES, 0.8, budget),
        *score_responses(teacher, behind, RESPONSES, 0.8, budget),
    )
    torch.testing.assert_close(both[:4], alone, rtol=0, atol=1e-6)  # norms in float32


def test_a_policy_has_the_names_of_its_model(random_policy: MakePolicy) -> None:
    model = random_policy(torch.float32)
    policy = Policy(model)
    assert list(policy.state_dict()) == list(model.state_dict())
    names = [name for name, _ in model.named_parameters()]
    assert [name for name, _ in policy.named_parameters()] == names
