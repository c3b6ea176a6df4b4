"""From sampled ids to a verdict and a reward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rlrt.batch import Response, Verdict
from rlrt.reward.verifier import Grade, Grading, Verifier


@dataclass(frozen=True)
class JudgedResponse:
    """A response's text without special tokens, its verdict, and the reward that it earns."""

    text: str
    verdict: Verdict
    reward: float
    failed: bool = False  # undecided because the verifier itself raised an error


class Judge:
    """Decodes responses and asks the verifier; training and evaluation judge alike."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, verifier: Verifier) -> None:
        self.tokenizer = tokenizer
        self.verifier = verifier

    @contextmanager
    def judging(self, answers: Sequence[Sequence[str]]) -> Iterator["Judging"]:
        """Takes the responses of one call of the engine as they end; ``answers`` are accepted for each.

        The verifier's workers decide while the engine goes on. However it is left, nothing of it
        stays behind, after at most the time limit of the answers being decided.
        """
        with self.verifier.grading() as grading:
            yield Judging(self.tokenizer, grading, answers)


class Judging:
    """The responses of one call of the engine on their way to their verdicts."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, grading: Grading, answers: Sequence[Sequence[str]]
    ) -> None:
        self._tokenizer = tokenizer
        self._grading = grading
        self._answers = answers
        self._taken: dict[int, tuple[str, Callable[[], Grade]]] = {}

    def take(self, index: int, response: Response) -> None:
        """Response ``index`` has ended; each is handed in once, in any order, without waiting."""
        assert index not in self._taken, index
        text = self._tokenizer.decode(response.ids, skip_special_tokens=True)
        self._taken[index] = text, self._grading.ask(text, self._answers[index])

    def judged(self) -> list[JudgedResponse]:
        """Waits for all verdicts; one entry per response, in order.

        RunStoppedError if no worker of the verifier can be started.
        """
        judged = []
        for index in range(len(self._answers)):
            text, wait_for_grade = self._taken[index]
            grade = wait_for_grade()
            judged.append(JudgedResponse(text, grade.verdict, grade.reward, grade.failed))
        return judged
