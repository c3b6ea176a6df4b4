"""One rollout step with nothing but its host work; ``python host_step.py PROBLEMS SAMPLES LIMIT BUDGET``.

The project's own callback, module, prompts, verifier and records, RLRT with correct peers as contexts.
Stubs stand for what a card does: the engine's decoding, and the policy's layers and head. Prints JSON:
the work, and seconds (by the clock, and of this process's cores) and peak GiB above the start of every
stage. "stub" is what the stubs take themselves.
"""

import json
import random
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from ours import quiet
from torch import Tensor
from workload import TINY, TOY, Ids, sum_of, uneven_lengths

import rlrt.model.policy
from rlrt.batch import Problem, ProblemSet, Response
from rlrt.context.correct_peer import CorrectPeer
from rlrt.credit.rlrt import RLRT
from rlrt.data.module import ProblemDataModule, fitting
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import EngineSpec, OnFinished, Sampling
from rlrt.engine.vllm_engine import response_of
from rlrt.loss.objective import Aggregation, Objective
from rlrt.loss.policy_loss import ClippedSurrogate
from rlrt.model.load import load_tokenizer
from rlrt.model.packed_attention import Packing
from rlrt.model.packing import Packed
from rlrt.model.teacher import Live
from rlrt.reward.judge import Judge, Judging
from rlrt.reward.verifier import Verifier
from rlrt.training import rollouts as steps
from rlrt.training.evaluator import Evaluator
from rlrt.training.module import PolicyModule, UpdateOutcome
from rlrt.training.optimization import Optimization
from rlrt.training.sampler import RolloutSettings, Sampler
from rlrt.training.updates import Update

SHARED = Path(__file__).resolve().parents[2] / "shared"
ANSWERS = SHARED / "grader_cases" / "d1_llada_math500.jsonl"
QUESTIONS = SHARED / "data" / "dapo_math_17k.jsonl"
MODEL_TOKENS = 32_768
GIB = 2**30
PAGE = 4096
EVERY_S = 0.005  # the resident set is looked at


class Stages:
    """Seconds, seconds of this process's cores, and peak resident bytes of what is going on.

    An inner stage is not counted in the outer.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.names = ["other"]
        self.start = resident()
        self.since, self.cpu_since = time.perf_counter(), time.process_time()
        self.over = threading.Event()
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()

    def _watch(self) -> None:
        while not self.over.wait(EVERY_S):
            name = self.names[-1]
            self.peaks[name] = max(self.peaks.get(name, 0), resident())

    def _turn(self) -> None:
        now, cpu, name = time.perf_counter(), time.process_time(), self.names[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.since
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + cpu - self.cpu_since
        self.peaks[name] = max(self.peaks.get(name, 0), resident())
        self.since, self.cpu_since = now, cpu

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """What happens inside is this stage's."""
        self._turn()
        self.names.append(name)
        try:
            yield
        finally:
            self._turn()
            self.names.pop()

    def counted(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function as a stage of its own."""

        def timed(*given: Any, **named: Any) -> Any:
            with self.of(name):
                return work(*given, **named)

        return timed

    def measurements(self) -> dict[str, dict[str, float]]:
        """Of each stage, in the order in which they came."""
        self._turn()
        self.over.set()
        self.watch.join()
        return {
            name: {
                "seconds": spent,
                "cpu_s": self.cpu_s[name],
                "gib": (self.peaks[name] - self.start) / GIB,
            }
            for name, spent in self.seconds.items()
        }


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Decoded:
    """An engine that has its responses ready and hands them out as vLLM does, the short ones first."""

    max_logprob_gap = None

    def __init__(self, responses: Sequence[Ids], limit: int, stages: Stages) -> None:
        self.responses = responses
        self.limit = limit
        self.stages = stages

    def start(self, policy: Any, spec: EngineSpec) -> None:
        """Ready."""

    def sleep(self) -> None:
        """Holds nothing."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_finished: OnFinished,
    ) -> list[Response]:
        """One response per prompt, in order."""
        assert len(prompts) == len(self.responses)
        finished: dict[int, Response] = {}
        for index in sorted(range(len(prompts)), key=lambda row: len(self.responses[row])):
            with self.stages.of("stub"):
                output = self._output(self.responses[index])
            finished[index] = response_of(output)
            on_finished(index, finished[index])
        return [finished[index] for index in range(len(prompts))]

    def _output(self, ids: Ids) -> Any:
        """As vLLM's: lists of Python numbers, one log-prob a token."""
        logprobs = logprobs_of(torch.tensor(ids)).tolist()
        flat = SimpleNamespace(
            token_ids=list(ids), logprobs=logprobs, start_indices=list(range(len(ids)))
        )
        reason = "length" if len(ids) >= self.limit else "stop"
        return SimpleNamespace(token_ids=list(ids), logprobs=flat, finish_reason=reason)


def logprobs_of(ids: Tensor) -> Tensor:
    """Some number from a token."""
    return -(ids % 7).float() / 5


class HostStep(steps.RolloutCallback):
    """The project's step without weights to send."""

    def sync(self, *_: Any) -> None:
        """The engine has none."""

    def evaluate(self, *_: Any) -> None:
        """Not a part of the step."""


class HostModule(PolicyModule):
    """The project's module; an update is a stage."""

    stages: Stages

    def training_step(self, update: Update, index: int) -> UpdateOutcome:
        with self.stages.of("updates"):
            return super().training_step(update, index)


