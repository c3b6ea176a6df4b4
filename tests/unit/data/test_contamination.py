from pathlib import Path
from random import Random

import pytest

from rlrt.batch import Problem
from rlrt.data.benchmarks import read_problem_file
from rlrt.data.contamination import Overlap, overlaps
from rlrt.data.rows import read_file

FILLER = [
    "Compute the area of a square whose diagonal is as long as the side of another square.",
    "How many words can be made of the letters of a word without any vowel in it?",
    "Find the remainder of a number that is divided by its own largest prime factor.",
    "What is the probability that a fair coin shows heads before it shows tails again?",
    "Let f be a function of real numbers such that f is its own inverse. Find its slope.",
]


def problems(questions: list[str], source: str = "train") -> list[Problem]:
    return [Problem(f"{source}{n}", text, "1", source) for n, text in enumerate(questions)]


def kind_of(one: str, other: str) -> str | None:
    """What the pair is, among others as real sets have them."""
    found = overlaps(problems([one, *FILLER]), problems([other], "bench"))
    kinds = [overlap.kind for overlap in found if overlap.train_id == "train0"]
    return kinds[0] if kinds else None


FROG = (
    "Flora the frog starts at 0 and leaps a positive integer distance $m$ with probability $1/2$."
)


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        # typesetting
        (r"What is \(X\), if $x = 1$?", "What is $x$ if  x=1", "exact"),
        (r"Find $\left|\dfrac{a}{b}\right|$, \text{where} $a\leq 1{,}000$.",
         r"Find |\frac{a}{b}|, where $a \le 1,000$.", "exact"),
        # how to answer
        (f"{FROG} Find its chance to land at 10.",
         f"{FROG} Find its chance to land at 10. Express your answer as m/n and find m + n.", "near"),
        (f"{FROG} Find the chance that it lands at 10. The original answer is in the form k/m.",
         f"{FROG} What is the chance that it lands at 10? The answer can be written as p/q.", "near"),
        # another problem
        ("Solve x + 3 = 7 for the unknown x.", "Solve x + 5 = 9 for the unknown x.", None),
        ("Solve x + 3 = 7 for the unknown x.", "Solve x - 3 = 7 for the unknown x.", "near"),
        (f"{FROG} Find its chance to land at 10.", f"{FROG} Find its chance to land at 12.", "variant"),
        ("In how many ways can the letters of ELEVEN stand?", FILLER[0], None),
        ("设 x 为正整数, 求 x 的最小值.", "设 x 为正整数, 求 x 的最小值。", "exact"),
        ("?!", "?!", None),
    ],
)  # fmt: skip
def test_what_a_pair_is(one: str, other: str, kind: str | None) -> None:
    assert kind_of(one, other) == kind
    assert kind_of(other, one) == kind


def test_the_one_word_that_matters_weighs_most() -> None:
    """Among other questions on letters, ELEVEN for ELLIPSE is another problem; "Find" is not."""
    word = "Determine the number of ways to arrange the letters of the word {}."
    train = problems([word.format(w) for w in ("ELEVEN", "TARTAR", "GAMMAS", "CAT")] + FILLER)
    again = Problem("again", word.format("ELLIPSE").replace("Determine", "Find"), "1", "train")
    found = overlaps([*train, again], problems([word.format("ELLIPSE")], "bench"))
    assert [(overlap.train_id, overlap.kind) for overlap in found] == [("again", "near")]


def test_drawings_are_compared_with_each_other() -> None:
    text = "In the diagram, what is the value of $x$? [asy] {} [/asy]"
    one, two = "draw((0,0)--(1,4)); label(48)", 'dot("A", (3,5)); fill(circle((9,9), 2)); label(60)'
    assert kind_of(text.format(one), text.format(one)) == "exact"
    assert kind_of(text.format(one), text.format(two)) is None
    assert kind_of(text.format(one), text.split("[asy]")[0]) == "near"  # one copy has lost it


