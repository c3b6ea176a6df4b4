"""A run read back for its analyses: its policy, both its views, its records, and an engine that serves it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from transformers import PreTrainedTokenizerBase

from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.config.compose import build, compose, user_errors
from rlrt.config.problem_sets import build_source
from rlrt.config.stored_policies import StoredPolicy, find_policy, read_config
from rlrt.context.context import Context
from rlrt.data.module import ProblemSource, fitting
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine, EngineSpec, Sampling, engine_weights
from rlrt.engine.probe import sync_and_prove
from rlrt.errors import UserError
from rlrt.model.load import load_config, load_tokenizer, stop_token_ids
from rlrt.model.policy import Policy, score_responses
from rlrt.reward.judge import Judge
from rlrt.training.sampler import RolloutSettings, Sampler
from rlrt.training.scoring import render_teacher_prompts

CHECKED_ROWS = 32  # whose ids are decoded to know the tokenizer


@dataclass(frozen=True)
class LoadedRun:
    """One run and one policy to look at it with: the run's own last one, or another."""

    folder: Path
    config: DictConfig
    stored: StoredPolicy
    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    context: Context | None
    max_model_tokens: int

    @property
    def temperature(self) -> float:
        """At which the run's responses were sampled, and its views are read."""
        return float(self.config.training.temperature)

    @property
    def token_budget(self) -> int:
        """Tokens of a pass."""
        return int(self.config.training.token_budget)

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Ids that end a response; read from files once."""
        path = self.stored.local_folder()
        with user_errors():
            return stop_token_ids(path, self.tokenizer)

    def teacher_prompts(
        self, rollouts: Sequence[Rollout], step: int
    ) -> list[tuple[int, ...] | None]:
        """The teacher view's prompt of each rollout; None where its context shows nothing.

        ``rollouts`` hold whole groups, of rollout step ``step``. UserError without a context.
        """
        if self.context is None:
            raise UserError(
                f"{self.folder} was trained without a teacher: name the context that the teacher "
                "view is to have, such as --context correct_peer"
            )
        demonstrations = self.context(rollouts, step)
        every = torch.ones(len(rollouts), dtype=torch.bool)
        prompts, _ = render_teacher_prompts(
            rollouts, demonstrations, every, self.prompts, self.max_model_tokens
        )
        return list(prompts)

    def require_tokenizer(self, rollouts: Sequence[Rollout]) -> None:
        """UserError where the records were written with another tokenizer than the policy's."""
        for rollout in rollouts[:CHECKED_ROWS]:
            ids = np.array([*rollout.prompt_ids, *rollout.response.ids])
            if (
                ids.max(initial=0) >= len(self.tokenizer)
                or self.tokenizer.decode(rollout.response.ids, skip_special_tokens=True)
                != rollout.text
                or self.prompts.student_ids(rollout.problem.question, rollout.problem.preceding)
                != rollout.prompt_ids
            ):
                raise UserError(
                    f"the tokenizer of {self.stored.name} is not the one that the records of "
                    f"{self.folder} were written with: choose a policy with the same tokenizer and "
                    "prompts"
                )


@user_errors()
def load_run(folder: Path, model: str | None = None, context: str | None = None) -> LoadedRun:
    """A run folder with its policy, or with ``model``'s; ``context`` takes the place of the run's.

    The policy is read in float32 on the CPU, or in bfloat16 on the GPU where there is one.
    ``context`` names a file of configs/context. UserError where something is not there.
    """
    config = read_config(folder)
    stored = find_policy(str(folder) if model is None else model, "--model")
    path = stored.local_folder()
    tokenizer = load_tokenizer(path)
    settings = {k: v for k, v in config.prompts.items() if not str(k).startswith("_")}
    context_settings = config.get("context")
    if context is not None:
        context_settings = compose(["credit=rlrt", f"context={context}"]).context
    return LoadedRun(
        folder,
        config,
        stored,
        load_on_device(stored),
        tokenizer,
        Prompts(tokenizer, **settings),
        build(context_settings),
        load_config(path).max_position_embeddings,
    )


def load_on_device(stored: StoredPolicy) -> Policy:
    """The policy where it is read fastest: on the GPU in bfloat16, else on the CPU in float32."""
    if torch.cuda.is_available():
        return Policy(stored.load(torch.bfloat16).to("cuda").eval())
    return Policy(stored.load(torch.float32).eval())


