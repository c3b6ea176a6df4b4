"""Reflection injection: where the sentence goes, what is asked, and which outcomes count."""

import math

import pytest
import torch

from rlrt.analysis.reflection import (
    KINDS,
    PLACES,
    Case,
    CheckpointVerdicts,
    Injection,
    draw,
    injections,
    positions,
    rates,
    turnable,
)
from rlrt.batch import Problem, Response, Rollout, Verdict

RIGHT, WRONG, UNDECIDED = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED
HARD, EASY = KINDS
SENTENCE = (90, 91)


def rollout(group: int, sample: int, verdict: Verdict, ids: tuple[int, ...]) -> Rollout:
    return Rollout(
        problem=Problem(str(group), "question", "1", "hand"),
        group=group,
        sample=sample,
        prompt_ids=(1, 2),
        response=Response(ids, tuple(-0.5 * t for t in range(len(ids))), False),
        text="",
        verdict=verdict,
        reward=float(verdict is RIGHT),
    )


def group(number: int, right: int, undecided: int = 0) -> list[Rollout]:
    verdicts = [RIGHT] * right + [UNDECIDED] * undecided + [WRONG] * (8 - right - undecided)
    return [rollout(number, k, verdict, (10, 11, 12)) for k, verdict in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("right", "undecided", "kind", "cases"),
    [
        (0, 0, "hard", 8),
        (2, 0, "hard", 6),
        (2, 2, "hard", 4),  # an undecided rollout is neither right nor a case
        (3, 0, None, 0),
        (4, 0, None, 0),
        (5, 0, "easy", 5),
        (7, 0, "easy", 7),
        (8, 0, None, 0),
    ],
)
def test_wrong_ones_of_hard_and_right_ones_of_easy_problems(
    right: int, undecided: int, kind: str | None, cases: int
) -> None:
    found = turnable([*group(0, right, undecided), *group(1, 4)])
    assert [kind.name for kind, _ in found] == [kind] * cases
    wanted = {"hard": WRONG, "easy": RIGHT}
    assert all(r.group == 0 and r.verdict is wanted[k.name] for k, r in found)


def test_an_empty_response_has_no_place_for_a_sentence() -> None:
    rollouts = group(0, 0)
    rollouts[3] = rollout(0, 3, WRONG, ())
    assert [r.sample for _, r in turnable(rollouts)] == [0, 1, 2, 4, 5, 6, 7]


def test_places_are_the_first_extremes_and_one_by_chance() -> None:
    divergence_T = torch.tensor([0.5, 2.0, 0.1, 2.0, 0.1])
    found = [positions(divergence_T, seed) for seed in range(300)]
    assert {(p["argmax"], p["argmin"]) for p in found} == {(1, 2)}
    by_chance = [p["random"] for p in found]
    assert all(abs(by_chance.count(t) - 60) < 30 for t in range(5))
    assert positions(divergence_T, 7) == positions(divergence_T, 7)


def test_injections_are_cut_before_the_place_with_and_without_the_sentence() -> None:
    case = Case(HARD, rollout(0, 0, WRONG, (10, 11, 12, 2)), torch.tensor([0.1, 0.0, 3.0, 0.2]))
    arms = injections(case, SENTENCE, seed=0)
    assert [arm.place for arm in arms] == [place for place in PLACES for _ in range(2)]
    ids = {(arm.place, bool(arm.sentence_ids)): arm.ids for arm in arms}
    assert ids["argmax", True] == (10, 11, 90, 91)
    assert ids["argmax", False] == (10, 11)
    assert ids["argmin", True] == (10, 90, 91)
    assert ids["argmin", False] == (10,)
    kept = ids["random", False]
    assert kept == (10, 11, 12, 2)[: len(kept)]
    assert len(kept) < 4
    assert ids["random", True] == (*kept, 90, 91)


def test_the_whole_is_kept_sentence_and_continuation() -> None:
    case = Case(HARD, rollout(0, 0, WRONG, (10, 11, 12)), torch.tensor([0.1, 0.2, 3.0]))
    arm = injections(case, SENTENCE, seed=0)[0]
    whole = arm.complete(Response((7, 2), (-1.0, -2.0), True))
    assert whole.ids.tolist() == [10, 11, 90, 91, 7, 2]
    assert whole.engine_logprobs[:2].tolist() == [0.0, -0.5]
    assert all(math.isnan(value) for value in whole.engine_logprobs[2:4])  # never sampled
    assert whole.engine_logprobs[4:].tolist() == [-1.0, -2.0]
    assert whole.truncated


def outcomes(
    number: int, kind_index: int, turned: list[tuple[Verdict, Verdict]], place: str = "argmax"
) -> list[tuple[Injection, Verdict]]:
    """Of one problem, per rollout the verdict with the sentence and without."""
    kind = KINDS[kind_index]
    found = []
    for sample, pair in enumerate(turned):
        case = Case(kind, rollout(number, sample, kind.before, (10, 11)), torch.zeros(2))
        arms = Injection(case, place, 1, SENTENCE), Injection(case, place, 1, ())
        found += list(zip(arms, pair, strict=True))
    return found


