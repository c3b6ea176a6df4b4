"""Markers of exploring and exploiting (arXiv:2605.10781, Fig. 3, Table 2, App. D): volcano plot and bars.

python scripts/figures/markers.py logs/rlrt_tiny/<time> --steps 0-9 --out docs/figures/markers

At every position of one correct and one incorrect trajectory per problem, the token that the student view
favors most over the teacher view goes to an explore corpus, the one that the teacher view favors most to
an exploit corpus. Writes .svg, .png and .csv. One policy reads both views: the run's last one, or --model.
An evaluation's folder goes with --run, which says how its trajectories are read. Exit status 2, and nothing
written, where they cannot be.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rlrt.analysis.figures import OUT, require_place, save_figure
from rlrt.analysis.markers import (
    View,
    as_texts,
    draw,
    one_pair_per_problem,
    read_corpora,
    score,
    table,
    word,
)
from rlrt.batch import Verdict
from rlrt.config.command_line import print_once, quiet_libraries, report_errors, require_at_least
from rlrt.config.loaded_run import LoadedRun, load_run
from rlrt.errors import UserError
from rlrt.records import read_table, record_files, rollouts_of, step_files


def wanted_files(folder: Path, steps: str | None, run: Path | None) -> dict[Path, int]:
    """The records to read with their rollout steps; those of an evaluation are all read, as step 0.

    ``steps`` is "last" (also None), "all", or numbers and ranges as in 0,50,90-99.
    """
    files = record_files(folder)
    if files[0].parent.name == "records":
        if steps is not None:
            raise UserError(f"--steps is {steps}, but {folder} is an evaluation's: it has no steps")
        if run is None:
            raise UserError(
                f"{folder} is an evaluation's: name by --run the run folder whose settings and "
                "policy are to read it"
            )
        return dict.fromkeys(files, 0)
    named = [] if steps in (None, "last", "all") else parsed(str(steps))
    by_step = step_files(folder, named)
    chosen = named or (list(by_step) if steps == "all" else [max(by_step)])
    return {by_step[step]: step for step in chosen}


def parsed(steps: str) -> list[int]:
    """The rollout steps that numbers and ranges name, each once, in order."""
    numbers: set[int] = set()
    for part in steps.split(","):
        first, _, last = part.partition("-")
        if not (first.isascii() and first.isdigit()) or not (last or first).isdigit():
            raise UserError(f"--steps is {steps}, it must be last, all, or as in 0,50,90-99")
        if int(last or first) < int(first):
            raise UserError(f"--steps is {steps}, and {part} names no step: the first comes first")
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


class Trajectories:
    """All views of the chosen records one after the other, counted on the way."""

    def __init__(self, loaded: LoadedRun, files: dict[Path, int]) -> None:
        self.loaded = loaded
        self.files = files
        self.seen = dict.fromkeys(Verdict, 0)

    def __iter__(self) -> Iterator[View]:
        for path, step in self.files.items():
            benchmark = path.stem if path.parent.name == "records" else ""
            rollouts = rollouts_of(read_table(path))
            self.loaded.require_tokenizer(rollouts)
            prompts = self.loaded.teacher_prompts(rollouts, step)
            for rollout, prompt in zip(rollouts, prompts, strict=True):
                if prompt is not None:
                    self.seen[rollout.verdict] += 1
                    yield View(rollout, prompt, benchmark)

    def pairs(self) -> list[View]:
        """One correct and one incorrect trajectory per problem; UserError where no problem has both."""
        if views := one_pair_per_problem(self):
            return views
        right, wrong = self.seen[Verdict.RIGHT], self.seen[Verdict.WRONG]
        raise UserError(
            "no problem has a correct and an incorrect trajectory with a teacher view: there are "
            f"{right} correct and {wrong} incorrect ones; read other steps, as in --steps all, or "
            "give the teacher view a context that it has more often, as in --context answer"
        )


def labels(loaded: LoadedRun, kind: str) -> Callable[[int], str | None]:
    """How an id is named: as a word or not at all, or for ``any`` quoted, and by number if it must be."""

    def any_token(token: int) -> str:
        text = loaded.tokenizer.decode([token])
        return f"<id {token}>" if not text or "\ufffd" in text else ascii(text)

    if kind == "any":
        return any_token
    return lambda token: word(loaded.tokenizer.decode([token]))


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw markers of exploring and exploiting.")
    parser.add_argument("folder", type=Path, help="a run's or an evaluation's folder, with records")
    parser.add_argument(
        "--run", type=Path, help="of an evaluation: whose settings and policy read its records"
    )
    parser.add_argument("--model", help="preset, checkpoint, run or model folder that reads them")
    parser.add_argument("--context", help="of the teacher view, a name in configs/context")
    parser.add_argument(
        "--steps", help="rollout steps: last (the default), all, or as in 0,50,90-99"
    )
    parser.add_argument(
        "--tokens", choices=("words", "any"), default="words", help="what is counted (words)"
    )
    parser.add_argument("--min-count", type=int, default=30, help="of a token (30; >= 1)")
    parser.add_argument("--z", type=float, default=3.0, help="least |z| of a marker (3; >= 0)")
    parser.add_argument("--out", type=Path, required=True, help=OUT)
    options = parser.parse_args(arguments)
    require_at_least(options, min_count=1, z=0)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where there is nothing to draw."""
    quiet_libraries()
    options = options_of(arguments)
    require_place(options.out)
    files = wanted_files(options.folder, options.steps, options.run)
    loaded = load_run(options.run or options.folder, options.model, options.context)
    views = Trajectories(loaded, files).pairs()
    corpora = read_corpora(loaded.policy, views, loaded.temperature, loaded.token_budget)
    named = as_texts(corpora, labels(loaded, options.tokens))
    scored = score(named, options.min_count, options.z)
    kind = "words of 3 to 15 letters" if options.tokens == "words" else "tokens of any form"
    counted = (
        f"{len(views) // 2} problems, one correct and one incorrect trajectory each, "
        f"{corpora.explore.total()} positions;\n{kind}: {named.explore.total()} in the explore and "
        f"{named.exploit.total()} in the exploit corpus"
    )
    if not scored:
        raise UserError(
            f"no token is there {options.min_count} times ({' '.join(counted.split())}): read more "
            "--steps, lower --min-count, or count --tokens any"
        )
    caption = (
        f"{counted}; joint count at least {options.min_count}; markers: |z| at least {options.z:g}"
    )
    title = f"{options.folder.name}, read by {loaded.stored.name}"
    for path in save_figure(draw(scored, title, caption), table(scored), options.out):
        print_once(str(path))
    print_once(caption.replace("\n", " "))
    for role in ("explore", "exploit"):
        named_markers = [f"{row.token} ({row.z:+.1f})" for row in scored if row.role == role]
        print_once(
            f"{role}: {', '.join(named_markers[:: 1 if role == 'explore' else -1]) or 'none'}"
        )


if __name__ == "__main__":
    with report_errors():
        main()
