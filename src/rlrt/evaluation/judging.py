"""From sampled ids to a verdict and a reward."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rlrt.batch import Response, Verdict
from rlrt.reward.verifier import Verifier


@dataclass(frozen=True)
class Judged:
    """A response's text without special tokens, what the verifier says of it, and what it earns."""

    text: str
    verdict: Verdict
    reward: float


class Judge:
    """Decodes responses and asks the verifier; training and evaluation judge alike."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, verifier: Verifier) -> None:
        self.tokenizer = tokenizer
        self.verifier = verifier

    def __call__(self, responses: Sequence[Response], answers: Sequence[str]) -> list[Judged]:
        """One entry per response, in order; ``answers`` are the ground truth beside each."""
        texts = self.tokenizer.batch_decode(
            [list(response.ids) for response in responses], skip_special_tokens=True
        )
        judgements = self.verifier.grade(texts, answers)
        return [
            Judged(text, judgement.verdict, judgement.reward)
            for text, judgement in zip(texts, judgements, strict=True)
        ]
