"""Tiny random models of the families that users bring: a pack gives what each sequence alone gives."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, PreTrainedModel

from rlrt.model.load import load_config, load_policy
from rlrt.model.packed_attention import use_packed_attention
from rlrt.model.policy import Policy, score_responses

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "phi3": {"sliding_window": None},
    "olmo2": {},
    "granite": {"logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "mistral": {"sliding_window": None},
}
PROMPTS = [(5, 6, 7), (5, 6, 7), (8, 9)]
RESPONSES = [(10, 11, 12, 13), (14, 15), (16, 17, 18)]


def model_of(family: str, **settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES | settings)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # small ones hide what a layer does
        parameter.data.mul_(3)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_is_alone(family: str) -> None:
    model = model_of(family, **FAMILIES[family])
    alone = []
    with torch.no_grad():
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
            logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
            scores = (logits / 0.8).log_softmax(-1)
            alone.append(scores.gather(1, torch.tensor(response)[:, None])[:, 0])
    use_packed_attention(model)
    packed, _ = score_responses(Policy(model), PROMPTS, RESPONSES, 0.8, 1000)
    for one, together in zip(alone, packed, strict=True):
        torch.testing.assert_close(together[: len(one)], one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("gemma2", {"sliding_window": 8}, "sliding_attention"),
        ("mistral", {"sliding_window": 8}, "sliding_attention"),
        ("phi", {}, "add a bias"),
    ],
)
def test_what_a_pack_cannot_compute_is_refused(
    tmp_path: Path, family: str, settings: dict[str, Any], reason: str
) -> None:
    model_of(family, **settings).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=reason) as caught:
        load_policy(str(tmp_path), torch.float32)
    assert "\n" not in str(caught.value)


def test_a_family_of_another_build_is_named(tmp_path: Path) -> None:
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"family gpt2 are not supported .*intermediate_size.*llama"
    ):
        load_config(str(tmp_path))
