"""The data module: which problems a rollout step asks, and the updates that come of them."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from rlrt.batch import Problem, ProblemSet
from rlrt.data.problems import leave_out
from rlrt.data.prompts import Prompts
from rlrt.seeds import derive_seed


class ProblemSource(Protocol):
    """Where problems come from; reading happens in ``train`` and ``held_out``."""

    @property
    def provides(self) -> frozenset[str]:
        """The optional fields of a problem ("solution", "feedback") that it may fill."""
        ...

    def train(self) -> ProblemSet: ...

    def held_out(self) -> ProblemSet: ...


def fitting(problems: ProblemSet, prompts: Prompts, max_prompt_tokens: int) -> ProblemSet:
    """``problems`` without those whose student prompt is over ``max_prompt_tokens`` tokens."""
    return leave_out(
        problems,
        f"prompt over {max_prompt_tokens} tokens",
        lambda problem: (
            len(prompts.student_ids(problem.question, problem.preceding)) > max_prompt_tokens
        ),
    )


class _Updates(Dataset[Any]):
    """Reads the step's updates at the moment they are asked for, after the callback filled them."""

    def __init__(self, module: "ProblemDataModule") -> None:
        self.module = module

    def __len__(self) -> int:
        return self.module.updates_per_step

    def __getitem__(self, index: int) -> Any:
        assert len(self.module.updates) == len(self), "the rollout callback has not filled the step"
        return self.module.updates[index]


class ProblemDataModule(L.LightningDataModule):
    """Problems of a rollout step, as a function of (seed, step), and its updates for training.

    ``updates`` is the list that the rollout callback fills anew at the start of each epoch; the train
    dataloader yields its items one by one, each a whole mini-batch.
    """

    def __init__(
        self,
        train: ProblemSet,
        held_out: ProblemSet,
        seed: int,
        problems_per_step: int,
        problems_per_update: int,
        updates: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        assert train.problems, train.dropped
        assert problems_per_step > 0, problems_per_step
        assert problems_per_step % problems_per_update == 0, (
            problems_per_step,
            problems_per_update,
        )
        self.train_set = train
        self.held_out_set = held_out
        self.seed = seed
        self.problems_per_step = problems_per_step
        self.updates_per_step = problems_per_step // problems_per_update
        self.updates = updates

    def problems_of_step(self, step: int) -> list[Problem]:
        """The problems that rollout step ``step`` asks: pass after pass over seeded permutations."""
        problems = self.train_set.problems
        first = step * self.problems_per_step
        positions = range(first, first + self.problems_per_step)
        turns = {position // len(problems) for position in positions}
        orders = {turn: self._permutation("order", turn) for turn in turns}
        return [problems[orders[p // len(problems)][p % len(problems)]] for p in positions]

    def spare_problems(self, step: int) -> Iterator[Problem]:
        """The problems that step ``step`` does not ask, in an order of its own, each once."""
        ids_of_step = {problem.id for problem in self.problems_of_step(step)}
        for index in self._permutation("spare", step):
            problem = self.train_set.problems[index]
            if problem.id not in ids_of_step:
                yield problem

    def _permutation(self, purpose: str, number: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, purpose, number))
        return torch.randperm(len(self.train_set.problems), generator=generator).tolist()

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(_Updates(self), batch_size=None)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Left where it is: an update travels to the device one micro-batch at a time."""
        return batch
