from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from tests.unit.analysis.evaluations import evaluation_folder
from tests.unit.evaluation.answered import by_counts, model

from rlrt.analysis.pass_curves import PassCurve, curve, curves, draw, read_answers, rows
from rlrt.errors import UserError
from rlrt.estimators import Answers
from rlrt.evaluation.summary import summarize


def answers(counts: list[int], samples: int) -> Answers:
    ids = tuple(f"p{number:03d}" for number in range(len(counts)))
    return Answers(ids, samples, np.array(counts))


def solved_by_some_of(count: int, samples: int, k: int) -> float:
    """pass@k as what it is: the share of all choices of k samples that hold a right one."""
    chosen = list(combinations(range(samples), k))
    return sum(min(choice) < count for choice in chosen) / len(chosen)


def test_a_curve_is_the_mean_over_problems_of_all_choices_of_k_samples() -> None:
    counts = [0, 1, 3, 6]
    made = curve("m", "b", [answers(counts, 6)])
    assert made.ks == (1, 2, 4, 6)
    for k, mean in zip(made.ks, made.mean_K, strict=True):
        expected = np.mean([solved_by_some_of(count, 6, k) for count in counts])
        assert mean == pytest.approx(expected, abs=1e-12)
    assert np.all(made.low_K < made.mean_K)
    assert np.all(made.mean_K < made.high_K)
    assert made.high_K.max() <= 1


@pytest.mark.parametrize("seed", [0, 3])
def test_the_band_is_the_interval_that_an_evaluation_reports(seed: int) -> None:
    """Whatever other models are evaluated beside it."""
    counts = [0, 1, 3, 8, 8, 2, 5] * 4
    beside = by_counts([8, 7, 6, 5, 4, 3, 2] * 4, 8)
    models = [model("n", {"b": beside}), model("m", {"b": by_counts(counts, 8)})]
    reported = summarize(models, seed).benchmarks[0].results[1].pass_at
    made = curve("m", "b", [answers(counts, 8)], seed)
    assert made.ks == tuple(reported)
    for name, values in (("value", made.mean_K), ("low", made.low_K), ("high", made.high_K)):
        expected = [getattr(one, name) for one in reported.values()]
        assert values.tolist() == pytest.approx(expected, abs=1e-12)


def test_one_problem_is_a_line_without_a_band() -> None:
    made = curve("m", "b", [answers([2], 4)])
    assert made.mean_K == pytest.approx([0.5, 5 / 6, 1.0], abs=1e-12)
    assert np.array_equal(made.low_K, made.mean_K)
    assert np.array_equal(made.high_K, made.mean_K)


def test_seeds_are_averaged_and_the_band_reaches_over_them() -> None:
    made = curve("m", "b", [answers([0, 2], 2), answers([1, 2], 2), answers([2, 2], 2)])
    assert made.evaluations == 3
    assert made.mean_K == pytest.approx([(0.5 + 0.75 + 1) / 3, (0.5 + 1 + 1) / 3])
    assert made.low_K == pytest.approx([0.5, 0.5])
    assert made.high_K == pytest.approx([1, 1])


@pytest.mark.parametrize("other", [answers([1, 1, 1], 2), answers([1, 1], 4)])
def test_other_problems_or_samples_are_no_seed_of_the_method(other: Answers) -> None:
    with pytest.raises(UserError, match="no seeds of one method"):
        curve("m", "b", [answers([0, 2], 2), other])


def test_curves_of_each_benchmark_or_of_one() -> None:
    one = {"b": answers([1], 2), "c": answers([2], 2)}
    other = {"c": answers([0], 2), "b": answers([2], 2)}
    made = curves({"m": [one], "n": [other]}, None)
    assert [(c.benchmark, c.method) for c in made] == [
        ("b", "m"),
        ("b", "n"),
        ("c", "m"),
        ("c", "n"),
    ]
    assert [c.benchmark for c in curves({"m": [one], "n": [other]}, "c")] == ["c", "c"]
    with pytest.raises(UserError, match="of n holds no answers to c, only to b"):
        curves({"m": [one], "n": [{"b": one["b"]}]}, None)


def test_rows_hold_the_numbers_of_the_figure() -> None:
    found = rows([curve("m", "b", [answers([2], 4)])])
    assert [row["k"] for row in found] == [1, 2, 4]
    first = {"benchmark": "b", "method": "m", "k": 1, "pass_at_k": 0.5, "low": 0.5, "high": 0.5}
    assert found[0] == first | {"problems": 1, "samples": 4, "evaluations": 1}


def test_a_panel_for_each_benchmark_with_a_line_for_each_method() -> None:
    sets = {name: answers([1, 3], 8) for name in ("b", "c", "d", "e")}
    made: list[PassCurve] = curves({"_m $x": [sets], "n": [sets]}, None)
    figure = draw(made)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ["b", "c", "d", "e"]
    for axes in panels:
        assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 2, 4, 8]] * 2
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "8"]
    assert [text.get_text() for text in figure.legends[0].texts] == [r" _m \$x", "n"]
    figure.canvas.draw()  # what no label may break
    plt.close(figure)


def test_a_note_says_how_much_was_asked_and_what_the_bands_are() -> None:
    one, other = answers([1, 3], 8), answers([2, 2], 8)
    said = []
    for methods in ({"a": [one]}, {"a": [one, other]}, {"a": [one], "b": [one, other]}):
        figure = draw(curves({m: [{"x": e} for e in es] for m, es in methods.items()}, None))
        said.append(figure.legends[0].get_title().get_text().split("\n"))
        plt.close(figure)
    assert said == [
        ["2 problems, 8 samples of each", "band of 95 %, bootstrap over problems"],
        ["2 problems, 8 samples of each", "mean of 2 seeds, band from lowest to highest"],
        [
            "2 problems, 8 samples of each",
            "mean of 2 seeds, band from lowest to highest",
            "of one evaluation: band of 95 %, bootstrap over problems",
        ],
    ]


def test_answers_are_read_by_benchmark(tmp_path: Path) -> None:
    folder = evaluation_folder(tmp_path / "e", {"b": [0, 2], "c": [1]}, samples=2)
    found = read_answers(folder)
    assert list(found) == ["b", "c"]
    assert found["b"].correct_P.tolist() == [0, 2]  # undecided is wrong, whatever it earned
    assert found["c"].samples == 2
