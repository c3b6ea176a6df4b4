"""A run read back for its analyses: its policy, its two views, and its records."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from transformers import PreTrainedTokenizerBase

from rlrt.batch import Rollout
from rlrt.config.configuration import build, checked, compose
from rlrt.config.stored import StoredPolicy, find_policy, read_config
from rlrt.context.context import Context
from rlrt.data.prompts import Prompts
from rlrt.errors import UserError
from rlrt.model.load import load_config, load_tokenizer, stop_token_ids
from rlrt.model.policy import Policy
from rlrt.training.scoring import teacher_views

CHECKED_ROWS = 32  # whose ids are decoded to know the tokenizer


@dataclass(frozen=True)
class Study:
    """One run and one policy to look at it with: the run's own last one, or another."""

    folder: Path
    config: DictConfig
    stored: StoredPolicy
    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    context: Context | None
    max_model_tokens: int

    @property
    def temperature(self) -> float:
        """At which the run's responses were sampled, and its views are read."""
        return float(self.config.training.temperature)

    @property
    def token_budget(self) -> int:
        """Tokens of a pass."""
        return int(self.config.training.token_budget)

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Ids that end a response; read from files once."""
        path = self.stored.local_folder()
        return checked(stop_token_ids, path, self.tokenizer)

    def teacher_prompts(
        self, rollouts: Sequence[Rollout], step: int
    ) -> list[tuple[int, ...] | None]:
        """The teacher view's prompt of each rollout; None where its context shows nothing.

        ``rollouts`` hold whole groups, of rollout step ``step``. UserError without a context.
        """
        if self.context is None:
            raise UserError(
                f"{self.folder} was trained without a teacher: name the context that the teacher "
                "view is to have, such as --context correct_peer"
            )
        shown = self.context(rollouts, step)
        every = torch.ones(len(rollouts), dtype=torch.bool)
        return list(
            teacher_views(rollouts, shown, every, self.prompts, self.max_model_tokens).prompts
        )

    def require_tokenizer(self, rollouts: Sequence[Rollout]) -> None:
        """UserError where the records were written with another tokenizer than the policy's."""
        for rollout in rollouts[:CHECKED_ROWS]:
            ids = np.array([*rollout.prompt_ids, *rollout.response.ids])
            known = ids.max(initial=0) < len(self.tokenizer)
            if (
                not known
                or self.tokenizer.decode(rollout.response.ids, skip_special_tokens=True)
                != rollout.text
                or self.prompts.student_ids(rollout.problem.question) != rollout.prompt_ids
            ):
                raise UserError(
                    f"the tokenizer of {self.stored.name} is not the one that the records of "
                    f"{self.folder} were written with: choose a policy with the same tokenizer and "
                    "prompts"
                )


def open_study(folder: Path, model: str | None = None, context: str | None = None) -> Study:
    """A run folder with its policy, or with ``model``'s; ``context`` takes the place of the run's.

    The policy is read in float32 on the CPU, or in bfloat16 on the GPU where there is one.
    ``context`` names a file of configs/context. UserError where something is not there.
    """
    config = read_config(folder)
    stored = find_policy(str(folder) if model is None else model, "--model")
    path = stored.local_folder()
    tokenizer = checked(load_tokenizer, path)
    settings = {k: v for k, v in config.prompts.items() if not str(k).startswith("_")}
    chosen = config.get("context")
    if context is not None:
        chosen = compose(["credit=rlrt", f"context={context}"]).context
    return Study(
        folder,
        config,
        stored,
        placed(stored),
        tokenizer,
        checked(Prompts, tokenizer, **settings),
        build(chosen),
        checked(load_config, path).max_position_embeddings,
    )


def placed(stored: StoredPolicy) -> Policy:
    """The policy where it is read fastest: on the GPU in bfloat16, else on the CPU in float32."""
    if torch.cuda.is_available():
        return Policy(stored.load(torch.bfloat16).to("cuda").eval())
    return Policy(stored.load(torch.float32).eval())
