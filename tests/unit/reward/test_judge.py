"""Verdicts are reached while other responses are still being sampled."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

import rlrt.reward.workers
from rlrt.batch import Response, Verdict
from rlrt.errors import RunStoppedError
from rlrt.reward.judge import Judge
from rlrt.reward.verifier import Verifier
from rlrt.reward.workers import Pool, Task

ANSWERS = [["1/2"], ["1/2"], ["3"], ["1/2"]]
TEXTS = [r"\boxed{0.5}", r"\boxed{0.7}", r"\boxed{3}", r"so it is \boxed{0.5}"]


@pytest.fixture
def judge(tokenizer: PreTrainedTokenizerBase) -> Iterator[Judge]:
    with Verifier(workers=2, timeout_s=3.0) as verifier:
        yield Judge(tokenizer, verifier)


def response(judge: Judge, text: str) -> Response:
    ids = tuple(judge.tokenizer(text, add_special_tokens=False)["input_ids"])
    return Response(ids, (0.0,) * len(ids), truncated=False)


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_verdicts_come_in_the_order_of_the_questions(judge: Judge) -> None:
    with judge.judging(ANSWERS) as judging:
        for index in (3, 0, 2, 1):
            judging.take(index, response(judge, TEXTS[index]))
        judged = judging.judged()
    assert [seen.text for seen in judged] == TEXTS
    assert [seen.verdict for seen in judged] == [
        Verdict.RIGHT,
        Verdict.WRONG,
        Verdict.RIGHT,
        Verdict.RIGHT,
    ]
    assert [seen.reward for seen in judged] == [1, 0, 1, 1]
    assert own_threads() == []


def test_no_responses_have_no_verdicts(judge: Judge) -> None:
    with judge.judging([]) as judging:
        assert judging.judged() == []


def test_workers_decide_before_the_last_response_is_in() -> None:
    """Nobody asks for the first verdict, and it comes all the same."""
    pool = Pool(workers=1, timeout_s=3.0, memory_bytes=2**30)
    with pool.accepting() as submit:
        first = submit(Task("0.5", "1/2", False))
        decided = threading.Event()
        first.add_done_callback(lambda future: decided.set())
        assert decided.wait(60)
        assert submit(Task("0.7", "1/2", False)).result().outcome == "wrong"
    assert first.result().outcome == "right"
    pool.close()


def test_equal_questions_are_asked_once(judge: Judge) -> None:
    with judge.verifier.grading() as grading:
        asked = [grading.ask(TEXTS[0], ["1/2"]), grading.ask(TEXTS[3], ["1/2"])]
        other = grading.ask(TEXTS[0], ["2/4"])
    assert asked[0]().seconds == asked[1]().seconds > 0
    assert other().seconds != asked[0]().seconds


def children() -> set[str]:
    """Ids of this process's children."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_leaving_in_the_middle_leaves_nothing_behind(
    judge: Judge, error: type[BaseException]
) -> None:
    """Neither a thread nor a worker."""

    def sample_and_fail() -> None:
        with judge.verifier, judge.judging([["3"]] * 9) as judging:
            for index in range(9):
                judging.take(index, response(judge, rf"\boxed{{9^{{9^{{9^{{2{index}}}}}}}}}"))
            raise error

    before = children()  # such as the server that other tests fork from
    with pytest.raises(error):
        sample_and_fail()
    assert own_threads() == []
    assert children() <= before


def test_tasks_that_no_worker_has_begun_are_given_up() -> None:
    pool = Pool(workers=1, timeout_s=0.5, memory_bytes=2**30)
    with pool.accepting() as submit:
        futures = [submit(Task("9^{9^{9^{9}}}", str(n), False)) for n in range(9)]
        futures[0].result()
    assert futures[-1].cancelled()
    pool.close()


def test_a_worker_that_cannot_start_is_told_in_the_callers_thread(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rlrt.reward.workers.sys, "executable", "/bin/false")

    def ask() -> None:
        with judge.judging([["1/2"]]) as judging:
            judging.take(0, response(judge, TEXTS[0]))
            judging.judged()

    with pytest.raises(RunStoppedError, match="could not start"):
        ask()
    assert own_threads() == []
