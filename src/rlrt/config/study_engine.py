"""A study's policy behind an engine: sampled and judged as in its training, with any weights of the run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.config.benchmarks import build_source
from rlrt.config.configuration import build, checked, compose
from rlrt.config.stored import StoredPolicy
from rlrt.config.study import Study
from rlrt.data.module import ProblemSource, fitting
from rlrt.engine.engine import Engine, EngineSpec, Sampling, engine_weights
from rlrt.engine.probe import sync_and_prove
from rlrt.errors import UserError
from rlrt.model.policy import Policy, score_responses
from rlrt.reward.judge import Judge
from rlrt.training.sampler import RolloutSettings, Sampler


@dataclass(frozen=True)
class StudyEngine:
    """An engine that serves ``study.policy``, with whatever weights it has been given last.

    ``seed`` is that of everything that is sampled here.
    """

    study: Study
    engine: Engine
    judge: Judge
    seed: int

    @property
    def policy(self) -> Policy:
        return self.study.policy

    @property
    def settings(self) -> RolloutSettings:
        """Those of the run, without what shapes rewards."""
        training = self.study.config.training
        return RolloutSettings(
            seed=self.seed,
            rollouts_per_problem=training.rollouts_per_problem,
            problems_per_update=1,
            temperature=self.study.temperature,
            max_response_tokens=training.max_response_tokens,
            max_model_tokens=self.study.max_model_tokens,
        )

    def serve(self, stored: StoredPolicy, problems: Sequence[Problem], step: int) -> None:
        """Take over the weights of ``stored``, sync them, and prove it on some problems.

        UserError where they are of another shape than the study's policy; StaleEngineError where the
        engine does not serve them.
        """
        weights = stored.load(self.policy.dtype).state_dict()
        try:
            self.policy.load_state_dict(weights)
        except RuntimeError as error:  # names or shapes that differ
            raise UserError(
                f"the weights of {stored.name} are of another shape than those of "
                f"{self.study.stored.name}: compare policies that grew from one model"
            ) from error
        sync_and_prove(
            self.engine,
            lambda: engine_weights(self.policy, self.policy.dtype),
            lambda prompts, responses: score_responses(
                self.policy, prompts, responses, self.study.temperature, self.study.token_budget
            )[0],
            (self.study.prompts.student_ids(problem.question) for problem in problems),
            Sampling(self.settings.max_response_tokens, self.study.temperature),
            self.seed,
            step,
            self.policy.dtype,
        )

    def rollouts(self, problems: Sequence[Problem], samples: int, step: int) -> list[Rollout]:
        """``samples`` judged rollouts of each problem, in one call; group g is ``problems[g]``.

        ``step`` only tells apart which random numbers are used.
        """
        settings = replace(self.settings, rollouts_per_problem=samples)
        sampler = Sampler(settings, self.engine, self.study.prompts, self.judge)
        groups = list(enumerate(problems))
        return sampler(groups, step, iter(()), lambda stage: nullcontext()).rollouts

    def continued(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        answers: Sequence[str],
        max_tokens: int,
        whole: Callable[[int, Response], Response],
    ) -> list[Verdict]:
        """Verdicts of ``whole(index, continuation)``, each decided while others are still sampled."""
        sampling = Sampling(max_tokens, self.study.temperature)
        with self.judge.judging(answers) as judging:

            def take(index: int, continuation: Response) -> None:
                judging.take(index, whole(index, continuation))

            self.engine.sample(prompts, seeds, sampling, take)
            return [judged.verdict for judged in judging.judged()]


@contextmanager
def started(
    study: Study, engine: str | None, max_model_tokens: int, seed: int
) -> Iterator[StudyEngine]:
    """The run's own engine, or the one that ``engine`` names, started for sequences so long.

    On the study's device and in its dtype. It serves nothing before ``serve``. UserError for lengths
    that the policy does not take.
    """
    if max_model_tokens > study.max_model_tokens:
        raise UserError(
            f"prompt, response and continuation may come to {max_model_tokens} tokens, and "
            f"{study.stored.name} takes {study.max_model_tokens}: allow a shorter continuation"
        )
    node = study.config.engine if engine is None else compose([f"engine={engine}"]).engine
    made: Engine = build(node)
    path = study.stored.local_folder()
    spec = EngineSpec(path, study.stop_token_ids, study.policy.dtype, max_model_tokens)
    with build(study.config.reward, flip_probability=0.0) as verifier:
        made.start(study.policy, spec)
        try:
            yield StudyEngine(study, made, Judge(study.tokenizer, verifier), seed)
        finally:
            made.close()


def held_out_problems(study: Study, count: int) -> list[Problem]:
    """The first ``count`` held-out problems of the run, or as many as there are, that fit its prompts."""
    source: ProblemSource = build_source(study.config.data)
    limit = study.config.training.max_prompt_tokens
    return list(fitting(checked(source.held_out), study.prompts, limit).problems[:count])
