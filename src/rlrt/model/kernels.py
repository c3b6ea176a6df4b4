"""Kernels of other libraries in place of PyTorch's own, where a card is.

liger-kernel has norms, RoPE and SwiGLU in one pass over memory each. FlashAttention-4 takes the place
of the version that PyTorch brings, by PyTorch's own switch. Neither changes what is computed.
"""

from importlib.util import find_spec

import torch
from torch.nn.attention import activate_flash_attention_impl
from transformers import PreTrainedModel

KERNELS = ("auto", "liger", "torch")
ATTENTION = ("auto", "fa4", "torch")
LIGER_MODEL = "qwen3"  # whose layers are known to be replaced one for one
FA4_CARDS = (9, 10)  # compute capability: Hopper, Blackwell


def chosen_kernels(setting: str, model_type: str, device: str) -> str:
    """``liger`` or ``torch`` for ``model.kernels``; auto is liger wherever it runs.

    ValueError for liger where it is not installed, on another device than CUDA, or for another model.
    """
    lacking = [
        *(["a GPU"] if device != "cuda" else []),
        *(["liger-kernel, which is not installed"] if find_spec("liger_kernel") is None else []),
        *([f"a model of type {LIGER_MODEL}"] if model_type != LIGER_MODEL else []),
    ]
    return _chosen("kernels", setting, "liger", lacking)


def chosen_attention(setting: str, device: str) -> str:
    """``fa4`` or ``torch`` for ``model.attention``; auto is FlashAttention-4 wherever it runs.

    ValueError for fa4 where flash-attn-4 is not installed or the card is none that it is made for.
    """
    card = device == "cuda" and torch.cuda.get_device_capability()[0] in FA4_CARDS
    installed = find_spec("flash_attn") is not None and find_spec("flash_attn.cute") is not None
    lacking = [
        *(["a GPU of compute capability 9.0 or 10.0"] if not card else []),
        *(["flash-attn-4, which is not installed"] if not installed else []),
    ]
    return _chosen("attention", setting, "fa4", lacking)


def _chosen(name: str, setting: str, faster: str, lacking: list[str]) -> str:
    if setting == faster and lacking:
        raise ValueError(
            f"model.{name} is {faster}, which needs {' and '.join(lacking)}: choose auto or torch"
        )
    return "torch" if setting == "torch" or lacking else faster


def use_kernels(policy: PreTrainedModel, kernels: str, attention: str) -> None:
    """Have ``policy`` compute with the chosen kernels; attention is switched for the whole process."""
    if kernels == "liger":
        from liger_kernel.transformers import apply_liger_kernel_to_qwen3

        # the head stays this project's own, which never holds whole rows of logits
        apply_liger_kernel_to_qwen3(fused_linear_cross_entropy=False, model=policy)
    if attention == "fa4":
        activate_flash_attention_impl("FA4")
