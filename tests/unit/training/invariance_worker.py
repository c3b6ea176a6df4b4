"""One rank of the invariance test: the same update in every way that it can be cut, skipped, packed.

torchrun --nproc-per-node N invariance_worker.py <file to write> <policy folder> …
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from tests.unit.training.one_update import Measured, OneUpdate
from torch import Tensor

from rlrt import distributed
from rlrt.loss.divergences import AlphaDivergence
from rlrt.loss.objective import Aggregation, Objective
from rlrt.loss.policy_loss import ClippedSurrogate
from rlrt.model.load import hollow_policy, load_policy
from rlrt.model.teacher import Frozen, Live
from rlrt.training.module import FullySharded, UpdateOutcome
from rlrt.training.optimization import Optimization
from rlrt.training.updates import Update

GROUPS, SAMPLES, LONGEST = 6, 2, 23
LENGTHS = [7, 1, 23, 0, 12, 3, 18, 5, 2, 9, 4, 11]
# groups 1, 4 and 5: the last of three ranks has no credit and makes as many empty passes as the others
# have passes, which are not equally many for these two
WITHOUT_CREDIT = (2, 3, 8, 9, 10, 11)
DISTILLED = (0, 5)
BUDGETS = (1, 40, 10**6)  # every response alone, some packs, one pack
SCORED = ((), (0, 4), tuple(range(len(LENGTHS))))
TEACHERS = ("live", "frozen")


def whole_update() -> Update:
    """Twelve uneven responses in six groups, as one process has them."""
    draw = torch.Generator().manual_seed(3)
    mask = torch.arange(LONGEST)[None] < torch.tensor(LENGTHS)[:, None]

    def values(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(mask.shape, generator=draw)) * mask

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 200, (count,), generator=draw).tolist())

    prompts = [ids(3 + 4 * group) for group in range(GROUPS)]
    teachers = [ids(20 + row) if row in DISTILLED else None for row in range(len(LENGTHS))]
    responses = tuple(ids(length) for length in LENGTHS)
    advantages, distillation = values(-1.5, 1.5), values(0.5, 1.5)
    advantages[list(WITHOUT_CREDIT)] = 0
    plain = [row for row in range(len(LENGTHS)) if row not in DISTILLED]
    distillation[plain] = 0
    return Update(
        rows=tuple(range(len(LENGTHS))),
        prompts=tuple(prompts[row // SAMPLES] for row in range(len(LENGTHS))),
        teacher_prompts=tuple(teachers),
        responses=responses,
        counted_BT=mask,
        mask_BT=mask,
        sampled_BT=mask,
        student_scored_B=torch.zeros(len(LENGTHS), dtype=torch.bool),
        student_logprobs_BT=torch.zeros(mask.shape),
        engine_logprobs_BT=values(-7, -5),
        advantages_BT=advantages,
        distillation_BT=distillation,
    )


def of_rows(update: Update, rows: list[int]) -> Update:
    parts = {
        name: part[rows] if isinstance(part, Tensor) else tuple(part[row] for row in rows)
        for name, part in vars(update).items()
    }
    return Update(**parts)


class Scored(Measured):
    """Has the student view of some rollouts scored before the update, as a step would."""

    scored: tuple[int, ...] = ()
    views: list[tuple[int, Tensor]]

    def training_step(self, update: Update, index: int) -> UpdateOutcome:
        rows = [place for place, row in enumerate(update.rows) if row in self.scored]
        prompts, chosen = ([of[row] for row in rows] for of in (update.prompts, update.responses))
        logprobs_bT, _ = self.score(prompts, chosen)
        # of the same weights, which the policy keeps in float32 and casts, a frozen teacher cast
        assert torch.equal(logprobs_bT, self.score_teacher(prompts, chosen)[0])
        strategy = self.trainer.strategy
        if isinstance(strategy, FullySharded) and not self.teacher.is_policy:
            assert self.teacher_policy.dtype == strategy.compute_dtype
        assert self.policy.dtype == torch.float32
        student_BT, scored_B = update.student_logprobs_BT.clone(), update.student_scored_B.clone()
        student_BT[rows, : logprobs_bT.shape[1]] = logprobs_bT
        scored_B[rows] = True
        self.views = [(update.rows[row], student_BT[row]) for row in rows]
        update = replace(update, student_logprobs_BT=student_BT, student_scored_B=scored_B)
        return super().training_step(update, index)


def one_way(
    folder: str, precision: Any, teacher: str, budget: int, scored: tuple[int, ...], scratch: Path
) -> dict[str, Tensor]:
    """The whole gradient, the student's log-probs before it, and the metrics."""
    settings = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "default_root_dir": scratch}
    quiet = dict.fromkeys(
        ("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    sharded = count > 1 or precision == "bf16-mixed"
    strategy: Any = FullySharded() if sharded else "auto"
    trainer = L.Trainer(**settings, **quiet, strategy=strategy, devices=count, precision=precision)
    objective = Objective(
        ClippedSurrogate(), Aggregation("sequence_mean"), AlphaDivergence(0.5, 20), 2.0
    )
    loaded = load_policy(folder, torch.float32) if rank == 0 else None
    module = Scored(
        hollow_policy(folder) if sharded or loaded is None else loaded,
        Frozen() if teacher == "frozen" else Live(),
        objective,
        Optimization(learning_rate=1e-3, max_grad_norm=1e9, warmup_steps=0),
        1.0,
        budget,
        loaded if sharded else None,
    )
    module.scored = scored
    share = GROUPS // count * SAMPLES
    own = list(range(rank * share, (rank + 1) * share))
    trainer.fit(module, datamodule=OneUpdate(of_rows(whole_update(), own)))
    grads = [
        distributed.full_tensor(part.grad)
        for part in module.policy.parameters()
        if part.grad is not None
    ]
    metrics = {name: torch.tensor(value) for name, value in module.update_metrics[0].items()}
    views = {
        f"view_{row}": view_T
        for part in distributed.all_gather_object(module.views)
        for row, view_T in part
    }
    return {"gradient": torch.cat([grad.flatten() for grad in grads]), **views, **metrics}


def ways(policies: int) -> list[Any]:
    """Every policy with every budget, every teacher and every choice of scored views; every teacher
    with every budget. In bfloat16 two ways of cutting.
    """
    exact = [
        (policy, "32-true", TEACHERS[(policy + place) % 2], budget, SCORED[(policy + place) % 3])
        for policy in range(policies)
        for place, budget in enumerate(BUDGETS)
    ]
    low = [
        (policy, "bf16-mixed", "frozen", budget, SCORED[-1])
        for policy in range(policies)
        for budget in (1, 10**6)
    ]
    return [*exact, *low]


def main() -> None:
    path, *folders = sys.argv[1:]
    found = {}
    for way in ways(len(folders)):
        policy, precision, *how = way
        found[way] = one_way(folders[policy], precision, *how, scratch=Path(path).parent)
    if distributed.get_rank() == 0:
        torch.save(found, path)


if __name__ == "__main__":
    main()
