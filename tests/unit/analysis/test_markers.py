"""Marker statistics against published vectors and slow loops, and corpora against a plain forward pass."""

import math
from collections import Counter

import pytest
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.analysis.markers import (
    CATEGORIES,
    Corpora,
    View,
    as_texts,
    category,
    draw,
    extremes,
    fold,
    log_odds,
    one_pair_per_problem,
    read_corpora,
    score,
    table,
    word,
)
from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.model.policy import Policy

RIGHT, WRONG, UNDECIDED = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED


def view(
    problem: str, verdict: Verdict, sample: int, ids: tuple[int, ...] = (5, 6), prompt: int = 30
) -> View:
    rollout = Rollout(
        problem=Problem(id=problem, question="", answer="", source="test"),
        group=0,
        sample=sample,
        prompt_ids=(1, prompt, 7),
        response=Response(ids, (0.0,) * len(ids), False),
        text="",
        verdict=verdict,
        reward=float(verdict is RIGHT),
    )
    return View(rollout, (1, prompt, 40, 41, 7))


@pytest.mark.parametrize(
    ("counts", "z"),
    [
        ((40, 1000, 10, 1000), 3.986859445061189),
        ((30, 1000, 30, 1000), 0.0),
        ((0, 1000, 30, 500), -3.412452779274839),
    ],
)
def test_z_of_published_counts(counts: tuple[int, int, int, int], z: float) -> None:
    e, explore_total, x, exploit_total = counts
    assert float(log_odds(e, explore_total, x, exploit_total)[1]) == pytest.approx(z, abs=1e-12)


def test_log_odds_equal_a_slow_loop() -> None:
    draws = torch.randint(0, 200, (2, 50), generator=torch.Generator().manual_seed(0)).tolist()
    e, x = [0, 0, *draws[0]], [0, 9, *draws[1]]
    delta_N, z_N = log_odds(e, sum(e), x, sum(x))
    for n, (e_n, x_n) in enumerate(zip(e, x, strict=True)):
        delta = math.log((e_n + 0.5) / (sum(e) - e_n + 0.5))
        delta -= math.log((x_n + 0.5) / (sum(x) - x_n + 0.5))
        assert delta_N[n] == pytest.approx(delta, abs=1e-12)
        z = delta / math.sqrt(1 / (e_n + 0.5) + 1 / (x_n + 0.5))
        assert z_N[n] == pytest.approx(z, abs=1e-12)


def test_extremes_are_those_of_the_two_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    student_nV, teacher_nV = torch.randn(2, 40, 60, generator=generator, dtype=torch.float64) * 3
    found = extremes(student_nV, teacher_nV + 5, torch.zeros(40))  # normalizers differ
    for n in range(40):
        asymmetry = [
            math.log(p / q)
            for p, q in zip(
                student_nV[n].softmax(-1).tolist(), teacher_nV[n].softmax(-1).tolist(), strict=True
            )
        ]
        assert found["explore"][n] == asymmetry.index(max(asymmetry))
        assert found["exploit"][n] == asymmetry.index(min(asymmetry))


def test_an_id_that_neither_view_can_say_is_no_extreme() -> None:
    never = -torch.inf
    student_nV = torch.tensor([[never, 0.0, 1.0], [0.0, never, 1.0]])
    teacher_nV = torch.tensor([[never, 1.0, 0.0], [0.0, 1.0, never]])
    found = extremes(student_nV, teacher_nV, torch.zeros(2))
    assert found["explore"].tolist() == [2, 2]
    assert found["exploit"].tolist() == [1, 1]


