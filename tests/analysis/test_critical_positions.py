import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.analysis.trajectories import trajectory_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlrt.analysis.critical_positions import (
    Positions,
    compact,
    read_both,
    read_positions,
    rows,
    trajectory,
)
from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.model.fused_head import chunk_tokens, over_vocabulary

MakePolicy = Callable[[torch.dtype], PreTrainedModel]


def logits(*probabilities: float) -> Tensor:
    """One row of logits, off by a constant."""
    return torch.tensor([probabilities], dtype=torch.float64).log() + 3


def test_the_bayesian_teacher_of_methods_10() -> None:
    student, teacher = logits(0.5, 0.3, 0.2), logits(0.5 * 0.9, 0.3 * 0.5, 0.2 * 0.1)
    expected = [-0.372675285285, 0.215111379617, 1.824549292051]
    for token, ratio in enumerate(expected):
        found = read_both(student, teacher, torch.tensor([token]))
        assert float(found["divergence_T"]) == pytest.approx(0.243105629652706, abs=1e-12)
        positions = Positions(**found)
        assert float(positions.log_ratio_T) == pytest.approx(ratio, abs=1e-12)


def test_candidates_worked_out_by_hand() -> None:
    """P_S - P_T is .3, .05, -.1, 0, -.25: of five ids four are shown on each side."""
    student = logits(0.4, 0.25, 0.1, 0.2, 0.05)
    teacher = logits(0.1, 0.2, 0.2, 0.2, 0.3)
    found = read_both(student, teacher, torch.tensor([3]))
    assert found["candidate_ids_TC"].tolist() == [[0, 1, 3, 2, 4, 2, 3, 1]]
    torch.testing.assert_close(
        found["candidate_student_TC"],
        torch.tensor([[0.4, 0.25, 0.2, 0.1, 0.05, 0.1, 0.2, 0.25]], dtype=torch.float64),
    )
    torch.testing.assert_close(
        found["candidate_teacher_TC"],
        torch.tensor([[0.1, 0.2, 0.2, 0.2, 0.3, 0.2, 0.2, 0.2]], dtype=torch.float64),
    )
    assert float(found["student_logprobs_T"]) == pytest.approx(math.log(0.2))


def test_candidates_are_among_the_first_hundred_of_either_view() -> None:
    """Ids 0 to 99 lead in the student's view by little, id 149 nowhere though it differs most."""
    student, teacher = torch.zeros(1, 300), torch.zeros(1, 300)
    student[0, :100] = torch.linspace(2, 1.5, 100)
    teacher[0, 200:] = torch.linspace(2, 1.5, 100)
    found = read_both(student, teacher, torch.tensor([0]))
    assert found["candidate_ids_TC"].tolist() == [[0, 1, 2, 3, 200, 201, 202, 203]]


def test_views_equal_a_slow_loop_over_all_logits(random_policy: MakePolicy) -> None:
    policy = random_policy(torch.float64)
    prompts, teacher_prompts = [[5, 6], [7]], [[5, 6, 9, 10, 11], [8, 7]]
    responses, temperature = [[20, 21, 22, 2], [30, 40]], 0.8
    found = read_positions(policy, prompts, teacher_prompts, responses, temperature, 9)
    for row, response in enumerate(responses):
        one = found[row]
        for t, token in enumerate(response):
            student, teacher = (
                _slow(policy, [*prompt, *response[:t]], temperature)
                for prompt in (prompts[row], teacher_prompts[row])
            )
            divergence = sum(
                p * (math.log(p) - math.log(q)) for p, q in zip(student, teacher, strict=True)
            )
            assert float(one.divergence_T[t]) == pytest.approx(divergence, abs=1e-10)
            ratio = math.log(student[token]) - math.log(teacher[token])
            assert float(one.log_ratio_T[t]) == pytest.approx(ratio, abs=1e-10)
            union = {
                i
                for view in (student, teacher)
                for i in sorted(range(len(view)), key=lambda i: -view[i])[:100]
            }
            leaning = sorted(union, key=lambda i: teacher[i] - student[i])
            assert one.candidate_ids_TC[t].tolist() == leaning[:4] + leaning[:-5:-1]
            for k, i in enumerate(one.candidate_ids_TC[t].tolist()):
                assert float(one.candidate_student_TC[t, k]) == pytest.approx(student[i])
                assert float(one.candidate_teacher_TC[t, k]) == pytest.approx(teacher[i])


