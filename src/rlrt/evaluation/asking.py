"""All responses of an evaluation in one call of the engine, judged while others are still sampled."""

from collections.abc import Sequence

from rlrt.batch import Ids, Response
from rlrt.engine.engine import Engine, OnFinished, Sampling
from rlrt.reward.judge import Judge, JudgedResponse


def unkept(index: int, response: Response) -> None:
    """For responses that nobody has to keep."""


def ask(
    engine: Engine,
    prompts: Sequence[Ids],
    seeds: Sequence[int],
    answers: Sequence[str],
    sampling: Sampling,
    judge: Judge,
    keep: OnFinished = unkept,
) -> list[tuple[Response, JudgedResponse]]:
    """One judged response per prompt, in order; ``keep`` is told of each as soon as it has ended."""
    with judge.judging(answers) as judging:

        def finished(index: int, response: Response) -> None:
            keep(index, response)
            judging.take(index, response)

        responses = engine.sample(prompts, seeds, sampling, finished)
        return list(zip(responses, judging.judged(), strict=True))


def judge_again(
    responses: Sequence[Response], answers: Sequence[str], judge: Judge
) -> list[JudgedResponse]:
    """What the judge says of responses that were sampled before."""
    with judge.judging(answers) as judging:
        for index, response in enumerate(responses):
            judging.take(index, response)
        return judging.judged()
