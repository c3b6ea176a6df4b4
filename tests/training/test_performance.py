import pytest
import torch

from rlrt.training.performance import (
    Work,
    data_sheet_peak,
    forget_peak_memory,
    peak_flops,
    peak_memory,
    performance,
)

CPU = torch.device("cpu")


def test_speed_and_utilisation_worked_out_by_hand() -> None:
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
