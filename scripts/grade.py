"""Grade answers with the training verifier: ``python scripts/grade.py cases.jsonl [--out FILE]``.

Each line of the file is ``{"prediction": …, "gold": …}``, optionally with ``correct`` (true or false)
and ``note``; other fields are kept. Prints the agreement with ``correct``; ``--out`` writes every
line back with ``verdict`` (right, wrong, undecided) and ``seconds``. Exit status 2: bad input.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from rlrt.errors import RunStoppedError
from rlrt.reward.extraction import Extract
from rlrt.reward.verifier import Grade, Verifier

Case = dict[str, Any]
GROUPS = ("all other rows", "policy and QUIRK rows")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = parse_options(arguments)
    try:
        if options.out is not None and not options.out.absolute().parent.is_dir():
            raise ValueError(f"the folder of {options.out} does not exist")
        cases, broken = read_cases(options.cases)
        for place in broken:
            print(f"skipped {place}", file=sys.stderr)
        if not cases:
            raise ValueError(f"{options.cases} holds no usable case")
        with Verifier(
            workers=options.workers, timeout_s=options.timeout, extract=options.extract
        ) as verifier:
            grades = verifier.grade(
                [case["prediction"] for case in cases], [case["gold"] for case in cases]
            )
        if options.out is not None:
            write_verdicts(options.out, cases, grades)
    except OSError as error:
        print(f"grade.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except (RunStoppedError, ValueError) as error:
        print(f"grade.py: {error}", file=sys.stderr)
        return 2
    Console().print(agreement_table(options.cases.name, cases, grades))
    if broken:
        print(f"{len(broken)} broken lines were skipped")
    return 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a wrong one ends the program with status 2."""
    parser = argparse.ArgumentParser(description="Grade answers with the training verifier.")
    parser.add_argument("cases", type=Path, help="JSON Lines of prediction and gold")
    parser.add_argument("--out", type=Path, help="write each line back with its verdict")
    parser.add_argument("--extract", choices=get_args(Extract), default="boxed_or_text")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds per answer")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args(arguments)


def read_cases(path: Path) -> tuple[list[Case], list[str]]:
    """The usable cases, and for each broken line where it stands and what is wrong with it."""
    cases: list[Case] = []
    broken: list[str] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            cases.append(checked_case(json.loads(line)))
        except (ValueError, RecursionError) as error:
            broken.append(f"{path}:{number}: {error}")
    return cases, broken


def checked_case(case: object) -> Case:
    """The case itself; ValueError saying which field is missing or of the wrong type."""
    if not isinstance(case, dict):
        raise ValueError("not a JSON object")
    for name in ("prediction", "gold"):
        if not isinstance(case.get(name), str):
            raise ValueError(f"{name!r} is missing or not a string")
    if not isinstance(case.get("correct"), bool | None):
        raise ValueError("'correct' is not true or false")
    return case


def agreement_table(name: str, cases: Sequence[Case], grades: Sequence[Grade]) -> Table:
    """Counts of verdicts, and agreement where ``correct`` is given, policy rows apart."""
    table = Table(title=f"{name}: {len(cases)} rows")
    for heading in ("", "rows", "right", "wrong", "undecided", "labeled", "agree", "agreement"):
        table.add_column(heading, justify="right" if heading else "left")
    for group in GROUPS:
        rows = [
            (case.get("correct"), grade.verdict.value)
            for case, grade in zip(cases, grades, strict=True)
            if (group == GROUPS[1]) == is_policy(case)
        ]
        if not rows:
            continue
        counts = [sum(v == word for _, v in rows) for word in ("right", "wrong", "undecided")]
        labeled = [(correct, verdict) for correct, verdict in rows if correct is not None]
        agree = sum(correct == (verdict == "right") for correct, verdict in labeled)
        share = f"{agree / len(labeled):.2%}" if labeled else "-"
        table.add_row(group, *map(str, (len(rows), *counts, len(labeled), agree)), share)
    return table


def is_policy(case: Case) -> bool:
    """Whether the label hangs on a convention, or is known to be wrong, by its note."""
    return str(case.get("note") or "").startswith(("policy", "QUIRK"))


def write_verdicts(path: Path, cases: Sequence[Case], grades: Sequence[Grade]) -> None:
    """Write the cases with their verdicts, whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            for case, grade in zip(cases, grades, strict=True):
                result = {"verdict": grade.verdict, "seconds": round(grade.seconds, 6)}
                file.write(json.dumps(case | result) + "\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
