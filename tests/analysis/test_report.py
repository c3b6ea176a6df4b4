"""What a report says of runs with known numbers, and of folders that lack something."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from transformers import PreTrainedTokenizerBase

from rlrt.analysis.report import page
from rlrt.analysis.report_charts import evaluation_table, final_metrics, plain, sections, thin, told
from rlrt.analysis.report_health import checks, stage_seconds
from rlrt.analysis.report_runs import ReportedRun, read_runs
from rlrt.analysis.report_samples import HEAD, TAIL, Samples, samples_of
from rlrt.analysis.report_text import differences, flat, pieces_of, visible
from rlrt.errors import UserError

CONFIG: dict[str, Any] = {
    "seed": 0,
    "trainer": {"max_epochs": 4, "precision": "32-true"},
    "engine": {"max_logprob_gap": None},
    "loss": {"rollout_correction_limit": 2.0},
    "credit": {"_target_": "rlrt.credit.rlrt.RLRT", "mixing": 0.5},
    "training": {"temperature": 1.0},
}
COLUMNS = "step,reward/mean,sync/logprob_gap,rollout/truncated,time/step_s,time/rollout_s"
METRICS = [
    f"{COLUMNS},time/evaluation_s",
    "0,0.25,1e-6,0,3,1,8",
    "1,0.5,3e-6,0.5,3,2,",
    "2,0.75,2e-6,0.5,3,1,",
    "3,1.0,1e-6,0.5,3,2,",
]
EVALUATIONS = ["step,avg@2,pass@1,pass@2", "0,0.4,0.4,0.5", "2,0.9,0.9,1", "4,0.8,0.8,1"]
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a run folder of four steps; ``None`` for a file leaves it out."""

    def made(
        name: str = "run",
        config: dict[str, Any] | str | None = CONFIG,
        metrics: list[str] | str | None = METRICS,
        evaluations: list[str] | str | None = EVALUATIONS,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        told = yaml.safe_dump(config) if isinstance(config, dict) else config
        tables = [
            part if isinstance(part, str | None) else "\n".join(part)
            for part in (metrics, evaluations)
        ]
        for file, text in zip(
            ("config.yaml", "metrics.csv", "evaluation.csv"), (told, *tables), strict=True
        ):
            if text is not None:
                (folder / file).write_text(text, encoding="utf-8")
        return folder

    return made


def seeded(number: int) -> dict[str, Any]:
    return CONFIG | {"seed": number}


def one(folder: Path) -> ReportedRun:
    return read_runs([folder])[0]


def whole_page(runs: list[ReportedRun]) -> str:
    return page(runs, [samples_of(run.folder, None) for run in runs], [None] * len(runs))


def state_of(run: ReportedRun, title: str) -> tuple[str, str]:
    found = {row[0]: row[2][0] for row in checks([run], [None])}[title]
    return found.state, found.text


# ---- run folders --------------------------------------------------------------------------------


def test_runs_are_named_by_method_and_seed_and_by_folder_where_that_is_not_enough(
    make: Make,
) -> None:
    other = seeded(0) | {"credit": {"_target_": "rlrt.credit.rlrt.RLRT", "mixing": 1.0}}
    folders = [make("a"), make("b", seeded(1)), make("c", other), make("d")]
    a, b, c, d = (run.name for run in read_runs([*folders, folders[0]]))
    assert b == "rlrt credit.mixing=0.5, seed 1"
    assert c == "rlrt credit.mixing=1.0, seed 0"
    assert a == f"rlrt credit.mixing=0.5, seed 0 ({folders[0].parent.name}/a)"
    assert d.endswith("/d)")


def test_a_run_has_ended_when_all_steps_are_done_and_the_last_evaluation_is_there(
    make: Make,
) -> None:
    assert one(make("ended")).ended
    # after the evaluation in its middle a run looks like one of fewer steps that has ended
    middle = one(make("middle", metrics=METRICS[:3], evaluations=EVALUATIONS[:3]))
    assert (middle.done, middle.planned, middle.ended) == (2, 4, False)
    assert not one(make("unevaluated", evaluations=EVALUATIONS[:3])).ended
    assert "has not ended" in whole_page([middle])


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"config": None}, "config.yaml is not there"),
        ({"config": "a: [1"}, "config.yaml is damaged (ParserError)"),
        ({"config": "a: &x [*x]"}, "config.yaml is damaged (RecursionError)"),
        ({"metrics": None}, "metrics.csv is not there"),
        ({"metrics": "step,a\n0,1\n1,x"}, "metrics.csv is not a table of numbers"),
        ({"metrics": "step,a\n0,1,2"}, "metrics.csv is not a table of numbers"),
        ({"metrics": "step\n" + "1" * 200_000}, "metrics.csv is damaged (field larger"),
        ({"metrics": "step,a\nnan,1\n1,2"}, "metrics.csv holds 1 rows without a step"),
        ({"evaluations": None}, "evaluation.csv is not there"),
        ({"evaluations": ""}, "evaluation.csv holds no rollout steps"),
    ],
)
def test_what_a_folder_lacks_is_said_and_the_rest_is_shown(
    make: Make, lost: dict[str, Any], said: str
) -> None:
    run = one(make(**lost))
    assert len(run.notes) == 1
    assert run.notes[0].startswith(said)
    html = whole_page([run])
    assert said.split("(")[0] in html
    assert ('<td class="number">0.8</td>' in html) == ("evaluations" not in lost)


