"""The update: the same gradient however it is split, against a loop over single tokens."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.processes import run_entry
from tests.unit.training.one_update import LENGTHS, fit, gradient, update_of
from transformers import PreTrainedModel

from rlrt.loss.objective import Aggregation, Objective
from rlrt.loss.policy_loss import ClippedSurrogate
from rlrt.model.teacher import Live
from rlrt.training.module import (
    NonFiniteError,
    PolicyModule,
    TrainingMemoryError,
    within_memory,
)
from rlrt.training.optimization import Optimization

# The process may take 400 MB more than it has, and the update needs over a thousand.
PROGRAM = """
import resource, sys
from pathlib import Path
import torch
from rlrt.model.load import load_policy
from rlrt.training.module import TrainingMemoryError
from rlrt.training.updates import Update
from tests.unit.training.one_update import fit

ROWS, LENGTH = 32, 800
ones = torch.ones(ROWS, LENGTH)
update = Update(
    rows=tuple(range(ROWS)),
    prompts=((5, 6),) * ROWS,
    teacher_prompts=(None,) * ROWS,
    responses=tuple(tuple(10 + (row + t) % 200 for t in range(LENGTH)) for row in range(ROWS)),
    counted_BT=ones.bool(),
    mask_BT=ones.bool(),
    sampled_BT=ones.bool(),
    student_scored_B=torch.ones(ROWS, dtype=torch.bool),
    student_logprobs_BT=-5 * ones,
    engine_logprobs_BT=-5 * ones,
    advantages_BT=ones,
    distillation_BT=0 * ones,
)
policy = load_policy("models/tiny", torch.float32)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 400_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    fit(policy, update, Path(sys.argv[1]))
except TrainingMemoryError as error:
    print(error)
"""


@pytest.mark.slow
def test_an_update_that_finds_memory_full(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    said = run_entry(tmp_path / "log", str(program), str(tmp_path)).strip().splitlines()[-1]
    assert re.fullmatch(
        r"out of memory in an update of rollout step 0 \(0\.\d\d GiB asked for\): use a "
        r"training\.token_budget below 1000000, or model\.gradient_checkpointing=true, or more "
        r"processes with strategy=fsdp",
        said,
    ), said


# as PyTorch 2.13 words it
ON_A_GPU = (
    "CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 1.05 GiB is free. Including non-PyTorch memory, this process has 78.05 GiB memory in use."
)


@pytest.mark.parametrize(
    ("error", "figures"),
    [
        (torch.OutOfMemoryError(ON_A_GPU), r" \(2\.32 GiB asked for, 1\.05 GiB free\)"),
        (MemoryError(), r""),
    ],
)
def test_what_was_asked_and_what_was_free(error: Exception, figures: str) -> None:
    with (
        pytest.raises(TrainingMemoryError, match=rf"^out of memory in it{figures}: use a, or b$"),
        within_memory("it", ["a", "b"]),
    ):
        raise error


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), within_memory("it", ["a"]):
        raise RuntimeError("shapes differ")


MakePolicy = Callable[[torch.dtype], PreTrainedModel]


@pytest.mark.parametrize("kind", ["token_mean", "sequence_mean", "constant_length"])
def test_the_gradient_does_not_depend_on_the_split(
    random_policy: MakePolicy, tmp_path: Path, kind: str
) -> None:
    """Relative difference at most 1e-6 in float32 over six splits of uneven responses."""
    aggregation = Aggregation(kind, 20 if kind == "constant_length" else None)
    update = update_of(torch.float32)
    whole = gradient(fit(random_policy(torch.float32), update, tmp_path, aggregation=aggregation))
    for budget in (1, 30, 45, 60, 90, 140):
        module = fit(
            random_policy(torch.float32),
            update,
            tmp_path,
            aggregation=aggregation,
            token_budget=budget,
        )
        difference = (gradient(module) - whole).norm() / whole.norm()
        assert difference <= 1e-6, f"token budget {budget}: {difference:.2e}"


def test_the_update_equals_a_loop_over_single_tokens(
    random_policy: MakePolicy, tmp_path: Path
) -> None:
    update = update_of(torch.float64)
    module = fit(random_policy(torch.float64), update, tmp_path, token_budget=60)

    policy = random_policy(torch.float64)
    loss = torch.zeros((), dtype=torch.float64)
    for row, response in enumerate(update.responses):
        for t, token in enumerate(response):
            prefix = torch.tensor([[*update.prompts[row], *response[:t]]])
            logits = policy(input_ids=prefix, use_cache=False).logits[0, -1]
            logprob = torch.log_softmax(logits, -1)[token]
            student, engine = update.student_logprobs_BT[row, t], update.engine_logprobs_BT[row, t]
            advantage = update.advantages_BT[row, t]
            ratio = (logprob - student).exp()
            token_loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.28))
            if advantage < 0:
                token_loss = torch.minimum(token_loss, -3 * advantage)
            loss = loss + token_loss * (student - engine).exp().clamp(max=2) / sum(LENGTHS)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    # transformers computes this model's norms in float32 even in a float64 model
    assert (gradient(module) - expected).norm() / expected.norm() <= 1e-6
    assert module.update_metrics[0]["loss/surrogate"] == pytest.approx(loss.item(), abs=1e-12)


def test_leaving_out_responses_without_credit_changes_nothing(
    random_policy: MakePolicy, tmp_path: Path
) -> None:
    """A response without credit is not computed, and stays in the denominator."""
    update = update_of(torch.float64, uncredited=(2, 5, 6))
    module = fit(random_policy(torch.float64), update, tmp_path)
    assert module.update_metrics[0]["update/skipped_rollouts"] == 4 / 8  # the empty one too

    policy = random_policy(torch.float64)
    objective = Objective(ClippedSurrogate(), Aggregation())
    full = PolicyModule(policy, Live(), objective, module.optimization, 1.0, 10**6)
    full.trainer = module.trainer
    full.strict_loading = True
    weights = Aggregation()(update.mask_BT, torch.float64)
    full._accumulate(update, weights, list(range(8)), [])
    torch.testing.assert_close(gradient(module), gradient(full), rtol=1e-12, atol=1e-15)


def test_an_update_without_any_credit_still_decays_the_weights(
    random_policy: MakePolicy, tmp_path: Path
) -> None:
    before = random_policy(torch.float32)
    module = fit(random_policy(torch.float32), update_of(torch.float32, tuple(range(8))), tmp_path)
    for old, new in zip(before.parameters(), module.policy.parameters(), strict=True):
        torch.testing.assert_close(new, old * (1 - 1e-4 * 0.01), rtol=1e-6, atol=1e-9)


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(
    random_policy: MakePolicy, tmp_path: Path
) -> None:
    update = update_of(torch.float32)
    update.advantages_BT[0, 0] = float("nan")
    policy = random_policy(torch.float32)
    with pytest.raises(NonFiniteError, match="is not finite"):
        fit(policy, update, tmp_path)
    for old, new in zip(
        random_policy(torch.float32).parameters(), policy.parameters(), strict=True
    ):
        assert torch.equal(old, new)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("learning_rate", 0.0),
        ("max_grad_norm", -1.0),
        ("weight_decay", -0.1),
        ("warmup_steps", -1),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"optimization\.{setting} is {value}"):
        Optimization(**{"learning_rate": 1e-3, setting: value})
