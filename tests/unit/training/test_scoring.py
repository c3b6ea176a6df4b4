"""From judged rollouts to the scored batch: the teacher only where it is asked for."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlrt.batch import Problem, Response, Rollout, ScoredBatch, Verdict
from rlrt.context.answer import TEMPLATE
from rlrt.context.context import Demonstration
from rlrt.data.prompts import Prompts
from rlrt.model.policy import BothViews
from rlrt.training.scoring import (
    TeacherPrompts,
    completed,
    outcomes_of,
    render_teacher_prompts,
    scored_batch,
)
from rlrt.training.updates import Reading

Ids = Sequence[int]
RESPONSES = [(1, 2, 3), (4,), (), (5, 6), (7, 8, 9, 10)]
SHOWN = Demonstration(TEMPLATE, "The answer is \\boxed{7}, since 3 + 4 = 7.")


def rollout(sample: int, ids: tuple[int, ...]) -> Rollout:
    return Rollout(
        problem=Problem("p", "Compute 3 + 4.", "7", "test"),
        group=0,
        sample=sample,
        prompt_ids=(100, sample),
        response=Response(ids, tuple(-token / 10 for token in ids), truncated=False),
        text=f"response {sample}",
        verdict=Verdict.RIGHT,
        reward=float(sample % 2),
    )


ROLLOUTS = [rollout(sample, ids) for sample, ids in enumerate(RESPONSES)]


@pytest.fixture
def prompts(tokenizer: PreTrainedTokenizerBase) -> Prompts:
    return Prompts(tokenizer)


def views(
    prompts: Prompts, shown: list[Demonstration | None], room: int
) -> tuple[TeacherPrompts, Counter[str]]:
    return render_teacher_prompts(ROLLOUTS, shown, torch.ones(5, dtype=torch.bool), prompts, room)


def test_a_teacher_prompt_needs_to_be_read_a_context_and_a_response(prompts: Prompts) -> None:
    reads = torch.tensor([True, False, True, True, True])
    shown: list[Demonstration | None] = [SHOWN, SHOWN, SHOWN, None, SHOWN]
    found, counts = render_teacher_prompts(ROLLOUTS, shown, reads, prompts, 1000)
    assert [prompt is not None for prompt in found] == [True, False, False, False, True]
    assert (counts["shortened"], counts["unfit"]) == (0, 0)
    expected = prompts.teacher_ids("Compute 3 + 4.", TEMPLATE, SHOWN.text, 1000)
    assert expected is not None
    assert found[0] == found[4] == expected.ids


def test_prompt_and_response_fit_the_model_together(prompts: Prompts) -> None:
    whole = prompts.teacher_ids("Compute 3 + 4.", TEMPLATE, SHOWN.text, 1000)
    empty = prompts.teacher_ids("Compute 3 + 4.", TEMPLATE, "", 1000)
    assert whole is not None
    assert empty is not None

    # room for the demonstration behind responses of up to 2 tokens; those of 3 and 4 shorten it
    found, counts = views(prompts, [SHOWN] * 5, len(whole.ids) + 2)
    assert (counts["shortened"], counts["unfit"]) == (2, 0)
    for ids, prompt in zip(RESPONSES, found, strict=True):
        assert prompt is None or len(prompt) + len(ids) <= len(whole.ids) + 2

    # room for an empty demonstration behind responses of up to 2 tokens; 3 and 4 do not fit at all
    found, counts = views(prompts, [SHOWN] * 5, len(empty.ids) + 2)
    assert (counts["shortened"], counts["unfit"]) == (2, 2)
    assert [prompt is not None for prompt in found] == [False, True, False, True, False]


class FakeViews:
    """Scores that tell by which prompt a token was scored: -(last prompt id + token / 100)."""

    def __init__(self) -> None:
        self.student: list[list[list[int]]] = []
        self.teacher: list[list[list[int]]] = []
        self.both: list[list[list[int]]] = []

    def _score(self, prompts: Sequence[Ids], responses: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        longest = max((len(response) for response in responses), default=0)
        scores = torch.zeros(len(responses), longest)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            for t, token in enumerate(response):
                scores[row, t] = -(prompt[-1] + token / 100)
        return scores, scores.abs() / 2

    def score(self, prompts: Sequence[Ids], responses: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        self.student.append([list(response) for response in responses])
        return self._score(prompts, responses)

    def score_teacher(
        self, prompts: Sequence[Ids], responses: Sequence[Ids]
    ) -> tuple[Tensor, Tensor]:
        self.teacher.append([list(response) for response in responses])
        return self._score(prompts, responses)

    def score_both_views(
        self, prompts: Sequence[Ids], teacher_prompts: Sequence[Ids], responses: Sequence[Ids]
    ) -> BothViews:
        self.both.append([list(response) for response in responses])
        student, entropy = self._score(prompts, responses)
        teacher, teacher_entropy = self._score(teacher_prompts, responses)
        return BothViews(student, entropy, teacher, teacher_entropy, student - teacher)


def scored(
    teacher: TeacherPrompts,
    reads: list[bool],
    divergence: bool = False,
    student: list[bool] | None = None,
) -> tuple[ScoredBatch, FakeViews]:
    views = FakeViews()
    outcomes = outcomes_of(ROLLOUTS)
    everyone = torch.ones(5, dtype=torch.bool) if student is None else torch.tensor(student)
    rows = everyone, torch.tensor(reads)
    return scored_batch(ROLLOUTS, outcomes, teacher, *rows, divergence, views), views


TEACHER = (None, (50,), None, (60,), (70,))
READS = [True, True, True, True, False]


def test_every_view_is_scored_behind_its_own_prompt() -> None:
    """Rollout 4 has a context and is not read: no teacher forward for it."""
    batch, views = scored(TEACHER, READS)
    # the empty one is nothing to read
    assert views.student == [[list(ids) for ids in RESPONSES if ids]]
    assert views.teacher == [[[4], [5, 6]]]
    assert batch.teacher_scored_B.tolist() == [False, True, False, True, False]
    assert batch.has_context_B.tolist() == [False, True, False, True, True]
    for row, ids in enumerate(RESPONSES):
        for t in range(4):
            token = ids[t] if t < len(ids) else None
            assert bool(batch.response_mask_BT[row, t]) == (token is not None)
            student = -(row + token / 100) if token else 0
            behind = {1: 50, 3: 60}.get(row)
            teacher = -(behind + token / 100) if token and behind else 0
            engine = -token / 10 if token else 0
            for found, expected in (
                (batch.student_logprobs_BT, student),
                (batch.student_entropy_BT, -student / 2),
                (batch.teacher_logprobs_BT, teacher),
                (batch.teacher_entropy_BT, -teacher / 2),
                (batch.engine_logprobs_BT, engine),
                (batch.divergence_BT, 0),
            ):
                assert float(found[row, t]) == pytest.approx(expected, abs=1e-5)
    assert batch.rewards_B.tolist() == [0, 1, 0, 1, 0]
    assert batch.penalty_B.tolist() == [0] * 5
    assert batch.responses == tuple(f"response {i}" for i in range(5))


def test_the_divergence_of_the_views_where_the_method_reads_it() -> None:
    batch, views = scored(TEACHER, READS, divergence=True)
    assert views.both == [[[4], [5, 6]]]
    # the others, whose teacher view is not read
    assert views.student == [[[1, 2, 3], [7, 8, 9, 10]]]
    assert not views.teacher
    plain, _ = scored(TEACHER, READS)
    for name, values in vars(plain).items():
        if name.endswith("_BT") and name != "divergence_BT":
            assert torch.equal(getattr(batch, name), values), name
    assert batch.divergence_BT[1, 0] == pytest.approx(50 - 1, abs=1e-5)
    assert batch.divergence_BT[3, :2].tolist() == pytest.approx([60 - 3] * 2, abs=1e-5)
    assert int((batch.divergence_BT != 0).sum()) == 3


def test_the_student_view_is_scored_where_it_is_read() -> None:
    batch, views = scored(TEACHER, READS, student=[False, True, True, False, True])
    assert views.student == [[[4], [7, 8, 9, 10]]]
    assert batch.student_scored_B.tolist() == [False, True, False, False, True]  # 2 is empty
    assert (batch.student_logprobs_BT[[0, 2, 3]] == 0).all()
    assert (batch.student_entropy_BT[[0, 2, 3]] == 0).all()
    assert (batch.student_logprobs_BT[4] < 0).all()
    assert batch.teacher_scored_B.tolist() == [False, True, False, True, False]


def test_what_an_update_reads_first_completes_the_batch() -> None:
    batch, _ = scored(TEACHER, READS, student=[False, True, False, False, False])
    read = Reading([0, 3], torch.tensor([-1.0, -2, -3, -4, -5]), torch.tensor([1.0, 2, 3, 4, 5]))
    done = completed(batch, [read])
    assert done.student_scored_B.tolist() == [True, True, False, True, False]
    assert done.student_logprobs_BT[0].tolist() == [-1, -2, -3, 0]
    assert done.student_logprobs_BT[3].tolist() == [-4, -5, 0, 0]
    assert done.student_entropy_BT[3].tolist() == [4, 5, 0, 0]
    assert torch.equal(done.student_logprobs_BT[1], batch.student_logprobs_BT[1])
    assert not batch.student_scored_B[0], "the batch itself is left as it is"


def test_no_teacher_costs_no_forward_pass() -> None:
    batch, views = scored((None,) * 5, [True] * 5, divergence=True)
    assert len(views.student) == 1
    assert not any(views.teacher)
    assert not any(views.both)
    assert not batch.teacher_scored_B.any()
    assert not batch.has_context_B.any()
    assert (batch.teacher_logprobs_BT == 0).all()
