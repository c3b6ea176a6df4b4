"""Settings read back from a file, and what is said of an error."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rlrt.config.command_line import report_errors
from rlrt.config.compose import PROJECT, compose, flatten, load_yaml, user_errors
from rlrt.errors import RunStoppedError, UserError


def test_a_file_is_resolved_by_the_words_of_this_project(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("a: {b: 2, c: [1, 2]}\nd: ${a.b}\ne: ${project:models}\n")
    found = flatten(load_yaml(path))
    assert found == {"a.b": 2, "a.c": [1, 2], "d": 2, "e": str(PROJECT / "models")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", r"some\.yaml is damaged \(ParserError\)"),
        (b"a: \xff", r"some\.yaml is damaged \(UnicodeDecodeError\)"),
        (b"a: ${b}", r"some\.yaml is damaged \(InterpolationKeyError\)"),
        (b"- 1", r"some\.yaml is damaged: it holds no settings"),
        (None, r"some\.yaml is damaged \(FileNotFoundError\)"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "some.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_yaml(path)


def refused_file(number: int = errno.EACCES) -> OSError:
    return OSError(number, os.strerror(number), "/some/file")


def a_bug_while_handling() -> None:
    try:
        raise refused_file()
    except OSError:
        {}["no such key"]


def caused_by_a_file() -> None:
    raise RuntimeError("of a library") from refused_file(errno.EROFS)


def a_ring_of_causes() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def stopped() -> None:
    raise RunStoppedError("a rank has died")


def wrong() -> None:
    raise UserError("seed is -1")


def full_in_rust() -> None:
    raise RuntimeError(f"I/O error: No space left on device (os error {errno.ENOSPC})")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has begun."""
    (tmp_path / "config.yaml").touch()
    return tmp_path


@pytest.mark.parametrize("bug", [a_bug_while_handling, a_ring_of_causes])
def test_a_bug_is_raised_as_it_is_and_kept(
    bug: Callable[[], None], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((KeyError, ValueError)), report_errors(run):
        bug()
    assert capsys.readouterr().err == ""  # Python shows it
    kept = (run / "error.txt").read_text()
    assert f"in {bug.__name__}" in kept
    assert "Error" in kept.splitlines()[-1]


@pytest.mark.parametrize(
    ("trouble", "status", "sentence"),
    [
        (
            caused_by_a_file,
            3,
            "/some/file cannot be used (Read-only file system); go on with resume=",
        ),
        (full_in_rust, 3, "the disk is full (No space left on device); go on with resume="),
        (stopped, 3, "a rank has died"),
    ],
)
def test_what_stops_a_run_is_a_sentence_that_names_the_traceback(
    trouble: Callable[[], None],
    status: int,
    sentence: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended, report_errors(run):
        trouble()
    assert ended.value.code == status
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {sentence}")
    assert said.endswith(f"; traceback in {run}/error.txt")
    assert f"in {trouble.__name__}" in (run / "error.txt").read_text()
    with report_errors(run):  # gone on with, and ended well
        pass
    assert not (run / "error.txt").exists()


def test_nothing_is_kept_of_a_start_that_was_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (run, run / "none", None):
        with pytest.raises(SystemExit), report_errors(folder):
            wrong()
        assert capsys.readouterr().err == "error: seed is -1\n"
    with pytest.raises(SystemExit), report_errors(run / "none"):
        stopped()
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml"]


def test_a_wrong_setting_that_is_found_after_the_run_began_is_kept(tmp_path: Path) -> None:
    def begin_and_fail() -> None:
        (tmp_path / "config.yaml").touch()
        wrong()

    with pytest.raises(SystemExit), report_errors(tmp_path):
        begin_and_fail()
    assert "in wrong" in (tmp_path / "error.txt").read_text()


def test_a_switch_shows_every_traceback_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLRT_TRACEBACK", "1")
    with pytest.raises(SystemExit), report_errors():
        wrong()
    said = capsys.readouterr().err
    assert "in wrong" in said
    assert said.endswith("error: seed is -1\n")


def test_ranks_keep_their_tracebacks_apart_and_one_speaks(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in ("1", "0", "2"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit), report_errors(run):
            stopped()
    assert capsys.readouterr().err.count("error:") == 1
    kept = ["config.yaml", "error-rank-1.txt", "error-rank-2.txt", "error.txt"]
    assert sorted(path.name for path in run.iterdir()) == kept


def test_a_full_disk_is_no_wrong_setting() -> None:
    with pytest.raises(OSError, match="No space left"), user_errors():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="Permission denied"), user_errors():
        raise OSError(errno.EACCES, "Permission denied")


def test_a_stored_configuration_may_name_a_constructor_where_it_once_was(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "training: {_target_: rlrt.assembly.settings.Training, temperature: 1.0}\n"
        "prompts: {_target_: rlrt.config.schema.PromptSettings}\n"
        "evaluation: {_target_: rlrt.evaluation.evaluator.Evaluator}\n"
        "trainer: {strategy: {_target_: rlrt.config.schema.Model}}\n"
        "loss: {_target_: rlrt.loss.surrogate.ClippedSurrogate}\n"
        "aggregation: {_target_: rlrt.loss.aggregation.Aggregation}\n"
        "credit: {_target_: Mine}\n"
        "context: {_target_: [a.b]}\n"
        "seed: 0\n"
    )
    stored, current = load_yaml(path), compose([])
    for group in ("training", "prompts", "evaluation", "loss", "aggregation"):
        assert stored[group]["_target_"] == current[group]["_target_"]
    assert stored.trainer.strategy["_target_"] == current.model["_target_"]
    assert stored.training.temperature == 1.0
    assert stored.credit["_target_"] == "Mine"
    assert stored.context["_target_"] == ["a.b"]
