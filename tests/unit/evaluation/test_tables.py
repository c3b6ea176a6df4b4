import json
import re
from io import StringIO

import pytest
from rich.console import Console
from tests.unit.evaluation.answered import by_counts, model

from rlrt.data.benchmarks import PAPER_BENCHMARKS
from rlrt.evaluation.paper import paper_row
from rlrt.evaluation.summary import Summary, summarize
from rlrt.evaluation.tables import as_json, folded, markdown, screen

EVIL = "[bold]x|<script>alert(1)</script>`*_y_*`\x1b[31m\n| z"


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Two models on the six, with a row of the paper and a teacher view for the first."""
    answers = {name: by_counts([number % 4, 2], 4) for number, name in enumerate(PAPER_BENCHMARKS)}
    better = {
        name: by_counts([number % 4 + 1, 2], 4) for number, name in enumerate(PAPER_BENCHMARKS)
    }
    teacher = {"aime24": {"p000": "0"}}
    return summarize(
        [
            model("qwen3_8b", answers, teacher, paper_row("qwen3_8b", None)),
            model("logs/rlrt/2026-01-01_10-00-00", better),
        ],
        0,
    )


def printed(summary: Summary, width: int = 80) -> str:
    console = Console(width=width, record=True, file=StringIO(), force_terminal=True)
    for part in screen(summary, width):
        console.print(part)
    return console.export_text()


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_screen_holds_the_six_and_their_mean_in_80_columns(summary: Summary) -> None:
    text = printed(summary)
    assert max(map(len, text.splitlines())) <= 80
    heading = next(line for line in text.splitlines() if "AIME24" in line)
    assert heading.split() == ["model", *(name.upper() for name in PAPER_BENCHMARKS), "the", "six"]
    assert "…" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["qwen3_8b", *["25.0", "37.5", "50.0", "62.5", "25.0", "37.5", "39.6"]] in lines
    assert "[+12.5, +12.5]" not in text  # one problem of two is better: the gain is uncertain
    assert "[+0.0, +25.0]" in text


def test_a_wide_screen_holds_a_model_in_one_line(summary: Summary) -> None:
    lines = printed(summary, 200).splitlines()
    assert " ".join(next(line for line in lines if "AIME24" in line).split()).endswith("of the six")
    cells = re.split("  +", next(line for line in lines if line.startswith(" qwen3_8b")).strip())
    assert cells[:3] == ["qwen3_8b", "25.0 / 50.0", "37.5 / 100.0"]


def test_markdown_has_the_paper_beside_ours(summary: Summary) -> None:
    cells = rows(markdown(summary))
    assert cells[0] == ["model", *(name.upper() for name in PAPER_BENCHMARKS), "mean of the six"]
    assert cells[2][:2] == ["qwen3_8b", "25.0 / 50.0"]
    label = "8B start (thinking off): avg@16 / pass@16 of the paper"
    assert cells[3][:2] == [label, "25.2 / 63.3"]
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
    assert [part["weak"] for part in found["split"]["parts"]] == [True, None]
    assert found["split"]["parts"][0]["models"][1]["model"] == "logs/rlrt/2026-01-01_10-00-00"
    assert found["models"][0] == {"name": "qwen3_8b", "paper": "8B start (thinking off)"}


def test_names_are_shown_and_never_obeyed() -> None:
    evil = summarize([model(EVIL, {EVIL: by_counts([1, 2], 4)}, {EVIL: {"p000": "1"}})], 0)
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
    text = printed(summarize([model("m", answers)], 0))
    assert max(map(len, text.splitlines())) <= 80
    assert all(name in text for name in answers)
    assert "over the 9 benchmarks that are here, not over the paper's six" in " ".join(text.split())


def test_a_gain_of_nothing_has_no_sign_of_a_loss() -> None:
    same = {"b": by_counts([1, 2], 4)}
    assert "-0.0" not in markdown(summarize([model("a", same), model("c", same)], 0))


def test_the_mean_is_never_a_table_of_its_own() -> None:
    answers = {name: by_counts([1, 2], 2) for name in (*PAPER_BENCHMARKS, "arithmetic")}
    text = printed(summarize([model("m", answers)], 0))
    assert max(map(len, text.splitlines())) <= 80
    first, second = [line.split() for line in text.splitlines() if line.startswith(" model")][:2]
    assert first[1:] == ["AIME24", "AIME25", "AIME26", "HMMT26"]
    assert second[1:] == ["AMC23", "MATH500", "arithmetic", "mean", "of", "the", "six"]


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("qwen3_8b", 8, ["qwen3_8b"]),
        ("logs/rlrt_4b/2026-01-01_10-00-00", 20, ["logs/rlrt_4b/2026-", "01-01_10-00-00"]),
        ("a/checkpointofmanyletters", 10, ["a/", "chec…tters"]),
        ("", 5, [""]),
        ("漢漢漢漢漢漢", 7, ["漢…漢漢"]),
    ],
)
def test_names_break_at_their_joints(name: str, width: int, lines: list[str]) -> None:
    assert folded(name, width) == lines


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_long_names_leave_the_numbers_whole(width: int) -> None:
    names = ["anybody/a-model_with_a_very_long_name-of-60-characters-or-even-more", "x" * 70]
    answers = {"b": by_counts([1, 2, 4], 4), "many_problems_of_mine": by_counts([1, 3, 4], 4)}
    text = printed(summarize([model(name, answers) for name in names], 0), width)
    assert max(map(len, text.splitlines())) <= width
    assert "[25.0, 100.0]" in text
    assert "model_" in text


def test_the_paper_stands_beside_whole_benchmarks_alone() -> None:
    row = paper_row("qwen3_8b", None)
    answers = {"aime24": by_counts([1, 2], 4), "amc23": by_counts([1, 2], 4)}
    sizes = {"aime24": 30, "amc23": 2}
    part = summarize([model("m", answers, paper=row)], 0, sizes)
    cells = rows(markdown(part))
    assert cells[0] == ["model", "AIME24 (2 of 30)", "AMC23", "mean of 2"]
    assert cells[3][1:] == ["–", "67.0 / 95.0", "–"]
    said = " ".join(as_json(part)["notes"])
    assert "same model and method, your settings may differ" in said
    assert "Here n is 4, in the paper 16" in said
    assert as_json(part)["benchmarks"][0]["models"][0]["paper"] is None
    none = summarize([model("m", answers, paper=row)], 0, dict.fromkeys(answers, 30))
    assert "paper" not in markdown(none).replace("not over the paper's six", "")
    same = {"amc23": by_counts([8, 9], 16)}
    assert "Here n is" not in markdown(summarize([model("m", same, paper=row)], 0))


def test_no_interval_is_none_and_a_flat_one_is_explained() -> None:
    alone = summarize([model("m", {"b": by_counts([2], 4)})], 0)
    assert "50.0 – " in markdown(alone)
    assert "[" not in markdown(alone)
    found = as_json(alone)["benchmarks"][0]["models"][0]["average"]
    assert found == {"value": 0.5, "low": None, "high": None}
    assert "One problem alone has no interval" in markdown(alone)
    alike = markdown(summarize([model("m", {"b": by_counts([2, 2], 4)})], 0))
    assert "its interval has width 0: that is no certainty" in alike
    assert "width 0" not in markdown(summarize([model("m", {"b": by_counts([0, 1, 0, 2], 2)})], 0))


def test_parts_of_the_six_are_not_the_headline() -> None:
    answers = {name: by_counts([1, 2], 4) for name in PAPER_BENCHMARKS}
    text = markdown(summarize([model("m", answers)], 0, dict.fromkeys(PAPER_BENCHMARKS, 30)))
    assert "mean of the six" not in text
    assert "The mean is over parts of the six benchmarks: it is not the paper's." in text
