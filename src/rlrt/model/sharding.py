"""A policy whose parameters are spread over the ranks (FSDP2)."""

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict as dcp
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from transformers import PreTrainedModel

from rlrt.model.policy import Policy


def shard(policy: Policy, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Spread every layer, and the rest as one more unit, over the ranks of ``mesh``, in place.

    The shards stay as they are (float32: the master weights); a layer is gathered in ``dtype`` while it
    computes. Gradients are summed over the ranks in float32, not averaged: an update's weights are
    fixed over all its tokens before it is split.
    """
    low = None if dtype == torch.float32 else dtype
    mixed = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)
    for layer in policy.causal_lm.get_decoder().layers:
        fully_shard(layer, mesh=mesh, mp_policy=mixed)
    # embedding, last norm and head: not freed between a forward and its backward
    fully_shard(policy, mesh=mesh, mp_policy=mixed, reshard_after_forward=False)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
    policy.compute_dtype = dtype
    register_fsdp_forward_method(policy, "generate")
    policy.register_forward_hook(_free_after_reading)  # runs after FSDP2's own hooks


def _free_after_reading(policy: Any, inputs: Any, output: Any) -> None:
    """A forward without gradient has no backward that frees what it gathered: an optimizer step would
    leave the gathered weights as they were, and the next forward would compute with them.
    """
    if not torch.is_grad_enabled():
        policy.reshard()


def keep_in(policy: Policy, dtype: torch.dtype) -> None:
    """Have the parameters in ``dtype``, in place. Buffers stay: rotary frequencies need float32."""
    for parameter in policy.parameters():
        parameter.data = parameter.data.to(dtype)


def is_hollow(policy: Policy | PreTrainedModel) -> bool:
    """Whether the policy has a shape and no values yet."""
    return policy.device.type == "meta"


def fill(policy: Policy, source: PreTrainedModel | None, device: torch.device) -> None:
    """Give a sharded hollow policy the values of ``source``, which rank 0 alone has; collective.

    Every rank gets its part on ``device``, in the policy's dtype, from one whole tensor at a time; of
    the ranks rank 0 alone ever holds all of them, on the host.
    """
    assert (source is not None) == (dist.get_rank() == 0), "rank 0 has the values, and no other"
    policy.to_empty(device=device)
    policy.causal_lm.tie_weights()  # each name has got a tensor of its own
    state: dict[str, Any] = {}
    if source is not None:
        dtypes = {name: value.dtype for name, value in policy.state_dict().items()}
        state = {name: value.to(dtypes[name]) for name, value in source.state_dict().items()}
    stored = policy.state_dict().keys()
    options = dcp.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    dcp.set_model_state_dict(policy, state, options=options)
    for name, buffer in policy.named_buffers():
        if name not in stored:  # rotary frequencies
            if source is not None:
                buffer.copy_(source.get_buffer(name))
            dist.broadcast(buffer, 0)


def is_sharded(policy: Policy) -> bool:
    """Whether the ranks share the policy's parameters among them."""
    return isinstance(policy, FSDPModule)