@pytest.mark.parametrize("kind", ["nowhere", "empty", "other"])
def test_a_folder_that_is_no_run_is_one_sentence(make: Make, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "nowhere"
    if kind != "nowhere":
        config = None if kind == "empty" else {"learning_rate": 1}
        folder = make(config=config, metrics=None, evaluations=None)
    with pytest.raises(UserError, match="no run folder"):
        read_runs([folder])


# ---- settings -----------------------------------------------------------------------------------


def test_settings_by_full_name_and_where_they_differ() -> None:
    first = flat({"a": {"b": 1, "c": None}, "d": [1, "x"], "e": {}, "f": [{"g": True}]})
    assert first == {"a.b": "1", "a.c": "null", "d": "[1, x]", "e": "{}", "f[0].g": "true"}
    second = first | {"a.b": "2", "h": "3"}
    assert differences([first, second]) == {"a.b": ["1", "2"], "h": ["–", "3"]}
    assert differences([first]) == {}


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (0.0, "0"),
        (0.123456, "0.1235"),
        (-3.5e-6, "−3.50e−06"),
        (12345.6, "12,346"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers_are_told_in_four_digits(value: float | None, shown: str) -> None:
    assert told(value) == shown


def test_a_long_curve_keeps_its_ends_its_peaks_and_its_broken_numbers() -> None:
    points = [(step, float(step % 7)) for step in range(10_000)]
    points[5001], points[6001], points[7001] = (5001, 99.0), (6001, -99.0), (7001, math.nan)
    kept = thin(points, 300)
    assert len(kept) <= 300
    assert kept == sorted(kept, key=lambda point: point[0])
    assert {points[0], points[-1], points[5001], points[6001], points[7001]} <= set(kept)
    assert set(kept) <= set(points)  # nothing is averaged
    assert thin(points[:300], 300) == points[:300]


def test_json_gets_numbers_it_has() -> None:
    assert [plain(v) for v in (0.1234567, 3.0, math.nan, math.inf)] == [0.12346, 3, "NaN", "∞"]


def test_every_column_has_one_chart(make: Make) -> None:
    run = one(make())
    charts = [chart for part in sections([run], [1e-4]).values() for chart in part]
    columns = [(chart.column, chart.held_out) for chart in charts]
    expected = [(name, False) for name in METRICS[0].split(",")[1:]]
    expected += [(name, True) for name in EVALUATIONS[0].split(",")[1:]]
    assert sorted(columns) == sorted(expected)
    assert [chart.number for chart in charts] == list(range(len(charts)))
    reward = next(chart for chart in charts if chart.column == "reward/mean")
    assert reward.curves == [
        {"run": 0, "x": [0, 1, 2, 3], "y": [0.25, 0.5, 0.75, 1], "thinned": False}
    ]
    assert reward.table == [["0", "0.25"], ["1", "0.5"], ["2", "0.75"], ["3", "1"]]


def test_first_best_and_last_evaluation(make: Make) -> None:
    headings, rows = evaluation_table(one(make()))
    assert headings == ["", "step", "avg@2", "pass@1", "pass@2"]
    assert [row[:3] for row in rows] == [
        ["first", "0", "0.4"],
        ["best", "2", "0.9"],
        ["last", "4", "0.8"],
    ]


def test_means_of_the_first_and_the_last_steps(make: Make) -> None:
    rows = [f"{step},{step}" for step in range(20)]
    run = one(make(metrics=["step,a", *rows]))
    assert final_metrics([run]) == [("a", [("2", "17")])]  # of 0 to 4, of 15 to 19


# ---- health -------------------------------------------------------------------------------------


def test_health_of_a_run_with_known_numbers(make: Make) -> None:
    run = one(make())
    assert state_of(run, "Sync gap") == ("fine", "3.00e−06 nats at step 1, limit 1.00e−04")
    assert state_of(run, "Numbers") == ("fine", "37 values")
    assert state_of(run, "Truncated responses")[0] == "look"  # (0 + 3 * 0.5) / 4 is above 10 %
    assert state_of(run, "Undecided answers")[0] == "unknown"
    assert state_of(run, "Steps") == ("fine", "4 of 4 done")


@pytest.mark.parametrize(
    ("row", "settings", "title", "state"),
    [
        ("3,1,2e-4,0,3,2,", {}, "Sync gap", "wrong"),
        ("3,1,nan,0,3,2,", {}, "Sync gap", "wrong"),
        ("3,1,2e-4,0,3,2,", {"engine": {"max_logprob_gap": 1e-3}}, "Sync gap", "fine"),
        ("3,1,2e-4,0,3,2,", {"trainer": {"precision": "bf16-mixed"}}, "Sync gap", "fine"),
        ("3,1,2e-4,0,3,2,", {"trainer": {}}, "Sync gap", "unknown"),
        ("3,inf,0,0,3,2,", {}, "Numbers", "wrong"),
        ("4,1,0,0,3,2,", {}, "Steps", "look"),
    ],
)
def test_what_is_not_well_is_told(
    make: Make, row: str, settings: dict[str, Any], title: str, state: str
) -> None:
    run = one(make(config=CONFIG | settings, metrics=[*METRICS[:4], row]))
    assert state_of(run, title)[0] == state
    assert "NaN" not in str(sections([run], [])) or "nan" in row
    whole_page([run])  # broken numbers stop nothing


def test_seconds_of_stages_add_up(make: Make) -> None:
    # steps of 3 s, 1.5 s of them sampling on average; an evaluation of 8 s in one of four
    assert stage_seconds(one(make())) == {"rollout": 1.5, "other": 1.5, "evaluation": 2.0}


# ---- samples ------------------------------------------------------------------------------------


def test_samples_of_a_real_run(run_folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    found = samples_of(run_folder, pieces_of(tokenizer))
    assert not found.notes
    assert {row["verdict"] for row in found.rollouts} == {"right", "wrong"}
    for row in found.rollouts:
        tokens = row["tokens"]
        text = "".join(tokens["text"])
        assert text.removesuffix("<|im_end|>") == row["response"]
        assert len(tokens["text"]) == len(tokens["credit"]) == row["length"]
        assert tokens["skipped"] == 0
    right, wrong = found.rollouts[:2]
    assert right["problem"] == wrong["problem"]
    assert any(right["tokens"]["credit"])
    assert found.weights is not None
    assert found.weights["marks"][2] == pytest.approx(1, abs=1e-4)  # a run in float32


def records(run_folder: Path) -> pa.Table:
    return pq.read_table(run_folder / "rollouts" / "step=000002.parquet")


def stored(tmp_path: Path, table: pa.Table) -> Samples:
    (tmp_path / "rollouts").mkdir()
    pq.write_table(table, tmp_path / "rollouts" / "step=000002.parquet")
    return samples_of(tmp_path, None)


def test_the_middle_of_a_long_response_is_left_out(
    run_folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    row = records(run_folder).to_pylist()[0]
    ids = tokenizer.encode("Add 1: 2\n" * 4000, add_special_tokens=False)
    numbers = [float(i) for i in range(len(ids))]
    row |= {"response_ids": ids, "response": tokenizer.decode(ids), "credit": numbers}
    row |= {"engine_logprobs": numbers, "student_logprobs": numbers, "teacher_logprobs": None}
    (tmp_path / "rollouts").mkdir()
    table = pa.Table.from_pylist([row], schema=records(run_folder).schema)
    pq.write_table(table, tmp_path / "rollouts" / "step=000000.parquet")
    [shown] = samples_of(tmp_path, pieces_of(tokenizer)).rollouts
    tokens = shown["tokens"]
    assert len(ids) > 20_000
    assert len(tokens["text"]) == len(tokens["credit"]) == HEAD + TAIL
    assert tokens["skipped"] == len(ids) - HEAD - TAIL
    assert tokens["credit"][HEAD] == len(ids) - TAIL
    assert len(shown["response"]) < 10_000
    assert "more characters" in shown["response"]


def test_without_the_tokenizer_the_text_stands_alone(run_folder: Path, tmp_path: Path) -> None:
    found = stored(tmp_path, records(run_folder))
    assert found.rollouts
    assert all(row["tokens"] is None and row["response"] for row in found.rollouts)


def test_another_tokenizer_is_noticed(tokenizer: PreTrainedTokenizerBase) -> None:
    pieces = pieces_of(tokenizer)
    assert pieces(tokenizer.encode("Add 1"), "Add 1") is not None
    assert pieces(tokenizer.encode("Add 1"), "Add 2") is None
    assert pieces([len(tokenizer)], "") is None
    assert pieces([-1], "") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop_columns(["credit"]), "lacks credit"),
        (lambda table: table.set_column(0, "step", pa.array(["x"] * len(table))), "another format"),
        (
            lambda table: table.set_column(
                table.schema.get_field_index("response"),
                "response",
                pa.array([b"\xff"] * len(table)).view(pa.string()),
            ),
            "another format",
        ),
        (
            lambda table: table.set_column(
                table.schema.get_field_index("response_ids"),
                table.schema.field("response_ids"),
                pa.nulls(len(table), pa.list_(pa.int32())),
            ),
            "response_ids hold nothing",
        ),
    ],
)
def test_records_of_another_format_are_told(
    run_folder: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    found = stored(tmp_path, change(records(run_folder)))
    assert not found.rollouts
    assert said in found.notes[0]


def test_damaged_and_missing_records_are_told(run_folder: Path, tmp_path: Path) -> None:
    assert "no records" in samples_of(tmp_path, None).notes[0]
    shutil.copytree(run_folder / "rollouts", tmp_path / "rollouts")
    (tmp_path / "rollouts" / "step=000002.parquet").write_bytes(b"PAR1 cut short")
    found = samples_of(tmp_path, None)
    assert "step=000002.parquet is no readable parquet file" in found.notes[0]
    assert {row["step"] for row in found.rollouts} <= {0, 1}
    assert found.rollouts
    (tmp_path / "rollouts" / "step=000001.parquet").write_bytes(b"")
    (tmp_path / "rollouts" / "step=000000.parquet").write_bytes(b"")
    nothing = samples_of(tmp_path, None)
    assert nothing.notes[1:] == ("2 more of the last 3 files cannot be read",)


def test_empty_records_hold_no_samples(run_folder: Path, tmp_path: Path) -> None:
    assert not stored(tmp_path, records(run_folder).slice(0, 0)).rollouts


# ---- text ---------------------------------------------------------------------------------------


def test_signs_that_do_not_show_become_escapes() -> None:
    text = "a<b>\n\tü漢\x07\x1b\u2028\u202e\ud800\u200d"
    assert visible(text) == "a<b>\n\tü漢\\x07\\x1b\\u2028\\u202e\\ud800\\u200d"
    assert visible("a\nb", kept="") == "a\\nb"


def test_bytes_that_are_half_a_character_become_escapes(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    ids = tokenizer.encode("1€", add_special_tokens=False)
    assert len(ids) == 4
    assert pieces_of(tokenizer)(ids, "1€") == ["1", "\\xe2", "\\x82", "\\xac"]


# ---- size ---------------------------------------------------------------------------------------


def test_five_long_runs_fit_a_small_page(make: Make) -> None:
    names = [f"stage/quantity_{number}" for number in range(40)]
    rows = [
        ",".join([str(step), *(f"{math.sin(step * (n + 1)):.17g}" for n in range(len(names)))])
        for step in range(1000)
    ]
    table = [",".join(["step", *names]), *rows]
    runs = read_runs([make(f"run{seed}", seeded(seed), table) for seed in range(5)])
    assert len(whole_page(runs).encode()) < 5e6
