"""The verifier with its real worker processes."""

import io
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from rlrt.batch import Verdict
from rlrt.reward import workers
from rlrt.reward.verifier import Grading, Verifier
from rlrt.reward.workers import Reply

TOWER = r"\boxed{9^{9^{9^{9}}}}"
HALF = r"\boxed{\frac{7}{14}}"  # needs a worker to equal 1/2
HOSTILE = [
    TOWER,
    r"\boxed{99999999!}",
    r"\boxed{2^{10^{11}}}",
    r"\boxed{\sum_{k=1}^{10^{9}} \sin(k^{k})}",
    r"\boxed{\int_0^1 \frac{x^{37}\sin(x^x)}{\sqrt{1+x^{91}}} dx}",
    r"\boxed{\begin{pmatrix}1&2\\3&4\end{pmatrix}^{10^{9}}}",
    r"\boxed{" + r"\frac{" * 1000 + "1" + "}{2}" * 1000 + "}",
    r"\boxed{" + "(" * 3000 + "1" + ")" * 3000 + "}",
    r"\boxed{" + "7" * 3_000_000 + "}",
    r"\boxed{" + "7" * 9_000 + "}",
    "\\boxed{4\x00}",
    "\\boxed{\ud800 5}",
    r"\boxed{" * 100_000,
    r'\boxed{__import__("os").abort()}',
]


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=2, timeout_s=1.0) as verifier:
        yield verifier


