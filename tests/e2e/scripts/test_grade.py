"""scripts/grade.py, run as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.scripts.commands import load_script
from tests.paths import ROOT


def grade(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "grade.py", "--workers", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_prints_agreement_and_writes_verdicts(tmp_path: Path) -> None:
    cases = [
        {"prediction": r"so \boxed{0.5}", "gold": "1/2", "correct": True, "id": "kept"},
        {"prediction": "The answer is 5", "gold": "4", "correct": True},
        {"prediction": "just 42", "gold": "42", "correct": False, "note": "policy (no box)"},
        {"prediction": "9^{9^{9^{9}}}", "gold": "4"},
    ]
    path, out = tmp_path / "cases.jsonl", tmp_path / "verdicts.jsonl"
    path.write_text("\n".join(json.dumps(case) for case in cases))
    run = grade(path, "--out", out, "--timeout", "1")
    assert run.returncode == 0, run.stderr
    assert "50.00%" in run.stdout  # of the two labeled rows that are no policy
    assert "0.00%" in run.stdout  # of the policy row
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["verdict"] for row in written] == ["right", "wrong", "right", "undecided"]
    assert written[0] | {"seconds": 0} == cases[0] | {"verdict": "right", "seconds": 0}
    assert written[3]["seconds"] >= 1
    assert sorted(tmp_path.iterdir()) == [path, out]


def test_extract_rule_is_an_option(tmp_path: Path) -> None:
    path, out = tmp_path / "cases.jsonl", tmp_path / "verdicts.jsonl"
    path.write_text('{"prediction": "just 42", "gold": "42"}')
    assert grade(path, "--out", out, "--extract", "boxed").returncode == 0
    assert json.loads(out.read_text())["verdict"] == "wrong"


def test_broken_lines_are_named_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    good = b'{"prediction": "4", "gold": "4", "correct": true}\n'
    bad = [b"{bad\n", b"[1]\n", b"\xff\n", b'{"prediction": 3, "gold": "3"}\n', b"[" * 100_000]
    path.write_bytes(good + b"\n" + b"".join(bad))
    run = grade(path)
    assert run.returncode == 0
    for line in (3, 4, 5, 6, 7):
        assert f"{path}:{line}: " in run.stderr
    assert "5 broken lines were skipped" in run.stdout
    assert "100.00%" in run.stdout


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("grade")
    empty, good = tmp_path / "empty.jsonl", tmp_path / "good.jsonl"
    empty.write_text("")
    good.write_text('{"prediction": "4", "gold": "4"}')
    for arguments, words in (
        ([tmp_path / "absent.jsonl"], "absent.jsonl: No such file"),
        ([tmp_path], "Is a directory"),
        ([empty], "holds no usable case"),
        ([good, "--timeout", "-1"], "reward.timeout_s is -1.0"),
        ([good, "--out", tmp_path / "absent" / "out.jsonl"], "does not exist"),
    ):
        assert script.main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert len(said.splitlines()) == 1, said
