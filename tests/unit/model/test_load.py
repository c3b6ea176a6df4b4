"""Which kernels a policy computes with, told before its weights load."""

import pytest

from rlrt.model import load
from rlrt.model.load import chosen_attention, chosen_kernels

liger = pytest.mark.parametrize(
    ("kind", "device", "installed", "lacks"),
    [
        ("qwen3", "cuda", True, None),
        ("qwen3", "cpu", True, "needs a GPU: choose auto or torch"),
        ("llama", "cuda", True, "needs a model of type qwen3: choose"),
        ("qwen3", "cuda", False, "needs liger-kernel, which is not installed: choose"),
        ("qwen3", "cpu", False, "needs a GPU and liger-kernel, which is not installed: choose"),
    ],
)


@liger
def test_liger_where_all_that_it_needs_is_there(
    kind: str, device: str, installed: bool, lacks: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: object() if installed else None)
    assert chosen_kernels("torch", kind, device) == "torch"
    assert chosen_kernels("auto", kind, device) == ("torch" if lacks else "liger")
    if lacks is None:
        assert chosen_kernels("liger", kind, device) == "liger"
    else:
        with pytest.raises(ValueError, match=f"model.kernels is liger, which {lacks}"):
            chosen_kernels("liger", kind, device)


@pytest.mark.parametrize(
    ("device", "capability", "installed", "lacks"),
    [
        ("cuda", (9, 0), True, None),
        ("cuda", (10, 3), True, None),
        ("cuda", (8, 0), True, "needs a GPU of compute capability 9.0 or 10.0: choose"),
        ("cuda", (9, 0), False, "needs flash-attn-4, which is not installed: choose"),
        ("cpu", (9, 0), True, "needs a GPU of compute capability"),
    ],
)
def test_fa4_where_all_that_it_needs_is_there(
    device: str,
    capability: tuple[int, int],
    installed: bool,
    lacks: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(load.torch.cuda, "get_device_capability", lambda: capability)
    assert chosen_attention("torch", device) == "torch"
    assert chosen_attention("auto", device) == ("torch" if lacks else "fa4")
    if lacks is not None:
        with pytest.raises(ValueError, match=f"model.attention is fa4, which {lacks}"):
            chosen_attention("fa4", device)