def worker_ids(parent: int) -> list[int]:
    """The verifier workers among a process's children."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            command = status.with_name("cmdline").read_bytes()
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue  # ended meanwhile
        if int(fields["PPid"]) == parent and b"rlrt.reward.workers" in command:
            found.append(int(fields["Pid"]))
    return found


def address_space_limit(process: int) -> str:
    """Bytes, or "unlimited": a worker takes its limit on when it is ready."""
    try:
        lines = Path(f"/proc/{process}/limits").read_text().splitlines()
    except OSError:
        return "unlimited"
    return next(line for line in lines if line.startswith("Max address space")).split()[3]


def test_verdicts_and_rewards(verifier: Verifier) -> None:
    judged = verifier.grade(
        [r"\boxed{5}", HALF, r"\boxed{6}", "5", "", HALF], ["5", "1/2", "5", "5", "5", "1/3"]
    )
    assert [j.verdict.value for j in judged] == [
        "right",
        "right",
        "wrong",
        "wrong",
        "wrong",
        "wrong",
    ]
    assert [j.reward for j in judged] == [1, 1, 0, 0, 0, 0]


def test_text_matches_and_missing_answers_start_no_process(verifier: Verifier) -> None:
    verifier.grade([r"\boxed{5}", "none"], ["5", "5"])
    assert worker_ids(os.getpid()) == []


@pytest.mark.slow
def test_hostile_answers_cost_only_themselves(verifier: Verifier) -> None:
    easy = [rf"\boxed{{\frac{{{n}}}{{14}}}}" for n in range(1, 14)]
    easy_golds = [f"{n * 3}/42" for n in range(1, 14)]
    order = list(range(len(HOSTILE) + len(easy)))
    random.Random(0).shuffle(order)
    responses, golds = HOSTILE + easy, ["3"] * len(HOSTILE) + easy_golds
    judged = verifier.grade([responses[i] for i in order], [golds[i] for i in order])
    verdicts = dict(zip(order, (j.verdict for j in judged), strict=True))
    for index in range(len(HOSTILE)):
        assert verdicts[index] is not Verdict.RIGHT, HOSTILE[index][:60]
    for index in range(len(HOSTILE), len(order)):
        assert verdicts[index] is Verdict.RIGHT, responses[index]
    assert verdicts[0] is Verdict.UNDECIDED  # the tower


def test_undecided_earns_its_own_reward() -> None:
    with Verifier(workers=1, timeout_s=0.5, undecided_reward=0.25) as verifier:
        (grade,) = verifier.grade([TOWER], ["3"])
    assert (grade.verdict, grade.reward) == (Verdict.UNDECIDED, 0.25)


def test_a_too_long_answer_is_undecided() -> None:
    with Verifier(max_answer_characters=5) as verifier:
        judged = verifier.grade([r"\boxed{123456}", r"\boxed{123456}"], ["7", "123456"])
    assert [j.verdict for j in judged] == [Verdict.UNDECIDED, Verdict.RIGHT]


def test_free_text_is_searched_at_its_end() -> None:
    with Verifier(workers=1, extract="boxed_or_text", max_answer_characters=40) as verifier:
        judged = verifier.grade(["It is 3. " * 50 + "The answer is 0.5"], ["1/2"])
    assert judged[0].verdict is Verdict.RIGHT


def test_a_worker_has_its_memory_limit() -> None:
    with Verifier(workers=1, memory_gib=0.5) as verifier:
        verifier.grade([HALF], ["1/2"])
        (worker,) = worker_ids(os.getpid())
        assert address_space_limit(worker) == str(2**29)


def test_a_worker_killed_from_outside_costs_no_answer(verifier: Verifier) -> None:
    answers = [rf"\boxed{{\frac{{{n}}}{{7}}}}" for n in range(1, 400) if n % 7]
    golds = [f"{2 * n}/14" for n in range(1, 400) if n % 7]
    verifier.grade([HALF, HALF], ["1/2", "2/4"])  # starts both workers
    victim = worker_ids(os.getpid())[0]
    killer = threading.Timer(0.1, os.kill, (victim, signal.SIGKILL))  # into the work
    killer.start()
    judged = verifier.grade(answers, golds)
    killer.join()
    assert {grade.verdict for grade in judged} == {Verdict.RIGHT}
    assert victim not in worker_ids(os.getpid()), "the dead worker was not replaced"


@pytest.mark.slow
def test_workers_end_with_a_killed_parent() -> None:
    script = textwrap.dedent("""
        import os, signal, threading, time
        from rlrt.reward.verifier import Verifier
        verifier = Verifier(workers=2, timeout_s=3.0)
        verifier.grade([r"\\boxed{0.5}", r"\\boxed{0.25}"], ["1/2", "1/4"])
        threading.Thread(target=verifier.grade, args=([r"\\boxed{9^{9^{9^{9}}}}"], ["3"])).start()
        time.sleep(0.3)  # one worker idle, one at work
        print(os.getpid(), flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        workers = worker_ids(int(parent.stdout.readline()))
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def test_close_ends_the_workers_and_grade_starts_new_ones(verifier: Verifier) -> None:
    for _ in range(2):
        assert verifier.grade([HALF], ["1/2"])[0].verdict is Verdict.RIGHT
        assert len(worker_ids(os.getpid())) == 1
        verifier.close()
        assert worker_ids(os.getpid()) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("workers", 0),
        ("timeout_s", 0.0),
        ("memory_gib", 0.1),
        ("max_answer_characters", 0),
        ("extract", "last"),
        ("tail_characters", 0),
        ("undecided_reward", 1.5),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"reward\.{setting} is {value!r}"):
        Verifier(**{setting: value})  # type: ignore[arg-type]


def test_an_error_of_the_comparison_is_undecided_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the library, not of the answer: a response is not wrong for it."""

    def broken(*_: object) -> bool:
        raise KeyError("a fault of the library")

    class Channel(io.StringIO):
        said = ""

        def write(self, text: str) -> int:
            self.said += text
            return len(text)

    monkeypatch.setattr(workers, "is_equivalent", broken)
    channel = Channel('["1", "2", false]\n')
    workers._serve(channel, 5.0)
    said = channel.said.splitlines()
    assert said == ["ready", "failed"]

    reply: Future[Reply] = Future()
    reply.set_result(Reply(said[-1], 0.1))
    grade = Grading(Verifier(undecided_reward=0.25), lambda task: reply).ask(HALF, ["1/2"])()
    assert (grade.verdict, grade.reward) == (Verdict.UNDECIDED, 0.25)
    assert grade.failed
