"""The presets hold the study's values (arXiv:2605.10781, Table 5, §6.1, App. G)."""

from itertools import zip_longest
from typing import Any

import pytest
from omegaconf import DictConfig

from rlrt.config.components import build_components
from rlrt.config.compose import CONFIGS, compose

KINDS = {
    "qwen3_4b_base": "base",
    "qwen3_8b_base": "base",
    "qwen3_4b_instruct": "instruct",
    "qwen3_8b": "thinking",
}
RLRT_RADIUS = {"base": 1.0, "instruct": 0.5, "thinking": 0.2}
RLRT_DECAY = {"base": None, "instruct": 30, "thinking": 30}

STUDIED = "grpo sdpo srpo rlsd rlrt"
# presets are named <row or figure>_<method>: the backbone and the methods of each
SETS = {
    "table1_4b_base": ("qwen3_4b_base", "grpo rlsd rlrt"),
    "table1_8b_base": ("qwen3_8b_base", "grpo rlsd rlrt"),
    "table1_8b": ("qwen3_8b", STUDIED),
    "table3_4b_base": ("qwen3_4b_base", "grpo grpo_entropy diver rlrt"),
    "table3_4b_instruct": ("qwen3_4b_instruct", STUDIED),
    "figure1a": ("qwen3_4b_base", "grpo teacher_favoring rlrt"),
    "figure5": ("qwen3_4b_base", STUDIED),
    "figure8": ("qwen3_4b_base", "grpo rlsd rlrt"),
    "figure9": ("qwen3_8b", STUDIED),
    "figure11": ("qwen3_4b_base", "grpo rlrt rlrt_all"),
    "ablation": ("qwen3_4b_base", "rlrt_all"),
    "beyond": ("qwen3_4b_base", "outcome_routed rlrt_gated rlrt_graded"),
}
OF_A_SET = {
    f"{name}_{method}": (model, method)
    for name, (model, methods) in SETS.items()
    for method in methods.split()
}
SWEPT = {
    f"ablation_{method}_{setting}_{value}": (model, method, setting, value)
    for model, method, setting, values in (
        ("qwen3_4b_base", "rlsd", "clip_radius", (0.2, 0.5, 1.0)),
        ("qwen3_4b_base", "rlrt", "clip_radius", (0.2, 0.5, 1.0)),
        ("qwen3_8b", "srpo", "beta", (0.0, 0.5, 1.0)),
    )
    for value in values
}
OF_THE_FIELD = ("opsd", "dr_grpo", "dapo", "gspo", "cispo")
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


def settings_of(method: str, kind: str) -> dict[str, Any]:
    """What the sources state of a method on a kind of backbone."""
    reversed_teacher: dict[str, Any] = {
        "learning_rate": 1e-6,
        "context": "CorrectPeer",
        "teacher": "Live",
        "standardize": True,
        "mixing": 0.5,
        "clip_radius": RLRT_RADIUS[kind],
        "mixing_decay_steps": RLRT_DECAY[kind],
    }
    radius = {"clip_radius": 0.2, "mixing_decay_steps": 50}
    distilled = {"context": "CorrectPeer", "teacher": "Frozen", "alpha": 0.5, "top_k": 100}
    plain = {"learning_rate": 1e-6, "context": None, "teacher": "Live"}
    others: dict[str, dict[str, Any]] = {
        "grpo": {**plain, "standardize": False},
        "grpo_entropy": {**plain, "standardize": False, "entropy_weight": 0.4, "cap": 2.0},
        "diver": {**plain, "standardize": True, "weight": 0.1, "until_step": 100},
        "rlsd": {**reversed_teacher, **radius, "context": "Answer"},
        "sdpo": {**distilled, "learning_rate": 1e-5},
        "srpo": {**distilled, "learning_rate": 5e-6, "beta": 1.0, "standardize": False},
    }
    return others.get(method, reversed_teacher)


def assert_settings(config: DictConfig, method: str, expected: dict[str, Any]) -> None:
    assert config.credit._target_.startswith(f"rlrt.credit.{method}.")
    optimization = config.training.optimization
    found = {"learning_rate": optimization.learning_rate, **config.credit}
    for part in ("context", "teacher"):
        found[part] = config[part]._target_.rpartition(".")[2] if config[part] else None
    assert {name: found[name] for name in expected} == expected


