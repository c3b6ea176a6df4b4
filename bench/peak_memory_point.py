"""One point of the memory part, in a process of its own: prints its figures as JSON.

``python peak_memory_point.py rlrt|naive score|update|distillation V T FOLDER``; the gradient goes into the
folder. Peak memory is the highest resident set while the work runs, less the one right before it,
when weights, gradients and the optimizer's state are in place.
"""

import json
import sys
import time
from pathlib import Path

import naive
import ours
import torch
from transformers import PreTrainedModel
from workload import Shape, Workload, draw

from rlrt.credit.grpo import GRPO
from rlrt.credit.sdpo import SDPO
from rlrt.training.module import PolicyModule

GIB = 2**30


class Peak:
    """The highest resident set since it was made, less that at the time, in GiB."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
        self.before, self.began = _status("VmRSS"), time.perf_counter()

    def figures(self) -> dict[str, float]:
        """And the seconds since."""
        gib = (_status("VmHWM") - self.before) * 1024 / GIB
        return {"gib": gib, "seconds": time.perf_counter() - self.began}


def _status(field: str) -> int:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def workload(tokens: int) -> Workload:
    """A response of so many tokens, and one of eight that is right where the first is wrong."""
    return draw(1, 2, tokens, lengths=[tokens, 8])


def by_ours(what: str, policy: PreTrainedModel, tokens: int) -> dict[str, float]:
    """Figures of the real trainer."""
    load, small = workload(tokens), workload(8)
    credit = SDPO(top_k=naive.TOP_K, importance_limit=None) if what == "distillation" else GRPO()
    module = ours.module_of(policy, 2 * load.longest + tokens, credit)
    ours.run(module, ours.one_update(ours.rollouts_of(small), credit))  # state, late imports
    peaks: list[Peak] = []
    figures: dict[str, float] = {}

    def scored(module: PolicyModule) -> list[ours.Update]:
        start = Peak()
        ours.score(module, load)
        figures.update(start.figures())
        return ours.one_update(ours.rollouts_of(small), credit)(module)

    if what == "score":
        ours.run(module, scored)
        return figures
    prepare = ours.one_update(ours.rollouts_of(load), credit)

    def scoring_done() -> None:
        hold_gradients(policy)
        peaks.append(Peak())

    ours.run(module, prepare, after_score=scoring_done)
    return peaks[0].figures()


def hold_gradients(policy: PreTrainedModel) -> None:
    """Have the gradients' memory taken: it belongs to the policy, not to the computation."""
    for parameter in policy.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.add_(0)  # pages that nobody wrote to are not resident


def by_naive(what: str, policy: PreTrainedModel, tokens: int) -> dict[str, float]:
    """Figures of plain torch, its optimizer's step left out: it makes nothing large."""
    load = workload(tokens)
    hold_gradients(policy)
    naive.score(policy, workload(8))
    start = Peak()
    if what == "score":
        naive.score(policy, load)
    elif what == "update":
        naive.update(policy, load)
    else:
        rollouts = ours.rollouts_of(load)
        (teacher_prompt, _) = ours.teacher_prompts(rollouts, SDPO())
        assert teacher_prompt is not None
        naive.distillation(policy, load, teacher_prompt)
    return start.figures()


def main() -> None:
    """One measurement of a network so narrow that its logits outweigh the rest."""
    ours.quiet()
    side, what, vocabulary, tokens, folder = sys.argv[1:]
    shape = Shape("narrow", int(vocabulary), 64, 128, 2, 2, 1, 32, spread=0.3)
    policy = shape.policy()
    figures = {"rlrt": by_ours, "naive": by_naive}[side](what, policy, int(tokens))
    grads = [p.grad.flatten() for p in policy.parameters() if p.grad is not None]
    torch.save(torch.cat(grads), Path(folder) / side)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
