"""Settings by name, and where they differ."""

from rlrt.analysis.report.settings import by_method, differences, flat


def test_settings_by_full_name_and_where_they_differ() -> None:
    first = flat({"a": {"b": 1, "c": None}, "d": [1, "x"], "e": {}, "f": [{"g": True}]})
    assert first == {"a.b": "1", "a.c": "null", "d": "[1, x]", "e": "{}", "f[0].g": "true"}
    second = first | {"a.b": "2", "h": "3"}
    assert differences([first, second]) == {"a.b": ["1", "2"], "h": ["–", "3"]}
    assert differences([first]) == {}


def test_a_value_stands_once_for_a_method_whose_runs_agree() -> None:
    rows = {"a": ["1", "2", "1"], "seed": ["0", "0", "1"]}
    assert by_method(rows, [[0, 2], [1]]) == {"a": [["1"], ["2"]], "seed": [["0", "1"], ["0"]]}
