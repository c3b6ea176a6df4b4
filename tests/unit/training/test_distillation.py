"""Distillation in the update: its value, its gradient, and what it must not depend on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.one_update import LENGTHS, fit, gradient, update_of
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.loss.divergences import AlphaDivergence, Divergence, GeneralizedJSD, SampledToken
from rlrt.loss.objective import Aggregation, Objective, mean_one
from rlrt.loss.policy_loss import ClippedSurrogate
from rlrt.model.teacher import EMA, Frozen, Live, Teacher
from rlrt.training.module import PolicyModule
from rlrt.training.updates import Update

MakePolicy = Callable[[torch.dtype], PreTrainedModel]
DISTILLED = (0, 2, 5, 6)  # responses of 7, 23, 3 and 18 tokens
CREDITED = (1, 4, 6)  # 6 has both


def distilled_update(dtype: torch.dtype) -> Update:
    """Some responses are distilled, some have an advantage, one both, the rest neither."""
    plain = update_of(dtype)
    draw = torch.Generator().manual_seed(5)
    distills = torch.zeros(8, 1, dtype=dtype)
    distills[list(DISTILLED)] = 1
    credited = torch.zeros(8, 1, dtype=dtype)
    credited[list(CREDITED)] = 1
    weights = (0.5 + torch.rand(plain.mask_BT.shape, generator=draw, dtype=dtype)) * plain.mask_BT
    teachers = [
        tuple(torch.randint(10, 200, (9 + row,), generator=draw).tolist()) for row in range(8)
    ]
    return replace(
        plain,
        teacher_prompts=tuple(
            teacher if row in DISTILLED else None for row, teacher in enumerate(teachers)
        ),
        advantages_BT=plain.advantages_BT * credited,
        distillation_BT=mean_one(weights * distills),
    )


def settings(divergence: Divergence, teacher: Teacher | None = None) -> dict[str, Any]:
    return {
        "divergence": divergence,
        "importance_limit": 2.0,
        "teacher": teacher or Live(),
    }


@pytest.mark.parametrize(
    ("divergence", "kind"),
    [
        (AlphaDivergence(0.5, 20), "token_mean"),
        (AlphaDivergence(1.0, None), "sequence_mean"),
        (GeneralizedJSD(0.5, 0.05), "token_mean"),
        (SampledToken(), "sequence_mean"),
    ],
)
def test_the_gradient_does_not_depend_on_the_split(
    random_policy: MakePolicy, tmp_path: Path, divergence: Divergence, kind: str
) -> None:
    """Relative difference at most 1e-6 in float32 over six splits of uneven responses."""
    update = distilled_update(torch.float32)
    chosen = settings(divergence, Frozen()) | {"aggregation": Aggregation(kind)}
    whole = gradient(fit(random_policy(torch.float32), update, tmp_path, **chosen))
    assert whole.norm() > 0
    for budget in (1, 30, 45, 60, 90, 140):
        module = fit(random_policy(torch.float32), update, tmp_path, **chosen, token_budget=budget)
        difference = (gradient(module) - whole).norm() / whole.norm()
        assert difference <= 1e-6, f"token budget {budget}: {difference:.2e}"


@pytest.mark.slow
def test_the_update_equals_a_loop_over_single_tokens(
    random_policy: MakePolicy, tmp_path: Path
) -> None:
    """SDPO's loss on some responses and the surrogate on others, one denominator, token by token."""
    update = distilled_update(torch.float64)
    module = fit(
        random_policy(torch.float64), update, tmp_path, **settings(AlphaDivergence(0.3, 5))
    )

    policy = random_policy(torch.float64)
    loss = torch.zeros((), dtype=torch.float64)
    for row, response in enumerate(update.responses):
        for t, token in enumerate(response):
            logprobs = distribution(policy, [*update.prompts[row], *response[:t]])
            student, engine = update.student_logprobs_BT[row, t], update.engine_logprobs_BT[row, t]
            advantage = update.advantages_BT[row, t]
            ratio = (logprobs[token] - student).exp()
            token_loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.28))
            if advantage < 0:
                token_loss = torch.minimum(token_loss, -3 * advantage)
            if row in DISTILLED:
                teacher_prompt = update.teacher_prompts[row]
                assert teacher_prompt is not None
                with torch.no_grad():
                    taught = distribution(policy, [*teacher_prompt, *response[:t]])
                weight = update.distillation_BT[row, t] * ratio.detach().clamp(max=2)
                token_loss = token_loss + weight * slow_divergence(logprobs, taught, 0.3, 5)
            loss = loss + token_loss * (student - engine).exp().clamp(max=2) / sum(LENGTHS)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    # transformers computes this model's norms in float32 even in a float64 model
    assert (gradient(module) - expected).norm() / expected.norm() <= 1e-6
    assert module.update_metrics[0]["loss/total"] == pytest.approx(loss.item(), abs=1e-12)


def distribution(policy: PreTrainedModel, ids: list[int]) -> Tensor:
    logits: Tensor = policy(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits, -1)


