"""Real processes in a gloo group, one of which dies, fails or ends in good order."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from tests.processes import SERVER
from tests.unit.training.liveness_rank import main

from rlrt.training.liveness import RankWatch


class Ranks:
    """Processes that do, in the order of their ranks, what the words say."""

    def __init__(self, folder: Path, *acts: str) -> None:
        self.folder = folder
        self.processes: list[ForkServerProcess] = []
        self.ready: list[Connection] = []
        for rank, act in enumerate(acts):
            ours, theirs = SERVER.Pipe(duplex=False)
            process = SERVER.Process(target=main, args=(str(folder), rank, len(acts), act, theirs))
            process.start()
            theirs.close()
            self.processes.append(process)
            self.ready.append(ours)

    def wait_until_connected(self) -> None:
        for ready in self.ready:
            try:
                assert ready.recv() == "ready"
            except EOFError:
                pytest.fail(f"a rank has ended: {self.said()}")

    def kill(self, rank: int) -> None:
        self.processes[rank].kill()

    def statuses(self) -> list[int | None]:
        for process in self.processes:
            process.join(timeout=20)
        return [process.exitcode for process in self.processes]

    def said(self) -> list[str]:
        """What each has written to stderr."""
        return [
            (self.folder / f"{rank}.err").read_text(errors="replace")
            for rank in range(len(self.processes))
        ]

    def clear(self) -> None:
        for process, ready in zip(self.processes, self.ready, strict=True):
            assert process.pid is not None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also a child that outlives it
            process.kill()
            process.join()
            ready.close()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Ranks]]:
    """Filled by a test with what must not outlive it."""
    running: list[Ranks] = []
    yield running
    for group in running:
        group.clear()


def sentence(folder: Path, rank: int, size: int, fate: str = "has died") -> str:
    return f"error: rank {rank} of {size} {fate}; the others stop; go on with resume={folder}\n"


def connected(started: list[Ranks], folder: Path, *acts: str) -> Ranks:
    group = Ranks(folder, *acts)
    started.append(group)
    group.wait_until_connected()
    return group


@pytest.mark.slow
@pytest.mark.parametrize(
    ("acts", "dead"),
    [
        (("meet", "sleep"), 1),
        (("meet", "sleep", "sleep"), 1),  # the third is in a long generation, not in a collective
        (("meet", "fork"), 1),  # the dead one's child has inherited its sockets
        (("sleep", "meet", "sleep"), 0),
    ],
)
def test_a_killed_rank_ends_the_others_with_one_sentence(
    tmp_path: Path, started: list[Ranks], acts: tuple[str, ...], dead: int
) -> None:
    group = connected(started, tmp_path, *acts)
    group.kill(dead)
    expected = [-signal.SIGKILL if rank == dead else 3 for rank in range(len(acts))]
    assert group.statuses() == expected
    said = group.said()
    told = sentence(tmp_path, dead, len(acts))
    speakers = [0] if dead else range(1, len(acts))
    assert all(said[rank] == (told if rank in speakers else "") for rank in range(len(acts))), said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "status", "fate"),
    [
        ("err", 1, "has stopped (KeyError: 'a bug')"),
        ("stop", 1, "has stopped (the loss is not a number)"),
        ("end", 0, "has stopped (SystemExit: 0)"),  # before the run is over
    ],
)
def test_a_rank_that_stops_by_an_error_says_which(
    tmp_path: Path, started: list[Ranks], act: str, status: int, fate: str
) -> None:
    group = connected(started, tmp_path, "meet", act, "sleep")
    assert group.statuses() == [3, status, 3]
    said = group.said()
    assert said[0] == sentence(tmp_path, 1, 3, fate)
    assert said[2] == ""


@pytest.mark.slow
def test_an_error_of_all_ranks_is_told_by_each(tmp_path: Path, started: list[Ranks]) -> None:
    group = connected(started, tmp_path, "stop", "stop")
    assert group.statuses() == [1, 1]  # Python's own: neither was ended by the other
    for said in group.said():
        assert said.endswith("RunStoppedError: the loss is not a number\n")
        assert "the others stop" not in said


@pytest.mark.slow
def test_ranks_with_different_settings_are_told_which(tmp_path: Path, started: list[Ranks]) -> None:
    group = connected(started, tmp_path, "differ", "differ")
    assert group.statuses() == [1, 1]
    for said in group.said():
        assert said.endswith(
            "UserError: seed is 0 on rank 0 and 1 on rank 1: start all ranks with the same settings\n"
        )


@pytest.mark.slow
def test_ranks_that_end_in_good_order_are_left_alone(tmp_path: Path, started: list[Ranks]) -> None:
    """However long one keeps the interpreter busy, and whoever is ready first."""
    group = connected(started, tmp_path, "busy", "meet", "meet")
    assert group.statuses() == [0, 0, 0]
    assert group.said() == ["", "", ""]


def test_lightnings_own_observer_ends_when_the_watch_begins(tmp_path: Path) -> None:
    """It would kill every process, without a word, as soon as one of them ended."""
    child = subprocess.Popen(["sleep", "60"])
    observer = _ChildProcessObserver(os.getpid(), [child], sleep_period=0.1)
    try:
        observer.start()
        RankWatch(tmp_path).setup(None, None, "fit")  # type: ignore[arg-type]
        observer.join(10)
        assert not observer.is_alive()
        assert child.poll() is None
    finally:
        if not observer.is_alive():  # else it would end this process too
            child.kill()
            child.wait()
