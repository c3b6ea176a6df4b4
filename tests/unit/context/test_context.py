from collections.abc import Callable

import pytest

from rlrt.batch import Rollout
from rlrt.context.answer import Answer
from rlrt.context.context import Context, Demonstration, FirstOf
from rlrt.context.correct_peer import CorrectPeer
from rlrt.context.failed_attempt import FailedAttempt
from rlrt.context.feedback import Feedback
from rlrt.context.hint import Hint
from rlrt.context.solution import Solution

MakeRollout = Callable[..., Rollout]


def texts(shown: list[Demonstration | None]) -> list[str | None]:
    return [demonstration and demonstration.text for demonstration in shown]


def test_the_answer_stands_behind_every_rollout_and_fills_gaps(rollout: MakeRollout) -> None:
    rollouts = [rollout(0, 0, 1), rollout(0, 1, 0)]
    assert texts(Answer()(rollouts, 0)) == ["4", "4"]
    chain = FirstOf([CorrectPeer(), Answer()])(rollouts, 0)
    assert texts(chain) == ["4", "solution 0.0"]


def test_solution_and_feedback_are_shown_where_the_row_has_them(rollout: MakeRollout) -> None:
    rollouts = [
        rollout(0, 0, 1, solution="2 + 2 = 4.", feedback="Do not multiply."),
        rollout(1, 0, 0),
    ]
    assert texts(Solution()(rollouts, 0)) == ["2 + 2 = 4.", None]
    assert texts(Feedback()(rollouts, 0)) == ["Do not multiply.", None]
    assert texts(FirstOf([Solution(), Answer()])(rollouts, 0)) == ["2 + 2 = 4.", "4"]


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (Solution(), "worked reference solution"),
        (Feedback(), "Feedback"),
        (FailedAttempt(), "Wrong attempt"),
        (Hint(0.5), "Only the beginning"),
    ],
)
def test_the_message_says_what_is_shown_and_holds_it_once(
    rollout: MakeRollout, context: Context, said: str
) -> None:
    rollouts = [
        rollout(0, sample, sample % 2, "one two", solution="s", feedback="f") for sample in range(4)
    ]
    for shown in context(rollouts, 0):
        assert shown is not None
        filled = shown.template.format(question="QQ", instruction="II", demonstration="DD")
        assert said in filled
        assert [filled.count(part) for part in ("QQ", "II", "DD")] == [1, 1, 1]
        assert filled.startswith("QQ\n")


def test_what_a_context_needs_of_the_data() -> None:
    assert Solution().needs == {"solution"}
    assert Feedback().needs == {"feedback"}
    for context in (Answer(), CorrectPeer(), FailedAttempt(), Hint()):
        assert context.needs == set()
    chain = FirstOf([FirstOf([CorrectPeer(), Solution()]), Feedback(), Answer()])
    assert chain.needs == {"solution", "feedback"}


def test_a_chain_hands_on_the_step(rollout: MakeRollout) -> None:
    rollouts = [rollout(0, sample, 1) for sample in range(8)]
    peer = CorrectPeer("random")
    for step in range(5):
        assert FirstOf([peer, Answer()])(rollouts, step) == peer(rollouts, step)


def test_a_chain_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context\.contexts is empty"):
        FirstOf([])
