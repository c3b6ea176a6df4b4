"""From sampled ids to a verdict and a reward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rlrt.batch import Response, Verdict
from rlrt.reward.verifier import Grading, Judgement, Verifier


@dataclass(frozen=True)
class Judged:
    """A response's text without special tokens, what the verifier says of it, and what it earns."""

    text: str
    verdict: Verdict
    reward: float
    failed: bool = False  # undecided since the verifier raised an error


class Judge:
    """Decodes responses and asks the verifier; training and evaluation judge alike."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, verifier: Verifier) -> None:
        self.tokenizer = tokenizer
        self.verifier = verifier

    @contextmanager
    def judging(self, answers: Sequence[str]) -> Iterator["Judging"]:
        """Takes the responses of one call of the engine as they end; ``answers`` are the ground truth.

        The verifier's workers decide while the engine goes on. However it is left, nothing of it
        stays behind, after at most the time limit of the answers being decided.
        """
        with self.verifier.grading() as grading:
            yield Judging(self.tokenizer, grading, answers)


class Judging:
    """The responses of one call of the engine on their way to their verdicts."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, grading: Grading, answers: Sequence[str]
    ) -> None:
        self._tokenizer = tokenizer
        self._grading = grading
        self._answers = answers
        self._taken: dict[int, tuple[str, Callable[[], Judgement]]] = {}

    def take(self, index: int, response: Response) -> None:
        """Response ``index`` has ended; each is handed in once, in any order, without waiting."""
        assert index not in self._taken, index
        text = self._tokenizer.decode(response.ids, skip_special_tokens=True)
        self._taken[index] = text, self._grading.ask(text, self._answers[index])

    def judged(self) -> list[Judged]:
        """Waits for all verdicts; one entry per response, in order.

        RunStoppedError if no worker of the verifier can be started.
        """
        found = []
        for index in range(len(self._answers)):
            text, judgement_of = self._taken[index]
            judgement = judgement_of()
            found.append(Judged(text, judgement.verdict, judgement.reward, judgement.failed))
        return found
