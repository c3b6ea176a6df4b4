import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rlrt.training.performance import (
    BACKWARD,
    Shape,
    Work,
    causal_pairs,
    data_sheet_peak,
    forget_peak_memory,
    peak_flops,
    peak_memory,
    performance,
)

QWEN3_06B = Shape(
    layers=28,
    hidden=1024,
    intermediate=3072,
    heads=16,
    kv_heads=8,
    head_dim=128,
    vocabulary=151_936,
)


def test_qwen3_06b_worked_out_by_hand() -> None:
    """Q and o 1024 · 2048 each, k and v 1024 · 1024 each, three of 1024 · 3072: 15,728,640 a layer."""
    assert QWEN3_06B.layer_parameters == 15_728_640
    assert QWEN3_06B.forward(1, 0, 0) == 2 * 28 * 15_728_640 == 880_803_840
    assert QWEN3_06B.forward(0, 1, 0) == 2 * 151_936 * 1024 == 311_164_928
    assert QWEN3_06B.forward(0, 0, 1) == 4 * 28 * 16 * 128 == 229_376
    # a sequence of 4096, logits for its last 3072: three times for forward and backward
    pairs = causal_pairs([4096])
    assert pairs == 8_390_656
    forward = 4096 * 880_803_840 + 3072 * 311_164_928 + pairs * 229_376
    assert (1 + BACKWARD) * QWEN3_06B.forward(4096, 3072, pairs) == 3 * forward


def test_the_shape_is_read_from_a_configuration() -> None:
    config = Qwen3Config(
        num_hidden_layers=28,
        hidden_size=1024,
        intermediate_size=3072,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_936,
    )
    assert Shape.from_config(config) == QWEN3_06B


def test_the_parameters_are_those_of_the_model() -> None:
    """All matrices of a layer are counted: against the weights that transformers makes."""
    config = Qwen3Config(
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=50,
    )
    layer = Qwen3ForCausalLM(config).model.layers[0]
    matrices = sum(weight.numel() for weight in layer.parameters() if weight.ndim == 2)
    assert Shape.from_config(config).layer_parameters == matrices


@pytest.mark.parametrize(("shared", "lengths"), [(0, [3, 1]), (5, [2, 4]), (7, [])])
def test_pairs_are_those_of_whole_sequences_less_the_shared_ones(
    shared: int, lengths: list[int]
) -> None:
    whole = sum(causal_pairs([shared + length]) - causal_pairs([shared]) for length in lengths)
    assert causal_pairs(lengths, before=shared) == whole


CPU = torch.device("cpu")


def test_speed_and_utilization_worked_out_by_hand() -> None:
    score = Work(flops=6e9, tokens=300, seconds=2, attention_slots=400, padded_slots=100)
    update = Work(flops=3e9, tokens=100, seconds=1) + Work(flops=5e9, tokens=60, seconds=3)
    assert performance({"score": score, "update": update}, peak=10e9) == pytest.approx(
        {
            "score/tokens_per_s": 150,
            "score/mfu": 0.3,
            "score/padding_waste": 0.25,
            "update/tokens_per_s": 40,
            "update/mfu": 0.2,
        }
    )


def test_a_stage_without_work_is_left_out() -> None:
    assert performance({"score": Work()}, peak=1e9) == {}


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA L40", None),  # no L4
        ("NVIDIA A10", None),  # no A100
    ],
)
def test_a_card_is_known_by_the_whole_words_of_its_name(name: str, peak: float | None) -> None:
    assert data_sheet_peak(name) == peak


def test_another_device_is_measured_once() -> None:
    """Between a slow core and a rack."""
    peak = peak_flops(CPU, torch.float32)
    assert 1e8 < peak < 1e15
    assert peak_flops(CPU, torch.float32) == peak


def test_peak_memory_holds_what_was_taken() -> None:
    forget_peak_memory(CPU)
    before = peak_memory(CPU)["memory/peak_gib"]
    taken = torch.ones(2**26)  # 0.25 GiB
    assert peak_memory(CPU)["memory/peak_gib"] >= max(before, taken.nbytes / 2**30)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_peak_is_of_this_step() -> None:
    device = torch.device("cuda")
    torch.ones(2**28, device=device)
    torch.cuda.empty_cache()
    forget_peak_memory(device)
    assert peak_memory(device)["memory/peak_gib"] < 0.5
