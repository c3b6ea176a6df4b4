"""Whole runs, tiny: what a run folder holds, checked against independent recomputation."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from tests import processes
from tests.paths import ROOT
from tests.runs import FEW_PROBLEMS, make_once
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rlrt.config.assembly import build_run
from rlrt.config.compose import compose
from rlrt.data.prompts import BOXED_INSTRUCTION
from rlrt.engine.engine import EngineSpec
from rlrt.engine.hf_engine import HFEngine

TINY = ROOT / "models" / "tiny"
STEPS = 3
SIZES = [
    "model=tiny",
    "logger=none",
    "reward.workers=1",
    "evaluation.max_problems=4",
    "evaluation.samples=2",
    "evaluation.pass_at=[1,2]",
    "training.problems_per_step=4",
    "training.problems_per_update=2",
    "training.rollouts_per_problem=4",
    "training.max_response_tokens=64",
]
COLUMNS = {  # of metrics.csv, that users rely on
    "step",
    "reward/mean",
    "credit/multiplier_mean",
    "sync/proven_tensors",
    "sync/logprob_gap",
    "loss/surrogate",
    "time/rollout_s",
    "time/update_s",
    "rollout/tokens_per_s",
}
Record = dict[str, Any]


def run_here(folder: Path, *settings: str) -> Path:
    """A run in this process, from composed configuration to export."""
    run = build_run(compose([*SIZES, FEW_PROBLEMS, *settings]), folder, 0)
    run.fit_and_finish(None)
    return folder


def run_entry(folder: Path, *settings: str) -> tuple[Path, str]:
    """A run as a user starts it; returns its folder and what it printed."""
    words = (f"hydra.run.dir={folder}", *SIZES, *settings)
    return folder, processes.run_entry(folder.with_suffix(".log"), "src/rlrt/train.py", *words)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def records(folder: Path, step: int) -> list[Record]:
    rows: list[Record] = pq.read_table(folder / "rollouts" / f"step={step:06d}.parquet").to_pylist()
    return rows


def members(rows: list[Record], row: Record) -> list[Record]:
    return [other for other in rows if other["group"] == row["group"]]


def peer_of(rows: list[Record], row: Record) -> Record | None:
    """The first correct other rollout of the same group."""
    return next(
        (other for other in members(rows, row) if other["reward"] == 1 and other is not row), None
    )


def is_mixed(rows: list[Record], row: Record) -> bool:
    """Whether its group shows a signal: nothing is read of the others."""
    return len({other["reward"] for other in members(rows, row)}) == 2


def reads_teacher(rows: list[Record], row: Record) -> bool:
    """What RLRT asks for: a correct rollout, a correct peer, and a group of mixed rewards."""
    return is_mixed(rows, row) and row["reward"] == 1 and peer_of(rows, row) is not None


@torch.no_grad()
def plain_logprobs(model: PreTrainedModel, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Log-probs of a response by one plain forward pass."""
    logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0]
    behind = torch.log_softmax(logits.double(), -1)[len(prompt) - 1 : -1]
    return behind[torch.arange(len(response)), torch.tensor(response)]


@dataclass(frozen=True)
class Finished:
    folder: Path
    rows: list[list[Record]]  # the records of every step


