import pytest

from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.context.answer import Answer
from rlrt.context.context import FirstOf
from rlrt.context.correct_peer import CorrectPeer, first_correct_peer

PROBLEM = Problem(id="p", question="2 + 2?", answer="4", source="test")


def rollout(group: int, sample: int, reward: float, text: str = "") -> Rollout:
    return Rollout(
        problem=PROBLEM,
        group=group,
        sample=sample,
        prompt_ids=(1,),
        response=Response((2,), (-0.5,), truncated=False),
        text=text or f"solution {group}.{sample}",
        verdict=Verdict.RIGHT if reward else Verdict.WRONG,
        reward=reward,
    )


@pytest.mark.parametrize(
    ("rewards", "peers"),
    [
        ([0, 1, 1, 0], [1, 2, 1, 1]),
        ([0, 1, 0, 0], [1, None, 1, 1]),
        ([0, 0, 0, 0], [None] * 4),
        ([1, 1, 1, 1], [1, 0, 0, 0]),
    ],
)
def test_first_correct_other(rewards: list[float], peers: list[int | None]) -> None:
    assert first_correct_peer(rewards) == peers


def test_peers_come_from_the_own_group_only() -> None:
    rollouts = [rollout(1, 0, 1), rollout(0, 0, 0), rollout(1, 1, 0), rollout(0, 1, 1)]
    shown = CorrectPeer()(rollouts)
    assert [d and d.text for d in shown] == [None, "solution 0.1", "solution 1.0", None]


def test_thinking_is_kept_unless_told_otherwise() -> None:
    rollouts = [rollout(0, 0, 1, "<think>a\nb</think>\n\nSo 4."), rollout(0, 1, 0)]
    kept, cut = CorrectPeer()(rollouts)[1], CorrectPeer(keep_thinking=False)(rollouts)[1]
    assert kept is not None
    assert kept.text.startswith("<think>")
    assert cut is not None
    assert cut.text == "So 4."


def test_the_answer_stands_behind_every_rollout_and_fills_gaps() -> None:
    rollouts = [rollout(0, 0, 1), rollout(0, 1, 0)]
    assert [d and d.text for d in Answer()(rollouts)] == ["4", "4"]
    chain = FirstOf([CorrectPeer(), Answer()])(rollouts)
    assert [d and d.text for d in chain] == ["4", "solution 0.0"]


def test_a_chain_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context\.contexts is empty"):
        FirstOf([])
