"""What a user sees of a run: on a terminal, and in a log."""

import re
from collections import deque
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.training.view import LiveView, clock, samples_panel, steps_table

ROW = {
    "reward/mean": 0.4375,
    "rollout/response_tokens_mean": 33.25,
    "rollout/engine_entropy": 0.618,
    "rollout/zero_signal_groups": 0.25,
    "credit/multiplier_mean": 1.125,
    "loss/total": -0.0321,
    "sync/logprob_gap": 2.5e-6,
    "rollout/tokens_per_s": 4321.0,
    "time/step_s": 1.75,
}
SHOWN = ("0.438", "33.2", "0.618", "25%", "1.125", "-0.0321", "2.5e-06", "4,321", "1.75")


def rollout(text: str, verdict: Verdict = Verdict.RIGHT) -> Rollout:
    problem = Problem("p", "Compute [bold]3[/bold] + 4.", "7", "test")
    response = Response((1,), (0.0,), truncated=False)
    return Rollout(problem, 0, 0, (2,), response, text, verdict, 1.0)


def terminal(interactive: bool) -> Console:
    return Console(
        force_terminal=interactive, record=True, file=StringIO(), width=160, color_system=None
    )


def watch(console: Console, rollouts: list[Rollout], steps: int = 2) -> str:
    """Run the view's hooks as a trainer would; returns all that went to the console."""
    source: Any = SimpleNamespace(
        row={}, current_rollouts=[], evaluations=SimpleNamespace(rows=[{"step": 0, "avg@8": 0.9}])
    )
    trainer: Any = SimpleNamespace(current_epoch=0, max_epochs=4)
    module: Any = None
    view = LiveView(source, console)
    view.on_train_start(trainer, module)
    for step in range(steps):
        trainer.current_epoch = step
        if step == 1:
            source.evaluations.rows.append({"step": "1", "avg@8": "0.4765", "pass@1": 0.25})
        source.row, source.current_rollouts = ROW, rollouts
        view.on_train_epoch_start(trainer, module)
        view.on_train_epoch_end(trainer, module)
    view.on_train_end(trainer, module)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_the_step_its_metrics_the_time_left_and_responses() -> None:
    seen = watch(
        terminal(True),
        [
            rollout("first \\boxed{7}"),
            rollout("second \\boxed{8}", Verdict.WRONG),
            rollout("third", Verdict.UNDECIDED),
        ],
    )
    for heading in ("reward", "length", "entropy", "no signal", "tokens/s"):
        assert heading in seen
    for value in SHOWN:
        assert value in seen, value
    assert "rollout step 2/4" in seen
    assert re.search(r"\d:\d\d:\d\d left", seen)
    for verdict, text in (("right", "first"), ("wrong", "second"), ("undecided", "third")):
        assert re.search(rf"{verdict} .*Compute \[bold\]3\[/bold\] \+ 4\. {text}", seen)
    assert "held out after 1 rollout steps: avg@8 0.476, pass@1 0.250" in seen
    assert "avg@8 0.900" not in seen, "told before the run was resumed"


def test_a_log_gets_one_plain_line_per_step() -> None:
    lines = watch(terminal(False), [rollout("text")]).splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "step 0: reward 0.438",
        "held out after 1 rollout steps: avg@8 0.476",
        "step 1: reward 0.438",
    ]
    assert all(value in lines[0] for value in SHOWN)


def test_a_response_is_shown_as_text_whatever_it_holds() -> None:
    """Neither rich's markup nor a terminal's control characters act, and lines stay in the panel."""
    hostile = "[red]x[/red] \x1b[2J\x1b]0;title\x07 a\rb\x00 c\u202ed\ne\tf"
    seen = watch(terminal(True), [rollout(hostile)])
    assert "[red]x[/red]" in seen
    for character in ("\x1b[2J", "\x1b]0", "\x07", "\x00", "\u202e"):
        assert character not in seen
    assert re.search(r"\[2J \]0;title a b c d e f", seen)


def test_an_unmatched_closing_tag_does_not_stop_a_run() -> None:
    assert "[/nothing] [" in watch(terminal(True), [rollout("[/nothing] [")])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 128])
def test_at_most_three_responses_over_the_whole_step(count: int) -> None:
    console = terminal(False)
    console.print(samples_panel([rollout(f"number {i}!") for i in range(count)]))
    shown = [int(number) for number in re.findall(r"number (\d+)!", console.export_text())]
    assert len(shown) == min(count, 3)
    assert shown == sorted(set(shown))
    assert count < 3 or shown[-1] >= count // 2


def test_a_megabyte_of_text_is_cut() -> None:
    console = terminal(False)
    console.print(samples_panel([rollout("x" * 10**6)]))
    assert 100 < console.export_text().count("x") < 200


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (90000, "25:00:00")],
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_the_table_fits_eighty_columns() -> None:
    screen = StringIO()
    Console(width=80, file=screen).print(steps_table(deque([(100, ROW)])))
    heading, values = screen.getvalue().splitlines()  # nothing wrapped
    assert "…" not in heading + values  # and nothing cut
    assert all(value in values for value in SHOWN)
