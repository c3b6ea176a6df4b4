"""Distribution shift: exact vectors, slow loops over whole logits, and hand-made ties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.analysis.shift import (
    DISTANCES,
    TOP,
    Shift,
    draw,
    hardest,
    likeliest,
    read_shift,
    shift_of,
    shift_rows,
    top_overlap,
)
from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.model.policy import Policy

NO_IDS = torch.zeros(1, dtype=torch.long)


def log(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def rollout(group: int, verdict: Verdict, ids: tuple[int, ...] = (5, 6)) -> Rollout:
    problem = Problem(str(group), "question", "1", "hand")
    response = Response(ids, (0.0,) * len(ids), False)
    return Rollout(problem, group, 0, (1, 7, 3), response, "", verdict, 0.0)


def test_the_vector_of_the_formulas() -> None:
    tuned, base = log(0.7, 0.2, 0.1), log(0.1, 0.2, 0.7)
    # the printed vector, .253101615412807, has a wrong digit: this is the formula's, by hand
    js = 0.7 * math.log(0.7 / 0.4) + 0.1 * math.log(0.1 / 0.4)
    assert js == pytest.approx(0.253101615442807, abs=1e-15)
    assert read_shift(tuned, base, NO_IDS)["js_N"].item() == pytest.approx(js, abs=1e-12)


def test_bounds_and_equal_distributions() -> None:
    apart = read_shift(log(1.0, 0.0), log(0.0, 1.0), NO_IDS)
    assert apart["js_N"].item() == pytest.approx(math.log(2), abs=1e-12)
    assert apart["base_probability_N"].item() == 0
    same = read_shift(log(0.6, 0.4), log(0.6, 0.4), NO_IDS)
    assert same["js_N"].item() == 0
    assert same["overlap_NK"].tolist() == [[1.0, 1.0]]
    assert same["base_probability_N"].item() == pytest.approx(0.6)


@given(st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 30.0]))
def test_js_is_symmetric_and_bounded(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, 4, 30, generator=generator) * scale
    ids = torch.zeros(4, dtype=torch.long)
    js_n = read_shift(one, other, ids)["js_N"]
    torch.testing.assert_close(js_n, read_shift(other, one, ids)["js_N"], atol=1e-6, rtol=0)
    assert (js_n >= 0).all()
    assert (js_n <= math.log(2)).all()


def test_against_a_slow_loop_over_the_vocabulary() -> None:
    generator = torch.Generator().manual_seed(0)
    tuned, base = torch.randn(2, 6, 40, generator=generator, dtype=torch.float64) * 2
    found = read_shift(tuned, base, torch.zeros(6, dtype=torch.long))
    for n in range(6):
        p, q = tuned[n].softmax(-1).tolist(), base[n].softmax(-1).tolist()
        js = 0.0
        for a, b in zip(p, q, strict=True):
            middle = (a + b) / 2
            js += 0.5 * a * math.log(a / middle) + 0.5 * b * math.log(b / middle)
        assert found["js_N"][n].item() == pytest.approx(js, abs=1e-12)
        ranked = [sorted(range(40), key=lambda v, x=x: -x[v]) for x in (p, q)]
        for k in range(1, TOP + 1):
            common = len(set(ranked[0][:k]) & set(ranked[1][:k])) / k
            assert found["overlap_NK"][n, k - 1].item() == pytest.approx(common)
        assert found["base_probability_N"][n].item() == pytest.approx(q[ranked[0][0]])


def test_overlap_by_hand() -> None:
    first, second = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[2, 1, 5, 3]])
    expected = torch.tensor([[0, 1, 2 / 3, 3 / 4]])
    torch.testing.assert_close(top_overlap(first, second), expected)
    torch.testing.assert_close(top_overlap(second, first), expected)


def test_of_equal_logits_the_lower_id_comes_first() -> None:
    logits = torch.tensor(
        [
            [0.0, 2.0, 1.0, 2.0, 1.0, 1.0],  # a tie within and one across the third place
            [3.0, 3.0, 3.0, 3.0, 3.0, 3.0],
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        ]
    )
    assert likeliest(logits, 3).tolist() == [[1, 3, 2], [0, 1, 2], [5, 4, 3]]
    assert likeliest(logits[:1], 9).tolist() == [[1, 3, 2, 4, 5, 0]]


@given(st.lists(st.integers(0, 4), min_size=5, max_size=40), st.integers(1, 8))
def test_likeliest_is_a_stable_sort(values: list[int], count: int) -> None:
    wanted = sorted(range(len(values)), key=lambda v: (-values[v], v))[:count]
    assert likeliest(torch.tensor([values]).float(), count).tolist() == [wanted]


def test_policies_are_read_behind_the_same_prompts(
    tiny: PreTrainedModel, random_policy: object
) -> None:
    base = random_policy(torch.float32)  # type: ignore[operator]
    rollouts = [rollout(0, Verdict.RIGHT, (5, 6, 7, 2)), rollout(1, Verdict.RIGHT, (9, 2))]
    rollouts.insert(1, rollout(2, Verdict.WRONG, ()))
    found = shift_of("tuned", Policy(tiny), Policy(base), rollouts, 0.7, token_budget=8)
    js = []
    for each in (rollouts[0], rollouts[2]):
        ids = torch.tensor([[*each.prompt_ids, *each.response.ids]])
        with torch.no_grad():
            p, q = ((m.eval()(ids).logits[0, 2:-1] / 0.7).softmax(-1) for m in (tiny, base))
        middle = (p + q) / 2
        js += (0.5 * (p * (p / middle).log() + q * (q / middle).log()).sum(-1)).tolist()
    assert found.js_N.tolist() == pytest.approx(js, abs=1e-5)
    assert found.overlap_NK.shape == (6, TOP)
    same = shift_of("same", Policy(tiny), Policy(tiny), rollouts, 0.7, token_budget=8)
    assert same.js_N.max() < 1e-6  # float32: two log-softmaxes of the same logits
    assert same.overlap_NK.min() == 1


def test_hardest_problems_come_first_and_ties_in_order() -> None:
    right, wrong, undecided = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED
    shares = [(right, right), (wrong, right), (undecided, wrong), (right, wrong), (wrong, wrong)]
    rollouts = [rollout(group, verdict) for group, pair in enumerate(shares) for verdict in pair]
    assert hardest(rollouts, 4) == [2, 4, 1, 3]
    assert hardest(rollouts, 9) == [2, 4, 1, 3, 0]


@pytest.fixture
def shift() -> Shift:
    """Four positions, two of them shifted: their base probabilities are .05 and .5."""
    overlap = torch.tensor([[1.0, 1.0], [0.0, 0.5], [1.0, 1.0], [1.0, 0.5]])
    return Shift(
        "tuned", torch.tensor([0.0, 0.15, 0.1, 0.6]), overlap, torch.tensor([0.9, 0.05, 0.9, 0.5])
    )


def values(rows: list[dict[str, object]], panel: str) -> list[tuple[float, float]]:
    return [(row["x"], row["value"]) for row in rows if row["panel"] == panel]  # type: ignore[misc]


def test_panels_by_hand(shift: Shift) -> None:
    assert shift.shifted_N.tolist() == [False, True, False, True]  # .1 itself is not above .1
    rows = shift_rows([shift])
    assert all(
        value == sum(js > x for js in (0.0, 0.15, 0.1, 0.6)) / 4
        for x, value in values(rows, "a")
        if abs(x - 0.1) > 1e-3
    )
    assert len(values(rows, "a")) == len(DISTANCES)
    assert values(rows, "b") == [(1, 0.5), (2, 0.5)]
    below = values(rows, "c")
    assert all(value == (x > 0.0501) / 2 + (x > 0.501) / 2 for x, value in below)
    assert {row["positions"] for row in rows if row["panel"] == "a"} == {4}
    assert {row["positions"] for row in rows if row["panel"] != "a"} == {2}


def test_a_policy_that_did_not_move_has_an_empty_b_and_c(shift: Shift) -> None:
    still = Shift("still", torch.zeros(3), torch.ones(3, 2), torch.full((3,), 0.9))
    rows = shift_rows([shift, still])
    of_still = [row for row in rows if row["policy"] == "still"]
    assert {row["value"] for row in of_still if row["panel"] == "a"} == {0.0}
    assert not any("value" in row for row in of_still if row["panel"] != "a")
    figure = draw(rows, "base", "a title")
    drawn = [[len(line.get_xdata()) for line in axes.lines] for axes in figure.axes]
    assert drawn == [[len(DISTANCES), len(DISTANCES)], [2, 0], [41, 0]]
    alone = draw(shift_rows([still]), "base", "a title")
    alone.canvas.draw()  # no warning where a logarithmic axis has nothing to show