@pytest.fixture(
    scope="module",
    params=[pytest.param("vllm", marks=pytest.mark.vllm), "hf"],
)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of credit=rlrt over three steps with either engine."""
    settings = [f"engine={request.param}", "credit=rlrt", f"trainer.max_epochs={STEPS}"]

    def make(folder: Path) -> None:
        if request.param == "vllm":
            run_entry(folder, FEW_PROBLEMS, *settings)
        else:
            run_here(folder, *settings)

    folder = make_once(tmp_path_factory, f"finished/{request.param}", make)
    return Finished(folder, [records(folder, step) for step in range(STEPS)])


@pytest.fixture(scope="module")
def start() -> PreTrainedModel:
    """The weights of step 0, loaded by transformers alone."""
    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)


def test_metrics_have_one_row_per_step_and_engine_and_trainer_agree(finished: Finished) -> None:
    rows = table(finished.folder / "metrics.csv")
    assert [row["step"] for row in rows] == [str(step) for step in range(STEPS)]
    assert rows[0].keys() >= COLUMNS
    assert all(row[column] != "" for row in rows for column in COLUMNS)
    assert all(0 < float(row["sync/logprob_gap"]) <= 1e-4 for row in rows)
    for row, recorded in zip(rows, finished.rows, strict=True):
        rewards = [record["reward"] for record in recorded]
        tokens = sum(len(record["response_ids"]) for record in recorded)
        assert float(row["reward/mean"]) == pytest.approx(sum(rewards) / 16)
        assert float(row["rollout/tokens"]) == tokens
        per_second = tokens / float(row["time/rollout_s"])
        assert float(row["rollout/tokens_per_s"]) == pytest.approx(per_second)
        stages = [float(row[f"time/{s}_s"]) for s in ("sync", "rollout", "score", "update")]
        assert 0 < sum(stages) < float(row["time/step_s"])
        assert 0 < float(row["update/mfu"]) < 1
        assert 0 < float(row["score/mfu"]) < 1
        ratios = [c / r["advantage"] for r in recorded if r["advantage"] for c in r["credit"]]
        multiplier = sum(ratios) / len(ratios)
        assert float(row["credit/multiplier_mean"]) == pytest.approx(multiplier, abs=1e-5)
        mixed = sum(len({r["reward"] for r in recorded[g * 4 : g * 4 + 4]}) > 1 for g in range(4))
        assert float(row["rollout/zero_signal_groups"]) == pytest.approx(1 - mixed / 4)


def test_evaluation_before_the_first_step_and_after_the_last(finished: Finished) -> None:
    rows = table(finished.folder / "evaluation.csv")
    assert [row["step"] for row in rows] == ["0", str(STEPS)]
    for row in rows:
        assert row["problems"] == "4"
        assert 0 <= float(row["avg@2"]) == float(row["pass@1"]) <= float(row["pass@2"]) <= 1


def test_config_is_resolved_and_says_what_ran(finished: Finished) -> None:
    text = (finished.folder / "config.yaml").read_text()
    assert "${" not in text
    config = OmegaConf.create(text)
    assert config.credit._target_ == "rlrt.credit.rlrt.RLRT"
    assert config.credit.clip_radius == 1.0
    assert config.trainer.max_epochs == STEPS


def test_records_of_every_rollout_and_token(finished: Finished) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    for step, rows in enumerate(finished.rows):
        places = [(row["step"], row["group"], row["sample"]) for row in rows]
        assert places == [(step, group, sample) for group in range(4) for sample in range(4)]
        for row in rows:
            assert len({other["problem_id"] for other in members(rows, row)}) == 1
            assert (row["verdict"] == "right") == (row["reward"] == 1)
            ids = row["response_ids"]
            assert row["response"] == tokenizer.decode(ids, skip_special_tokens=True)
            names = ["engine_logprobs", "credit"]
            names += ["student_logprobs", "student_entropy"] if is_mixed(rows, row) else []
            names += ["teacher_logprobs"] if row["teacher_logprobs"] is not None else []
            assert {len(row[name]) for name in names} == {len(ids)}
            assert all(value <= 0 for value in row["engine_logprobs"])
            assert (row["student_logprobs"] is not None) == is_mixed(rows, row)
            assert (row["student_entropy"] is not None) == is_mixed(rows, row)
            if is_mixed(rows, row):
                assert row["student_logprobs"] == pytest.approx(row["engine_logprobs"], abs=1e-4)


def test_the_teacher_is_scored_where_its_log_probs_are_read(finished: Finished) -> None:
    everything = [(rows, row) for rows in finished.rows for row in rows]
    for rows, row in everything:
        assert (row["teacher_logprobs"] is not None) == reads_teacher(rows, row)
    assert any(row["teacher_logprobs"] is not None for _, row in everything), "an idle test"


def test_credit_is_rlrt_by_hand(finished: Finished) -> None:
    """arXiv:2605.10781, eq. 7, token by token in plain Python; the base model's settings."""
    for rows in finished.rows:
        for row in rows:
            rewards = torch.tensor([other["reward"] for other in members(rows, row)]).double()
            advantage = float((row["reward"] - rewards.mean()) / (rewards.std() + 1e-6))
            assert row["advantage"] == pytest.approx(advantage, abs=1e-5)
            expected = [advantage] * len(row["response_ids"])
            if reads_teacher(rows, row):
                pairs = zip(row["student_logprobs"], row["teacher_logprobs"], strict=True)
                ratios = [torch.tensor(student - teacher).exp() for student, teacher in pairs]
                weights = [min(max(float(ratio), 0.0), 2.0) for ratio in ratios]  # clip_radius 1
                expected = [advantage * (0.5 + 0.5 * weight) for weight in weights]  # mixing 0.5
            assert row["credit"] == pytest.approx(expected, abs=1e-5)


def test_both_views_are_what_transformers_computes(
    finished: Finished, start: PreTrainedModel
) -> None:
    """Step 0 given plain and peer prompts written out as text, one response at a time."""
    tokenizer, rows = AutoTokenizer.from_pretrained(TINY), finished.rows[0]

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    for row in rows:
        prompt, response = row["prompt"], row["response_ids"]
        student = plain_logprobs(start, ids(prompt), response)
        if row["student_logprobs"] is not None:
            assert row["student_logprobs"] == pytest.approx(student.tolist(), abs=1e-4)
        if row["teacher_logprobs"] is None:
            continue
        peer = peer_of(rows, row)
        assert peer is not None
        assert prompt.count(BOXED_INSTRUCTION) == 1
        shown = (
            f"{BOXED_INSTRUCTION}\nCorrect solution:\n\n{peer['response']}"
            "\n\nCorrectly solve the original question."
        )
        behind_peer = ids(prompt.replace(BOXED_INSTRUCTION, shown))
        teacher = plain_logprobs(start, behind_peer, response)
        assert row["teacher_logprobs"] == pytest.approx(teacher.tolist(), abs=1e-4)
        assert (teacher - student).abs().max() > 1e-2, "both views are the same"


