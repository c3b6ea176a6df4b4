"""Which settings make a method, and by which name."""

from typing import Any

import pytest

from rlrt.analysis.methods import method_names, method_settings


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
