"""Model FLOPs of a decoder, counted: what its matrix products must do, whatever else is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BACKWARD = 2.0  # in forwards: one product for the gradient of the input, one for that of the weight


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder with grouped-query attention and a gated MLP (Llama, Qwen2, Qwen3)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """The shape from a transformers configuration."""
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=config.vocab_size,
        )

    @property
    def layer_parameters(self) -> int:
        """Parameters in the matrices of one layer: q, k, v, o, and the three of the MLP."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    def forward(self, tokens: float, head_tokens: float, pairs: float) -> float:
        """FLOPs of a forward of ``tokens`` through the layers and ``head_tokens`` through the head:

            2 · P_layers · tokens + 2 · V · H · head_tokens + 4 · layers · heads · head_dim · pairs

        (PaLM, arXiv:2204.02311, appendix B, which counts forward and backward together and every
        pair of positions). ``pairs`` are those that causal attention looks at, each q · k and
        weight · v of one head once: two products of ``head_dim``. A multiply-add counts as 2;
        norms, softmax and the embedding's lookup count as nothing. A backward costs ``BACKWARD``
        forwards; what checkpointing or the fused head compute again is no model FLOP.
        """
        layers = 2 * self.layers * self.layer_parameters * tokens
        head = 2 * self.vocabulary * self.hidden * head_tokens
        attention = 4 * self.layers * self.heads * self.head_dim * pairs
        return float(layers + head + attention)


def causal_pairs(lengths: Sequence[int], before: int = 0) -> int:
    """Pairs of a query and a key at or before it, of sequences behind ``before`` shared tokens.

    The pairs within the shared tokens themselves are not in it.
    """
    return sum(length * before + length * (length + 1) // 2 for length in lengths)
