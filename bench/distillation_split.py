"""How far an update's gradient moves with the split into micro-batches, beside TRL's SDPO trainer.

``python bench/distillation_split.py [--json FILE]``: the same weights and rollouts throughout, one
update per figure, ‖gradient - gradient of the whole‖ / ‖gradient of the whole‖. Each side runs its own
trainer, clips nothing, and computes in float32 where the row does not say bf16. Ours gets a token
budget for about as many micro-batches. Of TRL's trainer only the sampling is replaced:
``_prepare_training_batch`` hands out the prepared rollouts; splitting, ``compute_loss``, its scaling and
the accumulation are TRL's, with ``per_device_train_batch_size`` m and ``gradient_accumulation_steps``
16 / m. TRL is a dependency of this benchmark only (the extra ``bench``).
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from distillation_memory import gradient, run_update
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from rlrt.functional.divergences import AlphaDivergence
from rlrt.functional.microbatches import split_by_tokens
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.surrogate import ClippedSurrogate
from rlrt.model.load import load_policy
from rlrt.model.teacher import Frozen
from rlrt.model.views import score_responses
from rlrt.training.module import Optimization, PolicyModule
from rlrt.training.objective import Objective
from rlrt.training.updates import Update

try:
    from datasets import Dataset
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer
except ImportError as error:
    raise SystemExit(f"TRL is missing ({error}); install it: pip install -e '.[bench]'") from error

Ids = tuple[int, ...]
TINY = str(Path(__file__).resolve().parents[1] / "models" / "tiny")
LENGTHS = [3, 120, 17, 60, 5, 200, 33, 90, 8, 150, 2, 45, 12, 75, 24, 180]  # response tokens
WITHOUT_CONTEXT = (3, 7, 10, 11)  # rollouts
WHOLE = len(LENGTHS)
SPLITS = (1, 2, 4, 8)  # rollouts per micro-batch
TOP_100 = {  # TRL's settings for the loss of AlphaDivergence(0.5, 100); its default is a sampled id
    "distillation_mode": "topk_logits",
    "distillation_topk": 100,
    "distillation_add_tail": True,
    "distillation_alpha": 0.5,
}


@dataclass(frozen=True)
class Rollouts:
    """Sixteen rollouts of random ids; a teacher prompt of None is a rollout without a context."""

    prompts: tuple[Ids, ...]
    teacher_prompts: tuple[Ids | None, ...]
    responses: tuple[Ids, ...]
    advantages_B: Tensor
    logprobs_BT: Tensor

    @classmethod
    def draw(cls) -> "Rollouts":
        policy = load_policy(TINY, torch.float32)
        draw = torch.Generator().manual_seed(0)

        def ids(count: int) -> Ids:
            return tuple(
                torch.randint(10, policy.config.vocab_size, (count,), generator=draw).tolist()
            )

        prompts = tuple(ids(5 + 3 * (row % 4)) for row in range(WHOLE))
        teacher_prompts = tuple(
            None if row in WITHOUT_CONTEXT else prompt + ids(20 + row)
            for row, prompt in enumerate(prompts)
        )
        responses = tuple(ids(length) for length in LENGTHS)
        logprobs_BT, _ = score_responses(policy, prompts, responses, 1.0, 10**6)
        rewards_PK = torch.rand((2, 8), generator=draw).round()
        centred_PK = rewards_PK - rewards_PK.mean(1, keepdim=True)
        advantages_B = (centred_PK / (rewards_PK.std(1, keepdim=True) + 1e-4)).flatten()
        return cls(prompts, teacher_prompts, responses, advantages_B, logprobs_BT)

    def token_budget(self, rollouts: int) -> int:
        """The least budget that needs no more micro-batches than ``rollouts`` in each would."""
        lengths = [len(p) + len(r) for p, r in zip(self.prompts, self.responses, strict=True)]
        budgets = range(1, WHOLE * max(lengths) + 1)
        return next(b for b in budgets if len(split_by_tokens(lengths, b)) <= WHOLE // rollouts)


def rlrt_gradient(
    rollouts: Rollouts,
    split: int,
    policy_share: float = 0.0,
    trl_mean: bool = False,
    bf16: bool = False,
) -> Tensor:
    """Of a real update; ``trl_mean``: of each response's own mean, over all responses, as TRL's."""
    mask_BT = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    context_B = torch.tensor([prompt is not None for prompt in rollouts.teacher_prompts])
    distilled_BT = mask_BT & context_B[:, None]
    update = Update(
        prompts=rollouts.prompts,
        teacher_prompts=rollouts.teacher_prompts,
        responses=rollouts.responses,
        counted_BT=mask_BT if trl_mean or policy_share else distilled_BT,
        mask_BT=mask_BT,
        student_logprobs_BT=rollouts.logprobs_BT,
        engine_logprobs_BT=rollouts.logprobs_BT,
        advantages_BT=rollouts.advantages_B[:, None] * mask_BT * policy_share,
        distillation_BT=distilled_BT * (1 - policy_share),
    )
    aggregation = Aggregation("sequence_mean" if trl_mean else "token_mean")
    module = PolicyModule(
        load_policy(TINY, torch.float32),
        Frozen(),
        Objective(ClippedSurrogate(), aggregation, AlphaDivergence(0.5, 100)),
        Optimization(learning_rate=1e-3, max_grad_norm=1e9),
        temperature=1.0,
        token_budget=rollouts.token_budget(split),
    )
    run_update(module, update, "bf16-mixed" if bf16 else "32-true")
    return gradient(module)


class PreparedTrainer(SDPOTrainer):
    """TRL's trainer; what it would have sampled and reprompted is given."""

    rollouts: Rollouts

    def _prepare_training_batch(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        assert len(inputs) == WHOLE, f"{len(inputs)} rollouts in an update of {WHOLE}"
        given = self.rollouts
        prompt_ids, prompt_mask = _padded(given.prompts, left=True)
        ids, mask = _padded(given.responses, left=False)
        teacher_prompts = [
            t or p for t, p in zip(given.teacher_prompts, given.prompts, strict=True)
        ]
        teacher_ids, teacher_mask = _padded(teacher_prompts, left=True)
        return {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": ids,
            "completion_mask": mask,
            "teacher_input_ids": torch.cat([teacher_ids, ids], 1),
            "teacher_attention_mask": torch.cat([teacher_mask, mask], 1),
            "self_distillation_mask": torch.tensor(
                [float(t is not None) for t in given.teacher_prompts]
            ),
            "advantages": given.advantages_B,
        }


def _padded(rows: tuple[Ids, ...] | list[Ids], left: bool) -> tuple[Tensor, Tensor]:
    side = "left" if left else "right"
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True, padding_side=side)
    return pad([torch.tensor(row) for row in rows]), pad([torch.ones(len(r)).long() for r in rows])