def work_of(problems: int, samples: int, limit: int) -> tuple[list[Problem], list[Ids], str]:
    """Problems, their responses of uneven lengths that end in real answers, and whose answers.

    Every other response of a group answers another problem.
    """
    numbers, tokenizer = random.Random(0), load_tokenizer(TINY)
    if ANSWERS.exists() and QUESTIONS.exists():
        cases = [json.loads(line) for line in ANSWERS.read_text("utf-8").splitlines()]
        cases = [case for case in cases if r"\boxed" in case["prediction"]]
        texts, golds = [c["prediction"] for c in cases], [c["gold"] for c in cases]
        with QUESTIONS.open(encoding="utf-8") as file:
            questions = [json.loads(next(file))["problem"] for _ in range(problems)]
        whose = f"answers of {ANSWERS.name}"
    else:
        golds = [str(number) for number in range(-99, 100)]
        texts = [rf"So the sum is \boxed{{{gold}}}." for gold in golds]
        questions = [f"What is {sum_of(numbers, 2 + row % 7)}?" for row in range(problems)]
        whose = f"drawn sums (no {ANSWERS.name} beside the project)"
    ends = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    stream = [token for ids in ends for token in ids]
    stream *= 1 + 2 * limit // len(stream)
    responses = []
    for row, length in enumerate(uneven_lengths(problems * samples, limit)):
        start = numbers.randrange(len(stream) - length)
        end = ends[(row // samples + row % 2) % len(ends)][-length:]
        responses.append((*stream[start : start + length - len(end)], *end))
    problem_list = [
        Problem(str(row), question, golds[row % len(golds)], "bench")
        for row, question in enumerate(questions)
    ]
    return problem_list, responses, whose


def stub_the_card(stages: Stages) -> None:
    """Layers and head that read a pack's metadata and give numbers of the right shape."""

    def hidden(policy: Any, packed: Packed) -> Tensor:
        packing = Packing(packed)
        _ = packing.ends, packing.blocks
        with stages.of("stub"):
            weight = next(policy.parameters()).flatten()[0]
            return weight * torch.ones(packed.tokens, 1)

    def head(
        hidden_N1: Tensor, head_VH: Tensor, ids_N: Tensor, temperature: float, entropy: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        with stages.of("stub"):
            logprobs_N = 0 * hidden_N1[:, 0] + logprobs_of(ids_N)
            return logprobs_N, torch.ones(len(ids_N)) if entropy else None

    rlrt.model.policy.decoder_hidden = hidden
    rlrt.model.policy.token_logprobs = head


def name_the_stages(stages: Stages) -> None:
    """Have the parts of a step counted apart."""
    for place, name, stage in (
        (Sampler, "_groups", "prompts and rollouts"),
        (Judging, "take", "decoding and extraction"),
        (Judging, "judged", "last verdicts"),
        (CorrectPeer, "__call__", "context"),
        (steps, "render_teacher_prompts", "teacher prompts"),
        (steps, "scored_batch", "scored batch"),
        (RLRT, "__call__", "credit"),
        (steps, "split_updates", "split into updates"),
        (steps, "completed", "records"),
        (steps, "write_records", "records"),
        (steps, "rollout_metrics", "metrics"),
    ):
        setattr(place, name, stages.counted(stage, getattr(place, name)))


def run(problems: int, samples: int, limit: int, budget: int) -> dict[str, Any]:
    """One step through the real trainer."""
    problem_list, responses, whose = work_of(problems, samples, limit)
    tokens, tokenizer = sum(map(len, responses)), load_tokenizer(TINY)
    policy, credit = TOY.policy(), RLRT()
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
        Verifier(workers=2) as verifier,
    ):
        warnings.simplefilter("ignore")
        verifier.grade([r"\boxed{x}"] * 2, ["1+1", "3"])  # its workers' start is the run's, once
        stages = Stages()
        stub_the_card(stages)
        name_the_stages(stages)
        prompts = Prompts(tokenizer)
        with stages.of("problems"):
            problem_set = fitting(ProblemSet(tuple(problem_list)), prompts, 2048)
        assert len(problem_set.problems) == problems
        updates: list[Update] = []
        data = ProblemDataModule(
            problem_set, problem_set, 0, problems, max(problems // 2, 1), updates
        )
        order = [int(problem.id) for problem in data.problems_of_step(0)]
        ordered = [responses[row * samples + n] for row in order for n in range(samples)]
        del responses
        per_update = max(problems // 2, 1)
        settings = RolloutSettings(0, samples, per_update, 1.0, limit, MODEL_TOKENS)
        callback = HostStep(
            settings,
            Decoded(ordered, limit, stages),  # type: ignore[arg-type]
            EngineSpec(TINY, (2,), torch.float32, MODEL_TOKENS),
            prompts,
            Judge(tokenizer, verifier),
            credit,
            CorrectPeer(),
            Evaluator(),
            updates,
            Path(folder),
            0,
        )
        module = HostModule(
            policy,
            Live(),
            Objective(ClippedSurrogate(), Aggregation()),
            Optimization(1e-6),
            1.0,
            budget,
        )
        module.stages = stages
        fit(module, data, callback, folder)
        seconds = stages.measurements()
        record = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    row = callback.row
    return {
        "rollouts": problems * samples,
        "tokens": tokens,
        "limit": limit,
        "answers": whose,
        "correct": row["reward/correct"],
        "teacher_scored": row["context/teacher_scored"],
        "record_gib": record / GIB,
        "stages": seconds,
    }


def fit(module: PolicyModule, data: ProblemDataModule, callback: HostStep, folder: str) -> None:
    """One epoch of the real trainer."""
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data)


if __name__ == "__main__":
    quiet()
    print(json.dumps(run(*map(int, sys.argv[1:]))))
