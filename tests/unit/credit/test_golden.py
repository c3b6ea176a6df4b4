"""Every value of ``../shared/golden`` that credit decides, to 1e-12 in float64."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlrt.batch import ScoredBatch
from rlrt.credit.assigner import CreditAssigner
from rlrt.credit.diver import DIVER
from rlrt.credit.grpo import GRPO
from rlrt.credit.grpo_entropy import GRPOEntropy
from rlrt.credit.rlrt import RLRT
from rlrt.credit.rlrt_all import RLRTAll
from rlrt.credit.rlsd import RLSD
from rlrt.credit.srpo import SRPO
from rlrt.credit.teacher_favoring import TeacherFavoring
from rlrt.loss.objective import Aggregation, mean_one
from rlrt.loss.policy_loss import ClippedSurrogate

ASSIGNERS: dict[str, CreditAssigner] = {
    f"{name}_{suffix}": assigner(standardize=suffix == "std", **settings)
    for suffix in ("std", "nostd")
    for name, assigner, settings in [
        ("grpo", GRPO, {}),
        ("ent", GRPOEntropy, {}),
        ("rlsd_eps0.2", RLSD, {"clip_radius": 0.2}),
        ("rlrt_eps1.0", RLRT, {"clip_radius": 1.0}),
        ("rlrt_eps0.5", RLRT, {"clip_radius": 0.5}),
        ("rlrt_eps0.2", RLRT, {"clip_radius": 0.2}),
        ("rlrt_all_eps0.5", RLRTAll, {"clip_radius": 0.5}),
        ("teacher_up_eps0.5", TeacherFavoring, {"clip_radius": 0.5}),
    ]
}


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((shared / "golden/fixture_a.json").read_text())
    return content


@pytest.fixture(scope="module")
def vectors(shared: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((shared / "golden/vectors.json").read_text())
    return content


def padded(rows: list[list[float]]) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [0.0] * (longest - len(row)) for row in rows], dtype=torch.float64)


def batch_of(inputs: dict[str, Any]) -> ScoredBatch:
    lengths = torch.tensor(inputs["lengths"])
    rewards = torch.tensor(inputs["rewards"], dtype=torch.float64)
    every = torch.ones(len(lengths), dtype=torch.bool)
    return ScoredBatch(
        group_B=torch.zeros(len(lengths), dtype=torch.long),
        rewards_B=rewards,
        penalty_B=torch.zeros_like(rewards),
        response_mask_BT=torch.arange(int(lengths.max()))[None] < lengths[:, None],
        engine_logprobs_BT=padded(inputs["rollout"]),
        student_scored_B=every,
        student_logprobs_BT=padded(inputs["old"]),
        student_entropy_BT=padded(inputs["entropy"]),
        has_context_B=every,
        teacher_scored_B=every,
        teacher_logprobs_BT=padded(inputs["teacher"]),
        teacher_entropy_BT=torch.zeros_like(padded(inputs["teacher"])),
        divergence_BT=torch.zeros_like(padded(inputs["teacher"])),
        responses=("",) * len(lengths),
    )


def close(found: Tensor, mask: Tensor, expected: list[list[float]]) -> None:
    rows = [row[kept].tolist() for row, kept in zip(found, mask, strict=True)]
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-12, rel=0)


def responses_of(mask: Tensor) -> Tensor:
    """Which response each token belongs to."""
    return torch.arange(len(mask))[:, None].expand_as(mask)


def corrected(name: str) -> str:
    """The key of a method's values with the rollout correction, which some methods have."""
    head, suffix = name.rsplit("_", 1)
    return f"{head}_tis_{suffix}" if head == "grpo" else f"{name}_tis"


def test_nothing_in_the_fixture_is_left_out(golden: dict[str, Any]) -> None:
    rest = set(golden) - set(ASSIGNERS) - {corrected(name) for name in ASSIGNERS}
    assert rest == {"note", "inputs", "adv_nostd", "adv_std", "tis"}


