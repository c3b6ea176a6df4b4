"""Kernels and settings of the layers: an update's gradients under sharding and checkpointing."""

from dataclasses import replace

import ours
import torch
from gpu_stages.imports import relative
from gpu_stages.stage import Check
from torch import Tensor
from workload import TOY, draw

from rlrt.credit.grpo import GRPO
from rlrt.model.load import LIGER_MODEL, chosen_attention, chosen_kernels, use_kernels
from rlrt.model.packed_attention import checkpoint_activations

# Relative norms of whole gradients; with other kernels bfloat16 rounds elsewhere in every layer.
APART = {"bf16-mixed": 3e-2, "32-true": 1e-5}
SHAPE = replace(TOY, name="layers", vocabulary=4096, hidden=512, feed_forward=1024, head_dim=128)


def layers(check: Check, _: torch.dtype) -> None:
    """The same gradients with attention saved and with each of the kernels that are installed.

    In bf16-mixed on a card, through FSDP2 as every such run.
    """
    device = check.device
    kernels = chosen_kernels("auto", LIGER_MODEL, device)
    attention = chosen_attention("auto", device)
    wanted = gradient_of(check, "torch", "torch", save_attention=False)
    variants = {"save_attention": ("torch", "torch", True)}
    if kernels != "torch":
        variants[kernels] = (kernels, "torch", False)
    if attention != "torch":  # last: it stays switched on for the process
        variants[attention] = (kernels, attention, True)
    for name, variant in variants.items():
        check.doing(f"layers with {name}")
        apart = relative(gradient_of(check, *variant), wanted)
        check.near(f"layers_{name}", apart, APART[precision_of(check)])
    check.note(kernels=kernels, attention=attention)
    check.tell(f"layers: same gradients with {', '.join(variants)}")


def gradient_of(check: Check, kernels: str, attention: str, save_attention: bool) -> Tensor:
    """Of all weights, in the order of their names."""
    policy = (SHAPE if check.card else TOY).policy(check.device)
    use_kernels(policy, kernels, attention)
    checkpoint_activations(policy, save_attention)
    load = draw(2, 4, 512 if check.card else 16)
    module = ours.module_of(policy, 2 * load.longest)
    ours.run(
        module,
        ours.one_update(ours.rollouts_of(load), GRPO()),
        precision_of(check),
        "gpu" if check.card else "cpu",
    )
    gradients = ours.gradients(module)
    return torch.cat([gradients[name].flatten().float() for name in sorted(gradients)])


def precision_of(check: Check) -> str:
    return "bf16-mixed" if check.card else "32-true"
