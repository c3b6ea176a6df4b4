"""The words of the command ``eval.py``: its own, and the settings that Hydra composes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlrt.errors import UserError

USAGE = """\
Evaluate policies: python src/rlrt/eval.py model=<policies> benchmark=<benchmarks> [setting=value ...]

  model=              one or several, with commas: a preset (tiny, qwen3_8b, ...), a run folder, one of
                      its checkpoints, a model folder, or a name on the hub
  benchmark=          one or several, with commas: a name of configs/benchmark, all (the paper's six),
                      or a .jsonl or .parquet file
  benchmark_folder=   where local copies of the benchmarks' files are
  out=                the folder to write to; left out: one below logs/eval, of a name of its own
  sampling=           thinking | no_thinking | tiny; left out: what fits the policy
  context=            of configs/context: ask the first policy's teacher view as well
  engine= prompts= reward= seed= accelerator= dtype= max_problems=
                      and every setting within a group, such as sampling.samples=4

One process serves it all. The same command goes on where it was killed, and prints its table again
when all is there."""

OWN = ("model", "benchmark", "benchmark_folder", "out")


@dataclass(frozen=True)
class Words:
    """What the command was given; ``settings`` are Hydra's overrides."""

    models: tuple[str, ...]
    benchmarks: tuple[str, ...]
    benchmark_folder: str | None
    out: Path | None
    settings: tuple[str, ...]

    @property
    def named(self) -> set[str]:
        """The full names of the settings given."""
        return {word.lstrip("+~").partition("=")[0] for word in self.settings}

    def names(self, group: str) -> bool:
        """Whether a file of the group is chosen."""
        return group in self.named


def parse(arguments: Sequence[str]) -> Words:
    """The words, or UserError where one is missing, doubled, or no word of this command."""
    own: dict[str, str] = {}
    settings = []
    for word in arguments:
        name, _, value = word.partition("=")
        if word.startswith("-"):
            raise UserError(f"{word} is no word of this command: --help lists them")
        if name not in OWN:
            settings.append(word)
            continue
        if not value:
            raise UserError(f"{name}= has no value: --help says what it takes")
        if name in own:
            raise UserError(f"{name}= is given twice: several go into one, with commas between")
        own[name] = value
    for name in ("model", "benchmark"):
        if name not in own:
            raise UserError(f"{name}= is missing, as in model=tiny benchmark=arithmetic")
    out = own.get("out")
    return Words(
        _listed("model", own["model"]),
        _listed("benchmark", own["benchmark"]),
        own.get("benchmark_folder"),
        None if out is None else Path(out).expanduser(),
        tuple(settings),
    )


def _listed(name: str, value: str) -> tuple[str, ...]:
    """``a,b`` or ``[a,b]``."""
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    listed = tuple(item.strip() for item in value.split(","))
    if not all(listed):
        raise UserError(f"{name} is {value}, in which an item between commas is empty")
    if doubled := sorted({item for item in listed if listed.count(item) > 1}):
        raise UserError(f"{name} names {', '.join(doubled)} twice")
    return listed
