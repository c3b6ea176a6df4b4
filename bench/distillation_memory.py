"""Peak memory of an SDPO update beside the naive one that holds both views' logits whole.

``python bench/distillation_memory.py [--quick] [--limit-gib G] [--json FILE]``: a small random Qwen3,
so that logits outweigh the rest, in float32; one response of T tokens is distilled with
``AlphaDivergence(0.5, 100)``. Every figure is one whole update by the real trainer in a process of its
own: the highest resident memory during it less the resident memory before it. The naive update
differs in ``_accumulate`` alone; it is left out where its estimate exceeds the limit.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from rlrt.functional.divergences import AlphaDivergence
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.surrogate import ClippedSurrogate
from rlrt.model.teacher import Frozen
from rlrt.training.module import Optimization, PolicyModule
from rlrt.training.objective import Objective
from rlrt.training.updates import Update

GIB = 2**30
VOCABULARY, TOKENS = 151_936, 4096  # of Qwen3, and of the response
TOP_K, PROMPT, CONTEXT = 100, 32, 64  # ids told apart; tokens
NAIVE_COPIES = 4  # of [T, V] float32 that the naive update holds at its peak, measured
SIZES = [(VOCABULARY, TOKENS)]
GROWTH = [(VOCABULARY, tokens) for tokens in (1024, 2048, 8192)] + [
    (vocabulary, TOKENS) for vocabulary in (32_768, 75_968)
]


class OneUpdate(L.LightningDataModule):
    """One update, on the device as it comes."""

    def __init__(self, update: Update) -> None:
        super().__init__()
        self.update = update

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader([self.update], batch_size=None)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch


def run_update(module: PolicyModule, update: Update, precision: Any = "32-true") -> None:
    """One optimiser update on the CPU by the real trainer; gradients stay on the parameters."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, datamodule=OneUpdate(update))


def gradient(module: PolicyModule) -> Tensor:
    """Of all weights, flat."""
    return torch.cat([p.grad.flatten() for p in module.policy.parameters() if p.grad is not None])


class NaivePolicyModule(PolicyModule):
    """The same loss from whole logits. It is kind: nothing is held longer than its formula needs."""

    def _accumulate(self, update: Update, weights_BT: Tensor, rows: list[int]) -> dict[str, Tensor]:
        (prompt,), (behind,), (response,) = update.prompts, update.teacher_prompts, update.responses
        assert behind is not None
        student_TV = self._log_softmax(self.policy, prompt, response)
        with torch.no_grad():
            teacher_TV = self._log_softmax(self.teacher_policy, behind, response)
        ids_TK = student_TV.detach().topk(TOP_K).indices
        student_TK, teacher_TK = _with_tail(student_TV, ids_TK), _with_tail(teacher_TV, ids_TK)
        del student_TV, teacher_TV
        mixture_TK = torch.logaddexp(student_TK, teacher_TK) - torch.log(torch.tensor(2.0))
        student_kl_TK = student_TK.exp() * (student_TK - mixture_TK)
        teacher_kl_TK = teacher_TK.exp() * (teacher_TK - mixture_TK)
        divergence_T = (student_kl_TK + teacher_kl_TK).sum(-1) / 2
        loss = (divergence_T * weights_BT[0]).sum()
        self.manual_backward(loss)
        return {"distillation": loss.detach().double()}

    def _log_softmax(
        self, policy: PreTrainedModel, prompt: tuple[int, ...], response: tuple[int, ...]
    ) -> Tensor:
        ids = torch.tensor([[*prompt, *response]])
        keep = len(response) + 1
        logits_TV = policy(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0, :-1]
        return torch.log_softmax(logits_TV / self.temperature, -1)


def _with_tail(logprobs_TV: Tensor, ids_TK: Tensor) -> Tensor:
    top_TK = logprobs_TV.gather(-1, ids_TK)
    mass_T1 = top_TK.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
    return torch.cat([top_TK, (-mass_T1.expm1()).log()], -1)


