"""The evaluator with a scripted engine: who is asked what, and what comes out."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlrt.batch import Problem, Response, Verdict
from rlrt.engine.engine import EngineSpec, OnFinished, Sampling
from rlrt.reward.judge import Judge
from rlrt.reward.verifier import Verifier
from rlrt.training.evaluator import Evaluator

PROBLEMS = [Problem(f"p{i}", "", str(i), "test") for i in range(3)]
PROMPT_IDS = [(10 + i,) for i in range(3)]
# four responses to each of three problems, whose answers are 0, 1 and 2
TEXTS = [r"\boxed{0}", "no", "no", "no", "1", r"\boxed{1}", r"\boxed{1}", r"\boxed{2}", *["no"] * 4]


class ScriptedEngine:
    """Answers with its texts in order, and keeps what it was asked."""

    max_logprob_gap = None

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.texts = TEXTS
        self.asked: list[tuple[list[Sequence[int]], list[int], Sampling]] = []

    def start(self, policy: PreTrainedModel, spec: EngineSpec) -> None: ...

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None: ...

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_finished: OnFinished | None = None,
    ) -> list[Response]:
        self.asked.append((list(prompts), list(seeds), sampling))
        ids = [
            tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in self.texts
        ]
        responses = [Response(some, (0.0,) * len(some), truncated=len(some) < 5) for some in ids]
        assert on_finished is not None
        for index, response in enumerate(responses):
            on_finished(index, response)
        return responses

    def sleep(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1) as started:
        yield started


def test_measures_what_the_engine_answers(
    tokenizer: PreTrainedTokenizerBase, verifier: Verifier
) -> None:
    engine, judge = ScriptedEngine(tokenizer), Judge(tokenizer, verifier)
    evaluator = Evaluator(samples=4, pass_at=(1, 2), temperature=0.6, top_p=0.95)
    measured, completions = evaluator(engine, PROBLEMS, PROMPT_IDS, judge, 30, seed=7)
    assert measured["avg@4"] == pytest.approx(3 / 12)
    assert measured["pass@1"] == pytest.approx(3 / 12)
    # of the 6 pairs of 4 samples, 3 hold the one correct of the first problem and 5 one of the second
    assert measured["pass@2"] == pytest.approx((3 / 6 + 5 / 6) / 3)
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    assert measured["response_tokens_mean"] == pytest.approx(sum(lengths) / 12)
    assert measured["truncated"] == pytest.approx(sum(length < 5 for length in lengths) / 12)
    assert measured["undecided"] == 0
    first_of_each = [
        (problem.question, problem.answer, text)
        for problem, text in zip(PROBLEMS, TEXTS[::4], strict=True)
    ]
    assert [completion[:3] for completion in completions] == first_of_each
    assert all(completion.verdict in set(Verdict) for completion in completions)

    evaluator(engine, PROBLEMS, PROMPT_IDS, judge, 30, seed=7)
    evaluator(engine, PROBLEMS, PROMPT_IDS, judge, 30, seed=8)
    prompts, seeds, sampling = engine.asked[0]
    assert prompts == [ids for ids in PROMPT_IDS for _ in range(4)]
    assert len(set(seeds)) == 12
    assert engine.asked[1][1] == seeds, "the same seed asks with the same random numbers"
    assert not set(engine.asked[2][1]) & set(seeds)
    assert sampling == Sampling(30, 0.6, 0.95)


def test_an_undecided_response_is_not_right_whatever_it_earns(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    engine = ScriptedEngine(tokenizer)
    engine.texts = [r"\boxed{31}", *TEXTS[1:]]  # too long to be decided
    with Verifier(workers=1, max_answer_characters=1, undecided_reward=0.25) as generous:
        judge = Judge(tokenizer, generous)
        measured = Evaluator(4, (1,))(engine, PROBLEMS, PROMPT_IDS, judge, 30, seed=7).metrics
    assert measured["undecided"] == pytest.approx(1 / 12)
    assert measured["avg@4"] == measured["pass@1"] == pytest.approx(2 / 12)


@pytest.mark.parametrize(
    ("every", "expected"), [(None, [0]), (1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (10, [0])]
)
def test_due_before_the_first_step_and_every_n(every: int | None, expected: list[int]) -> None:
    evaluator = Evaluator(every_n_steps=every)
    assert [step for step in range(5) if evaluator.due(step)] == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples": 0}, "evaluation.samples is 0"),
        ({"every_n_steps": 0}, "evaluation.every_n_steps is 0"),
        ({"max_problems": 0}, "evaluation.max_problems is 0"),
        ({"samples": 4, "pass_at": [1, 5]}, r"evaluation.pass_at is \[1, 5\]"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Evaluator(**settings)