def test_the_export_holds_the_trained_weights(finished: Finished, start: PreTrainedModel) -> None:
    exported = AutoModelForCausalLM.from_pretrained(finished.folder / "export", dtype="auto")
    assert exported.dtype == torch.float32
    saved = torch.load(finished.folder / "checkpoints" / "last.ckpt", weights_only=True)
    first = dict(start.named_parameters())
    for name, weights in exported.named_parameters():
        assert torch.equal(weights, saved["state_dict"][f"policy.{name}"])
        assert not torch.equal(weights, first[name])


VLLM = """
import json, sys
from vllm import LLM, SamplingParams, TokensPrompt
llm = LLM(sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=256)
options = SamplingParams(max_tokens=40, temperature=1.0, seed=1, logprobs=0, detokenize=False)
prompts = [TokensPrompt(prompt_token_ids=ids) for ids in json.loads(sys.argv[2])]
outputs = [output.outputs[0] for output in llm.generate(prompts, options, use_tqdm=False)]
found = [
    {"ids": list(o.token_ids), "logprobs": [s[t].logprob for s, t in zip(o.logprobs, o.token_ids)]}
    for o in outputs
]
print("\\n" + json.dumps(found))
"""


@pytest.mark.vllm
@pytest.mark.parametrize("finished", ["hf"], indirect=True)
def test_vllm_samples_from_the_export(finished: Finished, tmp_path: Path) -> None:
    """Loaded from disk by a plain vLLM, with the log-probs of the trained policy."""
    folder = finished.folder / "export"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = {row["prompt"] for row in finished.rows[0]}
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    switches = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    program = tmp_path / "sample.py"
    program.write_text(VLLM)
    words = (str(folder), json.dumps(prompts))
    printed = processes.run_entry(tmp_path / "log", str(program), *words, **switches)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = json.loads(next(line for line in printed.splitlines() if line.startswith("[{")))
    assert len(found) == len(prompts)
    for prompt, response in zip(prompts, found, strict=True):
        expected = plain_logprobs(policy, prompt, response["ids"])
        assert response["logprobs"] == pytest.approx(expected.tolist(), abs=1e-4)


def test_dapo_math_17k_through_the_entry(shared: Path, tmp_path: Path) -> None:
    """Rows kept, and dropped and why, are printed; together they are all rows of the file."""
    path = shared / "data" / "dapo_math_17k.jsonl"
    if not path.is_file():
        pytest.skip("no DAPO-Math-17k in ../shared/data")
    settings = ["data=dapo_math_17k", f"data.path={path}", "engine=hf", "trainer.max_epochs=2"]
    folder, printed = run_entry(tmp_path / "run", *settings, "training.max_response_tokens=16")
    assert len(table(folder / "metrics.csv")) == 2
    assert len(records(folder, 1)) == 16

    line = next(line for line in printed.splitlines() if line.startswith("train problems: "))
    kept, dropped = line.removeprefix("train problems: ").split(" kept; dropped: ")
    reasons = dict(reversed(part.split(" ", 1)) for part in dropped.split(", "))
    assert reasons.keys() >= {"overlap", "duplicate", "held out", "prompt over 128 tokens"}
    with path.open("rb") as file:
        rows = sum(1 for line in file if line.strip())
    assert int(kept) > 1000
    assert int(kept) + sum(map(int, reasons.values())) == rows


class Witness(HFEngine):
    """Knows how many parameters the optimizer had moments of when it was started."""

    def __init__(self, trainer: L.Trainer) -> None:
        super().__init__()
        self.trainer = trainer
        self.moments: list[int] = []  # of each start

    def start(self, policy: PreTrainedModel, spec: EngineSpec) -> None:
        super().start(policy, spec)
        self.moments.append(len(self.trainer.optimizers[0].state))


def test_the_engine_starts_once_the_optimizer_is_restored(tmp_path: Path) -> None:
    """The room that restoring takes is the engine's afterwards; also where no step is left to make."""
    checkpoint, started = None, []
    for first, last in ((0, 1), (1, 2), (2, 2)):
        settings = [*SIZES, FEW_PROBLEMS, "engine=hf", f"trainer.max_epochs={last}"]
        run = build_run(compose(settings), tmp_path, first)
        witness = run.rollouts.engine = run.rollouts.sampler.engine = Witness(run.trainer)
        run.fit_and_finish(checkpoint)
        checkpoint = tmp_path / f"checkpoints/step-{last:06d}.ckpt"
        started.append(witness.moments)
    parameters = len(list(run.module.policy.parameters()))
    assert started == [[0], [parameters], [parameters]]
