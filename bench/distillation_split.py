"""How far an update's gradient moves with the split into micro-batches, beside TRL's SDPO trainer.

The same weights and rollouts throughout; ‖gradient - gradient of the whole‖ / ‖gradient of the whole‖.
Ours gets a token budget for at most as many micro-batches. Of TRL's trainer only the sampling is
replaced: ``_prepare_training_batch`` hands out the rollouts.
"""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ours
import torch
from common import marked
from matplotlib.axes import Axes
from rich.table import Table
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback
from workload import TINY, Workload, draw

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.credit.sdpo import SDPO
from rlrt.loss.objective import Aggregation
from rlrt.model.load import load_policy

TITLE = "drift with the split of a distilled update"
GROUPS, SAMPLES = 2, 8
WHOLE = GROUPS * SAMPLES
SPLITS, QUICK_SPLITS = (1, 2, 4, 8), (4,)  # rollouts per micro-batch
TOP_100 = {  # TRL's settings for the loss of AlphaDivergence(0.5, 100); its default is a sampled id
    "distillation_mode": "topk_logits",
    "distillation_topk": 100,
    "distillation_add_tail": True,
    "distillation_alpha": 0.5,
}
HALF = {"distillation_weight": 0.5, **TOP_100}
ASKED = 1e-5


