"""A real GRPO run by TRL on the project's arithmetic and models/tiny; seconds of each stage per step.

``python trl_run.py STEPS PROBLEMS SAMPLES TOKENS BUDGET generate|vllm`` prints a JSON list with a row
for every step.
"""

import json
import sys
import tempfile
import time
import warnings
from typing import Any

import ours
import torch
from training_run import LEARNING_RATE
from transformers import PrinterCallback, TrainerCallback
from trl_side import SETTINGS, Dataset, GRPOConfig, GRPOTrainer, accuracy_reward
from workload import TINY

from rlrt.data.arithmetic import Arithmetic
from rlrt.data.prompts import BOXED_INSTRUCTION, Prompts
from rlrt.model.load import load_policy, load_tokenizer


class TimedTrainer(GRPOTrainer):
    """Seconds of the stages of the current step."""

    def stage(self, name: str, began: float) -> None:
        self.row[name] = self.row.get(name, 0.0) + time.perf_counter() - began

    def _generate(self, prompts: list[Any]) -> Any:
        began = time.perf_counter()
        result = super()._generate(prompts)
        self.stage("rollout", began)
        self.row["tokens"] = float(sum(map(len, result[1])))
        return result

    def _calculate_rewards(self, *args: Any) -> Any:
        began = time.perf_counter()
        result = super()._calculate_rewards(*args)
        self.stage("reward", began)
        return result

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        result = super()._generate_and_score_completions(inputs)
        self.stage("before_update", began)
        return result


class Steps(TrainerCallback):
    """Hands the trainer an empty row at each step's start and keeps it at its end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.row = {}
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        row = self.trainer.row
        row["step"] = time.perf_counter() - self.began
        row["update"] = row["step"] - row["before_update"]
        row["score"] = row.pop("before_update") - row["rollout"] - row["reward"]
        self.rows.append(row)


def run(
    steps: int, problems: int, samples: int, tokens: int, budget: int, engine: str
) -> list[dict[str, float]]:
    """The rows of a run whose micro-batches hold at most ``budget`` padded tokens."""
    tokenizer = load_tokenizer(TINY)
    train_problems = Arithmetic(0, steps * problems, 1).train().problems
    longest = max(len(Prompts(tokenizer).student_ids(p.question)) for p in train_problems) + tokens
    count = problems * samples
    rows = max(r for r in range(1, count + 1) if count % r == 0 and r * longest <= budget)
    settings = SETTINGS | {"learning_rate": LEARNING_RATE, "max_grad_norm": 1.0}
    if engine == "vllm":
        settings |= {"use_vllm": True, "vllm_mode": "colocate"}
    data = [{"prompt": asked_of(p.question), "solution": p.answer} for p in train_problems]
    kept = Steps()
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=count // rows,
            num_generations=samples,
            max_completion_length=tokens,
            max_steps=steps,
            **settings,
        )
        kept.trainer = TimedTrainer(
            load_policy(TINY, torch.float32) if engine == "generate" else TINY,
            reward_funcs=accuracy_reward,
            args=config,
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer,
            callbacks=[kept],
        )
        kept.trainer.remove_callback(PrinterCallback)
        kept.trainer.train()
    return kept.rows


def asked_of(question: str) -> list[dict[str, str]]:
    """The conversation that our prompt holds too."""
    return [{"role": "user", "content": f"{question}\n{BOXED_INSTRUCTION}"}]


def main() -> None:
    """Print the rows."""
    ours.quiet()
    *numbers, engine = sys.argv[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = run(*map(int, numbers), engine)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