def composed(name: str, *settings: str) -> DictConfig:
    """A preset whose parts can be built, here where there is no GPU."""
    config = compose([f"experiment={name}", "trainer.accelerator=cpu", *settings])
    build_components(config)
    return config


@pytest.mark.parametrize("name", OF_A_SET)
def test_rows_and_curves_hold_the_settings_of_their_method(name: str) -> None:
    model, method = OF_A_SET[name]
    config = composed(name)
    assert config.model.name == model
    assert_settings(config, method, settings_of(method, KINDS[model]))


@pytest.mark.parametrize("name", SWEPT)
def test_a_swept_value_is_all_that_differs(name: str) -> None:
    model, method, setting, value = SWEPT[name]
    config = composed(name)
    assert config.model.name == model
    assert_settings(config, method, {**settings_of(method, KINDS[model]), setting: value})


@pytest.mark.parametrize("setting", ["rlsd_clip_radius", "srpo_beta"])
def test_a_swept_value_can_be_set_by_hand(setting: str) -> None:
    method, _, name = setting.partition("_")
    value = {"clip_radius": 0.2, "beta": 0.5}[name]
    config = compose([f"experiment=ablation_{setting}_{value}", f"credit.{name}=0.25"])
    assert config.credit._target_.startswith(f"rlrt.credit.{method}.")
    assert config.credit[name] == 0.25


def test_every_preset_is_named_after_what_it_reproduces() -> None:
    assert set(EXPERIMENTS) == {*OF_A_SET, *SWEPT, *OF_THE_FIELD}


@pytest.mark.parametrize("name", OF_THE_FIELD)
def test_the_parts_of_a_preset_of_the_field_can_be_built(name: str) -> None:
    composed(name)


# a preset of each method, each set and each kind of backbone, and all of the field
SHRUNK = {method: name for name, (_, method) in OF_A_SET.items()}
SHRUNK |= {name: f"{name}_{methods.split()[0]}" for name, (_, methods) in SETS.items()}


@pytest.mark.parametrize("name", sorted({*SHRUNK.values(), *OF_THE_FIELD}))
def test_a_preset_can_be_shrunk_to_the_tiny_policy(name: str) -> None:
    composed(name, "model=tiny")


def test_every_method_has_a_preset() -> None:
    methods = {path.stem for path in (CONFIGS / "credit").glob("*.yaml")}
    assert methods == {"opsd", *(method for _, method in OF_A_SET.values())}


@pytest.mark.parametrize("model", KINDS)
def test_a_method_brings_the_learning_rate_that_it_was_studied_with(model: str) -> None:
    for method, rate in (("sdpo", 1e-5), ("srpo", 5e-6), ("rlrt", 1e-6), ("opsd", 1e-6)):
        config = compose([f"model={model}", f"credit={method}"])
        assert config.training.optimization.learning_rate == rate
    setting = "training.optimization.learning_rate"
    chosen = compose([f"model={model}", "credit=sdpo", f"{setting}=3e-6"])
    assert chosen.training.optimization.learning_rate == 3e-6
    assert compose(["credit=sdpo"]).training.optimization.learning_rate == 2e-4  # of tiny


def test_the_learning_rate_of_a_method_from_elsewhere() -> None:
    config = compose(["model=qwen3_8b", "credit=grpo", "credit._target_=mine.sdpo_like.Mine"])
    assert config.training.optimization.learning_rate == 1e-6


def test_pass_at_k_up_to_256_comes_from_256_samples() -> None:
    evaluation = compose(["experiment=figure8_rlrt"]).evaluation
    assert evaluation.samples == 256
    assert list(evaluation.pass_at) == [2**power for power in range(9)]