def test_the_markers_of_a_world_made_by_hand() -> None:
    """The student favors "Wait" at 60 positions and " So" at 40, the teacher "boxed" at all of 100."""
    words = [" So", "Wait", "boxed", " wait", "12", "?!"]
    student_nV = torch.zeros(100, len(words))
    student_nV[:40, 0], student_nV[40:80, 1], student_nV[80:, 3] = 1, 1, 1
    teacher_nV = torch.zeros(100, len(words))
    teacher_nV[:, 2] = 2
    found = extremes(student_nV, teacher_nV, torch.zeros(100))
    ids = Corpora(Counter(found["explore"].tolist()), Counter(found["exploit"].tolist()))
    assert ids.explore == {0: 40, 1: 40, 3: 20}
    named = as_texts(ids, lambda i: word(words[i]))
    assert named == Corpora(Counter(wait=60), Counter(boxed=100))  # "so" has two letters
    rows = score(named, 30, 3)
    assert [(row.token, row.explore, row.exploit, row.role) for row in rows] == [
        ("wait", 60, 0, "explore"),
        ("boxed", 0, 100, "exploit"),
    ]
    assert [row.category for row in rows] == ["reflection", "conclusion"]
    assert fold(rows[0]) == math.log2(60.5 / 0.5)
    assert fold(rows[1]) == math.log2(0.5 / 100.5)


def test_only_frequent_tokens_are_scored_against_the_whole_corpora() -> None:
    corpora = Corpora(Counter(often=20, rare=19, more=961), Counter(often=10, rare=10, more=980))
    rows = {row.token: row for row in score(corpora, 30, 3)}
    assert rows.keys() == {"often", "more"}
    assert rows["often"].log_odds == float(log_odds(20, 1000, 10, 1000)[0])
    assert fold(rows["often"]) == 1.0
    assert score(corpora, 2000, 3) == []


def test_markers_reach_the_z_asked_for_and_are_no_stop_words() -> None:
    corpora = Corpora(
        Counter(wait=40, however=40, filler=920), Counter(wait=10, however=10, filler=980)
    )
    z = float(log_odds(40, 1000, 10, 1000)[1])
    for least, role in ((z, "explore"), (math.nextafter(z, 9), "")):
        rows = {row.token: row for row in score(corpora, 30, least)}
        assert rows["wait"].role == role
        assert rows["however"].z == rows["wait"].z == z
        assert rows["however"].role == ""
        assert rows["however"].stop_word
    assert rows["filler"].role == "exploit"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" Wait", "wait"),
        ("\tLET\n", "let"),
        ("so", None),
        ("a" * 15, "a" * 15),
        ("a" * 16, None),
        ("let's", None),
        ("naïve", None),
        ("\u212aelvin", None),  # the Kelvin sign, whose lower case is an ASCII letter
        ("<|im_end|>", None),
        ("12", None),
        ("", None),
    ],
)
def test_a_word_is_3_to_15_ascii_letters(text: str, found: str | None) -> None:
    assert word(text) == found


def test_each_problem_gives_its_first_correct_and_first_incorrect_trajectory() -> None:
    views = [
        view("a", UNDECIDED, 0),
        view("a", WRONG, 1),
        view("b", RIGHT, 0),
        view("a", RIGHT, 2, ids=()),
        view("a", RIGHT, 3),
        view("a", WRONG, 4),
        view("c", WRONG, 0),
        view("c", RIGHT, 1),
        view("c", RIGHT, 2),
        view("b", UNDECIDED, 1),
    ]
    chosen = [
        (v.rollout.problem.id, v.rollout.verdict, v.rollout.sample)
        for v in one_pair_per_problem(views)
    ]
    assert chosen == [("a", RIGHT, 3), ("a", WRONG, 1), ("c", RIGHT, 1), ("c", WRONG, 0)]
    assert one_pair_per_problem(v for v in views if v.rollout.verdict is RIGHT) == []


