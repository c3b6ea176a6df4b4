"""Attention within the sequences of a pack, as an attention implementation of transformers.

Every layer but attention works on single tokens, so a pack goes through them as one row; attention
gathers the tokens of each sequence (its prompt, shared or not, and its response) and puts the
outputs back. A forward without a pack behaves as transformers' ``sdpa`` (generation, for one).
"""

from functools import cached_property, partial
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlrt.model.packing import AttentionBlocks, Packed, attention_blocks

NAME = "packed"
FULL = "full_attention"
# torch 2.11 hands keys of fewer heads on as they are; later versions want to be told of them
_GROUPED: dict[str, Any] = (
    {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}
)
# what ``_varlen`` and ``_in_blocks`` come down to, on a GPU and on the CPU
_ATTENTION_OPS = (
    torch.ops.torch_attn._varlen_attn.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
)
REFUSED = ("sliding_window", "s_aux", "softcap", "position_bias")  # of other models' attention


class Packing:
    """What a model's attention layers read of one pack, and how many of them read it.

    No dataclass: the hooks of sharded layers take such arguments apart and would copy the count.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.readers = 0

    @cached_property
    def blocks(self) -> AttentionBlocks:
        return attention_blocks(self.packed)

    @cached_property
    def ends(self) -> Tensor:
        """Where each sequence starts among U tokens, and where the last one ends."""
        ends = list(accumulate(self.packed.lengths, initial=0))
        return torch.tensor(ends, dtype=torch.int32, device=self.packed.sequence_U.device)


def use_packed_attention(policy: PreTrainedModel) -> None:
    """Let ``policy`` read packs; ValueError where its attention is more than plain and causal."""
    config = policy.config
    sliding = "sliding_attention" if getattr(config, "sliding_window", None) else FULL
    kinds = set(getattr(config, "layer_types", None) or [sliding])
    if kinds != {FULL}:
        raise ValueError(
            f"model.path: layers of {', '.join(sorted(kinds))} cannot be packed; all must be of {FULL}"
        )
    if dropout := getattr(config, "attention_dropout", 0.0):
        raise ValueError(
            f"model.path: attention_dropout is {dropout} in the model's config.json; it must be 0, "
            "since the log-probs of updates and of sampling are of one and the same policy"
        )
    head = policy.get_output_embeddings()
    if getattr(config, "final_logit_softcapping", None) or getattr(head, "bias", None) is not None:
        raise ValueError(
            f"model.path: models of the family {config.model_type} bound their logits, or add a bias to "
            "them, which the fused head does not"
        )
    policy.set_attn_implementation(NAME)
    if config._attn_implementation != NAME:
        raise ValueError(
            f"model.path: {type(policy).__name__} does not take its attention from transformers' "
            "attention interface, so it cannot be packed"
        )


def checkpoint_activations(policy: PreTrainedModel, save_attention: bool) -> None:
    """Have a backward pass compute each layer again from its input, instead of keeping what is in it.

    With ``save_attention`` the output of its attention is kept: as large as the input of a layer or
    twice, and the one part whose time grows with the square of a sequence.
    """
    settings: dict[str, object] = {"use_reentrant": False}
    if save_attention:
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, list(_ATTENTION_OPS))
    policy.gradient_checkpointing_enable(settings)


def decoder_hidden(policy: PreTrainedModel, packed: Packed) -> Tensor:
    """Last hidden states ``[L, H]`` of a pack, with gradient, as each sequence alone would have them.

    RuntimeError where a layer did not get to see the pack: it would mix the sequences.
    """
    packed = packed.to(policy.device)
    packing = Packing(packed)
    hidden_1LH: Tensor = policy.get_decoder()(
        input_ids=packed.input_ids_L[None],
        position_ids=packed.position_ids_L[None],
        # transformers hands a mask of four dimensions through and builds no [L, L] one
        attention_mask=torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=policy.device),
        use_cache=False,
        packing=packing,
    ).last_hidden_state
    if packing.readers != policy.config.num_hidden_layers:
        raise RuntimeError(
            f"{packing.readers} of {policy.config.num_hidden_layers} layers of "
            f"{type(policy).__name__} read the pack; the model cannot be packed"
        )
    return hidden_1LH[0]


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: object,
) -> tuple[Tensor, None]:
    """Attention outputs ``[1, L, heads, width]`` of a pack's ``[1, heads, L, width]`` parts."""
    if packing is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    if refused := [name for name in REFUSED if options.get(name) is not None]:
        raise ValueError(f"model.path: attention with {', '.join(refused)} cannot be packed")
    assert dropout == 0.0, dropout
    assert query.shape[::2] == (1, packing.packed.tokens), query.shape
    packing.readers += 1
    parts = [part[0].transpose(0, 1) for part in (query, key, value)]  # [L, heads, width]
    attend = _varlen if _has_varlen(query.device, query.dtype) else _in_blocks
    return attend(packing, scaling, *parts)[None], None


def _in_blocks(
    packing: Packing, scaling: float | None, query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """Blocks padded on the right, where causal attention keeps padding out of every real token."""
    blocks, repeats = packing.blocks, query.shape[1] // key.shape[1]
    if query.is_cuda:  # grouped heads would get the kernel that writes all scores to memory
        key, value = (part.repeat_interleave(repeats, dim=1) for part in (key, value))
    sizes = [sequences * longest for sequences, longest in blocks.shapes]
    split = [part.index_select(0, blocks.slots_M).split(sizes) for part in (query, key, value)]
    outputs = []
    for shape, *block in zip(blocks.shapes, *split, strict=True):
        block_query, block_key, block_value = (
            part.unflatten(0, shape).transpose(1, 2) for part in block
        )
        output = scaled_dot_product_attention(
            block_query,
            block_key,
            block_value,
            is_causal=True,
            scale=scaling,
            enable_gqa=block_query.shape[1] > block_key.shape[1],
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, blocks.kept_L)


def _varlen(
    packing: Packing, scaling: float | None, query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """Flash attention over sequences one after the other, without padding."""
    packed, longest = packing.packed, max(packing.packed.lengths)
    # else the pack itself is the sequences in order
    shared = len(packed.sequence_U) > packed.tokens
    if shared:
        query, key, value = (
            part.index_select(0, packed.sequence_U) for part in (query, key, value)
        )
    output = varlen_attn(
        query,
        key,
        value,
        packing.ends,
        packing.ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),  # causal
        **_GROUPED,
    )
    assert isinstance(output, Tensor)
    return output.index_select(0, packed.kept_L) if shared else output


def _has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    half = dtype in (torch.bfloat16, torch.float16)
    return half and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
