"""An evaluation put together: policies × benchmarks → records, tables, one comparison."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from rlrt.batch import Problem
from rlrt.config.commands import console, quiet_libraries, say
from rlrt.config.problems import read_benchmarks
from rlrt.errors import UserError
from rlrt.evaluation.command import Words
from rlrt.evaluation.lock import alone, leftover
from rlrt.evaluation.one_policy import PolicyEvaluation
from rlrt.evaluation.plan import Plan, digest, make_plan
from rlrt.evaluation.questions import Question, student_questions
from rlrt.evaluation.screen import screen
from rlrt.evaluation.server import Server
from rlrt.evaluation.summary import Summary, summarize
from rlrt.evaluation.tables import as_json, markdown
from rlrt.files import write_text

ROOT = Path("logs") / "eval"
RESULTS = ("results.json", "results.md")


def evaluate(words: Words) -> None:
    """Ask every policy every question, write all folders, print the table.

    What can be refused is refused before any weights are loaded.
    """
    _require_one_process()
    quiet_libraries()
    with ExitStack() as kept:
        if words.out is not None:
            kept.enter_context(alone(words.out))
        plans = [make_plan(word, words, number == 0) for number, word in enumerate(words.models)]
        _require_comparable(plans)
        benchmarks = read_benchmarks(words.benchmarks, words.benchmark_folder)
        _require_context(plans[0], benchmarks)
        folders = [_folder(plan, words) for plan in plans]
        place = folders[0] if len(plans) == 1 else _comparison(plans, benchmarks, words)
        for folder in {*folders, place} - {words.out}:
            kept.enter_context(alone(folder))
        server = kept.enter_context(closing(Server()))
        evaluations = [
            PolicyEvaluation(plan, folder, _questions(plan, benchmarks), server)
            for plan, folder in zip(plans, folders, strict=True)
        ]
        summary = _run(evaluations, {name: len(all_) for name, all_ in benchmarks.items()}, place)
    for part in screen(summary, console.width):
        console.print(part)
    say(f"written to {place}")


def _run(evaluations: Sequence[PolicyEvaluation], sizes: Mapping[str, int], place: Path) -> Summary:
    """The summary of all policies, which is written to ``place``, and that of each to its folder."""
    for one in evaluations:
        say(f"{one.plan.stored.name}: {one.plan.sampling}; folder: {one.folder}")
    models = [one.run() for one in evaluations]
    seed = evaluations[0].plan.settings.seed
    for model, one in zip(models, evaluations, strict=True):
        _write_results(summarize([model], seed, sizes), one.folder)
    summary = summarize(models, seed, sizes)
    if len(models) > 1:
        _write_results(summary, place)
    return summary


def _comparison(plans: Sequence[Plan], benchmarks: Iterable[str], words: Words) -> Path:
    """The folder for what several policies came to; UserError where it holds something else."""
    if words.out is None:
        return (
            ROOT
            / f"comparison-{digest([[plan.fingerprint for plan in plans], sorted(benchmarks)])}"
        )
    if (words.out / "config.yaml").exists():
        raise UserError(
            f"{words.out} holds what one policy came to, which the comparison of several would "
            "overwrite: choose another out="
        )
    files = [path for path in words.out.iterdir() if path.is_file() and not leftover(path)]
    if any(path.name not in RESULTS for path in files):
        raise UserError(f"{words.out} holds something that is no evaluation: choose another out=")
    return words.out


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
    return student_questions(benchmarks, plan.prompts, plan.sampling.samples)


def _folder(plan: Plan, words: Words) -> Path:
    if words.out is not None and len(words.models) == 1:
        return words.out
    name = f"{plan.stored.name.replace('/', '_')}-{plan.fingerprint}"
    return (words.out or ROOT) / name


def _write_results(summary: Summary, folder: Path) -> None:
    as_text = json.dumps(as_json(summary), indent=2, ensure_ascii=False) + "\n"
    for name, text in zip(RESULTS, (as_text, markdown(summary)), strict=True):
        write_text(folder / name, text)
