import json
import re
from io import StringIO

import pytest
from rich.console import Console
from tests.evaluation.answered import by_counts, model

from rlrt.evaluation.paper import SIX, paper_row
from rlrt.evaluation.summary import Summary, summarise
from rlrt.evaluation.tables import as_json, markdown, screen

EVIL = "[bold]x|<script>alert(1)</script>`*_y_*`\x1b[31m\n| z"


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Two models on the six, with a row of the paper and a teacher view for the first."""
    answers = {name: by_counts([number % 4, 2], 4) for number, name in enumerate(SIX)}
    better = {name: by_counts([number % 4 + 1, 2], 4) for number, name in enumerate(SIX)}
    teacher = {"aime24": {"p000": "0"}}
    return summarise(
        [
            model("qwen3_8b", answers, teacher, paper_row("qwen3_8b", None)),
            model("logs/rlrt/2026-01-01_10-00-00", better),
        ],
        0,
    )


def printed(summary: Summary, width: int = 80) -> str:
    console = Console(width=width, record=True, file=StringIO(), force_terminal=True)
    for part in screen(summary):
        console.print(part)
    return console.export_text()


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_screen_holds_the_six_and_their_mean_in_80_columns(summary: Summary) -> None:
    text = printed(summary)
    assert max(map(len, text.splitlines())) <= 80
    heading = next(line for line in text.splitlines() if "AIME24" in line)
    assert heading.split() == ["model", *(name.upper() for name in SIX), "the", "six"]
    assert "…" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["qwen3_8b", *["25.0", "37.5", "50.0", "62.5", "25.0", "37.5", "39.6"]] in lines
    assert "[+12.5, +12.5]" not in text  # one problem of two is better: the gain is uncertain
    assert "[+0.0, +25.0]" in text


def test_markdown_has_the_paper_beside_ours(summary: Summary) -> None:
    cells = rows(markdown(summary))
    assert cells[0] == ["model", *(name.upper() for name in SIX), "mean of the six"]
    assert cells[2][:2] == ["qwen3_8b", "25.0 / 50.0"]
    assert cells[3][:2] == ["paper: 8B start (thinking off)", "25.2 / 63.3"]
    assert cells[3][-1] == "38.6 / 63.4" or cells[3][-1] == "38.6 / 63.5"
    assert cells[4][1] == "37.5 / 100.0"
    assert ["", "logs/rlrt/2026-01-01_10-00-00", "37.5 [25.0, 50.0]"] in [row[:3] for row in cells]


def test_markdown_has_a_split_and_says_what_counts(summary: Summary) -> None:
    text = markdown(summary)
    part = [row for row in rows(text) if row[0] == "AIME24" and len(row) == 6]
    assert part[0][1:4] == ["&lt; 60%", "qwen3_8b", "1"]
    assert "An undecided response counts as wrong." in text
    assert "No context: the teacher view saw no more" in text


def test_json_is_plain_and_whole(summary: Summary) -> None:
    found = json.loads(json.dumps(as_json(summary), allow_nan=False))
    assert found == as_json(summary)
    first = found["benchmarks"][0]
    assert (first["name"], first["problems"], first["samples"]) == ("aime24", 2, 4)
    start, trained = first["models"]
    assert start["average"]["value"] == 0.25
    assert start["paper"] == {"average": 0.252, "solved": 0.633}
    assert trained["paper"] is None
    assert trained["gain"]["value"] == pytest.approx(0.125)
    assert list(start["pass_at"]) == ["1", "2", "4"]
    assert start["tokens_mean"] == 3
    assert found["mean"]["of_the_six"]
    assert found["split"]["weak_below"] == 0.6
    assert [part["weak"] for part in found["split"]["parts"]] == [True, False, None]
    assert found["split"]["parts"][0]["models"][1]["model"] == "logs/rlrt/2026-01-01_10-00-00"
    assert found["models"][0] == {"name": "qwen3_8b", "paper": "8B start (thinking off)"}


def test_names_are_shown_and_never_obeyed() -> None:
    evil = summarise([model(EVIL, {EVIL: by_counts([1, 2], 4)}, {EVIL: {"p000": "1"}})], 0)
    text = printed(evil, 200)
    assert "[bold]x|<script>alert(1)</script>`*_y_*`" in text
    assert "\x1b" not in text
    table = markdown(evil)
    assert "<script>" not in table
    assert "\x1b" not in table
    assert {len(row) for row in rows(table)[:3]} == {2}  # no pipe and no line break got out
    assert r"\[bold\]x\|&lt;script&gt;" in table
    assert r"\`\*\_y\_\*\`" in table
    assert as_json(evil)["models"][0]["name"] == EVIL


def test_many_benchmarks_are_cut_into_tables_that_fit() -> None:
    answers = {f"benchmark{number}": by_counts([1], 2) for number in range(9)}
    text = printed(summarise([model("m", answers)], 0))
    assert max(map(len, text.splitlines())) <= 80
    assert all(name in text for name in answers)
    assert "over the 9 benchmarks that are here, not over the paper's six" in " ".join(text.split())


def test_a_gain_of_nothing_has_no_sign_of_a_loss() -> None:
    same = {"b": by_counts([1, 2], 4)}
    assert "-0.0" not in markdown(summarise([model("a", same), model("c", same)], 0))