def test_equal_questions_are_all_named_and_the_most_alike_comes_first() -> None:
    question = f"{FROG} Find its chance to land at 10."
    train = problems([FILLER[0], question, question + " "])
    longer = question.replace("Flora the frog", "The small green frog")
    evaluated = [Problem("b", longer, "1", "two"), Problem("a", question, "1", "one")]
    found = overlaps(train, evaluated, 0.5)
    assert [(o.train_id, o.benchmark, o.benchmark_id, o.kind) for o in found] == [
        ("train1", "one", "a", "exact"),
        ("train1", "two", "b", "near"),
        ("train2", "one", "a", "exact"),
        ("train2", "two", "b", "near"),
    ]
    assert 0.5 <= found[1].similarity < found[0].similarity == 1
    assert overlaps(train, evaluated, 1.0) == [o for o in found if o.kind == "exact"]
    assert overlaps(train, []) == []


@pytest.mark.parametrize("similarity", [0.0, -1.0, 1.01])
def test_similarity_is_checked(similarity: float) -> None:
    with pytest.raises(ValueError, match=r"^similarity is .*; allowed: over 0, at most 1"):
        overlaps([], [], similarity)


def test_the_index_loses_no_pair() -> None:
    """Beside every pair compared: words drawn at random, half of the texts changed a little."""
    rng = Random(0)
    words = [f"w{'abcdefghij'[n // 10]}{'abcdefghij'[n % 10]}" for n in range(100)]
    evaluated = [" ".join(rng.choices(words, k=30)) for _ in range(20)]
    train = []
    for n, text in enumerate(evaluated):
        changed = text.split()
        for _ in range(n % 6):
            changed[rng.randrange(30)] = "other"
        train.append(" ".join(changed))
    found = {
        (o.train_id, o.benchmark_id): o
        for o in overlaps(problems(train), problems(evaluated, "bench"), 0.6)
    }
    assert found.keys() == {(f"train{n}", f"bench{n}") for n in range(20)}
    assert {o.kind for o in found.values()} == {"exact", "near"}


def real_overlaps(data: Path) -> tuple[list[Overlap], dict[str, str]]:
    names = ("aime24", "aime25", "aime26", "hmmt_feb_2026", "amc23", "math500")
    evaluated = [
        p for name in names for p in read_problem_file(data / f"{name}.jsonl", "path").problems
    ]
    train = read_problem_file(data / "dapo_math_17k.jsonl", "path").problems
    marks = {
        str(row.columns["id"]): str(row.columns["overlap"])
        for row in read_file(data / "dapo_math_17k.jsonl")
        if row.columns.get("overlap")
    }
    return overlaps(train, evaluated), marks


# Rows that one copy marks, and that are other problems: another word, polynomial or question about
# the same figure (docs/contamination.md).
OTHER_PROBLEMS = {
    "math500:test/precalculus/96",
    "math500:test/counting_and_probability/1060",
    "math500:test/algebra/975",
    "math500:test/geometry/65",
    "math500:test/geometry/283",
    "math500:test/geometry/702",
    "math500:test/intermediate_algebra/232",
    "math500:test/intermediate_algebra/279",
}


@pytest.mark.slow
def test_dapo_math_17k_beside_its_marks(shared: Path) -> None:
    found, marks = real_overlaps(shared / "data")
    same = {o.train_id for o in found if o.kind != "variant"}
    assert len(marks) == 60
    missed = {mark for id_, mark in marks.items() if id_ not in same}
    assert missed == OTHER_PROBLEMS
    pairs = {(o.train_id, f"{o.benchmark}:{o.benchmark_id}") for o in found if o.kind != "variant"}
    assert {pair for pair in marks.items() if pair[1] not in OTHER_PROBLEMS} <= pairs
    assert len(same - marks.keys()) == 20
    assert not {o.benchmark for o in found} & {"aime24", "aime25", "hmmt_feb_2026"}


@pytest.mark.parametrize("filler", [FILLER, FILLER[:1]])
def test_a_question_inside_an_instruction_is_found_whatever_its_length(filler: list[str]) -> None:
    header = (
        "Solve the following math problem step by step. The last line of your response should be "
        "of the form Answer: $Answer (without quotes) where $Answer is the answer to the problem."
    )
    footer = 'Remember to put your answer on its own line after "Answer:".'
    short = "What is the largest prime factor of 91?"
    wrapped = [
        f"{header}\n\n{short}\n\n{footer}",
        *(f"{header}\n\n{f}\n\n{footer}" for f in filler),
    ]
    found = overlaps(problems(wrapped), problems([short, "Is 7 a prime?"], "bench"))
    assert [(one.train_id, one.benchmark_id, one.kind) for one in found] == [
        ("train0", "bench0", "near")
    ]