def module_and_update(kind: str, vocabulary: int, tokens: int) -> tuple[PolicyModule, Update]:
    """A random policy and one response of random ids, the same for both kinds."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=16_384,
        tie_word_embeddings=True,
        initializer_range=0.3,  # logits apart by about 2.4: distributions that differ
    )
    ids = torch.randint(vocabulary, (PROMPT + CONTEXT + tokens,)).tolist()
    prompt, behind = tuple(ids[:PROMPT]), tuple(ids[: PROMPT + CONTEXT])
    mask_BT = torch.ones(1, tokens, dtype=torch.bool)
    zeros_BT = torch.zeros(1, tokens)
    response = (tuple(ids[PROMPT + CONTEXT :]),)
    update = Update(
        (prompt,), (behind,), response, mask_BT, mask_BT, zeros_BT, zeros_BT, zeros_BT, zeros_BT + 1
    )
    module = {"rlrt": PolicyModule, "naive": NaivePolicyModule}[kind](
        Qwen3ForCausalLM(config),
        Frozen(),
        Objective(ClippedSurrogate(), Aggregation(), AlphaDivergence(0.5, TOP_K)),
        Optimization(learning_rate=1e-3, max_grad_norm=1e9),
        temperature=1.0,
        token_budget=2 * (PROMPT + CONTEXT + tokens),
    )
    return module, update


def measure_here(kind: str, vocabulary: int, tokens: int, folder: str) -> None:
    """Run one update in this process; its figures go to stdout, its gradient into the folder."""
    small, nothing = module_and_update("rlrt", 512, 8)
    run_update(small, nothing)  # loads what the libraries load late
    module, update = module_and_update(kind, vocabulary, tokens)
    before = _resident()
    began = time.perf_counter()
    run_update(module, update)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    torch.save(gradient(module), Path(folder) / kind)
    loss = module.update_metrics[0]["loss/distillation"]
    print(json.dumps({"gib": (peak - before) / GIB, "seconds": seconds, "loss": loss}))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def compare(vocabulary: int, tokens: int, limit_gib: float) -> dict[str, Any]:
    """Both updates' figures at this size and, where both ran, how far they are apart."""
    row: dict[str, Any] = {"vocabulary": vocabulary, "tokens": tokens}
    row["naive_estimate_gib"] = NAIVE_COPIES * vocabulary * tokens * 4 / GIB
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("rlrt", "naive"):
            if kind == "naive" and row["naive_estimate_gib"] > limit_gib:
                return row
            size = [kind, str(vocabulary), str(tokens), folder]
            done = subprocess.run(
                [sys.executable, __file__, "--child", *size], stdout=subprocess.PIPE, check=True
            )
            row[kind] = json.loads(done.stdout.splitlines()[-1])
        ours, naive = (torch.load(Path(folder) / kind) for kind in ("rlrt", "naive"))
    row["gradient_apart"] = float((ours - naive).norm() / naive.norm())
    row["loss_apart"] = abs(row["rlrt"]["loss"] / row["naive"]["loss"] - 1)
    assert max(row["gradient_apart"], row["loss_apart"]) < 1e-5, row
    return row


def main() -> None:
    """Print the table and, with ``--json``, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only V = 151,936 and T = 4096")
    parser.add_argument("--limit-gib", type=float, default=14.0, help="the naive update's most")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, vocabulary, tokens, folder = options.child
        return measure_here(kind, int(vocabulary), int(tokens), folder)
    sizes = SIZES if options.quick else SIZES + GROWTH
    rows = [compare(*size, options.limit_gib) for size in sizes]
    table = Table("V", "T", "rlrt GiB", "rlrt s", "naive GiB", "naive s", "gradients apart")
    for row in rows:
        ours, naive = row["rlrt"], row.get("naive")
        table.add_row(
            f"{row['vocabulary']:,}",
            f"{row['tokens']:,}",
            f"{ours['gib']:.2f}",
            f"{ours['seconds']:.0f}",
            f"{naive['gib']:.2f}" if naive else f"not run: about {row['naive_estimate_gib']:.0f}",
            f"{naive['seconds']:.0f}" if naive else "",
            f"{row['gradient_apart']:.0e}" if naive else "",
        )
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
