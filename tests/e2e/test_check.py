"""``check=true`` through the real entry: everything is told, nothing is loaded or written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.paths import ROOT

from rlrt.config.assembly import check_run
from rlrt.config.command_line import require_driver, require_versions
from rlrt.config.compose import compose
from rlrt.errors import UserError

PRESETS = ("qwen3_4b_base", "qwen3_4b_instruct", "qwen3_8b", "qwen3_8b_base")
FOUR, EIGHT = ["host", "device", "device"], ["host", "host", "device"]

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a hub nor a cache."""
    import datasets
    import huggingface_hub

    for library in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(library, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))


def row(printed: str, name: str) -> list[str]:
    """The cells of a row of the table."""
    line = next(line for line in printed.splitlines() if line.strip().startswith(name))
    return line.strip().removeprefix(name).split()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("model", PRESETS)
@pytest.mark.parametrize("credit", ["rlrt", "sdpo"])
def test_every_preset_without_card_hub_and_cache(
    model: str, credit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_run(compose([f"model={model}", f"credit={credit}", "check=true"]))
    printed = capsys.readouterr().out
    assert "tokenizer and prompts: not checked (model.path is Qwen/Qwen3-" in printed
    assert "problems: not checked (the data set " in printed
    assert "1 x 80 GB" in printed
    assert "8 x 80 GB" in printed
    large = "8b" in model
    assert row(printed, "AdamW's moments on the") == (EIGHT if large else FOUR)
    weights = ["32.8", "32.8", "4.1"] if large else ["16.1", "16.1", "2.0"]
    assert row(printed, "gradients") == weights
    assert row(printed, "fits") == ["no" if large else "yes", "yes", "yes"]
    assert "would start on 1 x 141 GB: " in printed
    if large:
        assert "one card of 80 GB cannot hold this run: each needs" in printed
    if credit == "sdpo":  # a frozen teacher in bfloat16
        frozen = ["16.4", "16.4", "2.0"] if large else ["8.0", "8.0", "1.0"]
        assert row(printed, "teacher") == frozen


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("card_gb=24", r"one card of 24 GB cannot hold .* strategy=fsdp with at least 8 cards$"),
        (
            "card_gb=80 training.optimization.moments=device",
            r"one card of 80 GB .*fits: training.optimization.moments=host, or strategy=fsdp with at "
            r"least 2 cards$",
        ),
        (
            "strategy=fsdp trainer.devices=2 card_gb=24",
            r"2 cards of 24 GB cannot hold this run: .* strategy=fsdp with at least 8 cards$",
        ),
        ("card_gb=0", "card_gb is 0, it must be null or above 0"),
        ("card_gb=many", 'card_gb is "many", it must be a finite number or null'),
        ("check=maybe", 'check is "maybe", it must be true or false'),
        ("training.max_response_tokens=40000 training.token_budget=50000", "more than the 32768"),
        ("training.optimization.moments=disk", 'moments is "disk", it must be one of auto, device'),
        ("data=jsonl data.path=/nowhere.jsonl", "data.path is '/nowhere.jsonl', which does not"),
    ],
)
def test_what_cannot_start_ends_in_its_sentence(settings: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_run(compose(["model=qwen3_4b_base", "check=true", *settings.split()]))


@pytest.mark.usefixtures("offline")
def test_cards_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for settings, said in (
        ("strategy=fsdp trainer.devices=4 card_gb=80", ["4 x 80 GB"]),
        ("strategy=fsdp trainer.devices=4", ["4 x 80 GB", "4 x 141 GB"]),
        ("strategy=fsdp card_gb=96", ["1 x 96 GB", "8 x 96 GB"]),
        ("card_gb=141", ["1 x 141 GB"]),
    ):
        check_run(compose(["model=qwen3_8b", "check=true", *settings.split()]))
        found = re.findall(r"would start on (\d+ x \d+ GB)", capsys.readouterr().out)
        assert found == said or found == said[-1:]


def test_a_run_on_the_cpu_is_read_to_its_problems(capsys: pytest.CaptureFixture[str]) -> None:
    check_run(compose(["model=tiny", "engine=hf", "check=true"]))
    printed = capsys.readouterr().out
    assert "model, tokenizer and stop tokens: found" in printed
    assert "train problems: " in printed
    assert printed.endswith("would start, on the CPU\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_entry_checks_and_writes_nothing(tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "src/rlrt/train.py"), "model=qwen3_8b", "check=true"],
        cwd=tmp_path,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    assert "would start on 1 x 141 GB: moments on the host" in done.stdout
    assert not [path for path in tmp_path.rglob("*") if "cache" not in path.parts]


# Before anything heavy is imported


def test_without_a_driver_a_run_for_a_gpu_ends_before_pytorch_is_there(tmp_path: Path) -> None:
    program = (
        "import runpy, sys, time; began = time.process_time()\n"
        "sys.argv = ['train.py', 'model=qwen3_8b']\n"
        f"try: runpy.run_path({str(ROOT / 'src/rlrt/train.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.stderr.startswith("error: model=qwen3_8b runs on a GPU and PyTorch finds none here")
    assert done.stdout == "2 False\n"
    assert not list(tmp_path.iterdir())
    require_driver(compose(["model=qwen3_8b", "check=true"]))  # of a check nothing is asked


def test_a_library_outside_its_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_versions()
    other = tmp_path / "torch-2.10.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.10.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"^torch is 2\.10\.1, it must be <2\.14,>=2\.11: run scr"):
        require_versions()
