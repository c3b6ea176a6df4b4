"""Engine × benchmark → avg@k and pass@k: the policy measured while it is trained."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field, PositiveInt

from rlrt import distributed
from rlrt.batch import Ids, Problem, Response, Verdict
from rlrt.engine.engine import Engine, OnFinished, Sampling
from rlrt.estimators import pass_at_k
from rlrt.reward.judge import Judge, JudgedResponse
from rlrt.seeds import derive_seed
from rlrt.validation import validated

SHOWN_COMPLETIONS = 16  # the first response to each of the first problems


def sample_and_judge(
    engine: Engine,
    prompts: Sequence[Ids],
    seeds: Sequence[int],
    answers: Sequence[Sequence[str]],
    sampling: Sampling,
    judge: Judge,
    on_response: OnFinished | None = None,
) -> list[tuple[Response, JudgedResponse]]:
    """One judged response per prompt, in order, in one call of the engine.

    Responses are judged while others are still sampled; ``on_response`` is called with the index of
    each and the response as soon as it has ended.
    """
    with judge.judging(answers) as judging:

        def finished(index: int, response: Response) -> None:
            if on_response is not None:
                on_response(index, response)
            judging.take(index, response)

        responses = engine.sample(prompts, seeds, sampling, finished)
        return list(zip(responses, judging.judged(), strict=True))


class Completion(NamedTuple):
    """A response to a held-out problem, to be read."""

    question: str
    answer: str
    response: str
    verdict: str


class Evaluation(NamedTuple):
    """The metrics of all ranks, and some of this rank's completions."""

    metrics: dict[str, float]
    completions: list[Completion]


class _Sample(NamedTuple):
    """What the metrics need of a response, on its way between ranks."""

    problem: int
    verdict: Verdict
    tokens: int
    truncated: bool


class Evaluator:
    """Asks every problem ``samples`` times and measures what came back.

    ``every_n_steps`` null evaluates only before the first rollout step and after the last;
    ``max_problems`` takes the first so many problems of the benchmark.
    """

    @validated("evaluation")
    def __init__(
        self,
        samples: PositiveInt = 8,
        pass_at: Sequence[int] = (1, 8),
        every_n_steps: Annotated[
            PositiveInt | None, Field(description="it must be null or >= 1")
        ] = 10,
        max_problems: Annotated[
            PositiveInt | None, Field(description="it must be null or >= 1")
        ] = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> None:
        if any(not 1 <= k <= samples for k in pass_at):
            raise ValueError(
                f"evaluation.pass_at is {list(pass_at)}, every k must lie in [1, {samples}] "
                "(evaluation.samples)"
            )
        Sampling(1, temperature, top_p)  # refuses values out of range
        self.samples = samples
        self.pass_at = tuple(pass_at)
        self.every_n_steps = every_n_steps
        self.max_problems = max_problems
        self.temperature = temperature
        self.top_p = top_p

    def due(self, step: int) -> bool:
        """Whether to evaluate the policy before rollout step ``step``."""
        return step == 0 or (self.every_n_steps is not None and step % self.every_n_steps == 0)

    def __call__(
        self,
        engine: Engine,
        problems: Sequence[Problem],
        prompt_ids: Sequence[Ids],
        judge: Judge,
        max_response_tokens: int,
        seed: int,
    ) -> Evaluation:
        """Metrics of the engine's current weights; the same seed asks with the same random numbers.

        Every rank asks an equal share of the problems, and every rank returns the metrics of all.
        """
        # problems go to the ranks in turn; seeds name the problem, so that no score depends on the ranks
        own = range(distributed.get_rank(), len(problems), distributed.get_world_size())
        requests = [(problem, sample) for problem in own for sample in range(self.samples)]
        answered = sample_and_judge(
            engine,
            [prompt_ids[problem] for problem, _ in requests],
            [derive_seed(seed, "evaluation", problem, sample) for problem, sample in requests],
            [problems[problem].accepted_answers for problem, _ in requests],
            Sampling(max_response_tokens, self.temperature, self.top_p),
            judge,
        )
        measured = [
            _Sample(problem, judged.verdict, len(response.ids), response.truncated)
            for (problem, _), (response, judged) in zip(requests, answered, strict=True)
        ]
        all_samples = [one for part in distributed.all_gather_object(measured) for one in part]
        metrics = self._metrics(sorted(all_samples, key=lambda sample: sample.problem))
        completions = [
            Completion(
                problems[problem].question, problems[problem].answer, judged.text, judged.verdict
            )
            for (problem, sample), (_, judged) in zip(requests, answered, strict=True)
            if sample == 0
        ]
        return Evaluation(metrics, completions[:SHOWN_COMPLETIONS])

    def _metrics(self, samples: Sequence[_Sample]) -> dict[str, float]:
        """Metrics of all samples, problem after problem; an undecided response counts as wrong."""
        right_P = [
            sum(one.verdict is Verdict.RIGHT for one in samples[first : first + self.samples])
            for first in range(0, len(samples), self.samples)
        ]
        passes = {k: [pass_at_k(self.samples, right, k) for right in right_P] for k in self.pass_at}
        return {
            f"avg@{self.samples}": sum(right_P) / len(samples),
            **{f"pass@{k}": sum(each) / len(right_P) for k, each in passes.items()},
            "response_tokens_mean": sum(s.tokens for s in samples) / len(samples),
            "truncated": sum(s.truncated for s in samples) / len(samples),
            "undecided": sum(s.verdict is Verdict.UNDECIDED for s in samples) / len(samples),
        }