@pytest.mark.parametrize("name", ASSIGNERS)
def test_credit_loss_and_gradient(golden: dict[str, Any], name: str) -> None:
    batch = batch_of(golden["inputs"])
    mask = batch.response_mask_BT
    credit = ASSIGNERS[name](batch, step=0)
    suffix = name.rsplit("_", 1)[1]
    assert credit.advantages_B is not None
    assert credit.advantages_B.tolist() == pytest.approx(golden[f"adv_{suffix}"], abs=1e-12, rel=0)
    if "adv" in golden[name]:
        close(credit.advantages_BT, mask, golden[name]["adv"])

    cases = [(name, None), (corrected(name), 2.0)]
    for key, limit in cases if corrected(name) in golden else cases[:1]:
        logprobs = padded(golden["inputs"]["cur"]).requires_grad_()
        token_loss = ClippedSurrogate(rollout_correction_limit=limit)(
            logprobs,
            batch.student_logprobs_BT,
            batch.engine_logprobs_BT,
            credit.advantages_BT,
            responses_of(mask),
        )
        close(token_loss, mask, golden[key]["token_loss"])
        for aggregation, value in [
            (Aggregation("token_mean"), "token_mean"),
            (Aggregation("sequence_mean"), "seq_mean_token_mean"),
            (Aggregation("constant_length", 8), "dr_grpo_const_L8"),
        ]:
            loss = (token_loss * aggregation(mask, torch.float64)).sum()
            assert loss.item() == pytest.approx(golden[key][value], abs=1e-12, rel=0)
        mean = (token_loss * Aggregation("token_mean")(mask, torch.float64)).sum()
        (gradient,) = torch.autograd.grad(mean, logprobs)
        close(gradient, mask, golden[key]["grad_token_mean"])


@pytest.mark.parametrize("beta", ["0", "0.5", "1"])
def test_srpo_loss(golden: dict[str, Any], vectors: dict[str, Any], beta: str) -> None:
    """Rollouts 1 and 3 are distilled; the divergences of their tokens are given."""
    batch, srpo = batch_of(golden["inputs"]), SRPO(beta=float(beta))
    losses_BT, entropy_BT = torch.zeros(2, 4, 4, dtype=torch.float64)
    losses_BT[[1, 3], :2] = torch.tensor(vectors["srpo"]["losses"], dtype=torch.float64)
    entropy_BT[[1, 3], :2] = torch.tensor(vectors["srpo"]["entropies"], dtype=torch.float64)
    credit = srpo(replace(batch, teacher_entropy_BT=entropy_BT), step=0)
    assert credit.counted_BT is None
    assert credit.relative_distillation
    assert credit.distillation_BT is not None

    surrogate = ClippedSurrogate(rollout_correction_limit=None)(
        padded(golden["inputs"]["cur"]),
        batch.student_logprobs_BT,
        batch.engine_logprobs_BT,
        credit.advantages_BT,
        responses_of(batch.response_mask_BT),
    )
    token_loss = surrogate + mean_one(credit.distillation_BT) * losses_BT
    loss = (token_loss * Aggregation("token_mean")(batch.response_mask_BT, torch.float64)).sum()
    assert loss.item() == pytest.approx(vectors["srpo"]["expected"][beta], abs=1e-12, rel=0)


def test_diver_advantages(golden: dict[str, Any], vectors: dict[str, Any]) -> None:
    batch, given = batch_of(golden["inputs"]), vectors["diver"]
    rewards = torch.tensor(given["rewards"], dtype=torch.float64)
    batch = replace(batch, rewards_B=rewards, responses=tuple(given["responses"]))
    diver = DIVER()
    shaped = rewards + 0.1 * diver.diversities(batch).clamp(max=0.42)
    expected = given["shaped_lambda_0.1_sigma_0.42"]
    assert shaped.tolist() == pytest.approx(expected, abs=1e-12, rel=0)
    advantages_B = diver(batch, step=0).advantages_B
    assert advantages_B is not None
    # given to twelve digits
    assert advantages_B.tolist() == pytest.approx(given["advantages_std"], abs=1e-11, rel=0)