def slow_divergence(student: Tensor, teacher: Tensor, alpha: float, k: int) -> Tensor:
    ids = student.topk(k).indices
    kept = [torch.cat([p[ids].exp(), (1 - p[ids].exp().sum())[None]]) for p in (student, teacher)]
    mixture = (1 - alpha) * kept[0] + alpha * kept[1]
    total = torch.zeros((), dtype=student.dtype)
    for s, t, m in zip(*kept, mixture, strict=True):
        total = total + (1 - alpha) * s * (s / m).log() + alpha * t * (t / m).log()
    return total


def test_the_denominator_is_what_counts(random_policy: MakePolicy, tmp_path: Path) -> None:
    """SDPO alone: only distilled tokens are counted, whatever else is in the update."""
    update = distilled_update(torch.float64)
    update = replace(update, advantages_BT=torch.zeros_like(update.advantages_BT))
    few = replace(update, counted_BT=update.distillation_BT > 0)
    chosen = settings(AlphaDivergence(0.5, 20))
    all_counted = gradient(fit(random_policy(torch.float64), update, tmp_path, **chosen))
    some_counted = gradient(fit(random_policy(torch.float64), few, tmp_path, **chosen))
    distilled = sum(LENGTHS[row] for row in DISTILLED)
    expected = all_counted * sum(LENGTHS) / distilled
    assert (some_counted - expected).norm() / expected.norm() <= 1e-6


def test_no_context_gives_no_loss_and_no_nan(random_policy: MakePolicy, tmp_path: Path) -> None:
    update = distilled_update(torch.float32)
    nothing = torch.zeros_like(update.advantages_BT)
    update = replace(
        update,
        teacher_prompts=(None,) * 8,
        advantages_BT=nothing,
        distillation_BT=nothing,
        counted_BT=nothing.bool(),
    )
    module = fit(random_policy(torch.float32), update, tmp_path, **settings(AlphaDivergence()))
    row = module.update_metrics[0]
    assert row["loss/total"] == row["loss/distillation"] == row["update/grad_norm"] == 0
    assert row["update/skipped_rollouts"] == 1
    assert (gradient(module) == 0).all()


def test_a_teacher_of_its_own_decides_the_loss_and_gets_no_gradient(
    random_policy: MakePolicy, tiny: PreTrainedModel, tmp_path: Path
) -> None:
    """The teacher view is read with the teacher's weights: the trained policy, not the random one."""

    class Given(Teacher):
        def start(self, policy: PreTrainedModel) -> PreTrainedModel:
            return tiny

    update = distilled_update(torch.float32)
    other = fit(
        random_policy(torch.float32), update, tmp_path, **settings(AlphaDivergence(), Given())
    )
    live = fit(random_policy(torch.float32), update, tmp_path, **settings(AlphaDivergence()))
    assert (
        other.update_metrics[0]["update/divergence_mean"]
        > 2 * live.update_metrics[0]["update/divergence_mean"]
    )
    assert all(parameter.grad is None for parameter in tiny.parameters())


def test_a_live_teacher_gives_the_gradient_of_a_frozen_one(
    random_policy: MakePolicy, tmp_path: Path
) -> None:
    """In the first update both hold the same weights: nothing may flow through the teacher."""
    update = distilled_update(torch.float64)
    live, frozen = (
        gradient(
            fit(random_policy(torch.float64), update, tmp_path, **settings(AlphaDivergence(), kind))
        )
        for kind in (Live(), Frozen())
    )
    torch.testing.assert_close(live, frozen, rtol=0, atol=0)


def test_only_weights_that_change_are_a_part_of_the_checkpoint(
    random_policy: MakePolicy,
) -> None:
    def names(teacher: Teacher) -> set[str]:
        policy = random_policy(torch.float32)
        objective = Objective(ClippedSurrogate(), Aggregation())
        return set(PolicyModule(policy, teacher, objective, None, 1.0, 100).state_dict())

    live = names(Live())
    assert names(Frozen()) == live
    own = {name.replace("policy.", "teacher_weights.", 1) for name in live}
    assert names(EMA(0.1)) == live | own


def test_srpo_joins_both_losses_over_one_denominator(shared: Path) -> None:
    """The part of SRPO in golden/vectors.json, from its token losses and teacher entropies."""
    golden = json.loads((shared / "golden/vectors.json").read_text())["srpo"]
    grpo = json.loads((shared / "golden/fixture_a.json").read_text())["grpo_nostd"]["token_loss"]
    surrogate = torch.tensor(grpo[0] + grpo[2], dtype=torch.float64)
    losses = torch.tensor([x for row in golden["losses"] for x in row], dtype=torch.float64)
    entropies = torch.tensor([x for row in golden["entropies"] for x in row], dtype=torch.float64)
    aggregation = Aggregation()(torch.ones(1, 11, dtype=torch.bool), torch.float64)[0]
    for beta, expected in golden["expected"].items():
        weights = mean_one((-float(beta) * entropies).exp())
        joint = (aggregation * torch.cat([surrogate, weights * losses])).sum()
        assert joint.item() == pytest.approx(expected, abs=1e-12, rel=0)