def _slow(policy: PreTrainedModel, prefix: list[int], temperature: float) -> list[float]:
    with torch.no_grad():
        last = policy(input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1]
    probabilities: list[float] = torch.softmax(last / temperature, -1).tolist()
    return probabilities


class Largest(TorchDispatchMode):
    """The most numbers that a tensor had which an operation made."""

    numbers = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **kwargs or {})
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_memory_does_not_grow_with_tokens_times_vocabulary() -> None:
    vocabulary = 151_936
    chunk = chunk_tokens("cpu", vocabulary)
    hidden, head = torch.randn(2 * chunk, 4), torch.randn(vocabulary, 4)
    for count in (chunk, 2 * chunk):
        views = (hidden[:count], head), (0.9 * hidden[:count], head)
        with Largest() as largest:
            found = over_vocabulary(*views, torch.zeros(count, dtype=torch.long), 1.0, read_both)
        assert largest.numbers == chunk * vocabulary
        assert sum(tensor.numel() for tensor in found.values()) == count * (3 + 3 * 8)


def test_critical_positions_are_the_largest_and_of_equals_the_first() -> None:
    one = trajectory_of("abcd", [0.5, 2.0, 0.5, 1.0])
    assert one.positions.critical(3) == [1, 3, 0]
    assert one.positions.critical(9) == [1, 3, 0, 2]


def record(ids: list[int], text: str) -> Rollout:
    return Rollout(
        Problem("id", "q", "a", "s"),
        0,
        0,
        (3,),
        Response(tuple(ids), (0.0,) * len(ids), False),
        text,
        Verdict.RIGHT,
        1.0,
        0.0,
    )


def test_a_trajectory_names_its_tokens_and_its_candidates(
    tiny: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    ids = [*tokenizer("3+4=7\n\\boxed{7}", add_special_tokens=False)["input_ids"], 2]
    (positions,) = read_positions(tiny, [[5]], [[6]], [ids], 1.0, 100)
    rollout = record(ids, "3+4=7\n\\boxed{7}")
    told = {"step": 4, "advantage": None, "credit": None}
    one = trajectory(rollout, told, positions, tokenizer, top=2)
    assert "".join(one.texts) == tokenizer.decode(ids)
    assert list(one.candidates) == positions.critical(2)
    assert one.credit_T.isnan().all()
    for t, candidates in one.candidates.items():
        assert [c.id for c in candidates] == positions.candidate_ids_TC[t].tolist()
        assert [c.side for c in candidates] == ["explore"] * 4 + ["exploit"] * 4
        plain = [c for c in candidates if tokenizer.decode([c.id]).isalnum()]
        assert all(c.text == tokenizer.decode([c.id]) for c in plain)


def test_rows_hold_tokens_then_candidates_and_leave_out_what_is_not_there() -> None:
    found = rows([trajectory_of(["a", "b\n"], [1.0, 3.0], top=1)])
    tokens, candidates = found[:2], found[2:]
    assert [row["token"] for row in tokens] == ["a", "b↵"]
    assert [row["log_ratio"] for row in tokens] == pytest.approx([0.0, 2.0])
    assert [row["P_T"] for row in tokens] == pytest.approx([0.5, 0.5 * math.exp(-2)])
    assert [row["credit"] for row in tokens] == [2.0, None]
    assert [row["kind"] for row in candidates] == ["explore"] * 4 + ["exploit"] * 4
    assert {row["position"] for row in candidates} == {1}


def test_compact_texts_are_one_short_visible_line() -> None:
    assert compact(" a\nb\t") == "␣a↵b⇥"
    assert compact("\u202e\x00") == "\\u202e\\x00"
    assert compact("x" * 30, 5) == "xxxx…"
