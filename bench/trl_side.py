"""TRL's GRPOTrainer on given rollouts. TRL is a dependency of this benchmark only.

Only the sampling is replaced, through TRL's own ``rollout_func``; rewards, advantages, padding,
splitting, loss, accumulation and the optimizer step are its own. ``loss_type="dapo"`` with one
generation for each update is the sum over all response tokens of the update by their number, as ours.
"""

import tempfile
import time
import warnings
from typing import Any

import torch
from ours import CLIP, LEARNING_RATE
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from workload import TINY, Workload

from rlrt.model.load import load_tokenizer

try:
    from datasets import Dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the version of vLLM, which is not used here
        from trl import GRPOConfig, GRPOTrainer
        from trl.rewards import accuracy_reward
except ImportError as error:
    raise SystemExit(
        f"this part compares with TRL, which is missing ({error}): pip install 'trl==1.16.*'"
    ) from error

__all__ = [
    "Dataset",
    "GRPOConfig",
    "GRPOTrainer",
    "TrlSide",
    "accuracy_reward",
    "apart",
    "best_rows",
]

SETTINGS: dict[str, Any] = {  # TRL's best for a CPU, and the same loss as ours
    "loss_type": "dapo",
    "scale_rewards": "none",
    "beta": 0.0,
    "epsilon": CLIP,
    "epsilon_high": CLIP,
    "num_iterations": 1,
    "temperature": 1.0,
    "learning_rate": LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.01,
    "max_grad_norm": 1e9,  # computed, as ours
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "shuffle_dataset": False,
    "report_to": [],
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
}


class Stopwatch(TrainerCallback):
    """From the first micro-batch to the end of the optimizer step; keeps the gradient on request."""

    def __init__(self) -> None:
        self.keep = False
        self.gradients: dict[str, Tensor] = {}

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
        if self.keep:
            self.gradients = {n: p.grad.clone() for n, p in model.named_parameters()}

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.spent = time.perf_counter() - self.began


class GivenTrainer(GRPOTrainer):
    """Tells how long the part before the update took: it is not a part of the update."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        batch = super()._generate_and_score_completions(inputs)
        self.before_update_s = time.perf_counter() - began
        return batch


class TrlSide:
    """One trainer; every ``step`` is one update on all rollouts, in micro-batches of ``rows``."""

    def __init__(self, policy: PreTrainedModel, load: Workload, rows: int) -> None:
        count = len(load.responses)
        assert count % rows == 0, f"{rows} rows do not divide {count} rollouts"
        self.rows, self.watch = rows, Stopwatch()
        self.folder = tempfile.TemporaryDirectory()
        config = GRPOConfig(
            output_dir=self.folder.name,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=count // rows,
            num_generations=load.samples,
            max_completion_length=load.limit,
            max_steps=1,
            **SETTINGS,
        )
        prompts = [str(row) for row in range(0, count, load.samples)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer = GivenTrainer(
                policy,
                reward_funcs=given_rewards,
                args=config,
                train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
                processing_class=load_tokenizer(TINY),
                callbacks=[self.watch],
                rollout_func=given_rollouts(load),
            )
        self.trainer.remove_callback(PrinterCallback)

    def step(self) -> float:
        """Seconds of one update: forward, backward, optimizer step."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer.train()
        return self.watch.spent - self.trainer.before_update_s

    def gradients(self) -> dict[str, Tensor]:
        """Of one more update, by name."""
        self.watch.keep = True
        self.step()
        self.watch.keep = False
        return self.watch.gradients


def given_rewards(completions: list[Any], given: list[float], **_: Any) -> list[float]:
    """What the workload says."""
    return given


def given_rollouts(load: Workload) -> Any:
    """TRL asks with every prompt repeated for its samples, in order."""

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        firsts = [int(prompt) for prompt in prompts]
        rows = [first + place % load.samples for place, first in enumerate(firsts)]
        assert rows == list(range(len(load.responses))), rows
        return {
            "prompt_ids": [list(ids) for ids in load.prompts],
            "completion_ids": [list(ids) for ids in load.responses],
            "logprobs": [[-1.0] * len(ids) for ids in load.responses],
            "given": list(load.rewards),
        }

    return rollout


def best_rows(
    policy_of: Any, load: Workload, token_budget: int
) -> tuple["TrlSide", dict[int, float]]:
    """The trainer with the fastest micro-batch that the budget allows, and the seconds of all tried."""
    count = len(load.responses)
    allowed = [
        r for r in range(1, count + 1) if count % r == 0 and r * load.longest <= token_budget
    ]
    sides, tried = {}, {}
    for rows in allowed[-2:]:  # the largest two: smaller ones only add overhead
        sides[rows] = TrlSide(policy_of(), load, rows)
        sides[rows].step()
        tried[rows] = sides[rows].step()
    return sides[min(tried, key=tried.__getitem__)], tried


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """``‖ours - theirs‖ / ‖theirs‖`` over all weights."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    difference = sum(float((ours[n].double() - theirs[n].double()).square().sum()) for n in ours)
    norm = sum(float(theirs[name].double().square().sum()) for name in theirs)
    return float(torch.tensor(difference / norm).sqrt())
