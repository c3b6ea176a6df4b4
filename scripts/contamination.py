"""Which problems of a training set are problems of benchmarks too.

python scripts/contamination.py data=dapo_math_17k [data.path=train.jsonl] benchmark=all
    [benchmark_folder=<folder of files>] [similarity=0.82] [examples=3] [out=overlaps.csv]

``benchmark`` as in eval.py: names with commas between them, all, or files. ``data`` and its settings
as in train.py; nothing is held out or left out as an overlap here. Prints for each benchmark the
training problems that are exactly, nearly, or up to their numbers ("variant") problems of it, beside
those that the file itself marks (a column ``overlap`` of "benchmark:id"). ``out`` saves every pair.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from rlrt.batch import Problem
from rlrt.config.command_line import command_options, parse_list, print_help, report_errors
from rlrt.config.compose import compose, user_errors
from rlrt.config.problem_sets import build_source, read_benchmarks
from rlrt.data.contamination import DEFAULT_SIMILARITY, Kind, Overlap, overlaps
from rlrt.data.rows import check_file, read_file, row_id, value_at
from rlrt.data.sources import Source
from rlrt.errors import UserError
from rlrt.files import write_csv
from rlrt.validation import check_settings

OPTIONS = ("benchmark", "benchmark_folder", "similarity", "examples", "out")
KINDS: tuple[Kind, ...] = ("exact", "near", "variant")
SHOWN_CHARACTERS = 220


@user_errors()
def training_problems(data: DictConfig) -> list[Problem]:
    """All problems that could be trained on, overlaps and later held-out ones included."""
    everything = data.copy()
    for setting, value in (("overlap_with", []), ("overlap_folder", None)):
        if setting in everything:
            everything[setting] = value
    if "leave_out_overlaps" in everything:
        everything.leave_out_overlaps = False
    source = build_source(everything)
    read = source.read_train if isinstance(source, Source) else source.train
    return list(read().problems)


@user_errors()
def marked_rows(data: DictConfig) -> dict[str, str] | None:
    """Benchmark of each row that its file marks, by the row's id; None where no row is marked."""
    if data.get("path") is None:
        return None
    rows = read_file(check_file(data.path, "data.path"))
    marks = {
        row_id(row, data.get("id_column", "id")): str(mark).split(":")[0]
        for row in rows
        if (mark := value_at(row.columns, "overlap"))
    }
    return marks or None


def counts_table(
    matches: Sequence[Overlap], sizes: Mapping[str, int], marks: Mapping[str, str] | None
) -> Table:
    """Training problems per benchmark and kind, and of the marked ones how many are found."""
    table = Table(title="training problems by the problem of a benchmark that they resemble")
    headings = ["benchmark", "problems", *KINDS]
    if marks is not None:
        headings += ["marked", "marked, found", "found, not marked"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    for name, size in sizes.items():
        pairs = [overlap for overlap in matches if overlap.benchmark == name]
        best = {overlap.train_id: overlap.kind for overlap in reversed(pairs)}
        cells = [Counter(best.values())[kind] for kind in KINDS]
        if marks is not None:
            marked = {id_ for id_, benchmark in marks.items() if benchmark == name}
            same = {id_ for id_, kind in best.items() if kind != "variant"}
            cells += [len(marked), len(marked & same), len(same - marked)]
        table.add_row(name, str(size), *map(str, cells))
    return table


def print_examples(
    console: Console, matches: Sequence[Overlap], rows: Sequence[Mapping[str, object]], most: int
) -> None:
    """The least alike pairs of each benchmark and kind: those worth a look."""
    pairs = sorted(zip(matches, rows, strict=True), key=lambda pair: pair[0].similarity)
    printed: Counter[tuple[str, str]] = Counter()
    for overlap, row in pairs:
        group = (overlap.benchmark, overlap.kind)
        printed[group] += 1
        if overlap.kind == "exact" or printed[group] > most:
            continue
        console.print(
            f"\n{overlap.benchmark} {overlap.benchmark_id} {overlap.kind} {overlap.similarity:.3f}:"
            f" {overlap.train_id}",
            markup=False,
            highlight=False,
        )
        for side in ("train_question", "benchmark_question"):
            text = " ".join(str(row[side]).split())[:SHOWN_CHARACTERS]
            console.print(f"  {text}", markup=False, highlight=False)


def rows_of(
    matches: Sequence[Overlap],
    train: Sequence[Problem],
    evaluated: Sequence[Problem],
    marks: Mapping[str, str] | None,
) -> list[dict[str, object]]:
    """Every pair with both questions and answers, for the file."""
    ours = {problem.id: problem for problem in train}
    theirs = {(problem.source, problem.id): problem for problem in evaluated}
    rows: list[dict[str, object]] = []
    for overlap in matches:
        one, other = ours[overlap.train_id], theirs[overlap.benchmark, overlap.benchmark_id]
        row: dict[str, object] = {
            "train_id": one.id,
            "benchmark": overlap.benchmark,
            "benchmark_id": other.id,
            "kind": overlap.kind,
            "similarity": round(overlap.similarity, 4),
        }
        if marks is not None:
            row["marked"] = one.id in marks
        texts = {
            "train_answer": one.answer,
            "benchmark_answer": other.answer,
            "train_question": one.question,
            "benchmark_question": other.question,
        }
        rows.append(row | texts)
    return rows


def number(words: Mapping[str, str], name: str, default: float) -> float:
    """A number among the command's own words; UserError where it is none."""
    try:
        return float(words.get(name, default))
    except ValueError:
        raise UserError(f"{name} is {words[name]}, it must be a number") from None


def count(words: Mapping[str, str], name: str, default: int) -> int:
    """A whole number among the command's own words; UserError where it is none, or negative."""
    word = words.get(name, str(default))
    if not (word.isascii() and word.isdigit()):
        raise UserError(f"{name} is {word}, it must be a whole number, at least 0")
    return int(word)


def main(arguments: Sequence[str]) -> None:
    """Run the command; UserError for a word, a file or a setting that cannot be used."""
    if print_help(arguments, __doc__ or ""):
        return
    options, rest = command_options(arguments, OPTIONS)
    if "benchmark" not in options:
        raise UserError("benchmark=<names, all or files> is missing")
    if not any(word.startswith("data=") for word in rest):
        raise UserError("data=<file of configs/data> is missing")
    names = parse_list("benchmark", options["benchmark"])
    similarity = number(options, "similarity", DEFAULT_SIMILARITY)
    with user_errors():
        check_settings(overlaps, {"similarity": similarity}, "")
    most = count(options, "examples", 3)
    data = compose(list(rest), command_options=OPTIONS).data
    sets = read_benchmarks(names, options.get("benchmark_folder"))
    evaluated = [problem for problems in sets.values() for problem in problems]
    train = training_problems(data)
    marks = marked_rows(data)
    matches = overlaps(train, evaluated, similarity)
    rows = rows_of(matches, train, evaluated, marks)
    if "out" in options:
        write_csv(rows, Path(options["out"]))
    console = Console(width=120)
    console.print(f"{len(train)} training problems, {len(evaluated)} of benchmarks", markup=False)
    sizes = Counter(problem.source for problem in evaluated)
    console.print(counts_table(matches, sizes, marks))
    print_examples(console, matches, rows, most)


if __name__ == "__main__":
    with report_errors():
        main(sys.argv[1:])
