"""What TensorBoard and Weights & Biases are given, read back from what they wrote."""

from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlrt.training.evaluator import Completion
from rlrt.training.loggers import ID_FILE, log_evaluation, log_settings, wandb_logger
from rlrt.training.metrics import MetricsCSV

HOSTILE = "a | b\n<script>alert(1)</script> & c"
COMPLETIONS = [Completion("1 + 2", "3", HOSTILE, "wrong")]


def test_tensorboard_gets_settings_scores_and_texts_also_after_a_fit(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path), name="tensorboard", version="")
    log_settings([logger], {"credit.mixing": 0.5, "seed": 0})
    log_evaluation([logger, MetricsCSV(tmp_path, 0)], {"avg@8": 0.25}, COMPLETIONS, 0)
    logger.finalize("success")  # as the end of a fit does
    log_evaluation([logger], {"avg@8": 0.75}, COMPLETIONS, 10)
    assert not (tmp_path / "metrics.csv").exists(), "that table has a row per rollout step alone"

    scores, texts = [], []
    for file in sorted((tmp_path / "tensorboard").glob("events*")):
        events = EventAccumulator(str(file)).Reload()
        if "held_out/avg@8" in events.Tags()["scalars"]:
            scores += [(event.step, event.value) for event in events.Scalars("held_out/avg@8")]
            texts += events.Tensors("held_out/completions/text_summary")
    assert sorted(scores) == [(0, 0.25), (10, 0.75)]
    written = texts[0].tensor_proto.string_val[0].decode()
    assert "a &#124; b<br>&lt;script>alert(1)&lt;/script> &amp; c | wrong |" in written
    assert "credit.mixing: 0.5" in (tmp_path / "tensorboard/hparams.yaml").read_text("utf-8")


def test_a_resumed_run_goes_on_with_its_own_run_of_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "rlrt_tiny" / "one"
    folder.mkdir(parents=True)
    identities = []
    for _ in range(2):
        logger = wandb_logger(str(folder), offline=True)
        log_settings([logger], {"seed": 0})
        log_evaluation([logger], {"avg@8": 0.25}, COMPLETIONS, 0)
        run = logger.experiment
        identities.append((run.id, run.name, run.group))
        wandb.finish()
    assert identities == [((folder / ID_FILE).read_text().strip(), "one", "rlrt_tiny")] * 2
    assert list((folder / "wandb").glob("offline-run-*"))