@dataclass(frozen=True)
class RunEngine:
    """An engine that serves ``loaded.policy``, with whatever weights it has been given last.

    ``seed`` is that of everything that is sampled here.
    """

    loaded: LoadedRun
    engine: Engine
    judge: Judge
    seed: int

    @property
    def policy(self) -> Policy:
        return self.loaded.policy

    def serve(self, stored: StoredPolicy, problems: Sequence[Problem], step: int) -> None:
        """Take over the weights of ``stored``, sync them, and prove it on some problems.

        UserError where they are of another shape than the run's policy; StaleEngineError where the
        engine does not serve them.
        """
        training = self.loaded.config.training
        weights = stored.load(self.policy.dtype).state_dict()
        try:
            self.policy.load_state_dict(weights)
        except RuntimeError as error:  # names or shapes that differ
            raise UserError(
                f"the weights of {stored.name} are of another shape than those of "
                f"{self.loaded.stored.name}: compare policies that grew from one model"
            ) from error
        sync_and_prove(
            self.engine,
            lambda: engine_weights(self.policy, self.policy.dtype),
            lambda prompts, responses: score_responses(
                self.policy, prompts, responses, self.loaded.temperature, self.loaded.token_budget
            )[0],
            (
                self.loaded.prompts.student_ids(problem.question, problem.preceding)
                for problem in problems
            ),
            Sampling(training.max_response_tokens, self.loaded.temperature),
            self.seed,
            step,
            self.policy.dtype,
        )

    def rollouts(self, problems: Sequence[Problem], samples: int, step: int) -> list[Rollout]:
        """``samples`` judged rollouts of each problem, in one call; group g is ``problems[g]``.

        ``step`` only tells apart which random numbers are used. As in the run's training, but for what
        shapes rewards.
        """
        settings = RolloutSettings(
            seed=self.seed,
            rollouts_per_problem=samples,
            problems_per_update=1,
            temperature=self.loaded.temperature,
            max_response_tokens=self.loaded.config.training.max_response_tokens,
            max_model_tokens=self.loaded.max_model_tokens,
        )
        sampler = Sampler(settings, self.engine, self.loaded.prompts, self.judge)
        groups = list(enumerate(problems))
        return sampler(groups, step, iter(()), lambda stage: nullcontext()).rollouts

    def judge_continuations(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        answers: Sequence[Sequence[str]],
        max_tokens: int,
        complete: Callable[[int, Response], Response],
    ) -> list[Verdict]:
        """Verdicts of ``complete(index, continuation)``, each decided while others are still sampled."""
        sampling = Sampling(max_tokens, self.loaded.temperature)
        with self.judge.judging(answers) as judging:

            def take(index: int, continuation: Response) -> None:
                judging.take(index, complete(index, continuation))

            self.engine.sample(prompts, seeds, sampling, take)
            return [judged.verdict for judged in judging.judged()]


@contextmanager
def running_engine(
    loaded: LoadedRun, engine_name: str | None, max_model_tokens: int, seed: int
) -> Iterator[RunEngine]:
    """The run's own engine, or the one that ``engine_name`` names, started for sequences so long.

    On the run's device and in its dtype. It serves nothing before ``serve``. UserError for lengths
    that the policy does not take.
    """
    if max_model_tokens > loaded.max_model_tokens:
        raise UserError(
            f"prompt, response and continuation may come to {max_model_tokens} tokens, and "
            f"{loaded.stored.name} takes {loaded.max_model_tokens}: allow a shorter continuation"
        )
    config = loaded.config if engine_name is None else compose([f"engine={engine_name}"])
    engine: Engine = build(config.engine)
    path = loaded.stored.local_folder()
    spec = EngineSpec(path, loaded.stop_token_ids, loaded.policy.dtype, max_model_tokens)
    with build(loaded.config.reward, flip_probability=0.0) as verifier:
        engine.start(loaded.policy, spec)
        try:
            yield RunEngine(loaded, engine, Judge(loaded.tokenizer, verifier), seed)
        finally:
            engine.close()


@user_errors()
def held_out_problems(loaded: LoadedRun, count: int) -> list[Problem]:
    """The first ``count`` held-out problems of the run, or as many as there are, that fit its prompts."""
    source: ProblemSource = build_source(loaded.config.data)
    limit = loaded.config.training.max_prompt_tokens
    return list(fitting(source.held_out(), loaded.prompts, limit).problems[:count])
