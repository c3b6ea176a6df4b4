"""Problems by name: those of a run's data, and benchmarks, of which configs/benchmark says where they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from rlrt.batch import Problem, ProblemSet
from rlrt.config.command_line import print_once
from rlrt.config.compose import CONFIGS, build, load_yaml, user_errors
from rlrt.context.context import Context
from rlrt.data.benchmarks import PAPER_BENCHMARKS, Benchmark, read_problem_file
from rlrt.data.module import ProblemSource, fitting
from rlrt.data.problems import optional_fields
from rlrt.data.prompts import Prompts
from rlrt.data.rows import SUFFIXES
from rlrt.errors import UserError

ARITHMETIC = "arithmetic"


def benchmark_names(words: Sequence[str], setting: str = "benchmark") -> list[str]:
    """The names and paths meant, each once: "all" stands for the study's six, in its order.

    UserError naming ``setting`` for a word that is neither a benchmark nor a file of problems. The sums
    of "arithmetic", which no file holds, can only be asked.
    """
    names = [name for word in words for name in (PAPER_BENCHMARKS if word == "all" else (word,))]
    known = [*_published(), *([ARITHMETIC] if setting == "benchmark" else [])]
    for name in names:
        is_own = name.lower().endswith(SUFFIXES) or Path(name).expanduser().is_dir()
        if name not in known and not is_own:
            raise UserError(
                f"{setting} is {name}, it must be all, one of {', '.join(known)}, or a file that "
                f"ends in {', '.join(SUFFIXES)}"
            )
    return list(dict.fromkeys(names))


@user_errors()
def load_benchmark(word: str, folder: str | Path | None = None) -> ProblemSet:
    """The problems of one benchmark, from ``folder`` or else the hub, or of a file of problems.

    "arithmetic": the held-out sums of data=arithmetic. UserError where it is not there or not whole.
    """
    (name,) = benchmark_names([word])
    if name == ARITHMETIC:
        sums: ProblemSet = build(_node("data", ARITHMETIC)).held_out()
        return sums
    if name in _published():
        benchmark: Benchmark = build(_node("benchmark", name))
        return benchmark.read(folder)
    return read_problem_file(name, "benchmark")


def read_benchmarks(
    words: Sequence[str], folder: str | Path | None = None
) -> dict[str, tuple[Problem, ...]]:
    """All problems of each benchmark; a file is called by its name alone.

    UserError as in ``load_benchmark``, where two have one name, and for a file that has the name of a
    benchmark: it would pass for that.
    """
    by_name: dict[str, tuple[Problem, ...]] = {}
    for word in benchmark_names(words):
        name = Path(word).name.split(".")[0]
        if name != word and (known := name.lower()) in (*_published(), ARITHMETIC):
            raise UserError(
                f"benchmark is {word}, which would pass for {known}: give benchmark={known} "
                f"benchmark_folder={Path(word).parent} if it is that, or else the file another name"
            )
        if name in by_name:
            raise UserError(f"benchmark names {name} twice: the records of both would be one file")
        by_name[name] = load_benchmark(word, folder).problems
    return by_name


def build_source(data: DictConfig) -> ProblemSource:
    """The data source of a configuration, with the benchmarks that its ``overlap_with`` names.

    UserError as in ``benchmark_names``, and for a setting that is out of range.
    """
    words = data.get("overlap_with")
    if not OmegaConf.is_list(words) or not words:
        return cast(ProblemSource, build(data))
    resolved = data.copy()
    resolved.overlap_with = [
        _node("benchmark", name) if name in _published() else name
        for name in benchmark_names(words, "data.overlap_with")
    ]
    return cast(ProblemSource, build(resolved))


def _published() -> list[str]:
    return sorted(path.stem for path in (CONFIGS / "benchmark").glob("*.yaml"))


def _node(group: str, name: str) -> DictConfig:
    return load_yaml(CONFIGS / group / f"{name}.yaml")


@user_errors()
def read_problems(
    source: ProblemSource, context: Context | None, prompts: Prompts, max_prompt_tokens: int
) -> tuple[ProblemSet, ProblemSet]:
    """Training and held-out problems whose prompts fit; prints rows kept, and dropped and why.

    UserError where none is left, or where no training problem has what the context shows.
    """
    sets = []
    for name, read in (("train", source.train), ("held out", source.held_out)):
        problems = fitting(read(), prompts, max_prompt_tokens)
        sets.append(problems)
        reasons = ", ".join(f"{count} {reason}" for reason, count in problems.dropped.items())
        print_once(f"{name} problems: {len(problems.problems)} kept; dropped: {reasons or 'none'}")
        if not problems.problems:
            raise UserError(f"no {name} problem is left; dropped: {reasons or 'none'}")
    train, held_out = sets
    needed = context.needs if context is not None else frozenset()
    for need in sorted(needed - optional_fields(train)):
        raise UserError(
            f"context shows the teacher a problem's {need}, and not one training problem has a {need}"
        )
    return train, held_out
