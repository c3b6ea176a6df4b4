"""All responses of an evaluation in one call of the engine, judged while others are still sampled."""

from collections.abc import Sequence

from rlrt.batch import Response
from rlrt.reward.judge import Judge, JudgedResponse


def judge_again(
    responses: Sequence[Response], answers: Sequence[str], judge: Judge
) -> list[JudgedResponse]:
    """What the judge says of responses that were sampled before."""
    with judge.judging(answers) as judging:
        for index, response in enumerate(responses):
            judging.take(index, response)
        return judging.judged()
