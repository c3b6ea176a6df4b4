"""A judge whose verdicts a test can foretell."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from rlrt.batch import Response, Verdict
from rlrt.reward.judge import JudgedResponse


class ScriptedJudge:
    """Takes responses as they end, in any order; a subclass says which of them are right."""

    def is_right(self, response: Response) -> bool:
        raise NotImplementedError

    @contextmanager
    def judging(self, answers: Sequence[Sequence[str]]) -> Iterator[Self]:
        self.taken: dict[int, Response] = {}
        yield self

    def take(self, index: int, response: Response) -> None:
        self.taken[index] = response

    def judged(self) -> list[JudgedResponse]:
        right = [self.is_right(self.taken[index]) for index in range(len(self.taken))]
        return [
            JudgedResponse("", Verdict.RIGHT if good else Verdict.WRONG, float(good))
            for good in right
        ]
