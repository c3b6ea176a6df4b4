"""The command that evaluates: whole, killed and resumed, printed again, several models, teacher view."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.paths import ROOT
from tests.processes import Entry, run_entry

from rlrt.config.stored_policies import StoredPolicy
from rlrt.engine.hf_engine import HFEngine
from rlrt.eval import main
from rlrt.evaluation.folder import Journal, lock_folder
from rlrt.records import read_table, rollouts_of

TINY = ROOT / "models" / "tiny"
SUMS = [("7 + 2 + 5", 14), ("3 + 4 + 8 + 1", 16), ("12 + 9 + 4", 25)]
SMALL = ["engine=hf", "engine.batch_size=3", "sampling.samples=2", "reward.workers=1"]


def sums(folder: Path, name: str = "sums", problems: Any = SUMS) -> Path:
    path = folder / f"{name}.jsonl"
    rows = [
        {"id": f"{name}/{number}", "problem": f"Compute {terms}.", "answer": str(total)}
        for number, (terms, total) in enumerate(problems)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def evaluate(folder: Path, *words: str, out: str = "out") -> Path:
    """Run the command on three sums with the small engine, unless the words say otherwise."""
    given = [*SMALL, *words, f"out={folder / out}"]
    for usual in ("model=tiny", f"benchmark={folder / 'sums.jsonl'}"):
        if not any(word.startswith(usual.split("=")[0] + "=") for word in words):
            given.append(usual)
    main(given)
    return folder / out


def refused(capsys: pytest.CaptureFixture[str], *words: str, status: int = 2) -> str:
    """The one line on stderr with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")


def contents(folder: Path, records: str = "records") -> dict[str, Any]:
    """What a finished evaluation says, free of the noise of batches in the log-probs."""
    rows: dict[str, Any] = {}
    for path in sorted((folder / records).glob("*.parquet")):
        rows[path.stem] = read_table(path).drop_columns("engine_logprobs").to_pylist()
    return rows | {"results": json.loads((folder / "results.json").read_text())}


def forbid_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing may be sampled, and no weights loaded."""

    def start(*arguments: Any) -> None:
        raise AssertionError("the engine was started")

    monkeypatch.setattr(HFEngine, "start", start)
    monkeypatch.setattr(StoredPolicy, "load", start)


def interrupted(folder: Path, *words: str, after: int) -> None:
    """The same as ``evaluate``, with Ctrl-C after so many lines of the journal."""
    append, left = Journal.append, [after]

    def stopping(journal: Journal, *line: Any) -> None:
        append(journal, *line)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Journal, "append", stopping)
        with pytest.raises(SystemExit, match=r"^130$"):
            evaluate(folder, *words)


def test_interrupted_anywhere_it_goes_on_by_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums(tmp_path)
    whole = contents(evaluate(tmp_path, out="whole"))
    for number in (1, 4):
        interrupted(tmp_path, after=number)
    assert "interrupted; the same command goes on from here" in capsys.readouterr().err
    journal = tmp_path / "out" / "journal.jsonl"
    assert len(journal.read_text().splitlines()) == 1 + 1 + 4
    assert not (tmp_path / "out" / "records").exists()
    assert contents(evaluate(tmp_path)) == whole
    assert "5 responses stand, 1 to go" in capsys.readouterr().out
    assert not journal.exists()
    assert [len(whole["sums"]), whole["sums"][0]["source"]] == [6, "sums"]


def test_a_complete_one_is_printed_again_without_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sums(tmp_path)
    folder = evaluate(tmp_path)
    first, said = capsys.readouterr().out, contents(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("records/*")}
    forbid_engines(monkeypatch)
    evaluate(tmp_path)
    assert capsys.readouterr().out.endswith(first[first.index("avg@2") :])
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("records/*")}

    evaluate(tmp_path, "reward.extract=answer_line")  # by other rules: no response has such a line
    assert {row["verdict"] for row in contents(folder)["sums"]} == {"wrong"}
    evaluate(tmp_path)
    assert contents(folder) == said
    sums(tmp_path, problems=[(terms, 0) for terms, _ in SUMS])  # the answers are edited
    evaluate(tmp_path)
    assert {row["answer"] for row in contents(folder)["sums"]} == {"0"}
    assert {row["verdict"] for row in contents(folder)["sums"]} == {"wrong"}


def test_a_benchmark_that_grows_or_changes_is_asked_what_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Responses do not depend on what is asked beside them, nor on the file's order."""
    sums(tmp_path)
    whole = contents(evaluate(tmp_path, out="whole"))["sums"]
    sums(tmp_path, problems=SUMS[:2])
    evaluate(tmp_path)
    sums(tmp_path, problems=[SUMS[0], ("1 + 1 + 2", 4), SUMS[2]])
    capsys.readouterr()
    folder = evaluate(tmp_path)
    printed = capsys.readouterr().out
    assert "sums: 2 prompts are not what they were, and are asked again" in printed
    assert "2 responses stand, 4 to go" in printed
    rows = contents(folder)["sums"]
    assert [rows[0], rows[1], rows[4], rows[5]] == [whole[0], whole[1], whole[4], whole[5]]
    sums(tmp_path, problems=[("9 + 9", 18)])
    words = [f"benchmark={tmp_path}/sums.jsonl", "model=tiny", f"out={folder}", *SMALL]
    assert "another benchmark of the name sums" in refused(capsys, *words)
    assert contents(folder)["sums"] == rows


