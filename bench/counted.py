"""Counted operations of a workload: the least that its passes have to do.

A prompt that several sequences share is read once, its attention too.
"""

from collections.abc import Sequence

from transformers import PreTrainedModel

from rlrt.training.performance import BACKWARD, Shape, causal_pairs

Ids = Sequence[int]


def forward_flops(
    policy: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids]
) -> float:
    """Of reading these responses given these prompts."""
    return Shape.from_config(policy.config).forward(*_read(prompts, responses))


def update_flops(
    policy: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids]
) -> float:
    """Of a forward and a backward; what is computed twice to save memory counts once."""
    return (1 + BACKWARD) * forward_flops(policy, prompts, responses)


def attention_share(
    policy: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids]
) -> float:
    """The part of the forward that grows with the square of the length."""
    shape = Shape.from_config(policy.config)
    tokens, head_tokens, pairs = _read(prompts, responses)
    return shape.forward(0, 0, pairs) / shape.forward(tokens, head_tokens, pairs)


def _read(prompts: Sequence[Ids], responses: Sequence[Ids]) -> tuple[int, int, int]:
    """Tokens through the layers, through the head, and pairs of positions in attention."""
    lengths_of: dict[tuple[int, ...], list[int]] = {}
    for prompt, response in zip(prompts, responses, strict=True):
        lengths_of.setdefault(tuple(prompt), []).append(len(response))
    tokens = sum(len(prompt) + sum(lengths) for prompt, lengths in lengths_of.items())
    pairs = sum(
        causal_pairs([len(prompt)]) + causal_pairs(lengths, before=len(prompt))
        for prompt, lengths in lengths_of.items()
    )
    return tokens, sum(map(sum, lengths_of.values())), pairs
