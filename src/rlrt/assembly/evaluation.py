"""An evaluation put together: policies × benchmarks → records, tables, one comparison."""

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rlrt.assembly.benchmarks import benchmark_names, load_benchmark
from rlrt.assembly.console import console, quiet_libraries, say
from rlrt.assembly.evaluated import Evaluation
from rlrt.assembly.plan import Plan, digest, make_plan
from rlrt.assembly.serving import Server
from rlrt.assembly.words import Words
from rlrt.batch import Problem
from rlrt.errors import UserError
from rlrt.evaluation.questions import Question, student_questions
from rlrt.evaluation.summary import Summary, summarise
from rlrt.evaluation.tables import as_json, markdown, screen
from rlrt.files import write_atomically

ROOT = Path("logs") / "eval"


def evaluate(words: Words) -> None:
    """Ask every policy every question, write all folders, print the table.

    What can be refused is refused before any weights are loaded.
    """
    _require_one_process()
    quiet_libraries()
    plans = [make_plan(word, words, number == 0) for number, word in enumerate(words.models)]
    _require_comparable(plans)
    benchmarks = _read_benchmarks(words, plans[0].settings.max_problems)
    _require_context(plans[0], benchmarks)
    questions = [_questions(plan, benchmarks) for plan in plans]
    with Server() as server:
        evaluations = [
            Evaluation(plan, _folder(plan, words), asked, server)
            for plan, asked in zip(plans, questions, strict=True)
        ]
        for one in evaluations:
            say(f"{one.plan.stored.name}: {one.plan.sampling}; folder: {one.folder}")
        models = [one.run() for one in evaluations]
    seed, place = plans[0].settings.seed, evaluations[0].folder
    for model, one in zip(models, evaluations, strict=True):
        _write_results(summarise([model], seed), one.folder)
    summary = summarise(models, seed)
    if len(models) > 1:
        asked = [[plan.fingerprint for plan in plans], sorted(benchmarks)]
        place = words.out or ROOT / f"comparison-{digest(asked)}"
        _write_results(summary, place)
    for part in screen(summary):
        console.print(part)
    say(f"written to {place}")


def _read_benchmarks(words: Words, limit: int | None) -> dict[str, tuple[Problem, ...]]:
    """The first ``limit`` problems of each benchmark; a file is called by its name alone."""
    found: dict[str, tuple[Problem, ...]] = {}
    for word in benchmark_names(words.benchmarks):
        name = Path(word).name.split(".")[0]
        if name in found:
            raise UserError(f"benchmark names {name} twice: the records of both would be one file")
        found[name] = load_benchmark(word, words.benchmark_folder).problems[:limit]
    return found


def _require_one_process() -> None:
    if (count := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise UserError(
            f"WORLD_SIZE is {count}: an evaluation is one process, start it without torchrun"
        )


def _require_comparable(plans: Sequence[Plan]) -> None:
    """UserError where two policies have one name, or are asked differently often."""
    names = [plan.stored.name for plan in plans]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"model names {', '.join(doubled)} twice")
    for plan in plans[1:]:
        if plan.sampling.samples != plans[0].sampling.samples:
            raise UserError(
                f"{plans[0].stored.name} would be asked {plans[0].sampling.samples} times and "
                f"{plan.stored.name} {plan.sampling.samples} times: name one sampling= for all"
            )


def _require_context(plan: Plan, benchmarks: Mapping[str, Sequence[Problem]]) -> None:
    """UserError where the context shows what a benchmark does not have."""
    for need in sorted(plan.context.needs if plan.context is not None else ()):
        for name, problems in benchmarks.items():
            if all(getattr(problem, need) is None for problem in problems):
                raise UserError(
                    f"context shows the teacher a problem's {need}, and {name} has none: choose "
                    "another context"
                )


def _questions(plan: Plan, benchmarks: Mapping[str, Sequence[Problem]]) -> list[Question]:
    samples, longest = plan.sampling.samples, plan.sampling.max_prompt_tokens
    return student_questions(benchmarks, plan.prompts, samples, longest)


def _folder(plan: Plan, words: Words) -> Path:
    if words.out is not None and len(words.models) == 1:
        return words.out
    name = f"{plan.stored.name.replace('/', '_')}-{plan.fingerprint}"
    return (words.out or ROOT) / name


def _write_results(summary: Summary, folder: Path) -> None:
    as_text = json.dumps(as_json(summary), indent=2, ensure_ascii=False) + "\n"
    for name, text in (("results.json", as_text), ("results.md", markdown(summary))):
        write_atomically(folder / name, partial(_write_text, text))


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
