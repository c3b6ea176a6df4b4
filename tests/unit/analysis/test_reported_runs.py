"""What a report reads of run folders, whole ones and others."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.analysis.run_folders import (
    CONFIG,
    EVALUATIONS,
    METRICS,
    Make,
    one,
    seeded,
    whole_page,
)

from rlrt.analysis.runs import by_method, differences, flat, read_runs
from rlrt.errors import UserError


def test_settings_by_full_name_and_where_they_differ() -> None:
    first = flat({"a": {"b": 1, "c": None}, "d": [1, "x"], "e": {}, "f": [{"g": True}]})
    assert first == {"a.b": "1", "a.c": "null", "d": "[1, x]", "e": "{}", "f[0].g": "true"}
    second = first | {"a.b": "2", "h": "3"}
    assert differences([first, second]) == {"a.b": ["1", "2"], "h": ["–", "3"]}
    assert differences([first]) == {}


def test_a_value_stands_once_for_a_method_whose_runs_agree() -> None:
    rows = {"a": ["1", "2", "1"], "seed": ["0", "0", "1"]}
    assert by_method(rows, [[0, 2], [1]]) == {"a": [["1"], ["2"]], "seed": [["0", "1"], ["0"]]}


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


@pytest.mark.parametrize("target", [None, 1.5, "RLRT", ["a.b"], {"a": "b.c"}])
def test_a_run_of_no_known_method_is_called_by_its_folder(make: Make, target: object) -> None:
    run, other = read_runs([make("odd", CONFIG | {"credit": {"_target_": target}}), make()])
    assert run.method == "odd"
    assert run.name == "odd, seed 0"
    assert other.name == "rlrt, seed 0"


@pytest.mark.parametrize("credit", [{}, None, 5])
def test_a_run_without_a_credit_is_still_shown(make: Make, credit: object) -> None:
    run = one(make("odd", CONFIG | {"credit": credit}))
    assert run.name == "odd, seed 0"
    assert "odd, seed 0" in whole_page([run])


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
        (
            {"metrics": "step\n" + "1" * 200_000},
            "metrics.csv is not a table of numbers (field larger",
        ),
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
