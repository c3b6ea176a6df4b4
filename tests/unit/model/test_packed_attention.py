import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from rlrt.model.packed_attention import (
    _ATTENTION_OPS,
    checkpoint_activations,
    decoder_hidden,
    use_packed_attention,
)
from rlrt.model.packing import pack

Policies = Callable[[torch.dtype], PreTrainedModel]
Ids = Sequence[int]

# shared and other prompts, a response of one token, an empty one, prompts of one token
PROMPTS: tuple[Ids, ...] = (
    [11, 12, 13],
    [15],
    [11, 12, 13],
    [17, 18],
    [15],
    [19],
    [20, 21],
    [11, 12, 13],
)
RESPONSES: tuple[Ids, ...] = (
    [24, 25, 26, 27],
    [28],
    [29, 30],
    [31],
    [32, 33, 34],
    [],
    [35] * 90,
    [36],
)
# transformers' norms compute in float32 even in a float64 model
assert_near = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-6)
TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}


def _alone(policy: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids]) -> Tensor:
    """The hidden states that predict each response token, one sequence after the other."""
    parts = []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.tensor([[*prompt, *response]])
        hidden_LH = policy.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
        parts.append(hidden_LH[len(prompt) - 1 : len(ids[0]) - 1])
    return torch.cat(parts)


def _packed(policy: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids]) -> Tensor:
    packed = pack(prompts, responses)
    return decoder_hidden(policy, packed)[packed.predicting_N]


def _gradients(policy: PreTrainedModel, hidden_NH: Tensor) -> list[Tensor]:
    policy.zero_grad()
    weights_H = torch.linspace(-1, 1, hidden_NH.shape[1]).to(hidden_NH)
    (hidden_NH.sin() @ weights_H).sum().backward()
    return [part.grad.clone() for part in policy.get_decoder().parameters()]


def _policy(kind: type[PretrainedConfig], **settings: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = kind(**{**TINY, **settings})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float64)


def _agrees(policy: PreTrainedModel) -> None:
    plain = copy.deepcopy(policy)
    plain.set_attn_implementation("sdpa")
    use_packed_attention(policy)
    hidden_NH, wanted_NH = (
        _packed(policy, PROMPTS, RESPONSES),
        _alone(plain, PROMPTS, RESPONSES),
    )
    assert_near(hidden_NH, wanted_NH)
    found, wanted = _gradients(policy, hidden_NH), _gradients(plain, wanted_NH)
    scale = max(part.abs().max() for part in wanted)
    for part, same in zip(found, wanted, strict=True):
        assert_near(part / scale, same / scale)


def test_a_pack_gives_the_hidden_states_and_gradients_of_each_sequence_alone(
    random_policy: Policies,
) -> None:
    _agrees(random_policy(torch.float64))


def test_gradient_checkpointing_recomputes_the_same_attention(random_policy: Policies) -> None:
    policy = random_policy(torch.float64).train()
    policy.gradient_checkpointing_enable({"use_reentrant": False})
    _agrees(policy)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("kind", [LlamaConfig, Qwen3Config])
def test_key_heads_may_be_shared_or_not(kind: type[PretrainedConfig], heads: int) -> None:
    _agrees(_policy(kind, num_key_value_heads=heads))


def test_no_attention_across_responses(random_policy: Policies) -> None:
    policy = random_policy(torch.float64)
    use_packed_attention(policy)
    prompts = [[11, 12, 13], [11, 12, 13], [15, 16]]
    before = _packed(policy, prompts, [[24, 25, 26], [27, 28, 29], [30, 31]])
    after = _packed(policy, prompts, [[40, 41, 42], [27, 28, 29], [30, 31]])
    assert torch.equal(before[0], after[0])  # given the prompt alone
    assert not torch.allclose(before[1:3], after[1:3])
    assert torch.equal(before[3:], after[3:])


