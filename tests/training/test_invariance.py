"""However an update is packed, split, skipped and spread over processes, it is the same update."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import ROOT, TINY
from tests.processes import run_ranks
from tests.training.invariance_worker import BUDGETS, DISTILLED, whole_update
from torch import Tensor

from rlrt.functional.divergences import AlphaDivergence
from rlrt.loss.aggregation import Aggregation
from rlrt.loss.surrogate import ClippedSurrogate
from rlrt.model.load import load_policy


def reference_gradient() -> Tensor:
    """Response by response through the plain model, float64, nothing packed, split, skipped, shared."""
    policy, update = load_policy(TINY, torch.float64), whole_update()
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


def every_way(processes: int, teacher: str, folder: Path) -> dict[Any, dict[str, Tensor]]:
    """The results of all packs, splits and scorings with so many processes."""
    path = folder / f"{teacher}_{processes}.pt"
    worker = str(ROOT / "tests/training/invariance_worker.py")
    run_ranks(processes, worker, teacher, str(path), timeout_s=240)
    return torch.load(path)  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("teacher", ["live", "frozen"])
def test_packing_splitting_skipping_and_processes_change_nothing(
    tmp_path: Path, teacher: str
) -> None:
    """Every combination's gradient is the plain loop's to 1e-5 (float32 against float64), and every
    other's to 3e-6: the order of float32 sums is all that differs. So are the loss and the metrics.

    Nine ways (three budgets; no, some, all student views scored before) times 1, 2 and 3 processes. With
    three the last has no credit at all, so it makes empty passes.
    """
    expected = reference_gradient()
    first: dict[str, Tensor] | None = None
    for processes in (1, 2, 3):
        found = every_way(processes, teacher, tmp_path)
        assert len(found) == 3 * len(BUDGETS)
        for way, result in found.items():
            gradient = result["gradient"]
            apart = (gradient.double() - expected).norm() / expected.norm()
            assert apart < 1e-5, f"{processes} processes, {way}: {apart:.1e} from the loop"
            first = first or result
            apart = (gradient - first["gradient"]).norm() / first["gradient"].norm()
            assert apart < 3e-6, f"{processes} processes, {way}: {apart:.1e} from the first"
            for name in result.keys() - {"gradient"}:
                torch.testing.assert_close(result[name], first[name], rtol=3e-6, atol=3e-6)