class Mixed(SDPO):
    """SDPO with a share of plain policy loss; every response token counts, as for TRL."""

    def __init__(self, policy_share: float = 0.0) -> None:
        super().__init__(importance_limit=None)
        self.policy_share = policy_share

    def credited(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        return torch.ones_like(has_context_B)

    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        credit = super().__call__(batch, step)
        assert credit.distillation_BT is not None
        advantages_B1 = advantages(batch.rewards_B)[:, None]
        return replace(
            credit,
            advantages_BT=self.policy_share * advantages_B1 * batch.response_mask_BT,
            distillation_BT=(1 - self.policy_share) * credit.distillation_BT,
            counted_BT=batch.response_mask_BT,
        )


def advantages(rewards_B: Tensor) -> Tensor:
    """Rewards less their group's mean."""
    rewards_PK = rewards_B.view(GROUPS, SAMPLES)
    return (rewards_PK - rewards_PK.mean(1, keepdim=True)).flatten()


def workload() -> Workload:
    """Two groups of uneven responses; in one only the first is right, and has no peer."""
    load = draw(GROUPS, SAMPLES, 200)
    return replace(load, rewards=(1.0, *(0.0,) * (SAMPLES - 1), *load.rewards[SAMPLES:]))


def ours_at(
    split: int,
    share: float = 0.0,
    kind: str = "token_mean",
    mixed: bool = False,
    precision: str = "32-true",
) -> Tensor:
    """The gradient of an update by the project."""
    load, credit = workload(), Mixed(share) if mixed else SDPO(importance_limit=None)
    budget = max(-(-WHOLE * load.longest * split // WHOLE), load.longest)
    module = ours.module_of(load_policy(TINY, torch.float32), budget, credit, Aggregation(kind))
    ours.run(module, ours.one_update(ours.rollouts_of(load), credit), precision)
    return flat(ours.gradients(module))


def flat(gradients: dict[str, Tensor]) -> Tensor:
    """In the order of the names."""
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


class KeepGradient(TrainerCallback):
    """The gradient that reaches the optimizer."""

    def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
        self.gradients = {name: p.grad.clone() for name, p in model.named_parameters()}


def trl_at(split: int, **settings: Any) -> Tensor:
    """The gradient of an update by TRL, in float32 unless the settings say otherwise."""
    from trl_side import Dataset  # refuses with a sentence where TRL is missing

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

        class PreparedTrainer(SDPOTrainer):
            def _prepare_training_batch(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
                assert len(inputs) == WHOLE, f"{len(inputs)} rollouts in an update of {WHOLE}"
                return prepared(workload())

        kept = KeepGradient()
        with tempfile.TemporaryDirectory() as folder:
            fixed = {"max_steps": 1, "max_grad_norm": 0.0, "use_cpu": True, "report_to": []}
            quiet = {"save_strategy": "no", "disable_tqdm": True, "bf16": False}
            quiet["model_init_kwargs"] = {"dtype": "float32"}
            sizes = {
                "per_device_train_batch_size": split,
                "gradient_accumulation_steps": WHOLE // split,
            }
            trainer = PreparedTrainer(
                TINY,  # by name: its frozen teacher is loaded once more
                reward_funcs=lambda **_: [0.0],
                args=SDPOConfig(output_dir=folder, **{**fixed, **quiet, **sizes, **settings}),
                train_dataset=Dataset.from_list([{"prompt": str(row)} for row in range(WHOLE)]),
                processing_class=ours.tokenizer(),
                callbacks=[kept],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
    return flat(kept.gradients)


def prepared(load: Workload) -> dict[str, Tensor]:
    """What TRL's trainer would have sampled and reprompted."""
    teacher_prompts = ours.teacher_prompts(ours.rollouts_of(load), SDPO())
    prompt_ids, prompt_mask = padded(load.prompts, "left")
    ids, mask = padded(load.responses, "right")
    teacher = [there or plain for there, plain in zip(teacher_prompts, load.prompts, strict=True)]
    teacher_ids, teacher_mask = padded(teacher, "left")
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": ids,
        "completion_mask": mask,
        "teacher_input_ids": torch.cat([teacher_ids, ids], 1),
        "teacher_attention_mask": torch.cat([teacher_mask, mask], 1),
        "self_distillation_mask": torch.tensor(
            [float(there is not None) for there in teacher_prompts]
        ),
        "advantages": advantages(torch.tensor(load.rewards)),
    }


def padded(rows: Any, side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask."""
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True, padding_side=side)
    return pad([torch.tensor(row) for row in rows]), pad([torch.ones(len(r)).long() for r in rows])


CASES: dict[str, Callable[..., Tensor]] = {
    "rlrt SDPO": ours_at,
    "rlrt SDPO, mean of responses": partial(ours_at, kind="sequence_mean", mixed=True),
    "TRL SDPO, the same loss": partial(trl_at, **TOP_100),
    "rlrt half policy loss": partial(ours_at, share=0.5, mixed=True),
    "TRL half policy loss": partial(trl_at, **HALF),  # its default loss_type
    "TRL half policy loss, grpo": partial(trl_at, **HALF, loss_type="grpo"),
    "rlrt SDPO, bf16": partial(ours_at, precision="bf16-mixed"),
    "TRL SDPO, the same loss, bf16": partial(trl_at, **TOP_100, bf16=True),
}


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row per case."""
    wholes = {name: case(WHOLE) for name, case in CASES.items()}
    ours_whole, theirs = wholes["rlrt SDPO, mean of responses"], wholes["TRL SDPO, the same loss"]
    return [
        {
            "case": name,
            "drift": {
                split: apart(case(split), wholes[name])
                for split in (QUICK_SPLITS if quick else SPLITS)
            },
            "same_loss_apart": apart(ours_whole, theirs),
        }
        for name, case in CASES.items()
    ]


def apart(gradient: Tensor, reference: Tensor) -> float:
    """``‖gradient - reference‖ / ‖reference‖``."""
    return float((gradient - reference).norm() / reference.norm())


def table(rows: list[dict[str, Any]]) -> Table:
    """Drift by rollouts per micro-batch."""
    same = rows[0]["same_loss_apart"]
    caption = (
        f"The same loss in one piece: rlrt and TRL differ by {marked(f'{same:.0e}', same < ASKED)}."
    )
    output = Table("rollouts per micro-batch", *rows[0]["drift"], title=TITLE, caption=caption)
    for row in rows:
        output.add_row(row["case"], *(f"{value:.1e}" for value in row["drift"].values()))
    return output


def picture(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """The largest drift of each case."""
    axes.barh([r["case"] for r in rows], [max(r["drift"].values()) for r in rows], color="#4477aa")
    axes.set(xscale="log", xlabel="largest drift, share of the gradient's norm")
    axes.invert_yaxis()
