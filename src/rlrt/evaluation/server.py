"""The engine of an evaluation, started where something has to be sampled, and the progress of sampling."""

import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from omegaconf import OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rlrt.batch import Response
from rlrt.config.command_line import console, print_once
from rlrt.engine.engine import Engine, Sampling, engine_weights
from rlrt.engine.probe import sync_and_prove
from rlrt.evaluation.plan import Plan
from rlrt.model.policy import Policy, score_responses

TOKEN_BUDGET = 8192  # of a pass of the probe


class EngineServer:
    """Serves one policy after the other.

    Policies of one shape share an engine, since starting one takes minutes: it receives the new weights,
    and a probe proves that it samples with them.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._policy: Policy | None = None
        self._served: Plan | None = None

    def serve(self, plan: Plan, probed: Sequence[Sequence[int]]) -> Engine:
        """The engine with the plan's policy; ``probed`` are prompts for the probe.

        UserError where the weights do not load, StaleEngineError where the engine keeps other weights.
        """
        if self._engine is not None and self._served is plan:
            return self._engine
        began = time.perf_counter()
        policy = plan.stored.load(plan.spec.dtype).eval()
        fits = self._served is not None and _kind(self._served) == _kind(plan)
        if self._engine is not None and self._policy is not None and fits:
            self._policy.load_state_dict(policy.state_dict())
        else:
            self.close()
            self._policy = Policy(policy.to(plan.settings.device))
            plan.engine.start(self._policy, plan.spec)
            self._engine = plan.engine
        del policy
        gap = self._sync(plan, probed)
        self._served = plan
        print_once(
            f"{plan.stored.name}: {type(self._engine).__name__} ready after "
            f"{time.perf_counter() - began:.1f} s, log-prob gap {gap:.1e}"
        )
        return self._engine

    def _sync(self, plan: Plan, probed: Sequence[Sequence[int]]) -> float:
        assert self._engine is not None
        assert self._policy is not None
        # greedy sampling (temperature 0) has no log-probs to compare: prove the sync at 1
        policy, temperature = self._policy, plan.sampling.temperature or 1.0
        synced = sync_and_prove(
            self._engine,
            lambda: engine_weights(policy, plan.spec.dtype),
            lambda prompts, responses: score_responses(
                policy, prompts, responses, temperature, TOKEN_BUDGET
            )[0],
            probed,
            Sampling(plan.sampling.max_response_tokens, temperature),
            plan.settings.seed,
            0,
            plan.spec.dtype,
        )
        return synced["sync/logprob_gap"]

    def close(self) -> None:
        """Free the engine and the policy."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._policy = self._served = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _kind(plan: Plan) -> str:
    """Equal for plans that one engine can serve if only its weights are exchanged."""
    shape = {k: v for k, v in plan.shape.to_dict().items() if k != "_name_or_path"}
    rest = [plan.spec.stop_token_ids, str(plan.spec.dtype), plan.spec.max_model_tokens]
    settings = OmegaConf.to_container(plan.config.engine, resolve=True)
    return json.dumps([shape, rest, settings], sort_keys=True, default=str)


@contextmanager
def count_responses(name: str, total: int) -> Iterator[Callable[[Response], None]]:
    """A function that counts responses as they end: a bar on a terminal, and one line at the end."""
    bar = Progress(
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tokens]} tokens"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task(name, total=total, tokens=0)
    tokens = 0

    def count(response: Response) -> None:
        nonlocal tokens
        tokens += len(response.ids)
        bar.update(task, advance=1, tokens=tokens)

    began = time.perf_counter()
    with bar:
        yield count
    seconds = time.perf_counter() - began
    print_once(
        f"{name}: {total} responses and their verdicts in {seconds:.1f} s, "
        f"{tokens / seconds:.0f} tokens/s"
    )