def test_problems_of_two_benchmarks_are_not_taken_for_each_other() -> None:
    """Their ids may be the same: aime25 and aime26 both number their problems from 1."""
    verdicts = {"aime25": (RIGHT, WRONG), "aime26": (WRONG, RIGHT), "hmmt26": (RIGHT, RIGHT)}
    views = [
        View(view("1", verdict, sample).rollout, (1,), benchmark)
        for benchmark, pair in verdicts.items()
        for sample, verdict in enumerate(pair)
    ]
    chosen = [
        (v.benchmark, v.rollout.verdict, v.rollout.sample) for v in one_pair_per_problem(views)
    ]
    assert chosen == [
        ("aime25", RIGHT, 0),
        ("aime25", WRONG, 1),
        ("aime26", RIGHT, 1),
        ("aime26", WRONG, 0),
    ]


def asymmetry_TV(policy: PreTrainedModel, view: View) -> Tensor:
    """D̂ at every position and id, by two plain forward passes."""
    response = view.rollout.response.ids
    logprobs = []
    for prompt in (view.rollout.prompt_ids, view.teacher_prompt):
        with torch.no_grad():
            logits_TV = policy(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        logprobs.append((logits_TV / 0.7).log_softmax(-1))
    return logprobs[0] - logprobs[1]


@pytest.mark.parametrize("token_budget", [20, 1000])
def test_corpora_equal_a_loop_over_positions(tiny: PreTrainedModel, token_budget: int) -> None:
    views = [
        view(f"p{n}", RIGHT, n, ids=tuple(range(18 + n, 30 + 2 * n)), prompt=20 + n)
        for n in range(5)
    ]
    explore: Counter[int] = Counter()
    exploit: Counter[int] = Counter()
    for shown in views:
        for asymmetry_V in asymmetry_TV(tiny, shown):
            explore[int(asymmetry_V.argmax())] += 1
            exploit[int(asymmetry_V.argmin())] += 1
    assert explore.total() == sum(12 + n for n in range(5))
    assert read_corpora(Policy(tiny), views, 0.7, token_budget) == Corpora(explore, exploit)


def test_every_category_word_can_be_a_marker_and_stands_once() -> None:
    words = [word for words in CATEGORIES.values() for word in words]
    assert len(set(words)) == len(words)
    assert not set(words) & ENGLISH_STOP_WORDS
    assert all(word(text) == text for text in words)
    assert category("wait") == "reflection"
    assert category("banana") == "other"


def test_the_picture_places_every_token_and_names_the_markers() -> None:
    corpora = Corpora(
        Counter({"wait": 90, "$x_1$": 40, "same": 50}),
        Counter({"boxed": 80, "same": 50, "$x_1$": 4}),
    )
    scored = score(corpora, 30, 3)
    left, right = draw(scored, "a $title", "a caption").axes
    placed = {(round(x, 9), round(y, 9)) for c in left.collections for x, y in c.get_offsets()}
    assert placed == {
        (round(row["log2_ratio"], 9), round(math.log10(row["explore"] + row["exploit"]), 9))
        for row in table(scored)
    }
    assert {text.get_text() for text in left.texts} == {"wait", "$x_1$", "boxed"}
    named = [label.get_text() for label in right.get_yticklabels()]
    widths = dict(zip(named, (bar.get_width() for bar in right.patches), strict=True))
    assert widths == {row.token: row.z for row in scored if row.role}
    assert {text.get_text() for text in left.texts} == set(named)
    assert named[::-1] == [row.token for row in scored if row.role]  # the most exploring on top


def test_the_strongest_markers_of_a_side_have_names_in_both_panels() -> None:
    words = [f"word{chr(97 + n)}" for n in range(14)]
    corpora = Corpora(
        Counter({word: 40 + n for n, word in enumerate(words)} | {"same": 50}),
        Counter({"boxed": 800, "same": 50}),
    )
    left, right = draw(score(corpora, 30, 3), "", "").axes
    named = {label.get_text() for label in right.get_yticklabels()}
    assert {text.get_text() for text in left.texts} == named == {*words[2:], "boxed"}


def test_a_picture_without_markers_says_so() -> None:
    scored = score(Corpora(Counter(same=50), Counter(same=50)), 30, 3)
    assert [text.get_text() for text in draw(scored, "", "").axes[1].texts] == ["no markers"]
