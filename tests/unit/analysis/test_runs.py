"""Run folders read back, and which of them are one method."""

from pathlib import Path
from typing import Any

import pytest

from rlrt.analysis.runs import (
    Run,
    group_runs,
    method_names,
    method_settings,
    read_run,
    read_runs,
)
from rlrt.errors import UserError


def config(**groups: Any) -> dict[str, Any]:
    return {"seed": 0, "credit": {"_target_": "rlrt.credit.rlrt.RLRT"}} | groups


def test_a_method_is_its_groups_without_the_seed() -> None:
    parts = [{"_target_": "rlrt.context.answer.Answer", "seed": 3}]
    context = {"_target_": "rlrt.context.context.FirstOf", "contexts": parts, "seed": 3}
    found = method_settings(config(context=context, teacher=None, aggregation={}, trainer={"a": 1}))
    assert found == {
        "credit._target_": "rlrt.credit.rlrt.RLRT",
        "context._target_": "rlrt.context.context.FirstOf",
        "context.contexts[0]._target_": "rlrt.context.answer.Answer",
    }


def test_names_spell_values_as_the_settings_do() -> None:
    parts = [{"kind": ["a", None]}, {"_target_": "rlrt.context.answer.Answer"}]
    loss = ({"dual_clip": None, "mask": True}, {"dual_clip": 3.0, "mask": False})
    configs = [config(loss=loss[0]), config(loss=loss[1], context={"contexts": parts})]
    assert method_names([method_settings(one) for one in configs]) == [
        "rlrt context.contexts[0].kind=null context.contexts[1]=null loss.dual_clip=null"
        " loss.mask=true",
        "rlrt context.contexts[0].kind=[a, null] context.contexts[1]=Answer loss.dual_clip=3.0"
        " loss.mask=false",
    ]


def test_equal_numbers_are_one_method_however_they_are_written() -> None:
    methods = [method_settings(config(loss={"clip": value})) for value in (1, 1.0, 2)]
    assert method_names(methods) == ["rlrt loss.clip=1", "rlrt loss.clip=1", "rlrt loss.clip=2"]


AROUND: dict[str, Any] = {
    "trainer": {"precision": "32-true", "devices": 1},
    "model": {"name": "tiny", "path": "models/tiny", "accelerator": "cpu"},
    "data": {"_target_": "rlrt.data.arithmetic.Arithmetic", "largest": 20, "seed": 0},
    "training": {
        "rollout_steps": 100,
        "problems_per_step": 16,
        "token_budget": 8192,
        "score_all": True,
        "optimization": {"learning_rate": 2e-4},
    },
    "evaluation": {"temperature": 1.0, "every_n_steps": 10},
    "prompts": {"instruction": "Reason."},
    "reward": {"extract": "boxed", "workers": 4},
    "engine": {"max_sequences": 256},
}


def changed(name: str, value: Any) -> dict[str, Any]:
    """The settings with one of them changed."""
    *groups, last = name.split(".")
    found: dict[str, Any] = config(**AROUND)
    inner = found
    for group in groups:
        inner[group] = dict(inner[group])
        inner = inner[group]
    inner[last] = value
    return found


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("model.name", "qwen3_8b", "model.name=qwen3_8b"),
        ("model.path", "models/other", "model.path=models/other"),
        ("data.largest", 30, "data.largest=30"),
        ("data._target_", "rlrt.data.gsm8k.GSM8K", "data=GSM8K"),
        ("training.problems_per_step", 32, "training.problems_per_step=32"),
        (
            "training.optimization.learning_rate",
            1e-6,
            "training.optimization.learning_rate=1e-06",
        ),
        ("prompts.instruction", "Guess.", "prompts.instruction=Guess."),
        ("reward.extract", "answer_line", "reward.extract=answer_line"),
        ("evaluation.temperature", 0.6, "evaluation.temperature=0.6"),
        ("trainer.precision", "bf16-mixed", "trainer.precision=bf16-mixed"),
    ],
)
def test_runs_of_other_surroundings_are_no_seeds_of_one_method(
    name: str, value: Any, told: str
) -> None:
    methods = [method_settings(one) for one in (config(**AROUND), changed(name, value))]
    first, second = method_names(methods)
    assert second == f"rlrt {told}"
    assert first.startswith(f"rlrt {told.partition('=')[0]}=")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("data.seed", 1),
        ("training.rollout_steps", 200),
        ("training.token_budget", 4096),
        ("training.score_all", False),
        ("reward.workers", 1),
        ("evaluation.every_n_steps", 5),
        ("model.accelerator", "cuda"),
        ("trainer.devices", 2),
        ("engine.max_sequences", 16),
    ],
)
def test_what_changes_no_numbers_makes_no_other_method(name: str, value: Any) -> None:
    methods = [method_settings(one) for one in (config(**AROUND), changed(name, value))]
    assert methods[0] == methods[1]
    assert method_names(methods) == ["rlrt", "rlrt"]


def test_names_draw_on_as_few_surroundings_as_tell_them_apart() -> None:
    other = {
        group: {key: f"{value}9" for key, value in AROUND[group].items()}
        for group in ("model", "data", "training", "reward")
    }
    grpo = {"credit": {"_target_": "rlrt.credit.grpo.GRPO"}}
    configs = [config(**AROUND), config(**AROUND, **grpo), config(**AROUND | other)]
    assert method_names([method_settings(one) for one in configs]) == [
        "rlrt model.name=tiny",
        "grpo model.name=tiny",  # or else a reader compares it with the other model's
        "rlrt model.name=tiny9",
    ]
    assert method_names([method_settings(one) for one in configs[:2]]) == ["rlrt", "grpo"]