def test_variants_of_the_field() -> None:
    dr_grpo, dapo, gspo, cispo = (compose([f"experiment={n}"]) for n in OF_THE_FIELD[1:])
    for config in (dr_grpo, dapo, gspo, cispo):
        assert config.model.name == "qwen3_4b_base"
        assert config.credit._target_.endswith("GRPO")
    assert [c.credit.standardize for c in (dr_grpo, dapo, gspo, cispo)] == [False, True, True, True]
    assert dr_grpo.aggregation.constant_length == dr_grpo.training.max_response_tokens
    assert dapo.training.resample_rounds > 0
    assert dapo.training.overlong_buffer == 4096
    assert (dapo.loss.clip_high, dapo.aggregation.kind) == (0.28, "token_mean")
    assert gspo.loss._target_.endswith("GSPO")
    assert gspo.aggregation.kind == "sequence_mean"
    assert cispo.loss._target_.endswith("CISPO")
    assert compose(["experiment=dapo", "model=tiny"]).training.overlong_buffer == 16  # of 80
    opsd = compose(["experiment=opsd"])
    assert opsd.context._target_.endswith("Answer")
    assert opsd.teacher._target_.endswith("Frozen")
    assert (opsd.prompts.student_thinking, opsd.prompts.teacher_thinking) == (False, True)


def test_a_noisy_reward_is_known_to_the_method_that_expects_it() -> None:
    config = compose(["experiment=beyond_rlrt_graded"])
    assert config.reward.flip_probability == config.credit.flip_probability == 0.1


@pytest.mark.parametrize(("model", "kind"), KINDS.items())
@pytest.mark.parametrize("credit", ["rlrt_all", "teacher_favoring"])
def test_peer_methods_follow_the_kind_of_backbone(model: str, kind: str, credit: str) -> None:
    config = compose([f"model={model}", f"credit={credit}"])
    assert config.model.kind == kind
    assert config.credit.mixing == 0.5
    assert config.credit.clip_radius == RLRT_RADIUS[kind]
    assert config.credit.mixing_decay_steps == RLRT_DECAY[kind]
    assert config.credit.standardize is True
    assert config.context._target_.endswith("CorrectPeer")


@pytest.mark.parametrize("model", KINDS)
def test_the_scale_of_the_study(model: str) -> None:
    config = compose([f"model={model}", "credit=rlrt"])
    training = config.training
    assert config.data._target_.endswith("DapoProblems")
    assert config.engine._target_.endswith("VLLMEngine")
    assert (training.max_prompt_tokens, training.max_response_tokens) == (2048, 20480)
    assert (training.problems_per_step, training.problems_per_update) == (256, 128)
    assert training.rollouts_per_problem == 8
    assert training.temperature == 1.0
    optimization = training.optimization
    assert optimization.learning_rate == 1e-6
    assert optimization.weight_decay == 0.01
    assert list(optimization.betas) == [0.9, 0.999]
    assert optimization.warmup_steps == 10
    assert optimization.max_grad_norm == 1.0
    assert (config.loss.clip_low, config.loss.clip_high) == (0.2, 0.28)
    assert (config.loss.dual_clip, config.loss.rollout_correction_limit) == (3.0, 2.0)
    assert config.aggregation.kind == "token_mean"
    assert config.trainer.max_epochs == 100
    assert config.checkpoint.every_n_steps == config.evaluation.every_n_steps == 10
    assert config.trainer.accelerator == "gpu"


def test_every_option_of_every_group_composes() -> None:
    groups = [folder for folder in CONFIGS.iterdir() if folder.is_dir()]
    groups.remove(CONFIGS / "experiment")  # above
    groups.remove(CONFIGS / "benchmark")  # read by name: tests/unit/data/test_benchmarks.py
    groups.remove(CONFIGS / "sampling")  # of eval.py
    options = [
        [f"{group.name}={path.stem}" for path in sorted(group.glob("*.yaml"))] for group in groups
    ]
    assert sum(map(len, options)) > 20
    for together in zip_longest(*options):  # one of each group as long as it has another
        chosen = [option for option in together if option]
        compose([*chosen, *(["data.path=x"] if "data=jsonl" in chosen else [])])
    for path in sorted((CONFIGS / "sampling").glob("*.yaml")):
        assert compose([f"sampling={path.stem}"], "eval").sampling.samples >= 1


def test_the_command_line_overrides_what_a_model_brings() -> None:
    config = compose(
        ["model=qwen3_4b_base", "data=gsm8k", "training=tiny", "context=peer_or_answer"]
    )
    assert config.data._target_.endswith("Gsm8kProblems")
    assert config.training.problems_per_step == 16
    assert config.context._target_.endswith("FirstOf")
