"""Where the answer stands in a response."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrt.reward.extraction import (
    Extracted,
    answer_line,
    extract_answer,
    joined_boxes,
    last_boxed,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}} end", r"\frac{1}{\sqrt{2}}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 7", "7"),
        (r"it is \boxed 7.", "7"),
        (r"\boxed {x^2 + 1}", "x^2 + 1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),  # an escaped brace opens nothing
        (r"} { \boxed{3}", "3"),
        ("\\boxed{\n 4 \n}", "4"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{4} and then \boxed{never closes", None),
        (r"\boxed", None),
        (r"\boxedness{3}", None),
        ("boxed{4}", None),
        ("", None),
    ],
)
def test_last_box(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} and \boxed{2}", "1,2"),
        (r"\boxed{1}, \boxed{2}, and \boxed{3}", "1,2,3"),
        (r"$$\boxed{(2, 2)} \quad \text{and} \quad \boxed{(6, 2)}$$", "(2, 2),(6, 2)"),
        (r"\(\boxed{1}\) or \(\boxed{2}\)", "1,2"),
        (r"first \boxed{1}, final \boxed{2}", "2"),
        (r"\boxed{4}, \boxed{4}", "4"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} and \boxed{2", None),
        ("1", None),
    ],
)
def test_boxes_joined_by_a_separator_are_one_answer(text: str, answer: str | None) -> None:
    assert joined_boxes(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Long solution. Answer: 42", "42"),
        ("Answer: 41 was a wrong guess.\nAnswer: 42", "42"),
        ("**Answer:** 42**\nthanks", "42"),
        ("answer : 42", "42"),
        (r"Answer: $\boxed{34}$", "34"),
        ("Answer:\n42", "42"),
        ("the answer is 42", None),
        ("Answer:", None),
        ("no mark", None),
    ],
)
def test_answer_line(text: str, answer: str | None) -> None:
    assert answer_line(text) == answer


def test_only_the_last_characters_are_read_when_asked() -> None:
    text = r"\boxed{42}" + "." * 95
    assert extract_answer(text, "boxed") == Extracted("42")
    assert extract_answer(text, "boxed", tail_characters=105) == Extracted("42")
    assert extract_answer(text, "boxed", tail_characters=104) is None


@pytest.mark.parametrize(
    ("text", "extracted"),
    [
        (r"4, no: \boxed{5}", Extracted("5")),
        ("so\n#### 1,234\nbye", Extracted("1,234")),
        ("#### 10\n####: 20", Extracted("20")),
        ("The answer is 4", Extracted("The answer is 4", free_text=True)),
        (r"4 \boxed{5", None),  # a box was begun: nothing else is the answer
        (" ", None),
    ],
)
def test_text_without_a_box_is_handed_on(text: str, extracted: Extracted | None) -> None:
    assert extract_answer(text, "boxed_or_text") == extracted


@pytest.mark.parametrize("how", ["boxed", "answer_line"])
def test_no_marked_answer_is_none(how: str) -> None:
    assert extract_answer("The result is 4", how) is None  # type: ignore[arg-type]


balanced = st.recursive(
    st.text(alphabet="ab1+ ^_", max_size=5),
    lambda inner: st.lists(inner.map(lambda s: "{" + s + "}"), max_size=3).map("x".join),
    max_leaves=8,
)


@given(before=st.text(), content=balanced, after=st.text(alphabet="abc {}$.\n"))
def test_a_box_is_found_whatever_stands_around_it(before: str, content: str, after: str) -> None:
    text = before.replace("\\", "/") + r"\boxed{" + content + "}" + after
    assert last_boxed(text) == content.strip()


def test_a_million_open_boxes_are_read_once() -> None:
    text = r"\boxed{" * 300_000
    assert last_boxed(text) is None
    assert joined_boxes(text) is None
    assert joined_boxes(r"\boxed{1}, " * 100_000 + r"\boxed{1}") == "1"