class KeepGradient(TrainerCallback):
    """The gradient that reaches the optimizer."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        self.gradient = torch.cat([p.grad.flatten().clone() for p in model.parameters()])


def trl_gradient(rollouts: Rollouts, split: int, **settings: Any) -> Tensor:
    """Of a real update by TRL's trainer in float32, unless the settings say otherwise."""
    kept = KeepGradient()
    with tempfile.TemporaryDirectory() as folder:
        config = SDPOConfig(
            output_dir=folder,
            per_device_train_batch_size=split,
            gradient_accumulation_steps=WHOLE // split,
            max_steps=1,
            max_grad_norm=0.0,  # no clip
            model_init_kwargs={"dtype": "float32"},
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            **{"bf16": False, **settings},
        )
        trainer = PreparedTrainer(
            TINY,
            reward_funcs=lambda **_: [0.0],
            args=config,
            train_dataset=Dataset.from_list([{"prompt": str(row)} for row in range(WHOLE)]),
            callbacks=[kept],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.rollouts = rollouts
        trainer.train()
    return kept.gradient


HALF = {"distillation_weight": 0.5, **TOP_100}
CASES: dict[str, Callable[..., Tensor]] = {
    "rlrt SDPO": rlrt_gradient,
    "rlrt SDPO, mean of responses": partial(rlrt_gradient, trl_mean=True),
    "TRL SDPO, the same loss": partial(trl_gradient, **TOP_100),
    "TRL SDPO, its defaults": trl_gradient,
    "rlrt half policy loss": partial(rlrt_gradient, policy_share=0.5),
    "TRL half policy loss": partial(trl_gradient, **HALF),  # its default loss_type, dapo
    "TRL half policy loss, grpo": partial(trl_gradient, **HALF, loss_type="grpo"),
    "rlrt SDPO, bf16": partial(rlrt_gradient, bf16=True),
    "TRL SDPO, its defaults, bf16": partial(trl_gradient, bf16=True),
}


def apart(found: Tensor, whole: Tensor) -> float:
    """``‖found - whole‖ / ‖whole‖``."""
    return float((found - whole).norm() / whole.norm())


def main() -> None:
    """Print the table and, with ``--json``, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rollouts = Rollouts.draw()
    drift: dict[str, dict[int, float]] = {}
    wholes = {name: case(rollouts, WHOLE) for name, case in CASES.items()}
    for name, case in CASES.items():
        drift[name] = {split: apart(case(rollouts, split), wholes[name]) for split in SPLITS}
    ours, theirs = wholes["rlrt SDPO, mean of responses"], wholes["TRL SDPO, the same loss"]
    same_loss = apart(ours, theirs)
    title = f"TRL {version('trl')}: drift by rollouts per micro-batch"
    table = Table("", *map(str, SPLITS), title=title)
    for name, row in drift.items():
        table.add_row(name, *(f"{value:.1e}" for value in row.values()))
    Console().print(table, f"The same loss, whole: rlrt and TRL differ by {same_loss:.1e}.")
    if options.json is not None:
        figures = {"trl": version("trl"), "drift": drift, "same_loss_apart": same_loss}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