def test_long_values_are_cut_where_they_still_differ() -> None:
    start = "/somewhere/in/a/folder/of/many/models"
    paths = [f"{start}/first", f"{start}/second"]
    methods = [method_settings(changed("model.path", path)) for path in paths]
    assert method_names(methods)[1] == f"rlrt model.path=…{paths[1][-31:]}"
    texts = [f"{word} and put your final answer within a box." for word in ("Reason", "Guess")]
    methods = [method_settings(changed("prompts.instruction", text)) for text in texts]
    assert method_names(methods)[1] == f"rlrt prompts.instruction={texts[1][:31]}…"


def test_classes_of_one_name_are_two_methods() -> None:
    targets = ["rlrt.credit.rlrt.RLRT", "mine.rlrt.RLRT"]
    methods = [method_settings(config(credit={"_target_": target})) for target in targets]
    assert method_names(methods) == ["rlrt (1)", "rlrt (2)"]


def test_null_is_as_good_as_absent() -> None:
    loss = ({"clip": 0.2}, {"clip": 0.2, "dual_clip": None})
    methods = [method_settings(config(loss=one)) for one in loss]
    assert method_names(methods) == ["rlrt", "rlrt"]
    assert methods[0] == methods[1]


def run(seed: int, mixing: float, credit: str = "rlrt.RLRT") -> Run:
    method = {"credit._target_": f"rlrt.credit.{credit}", "credit.mixing": mixing}
    return Run(Path(f"{credit}{mixing}/{seed}"), seed, method, [], [])


def test_methods_of_one_class_are_told_apart_by_their_settings() -> None:
    methods = group_runs([run(0, 0.5), run(0, 0.5, "grpo.GRPO"), run(1, 0.5), run(0, 1.0)])
    assert {name: len(runs) for name, runs in methods.items()} == {
        "rlrt credit.mixing=0.5": 2,
        "grpo": 1,
        "rlrt credit.mixing=1.0": 1,
    }


def test_a_seed_counts_once() -> None:
    with pytest.raises(UserError, match="two runs of rlrt have the same seed"):
        group_runs([run(0, 0.5), run(0, 0.5)])


TABLES = {"metrics.csv": "step,a\n0,1\n1,2\n", "evaluation.csv": "step,avg@2\n0,0.1\n2,0.2\n"}
CONFIG = "seed: 1\ncredit: {_target_: rlrt.credit.rlrt.RLRT}\n"


def written(folder: Path, **files: str) -> Path:
    for name, text in ({"config.yaml": CONFIG} | TABLES | files).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_whole_run_is_read(tmp_path: Path) -> None:
    found = read_run(written(tmp_path))
    assert (found.seed, len(found.metrics), found.evaluations[-1]["avg@2"]) == (1, 2, 0.2)


def test_a_run_that_names_constructors_where_they_once_were_is_of_the_same_method(
    tmp_path: Path,
) -> None:
    runs = []
    for seed, module in enumerate(("rlrt.assembly.settings", "rlrt.config.schema")):
        folder = tmp_path / str(seed)
        folder.mkdir()
        text = CONFIG.replace("seed: 1", f"seed: {seed}")
        config = f"{text}training: {{_target_: {module}.Training, temperature: 1.0}}\n"
        runs.append(read_run(written(folder, **{"config.yaml": config})))
    assert list(group_runs(runs)) == ["rlrt"]
    assert [run.name for run in read_runs([run.folder for run in runs])] == [
        "rlrt, seed 0",
        "rlrt, seed 1",
    ]


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("config.yaml", "seed: 0\ncredit: {}", "no settings of a run with credit._target_"),
        ("config.yaml", "seed: 0\ncredit: null", "no settings of a run with credit._target_"),
        ("config.yaml", "seed: 0\ncredit: 5", "no settings of a run with credit._target_"),
        ("config.yaml", "seed: 0\ncredit: {_target_: RLRT}", "no settings of a run with credit"),
        ("config.yaml", "seed: 0\ncredit: {_target_: [a.b]}", "no settings of a run with credit"),
        ("config.yaml", "seed: x\ncredit: {_target_: a.B}", "seed is 'x', no whole number"),
        ("config.yaml", "credit: {_target_: a.B}", "seed is None, no whole number"),
        ("config.yaml", f"{CONFIG}a: &x [*x]", r"config.yaml is damaged \(RecursionError\)"),
        ("metrics.csv", "step\n" + "1" * 200_000, r"metrics.csv is not a table .* \(field larger"),
        ("metrics.csv", "step,a\n0,1\nnan,1", "metrics.csv is damaged: .* row of step nan"),
        ("evaluation.csv", "step,a\n0,1\ninf,1", "evaluation.csv is damaged: .* row of step inf"),
        ("evaluation.csv", "step,a\n0,1\n1.5,1", "row of step 1.5"),
        ("metrics.csv", "step,a\n-1,1", "row of step -1"),
    ],
)
def test_a_damaged_run_is_one_sentence(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        read_run(written(tmp_path, **{file: text}))
    assert "\n" not in str(caught.value)