def row_of(look: CheckpointVerdicts, kind: str, place: str = "argmax") -> dict[str, float]:
    (found,) = [row for row in rates([look]) if (row["kind"], row["place"]) == (kind, place)]
    return found


def test_transitions_are_counted_by_hand() -> None:
    judged = [
        *outcomes(0, 0, [(RIGHT, WRONG), (RIGHT, RIGHT), (WRONG, WRONG), (UNDECIDED, WRONG)]),
        *outcomes(1, 0, [(WRONG, RIGHT)]),
        *outcomes(2, 1, [(WRONG, RIGHT), (UNDECIDED, RIGHT), (RIGHT, WRONG)]),
    ]
    look = CheckpointVerdicts(10, judged, {"hard": 3})
    hard, easy = row_of(look, "hard"), row_of(look, "easy")
    assert (hard["problems"], hard["rollouts"], hard["undecided"], hard["left_out"]) == (2, 5, 1, 3)
    assert (hard["rate"], hard["control"], hard["change"]) == pytest.approx((2 / 5, 2 / 5, 0.0))
    # right -> wrong: an undecided outcome has not turned
    assert (easy["problems"], easy["rollouts"], easy["left_out"]) == (1, 3, 0)
    assert (easy["rate"], easy["control"], easy["change"]) == pytest.approx((1 / 3, 1 / 3, 0.0))


def test_a_bootstrap_over_problems_keeps_their_rollouts_together() -> None:
    # two problems, all rollouts of one turn and none of the other's: resampled means are 0, ½ or 1
    judged = [
        *outcomes(0, 0, [(RIGHT, WRONG)] * 6),
        *outcomes(1, 0, [(WRONG, WRONG)] * 6),
    ]
    row = row_of(CheckpointVerdicts(0, judged, {}), "hard")
    assert (row["rate"], row["rate_low"], row["rate_high"]) == (0.5, 0.0, 1.0)
    assert (row["control"], row["control_low"], row["control_high"]) == (0.0, 0.0, 0.0)
    assert (row["change"], row["change_low"], row["change_high"]) == (0.5, 0.0, 1.0)


def test_arms_are_paired_in_the_interval_of_their_difference() -> None:
    # every rollout turns by the same cut with and without the sentence: the change is exactly 0
    judged = [
        pair
        for number in range(10)
        for pair in outcomes(number, 0, [(RIGHT, RIGHT) if number % 2 else (WRONG, WRONG)] * 3)
    ]
    row = row_of(CheckpointVerdicts(0, judged, {}), "hard")
    assert row["rate_high"] - row["rate_low"] > 0.3
    assert (row["change"], row["change_low"], row["change_high"]) == (0.0, 0.0, 0.0)


def test_many_problems_have_about_the_binomial_interval() -> None:
    judged = [
        pair
        for number in range(100)
        for pair in outcomes(number, 0, [(RIGHT if number < 30 else WRONG, WRONG)])
    ]
    row = row_of(CheckpointVerdicts(0, judged, {}), "hard")
    width = 1.96 * math.sqrt(0.3 * 0.7 / 100)
    assert row["rate_low"] == pytest.approx(0.3 - width, abs=0.02)
    assert row["rate_high"] == pytest.approx(0.3 + width, abs=0.02)


def test_a_single_problem_has_no_interval_and_an_empty_kind_no_numbers() -> None:
    look = CheckpointVerdicts(10, outcomes(0, 0, [(RIGHT, WRONG)]), {"easy": 8})
    assert "rate_low" not in row_of(look, "hard")
    assert row_of(look, "hard")["rate"] == 1
    assert row_of(look, "easy") == {
        "step": 10, "kind": "easy", "place": "argmax", "problems": 0, "rollouts": 0, "left_out": 8
    }  # fmt: skip


def test_all_kinds_empty_are_said_in_the_picture() -> None:
    rows = rates([CheckpointVerdicts(0, [], {}), CheckpointVerdicts(10, [], {})])
    assert len(rows) == 2 * len(KINDS) * len(PLACES)
    figure = draw(rows, "nothing")
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert said == ["0", "0", "no such problem"] * 2
    figure.canvas.draw()  # with room for all of it: no warning


def test_the_picture_shows_every_rate_and_its_control() -> None:
    looks = [CheckpointVerdicts(step, outcomes(0, 0, [(RIGHT, WRONG)] * 2), {}) for step in (0, 10)]
    figure = draw(rates(looks), "a title")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["at the largest D̄", "at random", "at the smallest D̄", "same cut, no sentence"]
    assert list(lines["at the largest D̄"].get_xdata()) == [0, 10]
    assert list(lines["at the largest D̄"].get_ydata()) == [1, 1]
