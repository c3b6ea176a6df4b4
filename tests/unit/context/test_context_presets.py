"""Every file of configs/context builds, and a choice by chance follows the run's seed."""

from typing import Any

import pytest

from rlrt.config.compose import CONFIGS, build, compose
from rlrt.context.context import Context, FirstOf
from rlrt.context.correct_peer import CorrectPeer
from rlrt.context.hint import Hint

NEEDS: dict[str, set[str]] = {
    "answer": set(),
    "correct_peer": set(),
    "failed_attempt": set(),
    "feedback": {"feedback"},
    "hint": set(),
    "peer_or_answer": set(),
    "peer_or_solution": {"solution"},
    "solution": {"solution"},
    "solution_or_answer": {"solution"},
}


def built(name: str, *overrides: str) -> Any:
    return build(compose(["credit=rlrt", f"context={name}", "seed=5", *overrides]).context)


def test_no_context_is_forgotten_here() -> None:
    assert {path.stem for path in (CONFIGS / "context").glob("*.yaml")} == {"none", *NEEDS}


@pytest.mark.parametrize("name", NEEDS)
def test_every_context_builds_and_says_what_it_needs(name: str) -> None:
    context = built(name)
    assert isinstance(context, Context)
    assert context.needs == NEEDS[name]


def test_settings_reach_the_context() -> None:
    peer = built("correct_peer", "context.choice=longest")
    assert isinstance(peer, CorrectPeer)
    assert (peer.choice, peer.keep_thinking, peer.seed) == ("longest", True, 5)
    hint = built("hint", "context.fraction=0.25", "context.choice=random")
    assert isinstance(hint, Hint)
    assert (hint.fraction, hint.peer.choice, hint.peer.seed) == (0.25, "random", 5)
    chain = built("peer_or_solution")
    assert isinstance(chain, FirstOf)
    assert [type(member).__name__ for member in chain.contexts] == ["CorrectPeer", "Solution"]