def test_half_precision_is_near(random_policy: Policies) -> None:
    policy = random_policy(torch.float32)
    use_packed_attention(policy)
    with torch.no_grad():
        wanted_NH = _packed(policy, PROMPTS, RESPONSES)
        hidden_NH = _packed(policy.bfloat16(), PROMPTS, RESPONSES)
    torch.testing.assert_close(hidden_NH.float(), wanted_NH, rtol=0.05, atol=0.05)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: variable-length kernels need one"
)
@pytest.mark.parametrize("responses", [RESPONSES, RESPONSES[:2]])  # with shared prompts and without
def test_on_a_gpu_half_precision_is_near_and_has_its_gradient(
    random_policy: Policies, responses: tuple[Ids, ...]
) -> None:
    policy = random_policy(torch.float32)
    prompts = PROMPTS[: len(responses)]
    wanted_NH = _packed(policy, prompts, responses)
    wanted = _gradients(policy, wanted_NH)
    policy.zero_grad()
    hidden_NH = _packed(policy.to("cuda", torch.bfloat16), prompts, responses)
    torch.testing.assert_close(hidden_NH.float().cpu(), wanted_NH, rtol=0.05, atol=0.05)
    for part, same in zip(_gradients(policy, hidden_NH.float()), wanted, strict=True):
        error = (part.cpu() - same).norm() / same.norm()
        assert error < 0.05, error


def test_generation_is_that_of_sdpa(tiny: PreTrainedModel) -> None:
    ids = torch.tensor([[0, 0, 0, 11, 12], [21, 22, 23, 24, 25]])  # the first is padded on the left
    mask = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])

    def logits() -> tuple[Tensor, ...]:
        return tiny.eval().generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )["logits"]

    tiny.set_attn_implementation("sdpa")
    wanted = logits()
    use_packed_attention(tiny)
    assert all(torch.equal(*pair) for pair in zip(logits(), wanted, strict=True))


def test_a_written_model_does_not_ask_for_packing(tiny: PreTrainedModel, tmp_path: Path) -> None:
    use_packed_attention(tiny)
    tiny.save_pretrained(tmp_path)
    assert "packed" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_a_model_that_ignores_the_pack_is_an_error(tiny: PreTrainedModel) -> None:
    tiny.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError, match="0 of 4 layers of Qwen3ForCausalLM read the pack"):
        decoder_hidden(tiny, pack([[11, 12]], [[13, 14]]))


def test_sliding_windows_and_dropout_are_refused() -> None:
    sliding = _policy(Qwen3Config, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(ValueError, match="sliding_attention cannot be packed"):
        use_packed_attention(sliding)
    with pytest.raises(ValueError, match="sliding_attention cannot be packed"):
        use_packed_attention(_policy(MistralConfig, sliding_window=8))
    with pytest.raises(ValueError, match=r"attention_dropout is 0\.1"):
        use_packed_attention(_policy(LlamaConfig, attention_dropout=0.1))


def test_an_architecture_with_its_own_attention_is_refused() -> None:
    policy = AutoModelForCausalLM.from_config(
        BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4)
    )
    with pytest.raises(ValueError, match="BloomForCausalLM does not take its attention"):
        use_packed_attention(policy)


class Calls(TorchDispatchMode):
    """Counts how often attention is computed."""

    count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += func in _ATTENTION_OPS
        return func(*args, **kwargs or {})


def test_saved_attention_is_not_computed_again_and_changes_no_gradient(
    random_policy: Policies,
) -> None:
    found = []
    for saved in (None, False, True):
        policy = random_policy(torch.float32)
        if saved is not None:
            checkpoint_activations(policy, saved)
        with Calls() as calls:
            hidden_NH = _packed(policy, PROMPTS, RESPONSES)
            forward = calls.count
            gradients = _gradients(policy, hidden_NH)
        found.append((forward, calls.count, gradients))
    plain, again, kept = found
    assert plain[0] == again[0] == kept[0] > 0
    assert (plain[1], again[1], kept[1]) == (plain[0], 2 * plain[0], plain[0])
    for one, other, third in zip(plain[2], again[2], kept[2], strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)
