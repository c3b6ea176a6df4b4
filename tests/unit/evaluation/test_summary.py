import numpy as np
import pytest
from tests.unit.evaluation.answered import by_counts, model

from rlrt.data.benchmarks import PAPER_BENCHMARKS
from rlrt.errors import UserError
from rlrt.evaluation.summary import EvaluatedModel, summarize


def test_one_model_by_hand() -> None:
    """Two problems of four samples: 2 right and 1 right, one undecided, the rest cut."""
    summary = summarize([model("m", {"b": {"x": "1100", "y": "10?0"}})], seed=0)
    (benchmark,) = summary.benchmarks
    assert (benchmark.name, benchmark.problems, benchmark.samples) == ("b", 2, 4)
    (result,) = benchmark.results
    assert result.average.value == pytest.approx(3 / 8)  # undecided is wrong, whatever it earns
    assert result.solved.value == 1.0
    # 1 - C(2,2)/C(4,2) = 5/6 and 1 - C(3,2)/C(4,2) = 1/2
    expected = {1: 3 / 8, 2: (5 / 6 + 1 / 2) / 2, 4: 1.0}
    assert {k: one.value for k, one in result.pass_at.items()} == pytest.approx(expected, abs=1e-12)
    assert (result.average.low, result.average.high) == (0.25, 0.5)  # of one problem drawn twice
    assert (result.gain, result.solved_gain) == (None, None)
    (scores,) = benchmark.scores
    assert (scores.tokens, scores.truncated, scores.undecided) == (3.0, 4 / 8, 1 / 8)
    assert summary.mean is None
    assert summary.split == ()


def test_the_same_rollouts_and_seed_give_the_same_numbers_in_any_order() -> None:
    samples = by_counts([count * count % 17 for count in range(101)], 16)
    one = summarize([model("m", {"b": samples})], 7)
    turned = summarize([model("m", {"b": dict(reversed(samples.items()))})], 7)
    other = summarize([model("m", {"b": samples})], 8)
    assert one.benchmarks[0].results == turned.benchmarks[0].results
    assert one.benchmarks[0].results != other.benchmarks[0].results


def two_models() -> tuple[dict[str, str], dict[str, str]]:
    """Forty problems of very different difficulty; the second model has one more of eight right."""
    first = [0, 7, 1, 6, 7, 0, 2, 5] * 5
    return by_counts(first, 8), by_counts([count + 1 for count in first], 8)


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    first, second = two_models()
    summary = summarize([model("a", {"b": first}), model("c", {"b": second})], 0)
    old, new = summary.benchmarks[0].results
    assert new.gain is not None
    assert new.gain.value == pytest.approx(1 / 8)
    width = new.gain.high - new.gain.low
    unpaired = np.hypot(*(one.average.high - one.average.low for one in (old, new)))
    assert width < 1e-9 < unpaired


def test_problems_are_paired_by_their_ids() -> None:
    """Listed in another order, the same answers differ nowhere."""
    first, _ = two_models()
    models = [model("a", {"b": first}), model("c", {"b": dict(reversed(first.items()))})]
    gain = summarize(models, 0).benchmarks[0].results[1].gain
    assert gain is not None
    assert (gain.value, gain.low, gain.high) == (0, 0, 0)


def test_the_headline_is_the_mean_of_the_six_and_of_nothing_else() -> None:
    counts = {name: by_counts([number], 4) for number, name in enumerate(PAPER_BENCHMARKS[:5])}
    counts |= {"extra": by_counts([4], 4), "math500": by_counts([2, 2, 2, 2], 4)}
    mean = summarize([model("m", counts)], 0).mean
    assert mean is not None
    assert mean.is_headline
    assert mean.benchmarks == PAPER_BENCHMARKS
    assert mean.results[0].average.value == pytest.approx((0 + 1 + 2 + 3 + 4 + 2) / 24)


def test_without_all_six_it_is_the_mean_of_what_is_there() -> None:
    counts = {"math500": by_counts([1, 1], 4), "mine": by_counts([4], 8)}
    mean = summarize([model("m", counts)], 0).mean
    assert mean is not None
    assert not mean.is_headline
    assert mean.benchmarks == ("math500", "mine")
    assert mean.results[0].average.value == pytest.approx((0.25 + 0.5) / 2)
    assert list(mean.results[0].pass_at) == [1, 2, 4]  # 8 is not in both


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"b": {"x": "11", "z": "11"}}, "on b: only one of them answered 2 of the problems, as y"),
        ({"b": {"x": "1", "y": "1"}}, "they have 2 and 1 samples"),
        ({"c": {"x": "11", "y": "11"}}, "only one of them answered b, c"),
        ({"b": {"x": "11", "y": "1"}}, "second on b holds 1 samples of problem y and 2 of x"),
    ],
)
def test_models_that_cannot_be_compared(other: dict[str, dict[str, str]], sentence: str) -> None:
    models = [model("first", {"b": {"x": "10", "y": "01"}}), model("second", other)]
    with pytest.raises(UserError, match=sentence):
        summarize(models, 0)


