"""Which weights score the teacher view."""

import copy
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import nn
from transformers import PreTrainedModel

from rlrt.hub import is_local, refuse_unused
from rlrt.model.load import hollow_policy, load_policy, policy_folder
from rlrt.model.sharding import is_hollow
from rlrt.validation import validated


class Teacher:
    """Where the weights of the teacher view come from, and how they follow the policy.

    This one is a copy of the policy as the run began with it, which no optimizer and no gradient reaches.

    ``is_policy``: the policy itself scores both views. ``changes``: the weights depend on the steps
    that the run has made, so a checkpoint holds them. ``path``: a model other than the policy's.
    """

    is_policy: bool = False
    changes: bool = False
    path: str | None = None
    revision: str | None = None  # of it on the hub
    commit: str | None = None

    def start(self, policy: PreTrainedModel) -> PreTrainedModel:
        """The teacher's model at the start of a run, from the policy's initial weights; hollow where the
        policy is.
        """
        return _without_gradient(copy.deepcopy(policy))

    def source(self, policy: PreTrainedModel | None) -> PreTrainedModel | None:
        """What a hollow teacher gets its values from, where ``policy`` is that of a hollow policy."""
        return policy

    def follow(self, weights: nn.Module, policy: nn.Module, steps: int) -> None:
        """Change ``weights`` in place after a rollout step; ``steps`` are done by then."""
        assert not self.changes, "a teacher that changes says how"


class Live(Teacher):
    """The policy itself, as it is when the teacher view is read (arXiv:2605.10781)."""

    is_policy = True

    def start(self, policy: PreTrainedModel) -> PreTrainedModel:
        return policy


class Frozen(Teacher):
    """The policy as the run began with it: SDPO and SRPO in the study, and OPSD."""


class Copied(Teacher):
    """A copy of the policy, made anew every ``every_n_steps`` rollout steps."""

    changes = True

    @validated("teacher")
    def __init__(self, every_n_steps: PositiveInt) -> None:
        self.every_n_steps = every_n_steps

    def follow(self, weights: nn.Module, policy: nn.Module, steps: int) -> None:
        if steps % self.every_n_steps == 0:
            _blend(weights, policy, 1.0)


class EMA(Teacher):
    """``θ̄ ← (1 - τ) θ̄ + τ θ`` after every rollout step, from the initial policy; ``rate`` is τ.

    In [0, 1]: at 0 it is the frozen initial policy, at 1 a copy made after every step.
    """

    changes = True

    @validated("teacher")
    def __init__(self, rate: Annotated[float, Field(ge=0, le=1)]) -> None:
        self.rate = rate

    def follow(self, weights: nn.Module, policy: nn.Module, steps: int) -> None:
        _blend(weights, policy, self.rate)


class Separate(Teacher):
    """Another model, stronger or weaker; its tokenizer must be the policy's.

    On the hub that of ``revision``; ``commit`` is what that stood for when the run began.
    """

    path: str

    def __init__(self, path: str, revision: str | None = None, commit: str | None = None) -> None:
        refuse_unused(revision, commit, "teacher", "teacher.path" if is_local(path) else "")
        self.path, self.revision, self.commit = path, revision, commit

    def start(self, policy: PreTrainedModel) -> PreTrainedModel:
        if is_hollow(policy):
            return _without_gradient(hollow_policy(self._folder, setting="teacher.path"))
        return _without_gradient(load_policy(self._folder, policy.dtype, setting="teacher.path"))

    def source(self, policy: PreTrainedModel | None) -> PreTrainedModel | None:
        if policy is None:
            return None
        return load_policy(self._folder, policy.dtype, setting="teacher.path")

    @property
    def _folder(self) -> str:
        at = self.commit or self.revision
        return policy_folder(self.path, setting="teacher.path", revision=at)


def _without_gradient(weights: PreTrainedModel) -> PreTrainedModel:
    return weights.requires_grad_(False).eval()


@torch.no_grad()
def _blend(weights: nn.Module, policy: nn.Module, share: float) -> None:
    for old, new in zip(weights.parameters(), policy.parameters(), strict=True):
        old.lerp_(new, share)
