"""However an update is packed, split, skipped and spread over processes, it is the same update."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.paths import TINY
from tests.processes import run_ranks
from tests.unit.training.invariance_worker import DISTILLED, ways, whole_update
from tests.untied import untied_tiny
from torch import Tensor

from rlrt.loss.divergences import AlphaDivergence
from rlrt.loss.objective import Aggregation
from rlrt.loss.policy_loss import ClippedSurrogate
from rlrt.model.load import load_policy


def reference_gradient(folder: str) -> Tensor:
    """Response by response through the plain model, float64, nothing packed, split, skipped, shared."""
    policy, update = load_policy(folder, torch.float64), whole_update()
    weights_BT = Aggregation("sequence_mean")(update.counted_BT, torch.float64)
    surrogate, divergence = ClippedSurrogate(), AlphaDivergence(0.5, 20)
    loss = torch.zeros((), dtype=torch.float64)
    for row, response in enumerate(update.responses):
        if not response:
            continue
        size = len(response)
        ids = torch.tensor(response)

        def logits(prompt: tuple[int, ...], response: tuple[int, ...] = response) -> Tensor:
            whole = policy(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits
            part: Tensor = whole[0, len(prompt) - 1 : -1]
            return part

        student_TV = logits(update.prompts[row])
        logprobs_T = torch.log_softmax(student_TV, -1).gather(-1, ids[:, None])[:, 0]
        s_T, e_T = logprobs_T.detach(), update.engine_logprobs_BT[row, :size].double()
        advantages_T = update.advantages_BT[row, :size].double()
        token_T = surrogate(logprobs_T, s_T, e_T, advantages_T, torch.zeros(size))
        if row in DISTILLED:
            prompt = update.teacher_prompts[row]
            assert prompt is not None
            with torch.no_grad():
                teacher_TV = logits(prompt)
            weight_T = update.distillation_BT[row, :size].double() * surrogate.correction(s_T, e_T)
            token_T = token_T + weight_T * divergence(student_TV, teacher_TV, ids)
        loss = loss + (token_T * weights_BT[row, :size]).sum()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def every_way(processes: int, folder: Path, *policies: str) -> dict[Any, dict[str, Tensor]]:
    """The results of all packs, splits, scorings and teachers with so many processes."""
    path = folder / f"{processes}.pt"
    worker = "tests/unit/training/invariance_worker.py"
    logs = folder / f"logs_{processes}"
    run_ranks(processes, worker, str(path), *policies, log=logs, timeout_s=280)
    return torch.load(path)  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_packing_splitting_skipping_and_processes_change_nothing(tmp_path: Path) -> None:
    """In float32 every combination's gradient is the plain loop's to 1e-5 (float64), and every other's
    to 3e-6: the order of float32 sums is all that differs. So are the loss and the metrics.

    Tied and untied heads, live and frozen teachers, three budgets, and no, some or all student views
    scored before, with 1, 2 and 3 processes. With three the last has no credit at all, and the others
    not equally many passes.

    In bfloat16 a pass of the same tokens has the same log-probs in any number of processes, to
    float32's noise; other neighbors in a pass are other sums, rounded otherwise. A gradient is rounded
    in every layer and once more at the end of every pass, before the float32 sums over passes and ranks:
    2^-6 is how far two ways of cutting may be apart (2^-8 is a single rounding's).
    """
    policies = (TINY, untied_tiny(tmp_path / "untied"))
    expected = [reference_gradient(policy) for policy in policies]
    first: dict[Any, dict[str, Tensor]] = {}
    for processes in (1, 2, 3):
        found = every_way(processes, tmp_path, *policies)
        assert list(found) == ways(len(policies))
        for way, result in found.items():
            policy, precision, _, budget, _ = way
            exact, what = precision == "32-true", f"{processes} processes, {way}"
            gradient = result["gradient"]
            apart = (gradient.double() - expected[policy]).norm() / expected[policy].norm()
            assert apart < (1e-5 if exact else 0.05), f"{what}: {apart:.1e} from the loop"
            other = first.setdefault((policy, precision, exact or budget), result)
            apart = (gradient - other["gradient"]).norm() / other["gradient"].norm()
            assert apart < (3e-6 if exact else 2**-6), f"{what}: {apart:.1e} from the first"
            for name in (result.keys() & other.keys()) - {"gradient"}:
                alike = exact or (budget == 1 and name.startswith("view"))
                apart = (result[name] - other[name]).abs().max()
                limit = (3e-6 if alike else 0.05) * max(1.0, float(other[name].abs().max()))
                assert apart <= limit, f"{what}: {name} is {apart:.1e} from the first"
