"""What every part of the benchmark works on: model shapes and rollouts, drawn from a seed.

Lengths are those of real runs in shape: log-normal, and the tenth that would be longer is cut at the
limit. They are its quantiles in a random order, so that another seed moves them and not their sum.
"""

import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from rlrt.data.prompts import Prompts
from rlrt.model.load import load_tokenizer

Ids = tuple[int, ...]
# its tokenizer serves all shapes
TINY = str(Path(__file__).resolve().parents[1] / "models" / "tiny")
CUT = 0.1  # share of responses at the limit
SPREAD = 0.7  # of the logarithm of lengths: the limit is 2.5 times the median
CONTEXT = 32_768  # tokens that a position may have


@dataclass(frozen=True)
class Shape:
    """A Qwen3 with random weights."""

    name: str
    vocabulary: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool = True
    spread: float = 0.02  # of the random weights

    def config(self) -> Qwen3Config:
        """As transformers takes it."""
        return Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=self.tied,
            initializer_range=self.spread,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
        )

    def policy(self, device: str = "cpu") -> PreTrainedModel:
        """The same float32 weights at every call."""
        torch.manual_seed(0)
        with torch.device(device):
            return Qwen3ForCausalLM(self.config()).train()


TOY = Shape("toy", 512, 64, 128, 2, 2, 1, 32)
SHAPES = {
    shape.name: shape
    for shape in (
        TOY,
        Shape("tiny", 427, 128, 352, 4, 4, 2, 32),  # models/tiny
        Shape("small", 8192, 256, 768, 4, 4, 2, 64),
        Shape("medium", 32_768, 512, 1536, 8, 8, 4, 64),
        # the published shapes of the Qwen3 technical report (arXiv:2505.09388)
        Shape("qwen3_0.6b", 151_936, 1024, 3072, 28, 16, 8, 128),
        Shape("qwen3_1.7b", 151_936, 2048, 6144, 28, 16, 8, 128),
        Shape("qwen3_4b", 151_936, 2560, 9728, 36, 32, 8, 128),
    )
}


@dataclass(frozen=True)
class Workload:
    """Rollouts of a step, group after group, as plain data that either side can read."""

    samples: int  # rollouts to a group
    limit: int  # response tokens
    questions: tuple[str, ...]
    prompts: tuple[Ids, ...]
    responses: tuple[Ids, ...]
    texts: tuple[str, ...]
    rewards: tuple[float, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and the longest response: a row of a batch that pads all."""
        return max(map(len, self.prompts)) + max(map(len, self.responses))

    @property
    def with_signal(self) -> list[int]:
        """Rollouts of groups whose rewards differ."""
        groups = [
            self.rewards[i : i + self.samples] for i in range(0, len(self.rewards), self.samples)
        ]
        return [
            row for row in range(len(self.rewards)) if len(set(groups[row // self.samples])) > 1
        ]

    @property
    def response_tokens(self) -> int:
        """Of all rollouts, whatever is skipped or padded."""
        return sum(map(len, self.responses))

    def described(self) -> dict[str, float]:
        """What the JSON says of it."""
        lengths = sorted(map(len, self.responses))
        return {
            "rollouts": len(lengths),
            "samples": self.samples,
            "limit": self.limit,
            "response_tokens": sum(lengths),
            "prompt_tokens": sum(map(len, self.prompts)),
            "median_length": lengths[len(lengths) // 2],
            "longest_row": self.longest,
        }


def uneven_lengths(count: int, limit: int, seed: int = 0) -> list[int]:
    """Log-normal lengths with a tenth at ``limit``."""
    normal = NormalDist()
    median = math.log(limit) - SPREAD * normal.inv_cdf(1 - CUT)
    quantiles = [normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    lengths = [min(limit, max(1, round(math.exp(median + SPREAD * q)))) for q in quantiles]
    random.Random(seed).shuffle(lengths)
    return lengths


def rewards_of(groups: int, samples: int, zero_signal: float) -> list[float]:
    """Half of each group is right; a share of groups, spread evenly, is all right or all wrong."""
    silent = (
        {round(i / zero_signal) for i in range(round(groups * zero_signal))} if zero_signal else ()
    )
    return [
        float(group // 2 % 2 if group in silent else sample % 2)
        for group in range(groups)
        for sample in range(samples)
    ]


def draw(
    groups: int,
    samples: int,
    limit: int,
    zero_signal: float = 0.0,
    lengths: list[int] | None = None,
    seed: int = 0,
) -> Workload:
    """Rollouts of text about sums; ``lengths`` None draws uneven ones."""
    tokenizer = load_tokenizer(TINY)
    prompts, numbers = Prompts(tokenizer), random.Random(seed)
    sums = [sum_of(numbers, 2 + group % 7) for group in range(groups)]
    questions = [f"What is {question}?" for question in sums for _ in range(samples)]
    lengths = lengths or uneven_lengths(groups * samples, limit, seed)
    words = " ".join(f"{sum_of(numbers, 3)} = {numbers.randint(1, 99)}." for _ in range(limit // 4))
    stream = tokenizer(words, add_special_tokens=False)["input_ids"]
    while len(stream) < 2 * limit:
        stream = stream * 2
    starts = [numbers.randrange(len(stream) - length + 1) for length in lengths]
    responses = tuple(
        tuple(stream[start : start + length]) for start, length in zip(starts, lengths, strict=True)
    )
    return Workload(
        samples=samples,
        limit=limit,
        questions=tuple(questions),
        prompts=tuple(prompts.student_ids(question) for question in questions),
        responses=responses,
        texts=tuple(tokenizer.batch_decode([list(ids) for ids in responses])),
        rewards=tuple(rewards_of(groups, samples, zero_signal)),
    )


def sum_of(numbers: random.Random, terms: int) -> str:
    """``3 + 14 + 5``."""
    return " + ".join(str(numbers.randint(1, 20)) for _ in range(terms))


def described(shape: Shape) -> dict[str, object]:
    """What the JSON says of a shape."""
    return asdict(shape)