def test_another_benchmark_leaves_the_journal_of_the_first(tmp_path: Path) -> None:
    sums(tmp_path)
    more = sums(tmp_path, "more", [("1 + 2", 3)])
    interrupted(tmp_path, after=3)
    folder = evaluate(tmp_path, f"benchmark={more}")
    assert len((folder / "journal.jsonl").read_text().splitlines()) == 4 + 2
    evaluate(tmp_path, f"benchmark={tmp_path}/sums.jsonl,{more}")
    assert not (folder / "journal.jsonl").exists()
    assert set(contents(folder)) == {"sums", "more", "results"}


def test_it_grows_in_its_folder_and_nothing_is_thrown_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More samples, more problems: what is new is asked, and the tables are of what this call asks."""
    sums(tmp_path)
    words = ["context=correct_peer"]
    whole = evaluate(tmp_path, *words, "sampling.samples=4", out="whole")
    evaluate(tmp_path, *words, "max_problems=1")
    capsys.readouterr()
    evaluate(tmp_path, *words, "sampling.samples=3", "max_problems=2")
    assert "2 responses stand, 4 to go" in capsys.readouterr().out
    folder = evaluate(tmp_path, *words, "sampling.samples=4")
    assert "6 responses stand, 6 to go" in capsys.readouterr().out
    assert contents(folder) == contents(whole)
    assert contents(folder, "teacher_records") == contents(whole, "teacher_records")


def test_fewer_are_asked_and_all_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums(tmp_path)
    folder = evaluate(tmp_path, "sampling.samples=4")
    before = contents(folder)
    forbid_engines(monkeypatch)
    evaluate(tmp_path, "max_problems=1", "reward.extract=answer_line")
    after = contents(folder)
    assert [len(after["sums"]), len(before["sums"])] == [12, 12]
    assert {row["verdict"] for row in after["sums"]} == {"wrong"}, "all by the same rules"
    (said,) = after["results"]["benchmarks"]
    assert (said["problems"], said["of"], said["samples"]) == (1, 3, 2)
    evaluate(tmp_path, "sampling.samples=4")
    assert contents(folder) == before


def test_the_journal_keeps_what_a_smaller_call_does_not_ask(tmp_path: Path) -> None:
    sums(tmp_path)
    whole = contents(evaluate(tmp_path, "sampling.samples=4", out="whole"))
    interrupted(tmp_path, "sampling.samples=4", after=10)
    folder = evaluate(tmp_path, "sampling.samples=1")
    assert (folder / "journal.jsonl").exists()
    evaluate(tmp_path, "sampling.samples=4")
    assert not (folder / "journal.jsonl").exists()
    assert contents(folder) == whole


def edited(folder: Path, name: str, **settings: Any) -> Path:
    """A copy of the tiny policy with a settings file changed."""
    path = folder / f"edited_{name}"
    shutil.copytree(TINY, path)
    file = path / name
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | settings))
    return path


def test_another_shape_or_other_stops_are_another_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights alone do not decide what is answered."""
    sums(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(TINY, copy)
    words = ["sampling=tiny", f"benchmark={tmp_path}/sums.jsonl", *SMALL]
    folder = evaluate(tmp_path, f"model={copy}", "sampling=tiny")
    wide = json.loads((copy / "config.json").read_text())
    for model, what in (
        (edited(tmp_path, "config.json", rope_theta=500.0, rope_parameters=None), "model_settings"),
        (edited(tmp_path, "generation_config.json", eos_token_id=[2, 5]), "stop_token_ids"),
        (edited(tmp_path, "tokenizer.json", pre_tokenizer=None), "tokenizer"),
    ):
        said = refused(capsys, f"model={model}", *words, f"out={folder}")
        assert f"holds an evaluation whose {what} is " in said
    (copy / "config.json").write_text(json.dumps(wide | {"transformers_version": "5.0.0"}))
    evaluate(tmp_path, f"model={copy}", "sampling=tiny")


def test_a_kill_while_the_settings_are_written_holds_nobody_up(tmp_path: Path) -> None:
    sums(tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".config.yaml.partial").write_text("fing")
    (folder / ".lock").touch()
    evaluate(tmp_path)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_second_process_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums(tmp_path)
    words = ["model=tiny", f"benchmark={tmp_path}/sums.jsonl", *SMALL]
    with lock_folder(tmp_path / "out"):
        said = refused(capsys, *words, f"out={tmp_path}/out")
    assert said.startswith(f"{tmp_path}/out is being written by another process: wait until")
    assert [path.name for path in tmp_path.iterdir()] == ["sums.jsonl"]


def test_out_where_nothing_can_be_written_or_something_else_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = sums(tmp_path), other_policy(tmp_path)
    single = evaluate(tmp_path, out="single")
    before = contents(single)
    forbid_engines(monkeypatch)
    words = [f"benchmark={path}", "sampling=tiny", *SMALL]
    for place, why in ((path, "File exists"), (path / "below", "Not a directory")):
        said = refused(capsys, "model=tiny", *words, f"out={place}")
        assert said == f"{place} cannot be written to ({why})"
    both = refused(capsys, f"model=tiny,{other}", *words, f"out={single}")
    assert both.startswith(
        f"{single} holds what one policy came to, which the comparison of several"
    )
    assert contents(single) == before
    both = refused(capsys, f"model=tiny,{other}", *words, f"out={TINY}")
    assert both == f"{TINY} holds something that is no evaluation: choose another out="


def test_a_file_with_a_benchmarks_name_does_not_pass_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("aime24", "AIME24", "arithmetic"):
        said = refused(capsys, "model=tiny", f"benchmark={sums(tmp_path, name)}", *SMALL)
        known = name.lower()
        assert f"which would pass for {known}: give benchmark={known} benchmark_folder=" in said


def test_a_reader_that_leaves_early_sees_no_traceback() -> None:
    command = f"{sys.executable} src/rlrt/eval.py --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.stderr, done.stdout) == ("", "0\n")


def other_policy(folder: Path) -> Path:
    """The tiny policy with slightly other weights."""
    path = folder / "other"
    shutil.copytree(TINY, path)
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"] *= 0.7
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


def test_several_models_share_an_engine_and_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sums(tmp_path)
    other, starts, start = other_policy(tmp_path), [], HFEngine.start
    alone = contents(evaluate(tmp_path, f"model={other}", "sampling=tiny", out="alone"))
    monkeypatch.setattr(
        HFEngine, "start", lambda engine, *rest: starts.append(start(engine, *rest))
    )
    folder = evaluate(tmp_path, f"model=tiny,{other}", "sampling=tiny", "context=answer")
    assert len(starts) == 1
    compared = json.loads((folder / "results.json").read_text())
    names = [model["name"] for model in compared["models"]]
    assert names == ["tiny", f"{tmp_path.name}/other"]
    assert "tiny" in capsys.readouterr().out
    first, second = sorted(folder.glob("*/"), key=lambda path: path.name.startswith("tiny"))
    assert contents(first) == alone, "the second of two is what it is alone"
    assert (second / "teacher_records" / "sums.parquet").exists()
    assert not (first / "teacher_records").exists(), "the teacher view is the first policy's"


def test_the_teacher_view_is_asked_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums(tmp_path)
    words = ["context=correct_peer", "sampling.samples=4"]
    whole = evaluate(tmp_path, *words, out="whole")
    student = rollouts_of(read_table(whole / "records" / "sums.parquet"))
    teacher = rollouts_of(read_table(whole / "teacher_records" / "sums.parquet"))
    assert [(r.problem, r.group, r.sample) for r in student] == [
        (r.problem, r.group, r.sample) for r in teacher
    ]
    correct = Counter(rollout.group for rollout in student if rollout.reward)
    for own, other in zip(student, teacher, strict=True):
        if correct[own.group] - own.reward > 0:  # a peer was right
            assert len(other.prompt_ids) > len(own.prompt_ids)
        else:
            assert own == other
    assert student != teacher
    interrupted(tmp_path, *words, after=12 + 2)
    folder = evaluate(tmp_path, *words)
    for records in ("records", "teacher_records"):
        assert contents(folder, records) == contents(whole, records)
    forbid_engines(monkeypatch)
    evaluate(tmp_path, *words)


def test_a_checkpoint_of_a_run_beside_the_run(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums(tmp_path)
    checkpoint = min(run_folder.glob("checkpoints/step-*.ckpt"))
    evaluate(tmp_path, f"model={run_folder},{checkpoint}")
    assert f"{run_folder.name}/{checkpoint.stem}: 2 samples" in capsys.readouterr().out


WRONG = {
    "model=tiny benchmark=aime99": "benchmark is aime99, it must be all, one of aime24, .*arithmetic",
    "model=tiny benchmark=gone.jsonl": ".*gone.jsonl.*does not exist",
    "model=nothing benchmark=arithmetic": "model is nothing, and no such run, checkpoint or model",
    "model=tiny benchmark=arithmetic sampling=hot": "sampling is hot, it must be one of no_thinking",
    "model=tiny benchmark=arithmetic sampling.sample=4": "sample is no setting of sampling; allowed",
    "model=tiny benchmark=arithmetic sampling.samples=x": 'sampling.samples is "x", it must be a whole',
    "model=tiny benchmark=arithmetic sampling.top_p=2": "sampling: top_p is 2, it must lie in",
    "model=tiny benchmark=arithmetic credit=rlrt": "credit is no setting; allowed: .*sampling",
    "model=tiny benchmark=arithmetic seed=-1": "seed is -1, it must lie in",
    "model=tiny benchmark=arithmetic dtype=int8": 'dtype is "int8", it must be one of auto',
    "model=tiny benchmark=arithmetic ~prompts": "prompts is missing, it must name a file of",
    "model=tiny benchmark=arithmetic context=feedback": "a problem's feedback, and arithmetic has none",
    "model=tiny benchmark=arithmetic sampling=thinking sampling.max_response_tokens=9": "= 2057 is more",
    "model=tiny benchmark=arithmetic sampling.max_prompt_tokens=9": "is 9, and the prompts of 128 .*",
    "modle=tiny model=tiny benchmark=arithmetic": "modle is no setting; allowed: model, benchmark, .*,",
    "model=tiny benchmark=arithmetic engine.tensor_parallel=2": "engine.tensor_parallel is 2, it must",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_word_ends_in_one_sentence(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    forbid_engines(monkeypatch)
    assert re.search(WRONG[words], refused(capsys, *words.split()))
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_files_that_are_wrong_end_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sums(tmp_path)
    words = ["model=tiny", f"benchmark={path}", *SMALL]
    (tmp_path / "bad.jsonl").write_text('{"problem": "1 + 1"}')
    bad = refused(capsys, "model=tiny", f"benchmark={tmp_path}/bad.jsonl", *SMALL)
    assert "bad.jsonl:1" in bad
    assert "no answer" in bad
    same = refused(capsys, "model=tiny", f"benchmark={path},{sums(tmp_path, 'sums.more')}", *SMALL)
    assert same.startswith("benchmark names sums twice")

    other = refused(capsys, *words, f"out={TINY}")
    assert other == f"{TINY} holds something that is no evaluation: choose another out="
    folder = evaluate(tmp_path)
    hot = refused(capsys, *words, f"out={folder}", "sampling.temperature=0.5")
    assert hot == (
        f"{folder} holds an evaluation whose sampling.temperature is 1.0, and here it is 0.5: "
        "choose another out="
    )
    (folder / "records" / "sums.parquet").write_bytes(b"PAR1 no")
    assert "is no readable parquet file" in refused(capsys, *words, f"out={folder}")
    (folder / "config.yaml").write_text("a: [")
    assert refused(capsys, *words, f"out={folder}").endswith("config.yaml is damaged (ParserError)")
    shutil.copytree(TINY, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    said = refused(
        capsys, f"model={tmp_path}/broken", *words[1:], "sampling=tiny", f"out={tmp_path}/b"
    )
    assert "its weights do not load" in said
    assert not (tmp_path / "b").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refused(capsys, *words) == (
        "WORLD_SIZE is 2: an evaluation is one process, start it without torchrun"
    )


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "sampling.samples=4" in capsys.readouterr().out


@pytest.mark.vllm
def test_killed_and_resumed_through_vllm_it_equals_one_that_was_not(tmp_path: Path) -> None:
    words = ["model=tiny", "benchmark=arithmetic", "max_problems=24", "engine.max_sequences=16"]
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    journal, seen = folder / "journal.jsonl", tmp_path / "seen.jsonl"
    process = Entry(tmp_path / "killed.log", "src/rlrt/eval.py", *words, f"out={folder}")
    while process.poll() is None and (not journal.exists() or journal.stat().st_size < 20_000):
        time.sleep(0.01)
    process.kill_group()
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    seen.hardlink_to(journal)  # stays when the evaluation removes its own
    before = seen.read_bytes()
    kept = before[: before.rindex(b"\n") + 1]

    printed = run_entry(tmp_path / "resumed.log", "src/rlrt/eval.py", *words, f"out={folder}")
    run_entry(tmp_path / "whole.log", "src/rlrt/eval.py", *words, f"out={whole}")
    assert not journal.exists()
    assert contents(folder) == contents(whole)
    assert len(contents(folder)["arithmetic"]) == 24 * 8
    assert seen.read_bytes().startswith(kept)
    _, *lines = [json.loads(line) for line in seen.read_text().splitlines()]
    times = Counter((line["problem"], line["sample"]) for line in lines)
    assert len(times) == 24 * 8
    assert set(times.values()) == {1}, "nothing is sampled twice"
    stand = kept.count(b"\n") - 1
    assert 0 < stand < 24 * 8
    assert f"{stand} responses stand, {24 * 8 - stand} to go" in printed
