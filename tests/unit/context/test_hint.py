from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import Rollout
from rlrt.context.context import Demonstration
from rlrt.context.hint import Hint, beginning

MakeRollout = Callable[..., Rollout]


@pytest.mark.parametrize(
    ("text", "fraction", "expected"),
    [
        ("one two three four", 0.5, "one two"),  # 9 of 18 characters end inside "three"
        ("one two three four", 0.4, "one two"),  # 7 characters: "two" ends exactly there
        ("one two three four", 0.38, "one"),  # 6 characters
        ("  one two \n", 0.5, "one"),
        ("7+12=19\n19+5=24\n\\boxed{24}", 0.7, "7+12=19\n19+5=24"),
        ("one two three four", 0.1, ""),
        ("\\boxed{24}", 0.9, ""),
        ("", 0.5, ""),
    ],
)
def test_the_whole_words_of_the_first_part(text: str, fraction: float, expected: str) -> None:
    assert beginning(text, fraction) == expected


@given(st.text("ab \n", max_size=60), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_beginning_is_short_whole_and_as_long_as_it_can_be(text: str, fraction: float) -> None:
    text = text.strip()
    hint = beginning(text, fraction)
    room = fraction * len(text)
    assert text.startswith(hint)
    assert len(hint) <= room
    assert hint.split() == text.split()[: len(hint.split())]
    rest = text[len(hint) :].split()
    if rest:
        next_word_end = text.index(rest[0], len(hint)) + len(rest[0])
        assert next_word_end > room


def test_a_hint_is_the_beginning_of_the_chosen_peer_never_of_the_own_rollout(
    rollout: MakeRollout,
) -> None:
    rollouts = [
        rollout(0, 0, 0, "wrong wrong wrong"),
        rollout(0, 1, 1, "first goes this way", tokens=2),
        rollout(0, 2, 1, "second goes that way", tokens=9),
        rollout(1, 0, 1, "alone in its group"),
    ]

    def hints(hint: Hint) -> list[str | None]:
        return [shown and shown.text for shown in hint(rollouts, 0)]

    assert hints(Hint(0.5)) == ["first", "second", "first", None]
    assert hints(Hint(0.6)) == ["first goes", "second goes", "first goes", None]
    assert hints(Hint(0.5, choice="longest")) == ["second", "second", "first", None]
    for shown in Hint(0.5)(rollouts, 0)[:3]:
        assert isinstance(shown, Demonstration)
        assert shown.keep_start


def test_thinking_is_removed_before_the_cut(rollout: MakeRollout) -> None:
    rollouts = [rollout(0, 0, 1, "<think>long, long</think>one two"), rollout(0, 1, 0)]
    (_, shown) = Hint(0.5, keep_thinking=False)(rollouts, 0)
    assert shown is not None
    assert shown.text == "one"


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"context\.fraction is .*, it must lie between 0 and 1"):
        Hint(fraction)


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context\.choice is 'best'"):
        Hint(0.5, choice="best")
