"""Stage 0: what is installed imports and works together: PyTorch, one compiled kernel, vLLM's operators."""

import os
from pathlib import Path

import torch
from gpu_stages.stage import GIB, Check
from torch import Tensor

SIZE = 1024
# of a Qwen3 forward pass; the CPU build has others for the cache
OPERATORS = ("rms_norm", "fused_add_rms_norm", "silu_and_mul", "rotary_embedding")
CACHE_OPERATORS = ("reshape_and_cache", "reshape_and_cache_flash")


def run(check: Check) -> None:
    """Fails where a card is there that PyTorch does not find: all else would run on the CPU."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    if not check.card and Path("/dev/nvidia0").exists() and not hidden:
        raise RuntimeError("there is a card, /dev/nvidia0, and PyTorch finds none")
    describe(check)
    check.doing("a matrix product")
    draw = torch.Generator(check.device).manual_seed(0)
    left, right = torch.randn(2, SIZE, SIZE, generator=draw, device=check.device).bfloat16()
    check.near("product_apart", relative(left @ right, left.double() @ right.double()), 1e-2)
    if check.card:
        check.doing("a compiled kernel")  # needs triton, and a C compiler for its launcher
        actual = torch.compile(squashed)(left)
        check.near("compiled_apart", relative(actual, squashed(left.double())), 1e-2)
    import_vllm(check)


def describe(check: Check) -> None:
    """Card, driver and libraries."""
    versions = f"PyTorch {torch.__version__}"
    if check.card:
        card = torch.cuda.get_device_properties(0)
        check.note(
            card=card.name,
            capability=f"{card.major}.{card.minor}",
            memory_gib=card.total_memory / GIB,
            cuda=torch.version.cuda,
            nccl=".".join(map(str, torch.cuda.nccl.version())),
            cudnn=torch.backends.cudnn.version(),
        )
        versions = (
            f"{card.name}, {card.total_memory / GIB:.0f} GiB, {versions}, CUDA {torch.version.cuda}"
        )
    check.tell(versions)


def import_vllm(check: Check) -> None:
    """Python files of vLLM, its platform, and the operators of its libraries."""
    check.doing("importing vLLM")
    import vllm
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    check.expect(
        current_platform.device_type == check.device,
        f"vLLM's platform is {current_platform.device_type}, PyTorch's {check.device}",
    )
    lacking = [name for name in OPERATORS if not hasattr(torch.ops._C, name)]
    if check.card:
        lacking += [name for name in CACHE_OPERATORS if not hasattr(torch.ops._C_cache_ops, name)]
        from vllm.device_allocator import cumem

        check.expect(cumem.cumem_available, "vLLM's allocator behind sleep mode does not load")
    check.expect(not lacking, f"vLLM's libraries lack {', '.join(lacking)}")
    check.tell(f"vLLM {vllm.__version__}, its operators registered")


def squashed(values: Tensor) -> Tensor:
    """Something that a compiler fuses."""
    return (values.sigmoid() * values + 1).tanh()


def relative(actual: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    wanted = wanted.detach().double()
    return float((actual.detach().double() - wanted).norm() / wanted.norm())
