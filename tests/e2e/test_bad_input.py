"""Bad input ends a run with one sentence that names setting, value and what is allowed.

Most cases run in this process, through the composition and the building of parts that the entry
does; a few run the entry itself.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.paths import ROOT
from tests.processes import Entry
from tests.runs import FEW_PROBLEMS

from rlrt.config.assembly import build_run
from rlrt.config.components import build_components
from rlrt.config.compose import compose
from rlrt.config.resume import find_resume_point
from rlrt.errors import UserError
from rlrt.training.checkpoint import is_whole

TINY = ROOT / "models" / "tiny"
SIZES = [
    "model=tiny",
    "engine=hf",
    "logger=none",
    "trainer.max_epochs=3",
    "training.problems_per_step=2",
    "training.problems_per_update=2",
    "training.rollouts_per_problem=2",
    "training.max_response_tokens=24",
    "evaluation.max_problems=2",
    "evaluation.samples=1",
    "evaluation.pass_at=[1]",
    "reward.workers=1",
]
REFUSED = {
    # a group or setting that does not exist
    "credit=rlrtt": "credit is rlrtt, it must be one of diver, grpo, .*rlrt,",
    "strategy=nothing": "strategy is nothing, it must be one of .*single",
    "credits=rlrt": "credits is no setting; allowed: seed, .*credit",
    "credit.mixin=1": "mixin is no setting of credit; allowed: mixing, .*; did you mean credit.mixing",
    "nothing.mixing=1": "nothing.mixing is no setting: there is no group nothing",
    "+credit.mixin=1": "credit.mixin is no setting; credit has: mixing,",
    "+trainer.mixin=1": "trainer.mixin is no setting; trainer has: accelerator,",
    "~engine": "engine is missing",
    "credit=null": "credit is null, it must name a file of configs/credit",
    "credit": "credit is no setting: each is written name=value",
    "credit._target_=rlrt.credit.nothing.Nothing": "credit._target_ cannot be imported",
    # another type
    "credit.mixing=abc": 'credit.mixing is "abc", it must be a finite number',
    "credit.mixing=true": "credit.mixing is true, it must be a finite number",
    "credit.mixing=nan": "credit.mixing is NaN, it must be a finite number",
    "credit.mixing=inf": "credit.mixing is Infinity, it must be a finite number",
    "credit.mixing=null": "credit.mixing is null, it must be a finite number",
    "credit.mixing=[0.5]": r"credit.mixing is \[0.5\], it must be a finite number",
    "credit.mixing={a:1}": 'credit.mixing is {"a": 1}, it must be a finite number',
    "credit.mixing_decay_steps=1.5": "is 1.5, it must be a whole number or null",
    "credit.standardize=1": "credit.standardize is 1, it must be true or false",
    "training.problems_per_step=many": 'is "many", it must be a whole number',
    "training.max_prompt_tokens=128.0": "is 128.0, it must be a whole number",
    "training.optimization.betas=0.9": "betas is 0.9, it must be a list of 2",
    "training.optimization.betas=[0.9]": r"betas is \[0.9\], it must be a list of 2",
    "evaluation.pass_at=8": "evaluation.pass_at is 8, it must be a list, each a whole number",
    "evaluation.pass_at=[x]": r'evaluation.pass_at is \["x"\], it must be a list',
    "seed=x": 'seed is "x", it must be a whole number',
    "seed=true": "seed is true, it must be a whole number",
    "record_rollouts=maybe": "it must be true or false",
    "prompts.instruction=null": "prompts.instruction is null, it must be text",
    "model.enable_thinking=maybe": "it must be null or true or false",
    "reward.extract=last": "it must be one of boxed, answer_line, boxed_or_text",
    "logger.tensorboard.name=[1]": r"logger.tensorboard.name is \[1\], it must be null or text",
    "trainer.max_epochs=1.5": "trainer.max_epochs is 1.5, it must be a whole number from 1",
    # out of range
    "seed=-1": r"seed is -1, it must lie in \[0, 4294967295\]",
    "credit.mixing=-0.1": r"credit.mixing is -0.1, it must lie in \[0, 1\]",
    "credit.clip_radius=0": r"credit.clip_radius is 0, it must lie in \(0, 1\]",
    "credit.mixing_decay_steps=0": "credit.mixing_decay_steps is 0, it must be null or at least 1",
    "loss.clip_low=1": "loss.clip_low is 1",
    "loss.clip_high=0": "loss.clip_high is 0",
    "loss.dual_clip=1": "loss.dual_clip is 1",
    "loss.rollout_correction_limit=0.5": "loss.rollout_correction_limit is 0.5",
    "aggregation.kind=mean": 'aggregation.kind is "mean", it must be one of token_mean',
    "aggregation.constant_length=5": "aggregation.constant_length is 5, it must be set with",
    "training.optimization.learning_rate=0": "optimization.learning_rate is 0",
    "training.optimization.weight_decay=-1": "optimization.weight_decay is -1",
    "training.optimization.betas=[0.9,1]": r"optimization.betas is \[0.9, 1\]",
    "training.optimization.max_grad_norm=0": "optimization.max_grad_norm is 0",
    "training.rollouts_per_problem=0": "training.rollouts_per_problem is 0, it must be at least 1",
    "training.problems_per_step=0": "training.problems_per_step is 0, it must be at least 1",
    "training.max_prompt_tokens=0": "training.max_prompt_tokens is 0, it must be at least 1",
    "training.max_response_tokens=-1": "training.max_response_tokens is -1, it must be at least 1",
    "training.temperature=0": "training.temperature is 0, it must be above 0",
    "engine.batch_size=0": "engine.batch_size is 0",
    "engine.max_logprob_gap=0": "engine.max_logprob_gap is 0, it must be null or > 0",
    "reward.workers=0": "reward.workers is 0",
    "reward.timeout_s=0": "reward.timeout_s is 0",
    "reward.undecided_reward=2": "reward.undecided_reward is 2",
    "evaluation.samples=0": "evaluation.samples is 0",
    "evaluation.pass_at=[9]": r"evaluation.pass_at is \[9\], every k must lie in \[1, 8\]",
    "evaluation.temperature=-1": "evaluation: temperature is -1",
    "evaluation.top_p=0": r"evaluation: top_p is 0, it must lie in \(0, 1\]",
    "checkpoint.every_n_steps=0": "checkpoint.every_n_steps is 0, it must be at least 1",
    "checkpoint.keep=1": "checkpoint.keep is 1, it must be at least 2",
    "checkpoint.export_every_n_steps=0": "export_every_n_steps is 0, it must be at least 1",
    "checkpoint.export_steps=[3,-1]": "checkpoint.export_steps is -1, it must be at least 0",
    "checkpoint.export_steps=[5,101]": r"export_steps names 101, it must lie in \[0, 100\] \(trainer.max_",
    "checkpoint.export_steps=5": "checkpoint.export_steps is 5, it must be a list",
    "trainer.max_epochs=0": "trainer.max_epochs is 0, it must be a whole number from 1",
    "trainer.precision=16": "trainer.precision is 16, it must be one of 32-true, bf16-mixed",
    "trainer.accelerator=tpu": 'trainer.accelerator is "tpu", it must be one of cpu, gpu',
    "trainer.devices=2": "trainer.devices is 2, it must be 1 with strategy=single",
    "trainer.strategy=ddp": 'trainer.strategy is "ddp", it must be auto',
    "model.kind=large": "model.kind is large, it must be one of base, instruct, thinking",
    "model.random_init_seed=-1": "model.random_init_seed is -1",
    "model.kernels=triton": 'model.kernels is "triton", it must be one of auto, liger, torch',
    "model.attention=fa3": 'model.attention is "fa3", it must be one of auto, fa4, torch',
    "model.save_attention=true": "save_attention is true, which is for model.gradient_checkpointing",
    "model.path=/nowhere": "model.path is '/nowhere', and no such folder exists",
    "data.terms=[9]": r"data: terms is \[9\]; allowed: one or more counts from 2 to 8",
    "data.train_problems=0": "data: train_problems is 0; allowed: 1 or more",
    # settings that do not fit together
    "credit=grpo context=answer": "GRPO reads no teacher, so context would not be used",
    "credit=rlrt context=none": "RLRT reads a teacher .* and context is none",
    "training.problems_per_update=5": r"problems_per_step is 16, it must be a multiple of .* \(5\)",
    "checkpoint.every_n_steps=3": r"checkpoint.every_n_steps is 3, it must divide .* \(10\)",
    "training.token_budget=100": "training.token_budget is 100, it must hold one sequence of .* = \\d+",
    "aggregation=constant_length aggregation.constant_length=null": "constant_length is None, it must be set",
    # of methods, contexts, teachers and losses
    "credit=sdpo credit.alpha=1.5": r"credit.alpha is 1.5, it must lie in \[0, 1\]",
    "credit=sdpo credit.top_k=0": "credit.top_k is 0, it must be at least 1, or null",
    "credit=sdpo credit.importance_limit=0.5": "credit.importance_limit is 0.5, it must be null or",
    "credit=sdpo credit.sampled_token=true": "credit.alpha is 0.5, it must be 1 with",
    "credit=sdpo credit.sampled_token=true credit.alpha=1": "credit.top_k is 100, it must be null",
    "credit=srpo credit.beta=-1": "credit.beta is -1, it must not be negative",
    "credit=opsd credit.beta=2": r"credit.beta is 2, it must lie in \[0, 1\]",
    "credit=opsd credit.element_clip=0": "credit.element_clip is 0, it must be positive, or null",
    "credit=grpo_entropy credit.cap=1": "credit.cap is 1",
    "credit=diver credit.diversity=words": 'credit.diversity is "words", it must be one of equation',
    "credit=rlrt_gated credit.fraction=0": r"credit.fraction is 0, it must lie in \(0, 1\]",
    "credit=rlrt_graded credit.flip_probability=0.5": r"flip_probability is 0.5, it must lie in \[0,",
    "reward.flip_probability=0.5": "reward.flip_probability is 0.5; allowed: from 0 to below 0.5",
    "credit=opsd data=dapo_math_17k": "a problem's solution, and data=DapoProblems has none",
    "credit=sdpo context=feedback": "a problem's feedback, and data=Arithmetic has none",
    "credit=rlrt context=hint context.fraction=1": "context.fraction is 1",
    "context.choice=best": 'context.choice is "best", it must be one of first, random, shortest',
    "credit=grpo teacher=frozen": "GRPO reads no teacher, so teacher would not be used",
    "teacher=ema teacher.rate=2": r"teacher.rate is 2, it must lie in \[0, 1\]",
    "teacher=copied teacher.every_n_steps=0": "teacher.every_n_steps is 0, it must be at least 1",
    "teacher=separate": "teacher.path is missing",
    "loss=gspo loss.clip_high=0": "loss.clip_high is 0, it must be above 0",
    "loss=cispo loss.max_weight=0": "loss.max_weight is 0, it must be at least 1",
    "training.resample_rounds=-1": "training.resample_rounds is -1, it must be at least 0",
    "training.overlong_buffer=81": r"training.overlong_buffer is 81, it must be null or .* \[1, 80\]",
    "training.overlong_buffer=0": "training.overlong_buffer is 0, it must be at least 1",
    "prompts.teacher_thinking=maybe": "it must be null or true or false",
    # data
    "data=jsonl": "data.path is missing",
    "data=jsonl data.path=/nowhere.jsonl": "data.path is '/nowhere.jsonl', which does not exist",
    "data=jsonl data.path=/": "data.path is '/', a folder; give one file in it",
    "data=jsonl data.path=5": "data.path is 5, it must be text",
    "data=dapo_math_17k data.bad_rows=keep": "data.bad_rows is 'keep'; allowed: skip, refuse",
    "data=dapo_math_17k data.language=de": "data.language is 'de'; allowed: en, zh, null",
    "data=gsm8k data.held_out_problems=-1": "data.held_out_problems is -1",
}


@pytest.mark.parametrize("settings", REFUSED)
def test_a_wrong_setting_is_refused_before_anything_loads(settings: str) -> None:
    with pytest.raises(UserError, match=REFUSED[settings]) as caught:
        build_components(compose(["engine=hf", *settings.split(" ")]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["credit.mixing=1", "loss.dual_clip=null", "training.temperature=1", "seed=0"]
)
def test_sound_settings_pass(setting: str) -> None:
    """A whole number where any number is due, null where it means something."""
    build_components(compose(["engine=hf", setting]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize("model", ["qwen3_4b_base", "qwen3_8b"])
def test_a_preset_for_a_gpu_is_refused_without_one(model: str) -> None:
    with pytest.raises(UserError, match=f"model={model} runs on a GPU and PyTorch finds none here"):
        build_components(compose(["engine=hf", f"model={model}"]))


def refusal(folder: Path, *settings: str) -> str:
    """What building a run says; nothing may have been written."""
    problems = [] if "data=jsonl" in settings else [FEW_PROBLEMS]
    with pytest.raises(UserError) as caught:
        build_run(compose([*SIZES, *problems, *settings]), folder, 0)
    assert not folder.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without_tensor(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})


def without_tokenizer(model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (model / name).unlink()


def cut(name: str) -> Callable[[Path], Any]:
    return lambda model: os.truncate(model / name, (model / name).stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda model: (model / "config.json").unlink(), "it holds no config.json"),
        (cut("config.json"), "config.json"),
        (without_tokenizer, "tokenizer"),
        (cut("tokenizer.json"), "it holds no tokenizer that loads"),
        (lambda model: (model / "chat_template.jinja").unlink(), "has no chat template"),
        (cut("chat_template.jinja"), "the chat template of .* cannot be used"),
        (lambda model: (model / "model.safetensors").unlink(), r"it holds no \*\.safetensors"),
        (cut("model.safetensors"), "its weights do not load"),
        (without_tensor, "its weights lack 1 tensors, such as model.norm.weight"),
    ],
)
def test_a_damaged_model_folder_is_named(
    tmp_path: Path, damage: Callable[[Path], Any], sentence: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(TINY, model)
    damage(model)
    said = refusal(tmp_path / "run", f"model.path={model}")
    assert str(model) in said
    assert re.search(sentence, said), said


def test_a_model_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    said = refusal(tmp_path / "run", "model.path=nobody/no-such-model")
    assert said.startswith("model.path is nobody/no-such-model: neither a model folder, nor in the")


def test_lengths_beyond_the_model(tmp_path: Path) -> None:
    longer = ["training.max_response_tokens=100000", "training.token_budget=200000"]
    said = refusal(tmp_path / "run", *longer)
    assert re.search(
        r"max_response_tokens = 100128 is more than the \d+ tokens that the model", said
    )


ROW = {"id": "1", "problem": "Compute 1 + 2 + 3.", "answer": "6"}


def data_file(folder: Path, *lines: object) -> list[str]:
    path = folder / "rows.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return ["data=jsonl", f"data.path={path}"]


def rows(count: int, padding: str = "") -> list[dict[str, str]]:
    return [
        {"id": str(n), "problem": f"Compute {n} + 2 + 3.{padding}", "answer": str(n + 5)}
        for n in range(count)
    ]


def test_an_empty_data_file(tmp_path: Path) -> None:
    said = refusal(tmp_path / "run", *data_file(tmp_path))
    assert said.endswith("rows.jsonl: it has no rows")


def test_broken_rows_are_refused_by_file_and_line(tmp_path: Path) -> None:
    data = data_file(tmp_path, *rows(20), "{broken", *rows(2))
    said = refusal(tmp_path / "run", *data, "data.bad_rows=refuse")
    assert said.startswith(f"{tmp_path}/rows.jsonl:21: not JSON")


def test_broken_rows_are_skipped_counted_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_file(tmp_path, *rows(20), "{broken", '{"id": "x", "problem": "no answer"}', "[]")
    build_run(compose([*SIZES, *data, "data.held_out_problems=4"]), tmp_path / "run", 0)
    printed = capsys.readouterr().out
    dropped = "1 not JSON, 1 no answer, 1 not an object"
    assert f"train problems: 16 kept; dropped: {dropped}, 4 held out" in printed


def test_only_prompts_that_are_too_long(tmp_path: Path) -> None:
    data = data_file(tmp_path, *rows(20, padding=" 1 + 1" * 200))
    said = refusal(tmp_path / "run", *data)
    assert said.startswith("no train problem is left; dropped: 2 held out, 18 prompt over 128")


def test_no_held_out_problem(tmp_path: Path) -> None:
    said = refusal(tmp_path / "run", *data_file(tmp_path, *rows(5)))
    assert said.startswith("no held out problem is left")


# The entry itself


def run_python(*settings: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The entry in a Python of its own."""
    return subprocess.run(
        [sys.executable, "src/rlrt/train.py", *settings],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def start(logs: Path, *settings: str, before: Callable[[], Any] | None = None) -> Entry:
    """The entry, whose output and errors go to files of ``logs``."""
    number = len(list(logs.glob("*.out")))
    errors = logs / f"{number}.err"
    return Entry(
        logs / f"{number}.out", "src/rlrt/train.py", *settings, errors=errors, before=before
    )


def sentence(process: Entry, status: int) -> str:
    """The one line on stderr of an entry that ends with ``status``."""
    ended = process.wait(120)
    return one_sentence(ended, status, process.errors.read_text())


def one_sentence(ended: int, status: int, stderr: str) -> str:
    """What an entry said that had to end with ``status``."""
    assert "Traceback" not in stderr
    assert re.fullmatch(r"error: [^\n]+\n", stderr), stderr
    assert ended == status, stderr
    return stderr.removeprefix("error: ").strip()


@pytest.mark.parametrize("setting", ["credit=rlrtt", "credit.mixing=abc"])
def test_the_entry_says_one_sentence_and_leaves_nothing(tmp_path: Path, setting: str) -> None:
    folder = tmp_path / "run"
    process = start(tmp_path, f"hydra.run.dir={folder}", setting)
    assert re.match(REFUSED[setting], sentence(process, 2))
    assert not folder.exists()


def test_a_sweep_says_one_sentence(tmp_path: Path) -> None:
    process = start(
        tmp_path, "-m", f"hydra.sweep.dir={tmp_path}/sweep", "credit.mixing=3", "engine=hf"
    )
    assert sentence(process, 2) == "credit.mixing is 3, it must lie in [0, 1]"


def test_without_vllm(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import sys

            class Hiding:
                def __init__(self, finder):
                    self.finder = finder

                def find_spec(self, name, path=None, target=None):
                    return None if name == "vllm" else self.finder.find_spec(name, path, target)

                def __getattr__(self, name):
                    return getattr(self.finder, name)

            sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
        """)
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run_python(f"hydra.run.dir={tmp_path}/run", "engine=vllm", PYTHONPATH=paths)
    said = one_sentence(done.returncode, 2, done.stderr)
    assert said.startswith("engine=vllm needs vLLM, which is not installed")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("taken")
    process = start(tmp_path, f"hydra.run.dir={tmp_path}/run", "engine=hf")
    assert sentence(process, 3) == f"{tmp_path}/run cannot be used (File exists)"
    assert (tmp_path / "run").read_text() == "taken"


def test_help_lists_the_groups() -> None:
    done = run_python("--help")
    assert "credit: diver, grpo, " in done.stdout
    assert not done.stderr


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond ``size`` bytes, as on a disk that fills."""
    sys.dont_write_bytecode = True  # half of a module's bytecode would stay behind
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_interrupted_then_out_of_disk_then_resumed_to_the_end(tmp_path: Path) -> None:
    """Each end leaves a run that goes on; what may not be written whole is not written at all."""
    folder = tmp_path / "run"
    here, again = f"hydra.run.dir={folder}", f"resume={folder}"

    process = start(tmp_path, here, *SIZES, FEW_PROBLEMS, "trainer.max_epochs=500")
    while "\nstep 1:" not in process.log.read_text():
        assert process.poll() is None, process.errors.read_text()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert sentence(process, 130) == f"interrupted; go on with {again}"

    done = max(folder.glob("checkpoints/step-*.ckpt"))
    before = {path: path.read_bytes() for path in folder.glob("checkpoints/*")}
    more = f"trainer.max_epochs={int(done.stem.removeprefix('step-')) + 2}"
    limit = done.stat().st_size // 2
    small_disk = partial(limit_files, limit)
    process = start(tmp_path, here, again, more, before=small_disk)
    assert re.match(r"the disk is full \(.*\); go on with resume=", sentence(process, 3))
    assert {path: path.read_bytes() for path in folder.glob("checkpoints/*")} == before
    assert not list(folder.rglob("*.partial"))
    assert is_whole(done)

    process = start(tmp_path, again, more)  # in its own folder
    assert process.wait(120) == 0, process.errors.read_text()
    assert "held-out avg@1" in process.log.read_text()
    assert (folder / "export" / "model.safetensors").exists()

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    process = start(tmp_path, again, more)
    assert process.wait(120) == 0, process.errors.read_text()
    said, steps = process.log.read_text(), int(more.partition("=")[2])
    assert f"this run has ended ({steps} of {steps} rollout steps): {folder}" in said
    assert f"trainer.max_epochs={2 * steps} continues it" in said
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    with pytest.raises(UserError, match=r"already holds a run: go on with it by resume="):
        find_resume_point(compose(SIZES), SIZES, folder)
    check_resume_settings(folder)


def check_resume_settings(folder: Path) -> None:
    """Settings beside ``resume``: only those given are compared, and the free ones taken over."""

    def resumed(*settings: str) -> Any:
        overrides = [f"resume={folder}", *settings]
        return find_resume_point(compose(overrides), overrides, folder).config

    assert resumed().training.problems_per_step == 2
    free = resumed("checkpoint.keep=5", "logger=tensorboard", "trainer.max_epochs=900")
    assert (free.checkpoint.keep, free.trainer.max_epochs) == (5, 900)
    assert "tensorboard" in free.logger
    again = resumed("engine=hf", "trainer.max_epochs=900")  # what only vLLM has stays away
    assert set(again.engine) == {"_target_", "batch_size", "max_logprob_gap"}
    with pytest.raises(UserError, match=r"credit.mixing is 0.25 here and 0.5 in the run that"):
        resumed("credit.mixing=0.25")
    with pytest.raises(UserError, match=r"training.problems_per_step is 16 here and 2 in the run"):
        resumed("training.problems_per_step=16")
    with pytest.raises(UserError, match=r"trainer.max_epochs is 1, and the run .* behind it"):
        resumed("trainer.max_epochs=1")


@pytest.mark.parametrize("content", [{"hello": 1}, [1, 2], None])
def test_a_checkpoint_of_something_else(tmp_path: Path, content: object) -> None:
    other = tmp_path / "other.ckpt"
    torch.save(content, other)
    if content is None:
        shutil.make_archive(str(tmp_path / "other"), "zip", TINY)
        other = tmp_path / "other.zip"
    overrides = [f"resume={other}"]
    with pytest.raises(UserError, match=r"resume is .*other\..*, which is no checkpoint of a run"):
        find_resume_point(compose(overrides), overrides, tmp_path / "run")


def test_resuming_nothing(tmp_path: Path) -> None:
    for named, said in ((tmp_path / "gone", "no such run folder"), (tmp_path, "holds no run")):
        overrides = [f"resume={named}"]
        with pytest.raises(UserError, match=said):
            find_resume_point(compose(overrides), overrides, tmp_path / "run")
