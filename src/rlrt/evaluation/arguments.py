"""The arguments of the command ``eval.py``: its own, and the settings that Hydra composes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlrt.config.command_line import command_options, parse_list
from rlrt.errors import UserError

USAGE = """\
Evaluate policies: python src/rlrt/eval.py model=<policies> benchmark=<benchmarks> [setting=value ...]

  model=              one or several, with commas: a preset (tiny, qwen3_8b, ...), a run folder, one of
                      its checkpoints, a model folder, or a name on the hub
  benchmark=          one or several, with commas: a name of configs/benchmark, all (the paper's six),
                      or a file or folder of problems, as data=file reads it
  benchmark_folder=   where local copies of the benchmarks' files are
  out=                the folder to write to; left out: one below logs/eval, of a name of its own
  sampling=           thinking | no_thinking | tiny; left out: what fits the policy
  context=            of configs/context: ask the first policy's teacher view as well
  engine= prompts= reward= seed= accelerator= dtype= max_problems=
                      and every setting within a group, such as sampling.samples=4

One process serves it all. The same command goes on where it was killed, asks what is new where
max_problems or sampling.samples has grown, and prints its tables again when all is there."""

OWN = ("model", "benchmark", "benchmark_folder", "out")


@dataclass(frozen=True)
class Command:
    """The arguments of the command; ``settings`` are Hydra's overrides."""

    models: tuple[str, ...]
    benchmarks: tuple[str, ...]
    benchmark_folder: str | None
    out: Path | None
    settings: tuple[str, ...]

    @property
    def named_settings(self) -> set[str]:
        """The full names of the settings given; that of a group where a file of it is chosen."""
        return {word.lstrip("+~").partition("=")[0] for word in self.settings}


def parse(arguments: Sequence[str]) -> Command:
    """The command; UserError where an argument is missing, doubled, or unknown to it."""
    own, settings = command_options(arguments, OWN)
    for name in ("model", "benchmark"):
        if name not in own:
            raise UserError(f"{name}= is missing, as in model=tiny benchmark=arithmetic")
    out = own.get("out")
    return Command(
        parse_list("model", own["model"]),
        parse_list("benchmark", own["benchmark"]),
        own.get("benchmark_folder"),
        None if out is None else Path(out).expanduser(),
        settings,
    )
