"""What is asked in either view."""

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.context.correct_peer import CorrectPeer
from rlrt.data.prompts import Prompts
from rlrt.errors import UserError
from rlrt.evaluation.questions import (
    Question,
    require_prompts_fit,
    student_questions,
    teacher_questions,
)
from rlrt.reward.judge import JudgedResponse

SUMS = [Problem(f"p{n}", f"Compute {n} + 1.", str(n + 1), "sums") for n in range(2)]


def test_every_problem_of_every_benchmark_so_many_times(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = Prompts(tokenizer)
    asked = student_questions({"a": SUMS, "b": SUMS[1:]}, prompts, 3)
    assert [(q.benchmark, q.problem.id, q.group, q.sample) for q in asked] == [
        ("a", "p0", 0, 0),
        ("a", "p0", 0, 1),
        ("a", "p0", 0, 2),
        ("a", "p1", 1, 0),
        ("a", "p1", 1, 1),
        ("a", "p1", 1, 2),
        ("b", "p1", 0, 0),
        ("b", "p1", 0, 1),
        ("b", "p1", 0, 2),
    ]
    assert {q.prompt_ids for q in asked} == {prompts.student_ids(sum_.question) for sum_ in SUMS}
    assert len({q.key for q in asked}) == len({q.seed(0) for q in asked}) == 9
    assert not {q.seed(0) for q in asked} & {q.seed(1) for q in asked}


def test_a_seed_depends_on_nothing_that_is_asked_beside(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    prompts = Prompts(tokenizer)
    both = student_questions({"a": SUMS, "b": SUMS}, prompts, 2)
    alone = student_questions({"b": SUMS[1:]}, prompts, 1)
    (same,) = [q for q in both if q.key == alone[0].key]
    assert same.seed(5) == alone[0].seed(5)
    other = replace(alone[0], view="teacher")
    assert other.seed(5) != same.seed(5)


def test_another_question_under_the_same_id_is_another_key(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    edited = [replace(SUMS[0], question="Compute 0 + 2.")]
    before, after = (
        student_questions({"a": problems}, Prompts(tokenizer), 1)[0] for problems in (SUMS, edited)
    )
    assert before.key != after.key
    assert before.key._replace(prompt="") == after.key._replace(prompt="")


def test_no_problem_is_left_out_for_its_length(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = Prompts(tokenizer)
    lengths = [len(prompts.student_ids(problem.question)) for problem in SUMS]
    questions = student_questions({"a": SUMS}, prompts, 4)
    require_prompts_fit(questions, max(lengths), 1024)
    both = rf"at least {max(lengths)}, and the model takes 1024 tokens of prompt and response$"
    with pytest.raises(
        UserError, match=rf"tokens is 3, and the prompts of 2 problems are .*{both}"
    ):
        require_prompts_fit(questions, 3, 1024)
    with pytest.raises(
        UserError, match="and the prompt of 1 problem is longer: it must be at least"
    ):
        require_prompts_fit(questions[:4], 3, 1024)


def teacher_view(
    tokenizer: PreTrainedTokenizerBase, rewards: list[float], text: str, max_tokens: int
) -> tuple[Prompts, list[tuple[Question, bool]]]:
    """The prompts, and the teacher view's questions, each with whether its context is shortened."""
    prompts = Prompts(tokenizer)
    asked = student_questions({"a": SUMS[:1]}, prompts, len(rewards))
    rollouts = [
        Rollout(
            q.problem, q.group, q.sample, q.prompt_ids, Response((1,), (0.0,), False), text,
            Verdict.RIGHT if reward else Verdict.WRONG, reward,
        )
        for q, reward in zip(asked, rewards, strict=True)
    ]  # fmt: skip
    return prompts, list(teacher_questions({"a": rollouts}, CorrectPeer(), prompts, max_tokens))


def test_the_teacher_is_asked_where_its_context_shows_something(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    text = "0 + 1 = 1"
    prompts, asked = teacher_view(tokenizer, [0.0, 1.0, 0.0], text, 512)
    assert [shortened for _, shortened in asked] == [False, False]
    assert [q.sample for q, _ in asked] == [0, 2], "the only correct one has no correct peer"
    for question, _ in asked:
        assert question.view == "teacher"
        assert text in tokenizer.decode(question.prompt_ids)
        assert question.prompt_ids != prompts.student_ids(SUMS[0].question)


def test_a_context_that_is_too_long_is_shortened_or_left_out(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    text = "0 + 1 = 1\n" * 50
    _, whole = teacher_view(tokenizer, [1.0, 1.0], text, 2000)
    longest = len(whole[0][0].prompt_ids)
    _, asked = teacher_view(tokenizer, [1.0, 1.0], text, longest - 40)
    assert [shortened for _, shortened in asked] == [True, True]
    assert all(len(question.prompt_ids) <= longest - 40 for question, _ in asked)
    _, asked = teacher_view(tokenizer, [1.0, 1.0], text, 10)
    assert asked == []


def test_a_question_answered_is_a_rollout(tokenizer: PreTrainedTokenizerBase) -> None:
    question = Question("student", "a", SUMS[0], 4, 2, (7, 8))
    response = Response((1, 2), (-0.5, -0.25), True)
    assert question.rollout(response, JudgedResponse("1 2", Verdict.UNDECIDED, 0.25)) == Rollout(
        SUMS[0], 4, 2, (7, 8), response, "1 2", Verdict.UNDECIDED, 0.25
    )