def test_exactly_60_percent_is_not_weak() -> None:
    """3 of 5 is not weak; 2 of 5 is; a problem that was not asked is neither."""
    teacher = {"b": {"p000": "11100", "p001": "11000"}}
    first = model("a", {"b": by_counts([0, 1, 2], 4)}, teacher)
    second = model("c", {"b": by_counts([1, 3, 2], 4)})
    weak, strong, unasked = summarize([first, second], 0).split
    assert [(part.weak, part.problems) for part in (weak, strong, unasked)] == [
        (True, 1),
        (False, 1),
        (None, 1),
    ]
    assert [one.value for one in weak.averages] == [1 / 4, 3 / 4]
    assert [one.value for one in weak.gains] == [1 / 2]
    assert [one.value for one in strong.gains] == [1 / 4]
    assert [one.value for one in unasked.gains] == [0]


def test_the_teacher_view_may_have_answered_problems_unequally_often() -> None:
    """A right rollout without another right one has no peer, and is not asked again."""
    teacher = {"b": {"p000": "110", "p001": "10"}}
    parts = summarize([model("a", {"b": by_counts([1, 2], 3)}, teacher)], 0).split
    assert [(part.weak, part.problems) for part in parts] == [(True, 1), (False, 1)]
    assert parts[0].averages[0].value == pytest.approx(2 / 3)


def test_the_split_of_several_benchmarks_pools_their_problems() -> None:
    answers = {"b": by_counts([1, 2], 4), "c": by_counts([3], 4)}
    teacher = {"b": {"p000": "0", "p001": "1"}, "c": {"p000": "0"}}
    parts = summarize([model("a", answers, teacher)], 0).split
    assert [(part.benchmark, part.weak, part.problems) for part in parts] == [
        (None, True, 2),
        (None, False, 1),
        ("b", True, 1),
        ("b", False, 1),
        ("c", True, 1),
    ], "no part without problems"
    assert parts[0].averages[0].value == pytest.approx((1 / 4 + 3 / 4) / 2)


def test_a_teacher_view_without_a_context_is_no_teacher_view() -> None:
    """Its rollouts are the student's own: choosing problems by them would favor the other model."""
    asked = model("a", {"b": by_counts([0, 1], 4)}, {"b": {"p001": "1111"}})
    assert asked.teacher is not None
    own = [one for one in asked.rollouts["b"] if one.problem.id == "p000"]
    filled = EvaluatedModel("a", None, asked.rollouts, {"b": [*own, *asked.teacher["b"]]})
    assert summarize([filled], 0).split == summarize([asked], 0).split
    parts = summarize([filled], 0).split
    assert [(part.weak, part.problems) for part in parts] == [(False, 1), (None, 1)]


def test_no_context_anywhere_is_one_part() -> None:
    asked = model("a", {"b": by_counts([0, 1], 4)})
    alone = EvaluatedModel("a", None, asked.rollouts, asked.rollouts)
    parts = summarize([alone], 0).split
    assert [(part.weak, part.problems) for part in parts] == [(None, 2)]


def test_one_problem_has_no_interval_nor_a_mean_over_it() -> None:
    answers = {"b": by_counts([2], 4), "c": by_counts([0, 4, 2], 4)}
    models = [model("a", answers, {"b": {"p000": "1"}}), model("d", answers)]
    summary = summarize(models, 0)
    alone, several = (benchmark.results[1] for benchmark in summary.benchmarks)
    assert summary.mean is not None
    for result in (alone, summary.mean.results[1]):
        assert result.gain is not None
        for one in (result.average, result.solved, result.gain):
            assert (one.low, one.high) == (None, None)
    assert summary.split[0].gains[0].low is None
    assert several.average.low is not None
    assert several.average.low < several.average.value


def test_a_part_of_a_benchmark_is_not_the_benchmark() -> None:
    answers = {name: by_counts([1, 2], 4) for name in PAPER_BENCHMARKS}
    whole = summarize([model("m", answers)], 0, dict.fromkeys(PAPER_BENCHMARKS, 2))
    assert whole.mean is not None
    assert whole.mean.is_headline
    part = summarize([model("m", answers)], 0, dict.fromkeys(PAPER_BENCHMARKS, 2) | {"amc23": 40})
    assert [one.is_complete for one in part.benchmarks] == [
        name != "amc23" for name in PAPER_BENCHMARKS
    ]
    assert part.mean is not None
    assert not part.mean.is_headline
