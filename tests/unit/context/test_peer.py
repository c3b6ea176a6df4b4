import re
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrt.batch import Rollout, Verdict
from rlrt.context.correct_peer import CorrectPeer
from rlrt.context.failed_attempt import FailedAttempt
from rlrt.context.peer import Choice, Peer, without_thinking

MakeRollout = Callable[..., Rollout]


def samples(peer: Peer, rollouts: list[Rollout], step: int = 0) -> list[int | None]:
    """Which sample each rollout is shown, read from the text that names it."""
    shown = peer(rollouts, step)
    return [None if each is None else int(each.text.rsplit(".", 1)[1]) for each in shown]


@pytest.mark.parametrize(
    ("rewards", "peers"),
    [
        ([0, 1, 1, 0], [1, 2, 1, 1]),
        ([0, 1, 0, 0], [1, None, 1, 1]),
        ([0, 0, 0, 0], [None] * 4),
        ([1, 1, 1, 1], [1, 0, 0, 0]),
        ([0.4, 0.5], [1, None]),
        ([1], [None]),
    ],
)
def test_first_correct_other(
    rollout: MakeRollout, rewards: list[float], peers: list[int | None]
) -> None:
    rollouts = [rollout(0, sample, reward) for sample, reward in enumerate(rewards)]
    assert samples(CorrectPeer(), rollouts) == peers


@pytest.mark.parametrize(
    ("rewards", "attempts"),
    [
        ([0, 1, 1, 0], [3, 0, 0, 0]),
        ([1, 0, 1], [1, None, 1]),
        ([1, 1], [None, None]),
        ([0, 0], [1, 0]),
    ],
)
def test_first_wrong_other(
    rollout: MakeRollout, rewards: list[float], attempts: list[int | None]
) -> None:
    rollouts = [rollout(0, sample, reward) for sample, reward in enumerate(rewards)]
    assert samples(FailedAttempt(), rollouts) == attempts


def test_an_undecided_rollout_is_no_wrong_attempt(rollout: MakeRollout) -> None:
    rollouts = [rollout(0, 0, 0, verdict=Verdict.UNDECIDED), rollout(0, 1, 0), rollout(0, 2, 1)]
    assert samples(FailedAttempt(), rollouts) == [1, None, 1]


@pytest.mark.parametrize(
    ("choice", "peers"), [("shortest", [2, 2, 4, 2, 2]), ("longest", [1, 3, 1, 1, 1])]
)
def test_lengths_are_response_tokens_and_ties_go_to_the_earliest(
    rollout: MakeRollout, choice: str, peers: list[int]
) -> None:
    """The texts are of one length; sample 0, the shortest and wrong, is never shown."""
    lengths = [1, 9, 5, 9, 5]
    rollouts = [rollout(0, i, float(i > 0), tokens=length) for i, length in enumerate(lengths)]
    assert samples(CorrectPeer(choice), rollouts) == peers


def test_peers_come_from_the_own_group_only(rollout: MakeRollout) -> None:
    rollouts = [rollout(1, 0, 1), rollout(0, 0, 0), rollout(1, 1, 0), rollout(0, 1, 1)]
    shown = CorrectPeer()(rollouts, 0)
    assert [d and d.text for d in shown] == [None, "solution 0.1", "solution 1.0", None]


@given(
    rewards=st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=5), max_size=4),
    choice=st.sampled_from(get_args(Choice)),
    kind=st.sampled_from([CorrectPeer, FailedAttempt]),
    step=st.integers(0, 99),
    random=st.randoms(use_true_random=False),
)
def test_an_eligible_other_of_the_group_whatever_the_order_of_rollouts(
    rollout: MakeRollout,
    rewards: list[list[float]],
    choice: str,
    kind: type[Peer],
    step: int,
    random: Random,
) -> None:
    rollouts = [
        rollout(group, sample, reward, tokens=random.randint(1, 3))
        for group, row in enumerate(rewards)
        for sample, reward in enumerate(row)
    ]
    wanted = 1.0 if kind is CorrectPeer else 0.0
    shown = kind(choice, seed=3)(rollouts, step)
    for own, each in zip(rollouts, shown, strict=True):
        others = {
            other.text
            for other in rollouts
            if other.group == own.group and other is not own and other.reward == wanted
        }
        assert each.text in others if each else not others
    order = random.sample(range(len(rollouts)), len(rollouts))
    assert kind(choice, seed=3)([rollouts[i] for i in order], step) == [shown[i] for i in order]


def test_a_random_peer_depends_on_seed_step_group_and_sample_alone(rollout: MakeRollout) -> None:
    groups = [[rollout(g, sample, 1) for sample in range(8)] for g in range(40)]
    rollouts = [each for group in groups for each in group]
    first = samples(CorrectPeer("random"), rollouts, 7)
    assert first == samples(CorrectPeer("random"), rollouts, 7)
    assert first[80:88] == samples(CorrectPeer("random"), groups[10], 7)  # replayed alone
    assert first != samples(CorrectPeer("random"), rollouts, 8)
    assert first != samples(CorrectPeer("random", seed=1), rollouts, 7)
    assert first[:8] != first[8:16]
    # 320 draws over 8 samples: 40 each, with a standard deviation of 6
    assert all(16 < count < 64 for count in Counter(first).values())
    assert len(Counter(first)) == 8


def test_thinking_is_kept_unless_told_otherwise(rollout: MakeRollout) -> None:
    rollouts = [rollout(0, 0, 1, "<think>a\nb</think>\n\nSo 4."), rollout(0, 1, 0)]
    kept, cut = CorrectPeer()(rollouts, 0)[1], CorrectPeer(keep_thinking=False)(rollouts, 0)[1]
    assert kept is not None
    assert kept.text.startswith("<think>")
    assert cut is not None
    assert cut.text == "So 4."


def test_a_peer_of_which_nothing_is_left_is_not_shown(rollout: MakeRollout) -> None:
    rollouts = [rollout(0, 0, 1, "<think>4</think>\n"), rollout(0, 1, 1), rollout(0, 2, 1)]
    assert samples(CorrectPeer(keep_thinking=False), rollouts) == [1, 2, 1]


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n", "<"])).map("".join))
def test_thinking_is_what_the_plain_expression_finds(text: str) -> None:
    assert without_thinking(text) == re.sub(r"(?s)<think>.*?</think>\s*", "", text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["<think>" * 300_000, "<think>x</think> " * 100_000 + "end"])
def test_much_thinking_costs_no_quadratic_time(text: str) -> None:
    """The expression of the test above reads 2 MB from each of 300,000 places in the first text."""
    assert without_thinking(text) == (text if "/" not in text else "end")


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context\.choice is 'last', it must be one of first, "):
        CorrectPeer("last")
