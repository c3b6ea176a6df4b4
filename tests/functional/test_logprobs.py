import pytest
import torch

from rlrt.functional import logprobs as module
from rlrt.functional.logprobs import predicting_positions, token_logprobs


def test_positions_stand_one_before_each_response_token() -> None:
    # rows of 3 + 2 and 1 + 4 tokens, padded to 6: response ids at 3, 4 and at 6 + 1 ... 6 + 4
    assert predicting_positions([3, 1], [2, 4], 6).tolist() == [2, 3, 6, 7, 8, 9]


def test_an_empty_response_has_no_position() -> None:
    assert predicting_positions([3, 2], [0, 1], 4).tolist() == [5]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(AssertionError, match="a prompt of no tokens"):
        predicting_positions([0], [2], 4)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_equal_a_plain_log_softmax_in_value_and_gradient(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk * 11)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(11, (7,), generator=generator)
    weight = torch.randn(7, generator=generator, dtype=torch.float64)

    found, entropy = token_logprobs(hidden, head, ids, temperature=0.7)
    gradients = torch.autograd.grad((found * weight).sum(), (hidden, head))
    plain = torch.log_softmax(hidden @ head.T / 0.7, -1)
    expected = plain[torch.arange(7), ids]
    expected_gradients = torch.autograd.grad((expected * weight).sum(), (hidden, head))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-12)
    slow = [-sum(float(p.exp() * p) for p in row) for row in plain.detach()]
    torch.testing.assert_close(entropy.tolist(), slow, rtol=0, atol=1e-12)
    assert not entropy.requires_grad
