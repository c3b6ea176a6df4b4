import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrt.functional.diversity import (
    MAX_TEXT_DIVERSITY,
    equation_diversity,
    formulas,
    text_diversity,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \(x=1\), \[ y = 2 \] and $z=3$", {"x=1", "y = 2", "z=3"}),
        ("$$x=1$$ and \\[a\nb\\]", {"x=1", "a\nb"}),
        (r"\(f(x)=[1]\)", {"f(x)=[1]"}),  # brackets within are no delimiters
        (r"\(a\) \(a\) $a$", {"a"}),
        (r"costs \$5, or \$6", set()),
        (r"$$ a \\[4pt] b $$", {r"a \\[4pt] b"}),  # a line break with a skip
        (r"\( unclosed, then \(x\)", {"x"}),
        (r"x\) and \] never opened", set()),
        (r"\(x\] and \[y", set()),
        (r"\[a \(b\) c\]", {r"a \(b\) c", "b"}),
        (r"\(\) $ $", set()),
        ("no formulas, one \\", set()),
    ],
)
def test_formulas(text: str, expected: set[str]) -> None:
    assert formulas(text) == expected


@pytest.mark.parametrize("opener", [r"\[", r"\(", "$", r"\(\[", "$$ $ ", "\\"])
def test_hostile_text_costs_no_more_than_its_length(opener: str) -> None:
    """A scan to the end from every one of these openers would read 10^11 characters."""
    formulas(opener * 300_000)
    formulas(opener * 300_000 + r"x\)\]$")


@given(st.text(alphabet="ab\\()[]$ ", max_size=40))
def test_any_text_gives_stripped_formulas_that_stand_in_it(text: str) -> None:
    for formula in formulas(text):
        assert formula == formula.strip() != ""
        assert formula in text


def test_equation_diversity_by_hand() -> None:
    group = [r"\(x\) \(y\) \(z\)", r"\(x\) \(v\) \(z\)", r"\(a\) \(z\)", "none"]
    assert equation_diversity(group, range(4)) == pytest.approx([1 / 3, 1 / 3, 1 / 2, 0])
    assert equation_diversity(group, [2]) == [1 / 2]
    assert equation_diversity([r"\(x\)"], [0]) == [1]  # alone: nobody else has it


def test_text_diversity_by_hand() -> None:
    """Six words against their first five: precisions 5/6, 4/5, 3/4, 2/3, 1/2, and 1 the other way."""
    longer, shorter = "a b c d e f", "a b c d e"
    to_shorter = (
        (5 / 6) ** 0.02 * (4 / 5) ** 0.1 * (3 / 4) ** 0.15 * (2 / 3) ** 0.25 * (1 / 2) ** 0.38
    )
    to_longer = 2.718281828459045 ** (1 - 6 / 5)  # brevity penalty
    expected = 1 - (to_shorter + to_longer) / 2
    assert text_diversity([longer, shorter], [0, 1]) == pytest.approx([expected] * 2, abs=1e-6)
    third = [longer, shorter, "g h i j k l"]
    assert text_diversity(third, [0]) == pytest.approx([(expected + 1) / 2], abs=1e-6)


def test_text_diversity_of_extremes() -> None:
    words = "one two three four five six"
    assert text_diversity([words, words], [0]) == pytest.approx([0], abs=1e-6)
    assert text_diversity([words, "u v w x y z"], [0]) == [MAX_TEXT_DIVERSITY]
    assert text_diversity(["one two", "one two"], [0]) == [MAX_TEXT_DIVERSITY]  # no 5-gram
    assert text_diversity([words, ""], [0, 1]) == [MAX_TEXT_DIVERSITY] * 2
    assert text_diversity([words], [0]) == [0]
    assert text_diversity([words, words], []) == []
