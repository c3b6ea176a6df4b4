"""What an evaluation takes where its command says nothing, and what must agree."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from rlrt.config.compose import CONFIGS, compose
from rlrt.config.stored_policies import StoredPolicy, find_policy
from rlrt.engine.engine import Sampling
from rlrt.errors import UserError
from rlrt.evaluation.arguments import parse
from rlrt.evaluation.plan import (
    EvaluationSampling,
    EvaluationSettings,
    compose_for,
    fit_responses,
    model_settings,
)

BASE = ["model=any", "benchmark=arithmetic"]
UNKNOWN = StoredPolicy("mine/model", "mine/model", None, None)


def preset(name: str) -> StoredPolicy:
    return StoredPolicy(name, str(compose([f"model={name}"]).model.path), None, None)


def of_a_run(*overrides: str) -> StoredPolicy:
    return StoredPolicy("runs/one", "somewhere", None, compose([*overrides, "engine=hf"]))


def settings(stored: StoredPolicy, *words: str) -> DictConfig:
    return compose_for(stored, model_settings(stored), parse([*BASE, *words]))


def taken(config: DictConfig) -> tuple[Any, ...]:
    """Temperature, top-p and responses' length; the thinking switch of both views."""
    sampling, prompts = config.sampling, config.prompts
    return (
        (sampling.temperature, sampling.top_p, sampling.max_response_tokens),
        (prompts.student_thinking, prompts.teacher_thinking),
    )


THINKING, NOT_THINKING, TINY = (0.6, 0.95, 38912), (0.7, 0.8, 38912), (1.0, 1.0, 80)


@pytest.mark.parametrize(
    ("stored", "words", "expected"),
    [
        (preset("tiny"), [], (TINY, (None, None))),
        (preset("qwen3_8b"), [], (THINKING, (True, True))),
        (preset("qwen3_8b"), ["sampling=no_thinking"], (NOT_THINKING, (False, False))),
        (preset("qwen3_8b"), ["prompts.student_thinking=false"], (NOT_THINKING, (False, True))),
        (preset("qwen3_8b_base"), [], (NOT_THINKING, (None, None))),
        (preset("qwen3_8b_base"), ["sampling=thinking"], (THINKING, (None, None))),
        (UNKNOWN, [], (NOT_THINKING, (False, False))),
        (UNKNOWN, ["sampling=thinking"], (THINKING, (True, True))),
        (UNKNOWN, ["prompts.student_thinking=null"], (NOT_THINKING, (None, None))),
        (of_a_run("model=tiny"), [], (TINY, (None, None))),
        (of_a_run("model=qwen3_8b"), [], (THINKING, (True, True))),
        (of_a_run("model=qwen3_8b", "prompts=thinking_teacher"), [], (NOT_THINKING, (False, True))),
    ],
)
def test_sampling_and_prompts_fit_the_policy(
    stored: StoredPolicy, words: list[str], expected: tuple[Any, ...]
) -> None:
    assert taken(settings(stored, *words)) == expected


def test_a_run_is_asked_by_its_own_prompts() -> None:
    run = of_a_run("model=tiny", "prompts.instruction=Box it.")
    assert settings(run).prompts.instruction == "Box it."
    named = settings(run, "prompts.student_thinking=true")
    assert (named.prompts.instruction, named.prompts.student_thinking) == ("Box it.", True)
    assert "step by step" in settings(run, "prompts=boxed").prompts.instruction


def test_an_evaluation_leaves_the_card_to_its_engine() -> None:
    evaluation = settings(preset("tiny"))
    assert (
        evaluation.engine.gpu_memory_utilization,
        compose([]).engine.gpu_memory_utilization,
    ) == (
        0.7,
        None,
    )
    named = settings(preset("tiny"), "engine.gpu_memory_utilization=0.5")
    assert named.engine.gpu_memory_utilization == 0.5
    assert "gpu_memory_utilization" not in settings(preset("tiny"), "engine=hf").engine


def test_prompts_and_sampling_must_agree() -> None:
    with pytest.raises(UserError, match=r"student_thinking is true and sampling.thinking is false"):
        settings(preset("qwen3_8b"), "sampling=no_thinking", "prompts.student_thinking=true")


def test_a_hub_name_or_a_folder_of_a_preset_is_that_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(CONFIGS).parent)
    tiny = model_settings(find_policy("models/tiny"))
    named = model_settings(find_policy("Qwen/Qwen3-8B"))
    assert tiny is not None
    assert named is not None
    assert (tiny.name, named.name) == ("tiny", "qwen3_8b")
    assert model_settings(UNKNOWN) is None


def test_responses_are_as_long_as_the_model_takes() -> None:
    words = parse(BASE)
    config = settings(preset("qwen3_4b_base"))
    fit_responses(config, 40960, words)
    assert config.sampling.max_response_tokens == 38912
    fit_responses(config, 32768, words)
    assert config.sampling.max_response_tokens == 30720
    with pytest.raises(UserError, match=r"= 32768 is more than the 2048 tokens that the model"):
        fit_responses(config, 2048, words)
    asked = [*BASE, "sampling.max_response_tokens=9000"]
    config = settings(preset("qwen3_4b_base"), asked[-1])
    with pytest.raises(UserError, match=r"= 11048 is more than the 8192 tokens"):
        fit_responses(config, 8192, parse(asked))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": -1}, r"seed is -1, it must lie in \[0, 4294967295\]"),
        ({"accelerator": "tpu"}, "accelerator is 'tpu', it must be one of auto, cpu, gpu"),
        ({"dtype": "float16"}, "dtype is 'float16', it must be one of auto, bfloat16, float32"),
        ({"max_problems": 0}, "max_problems is 0, it must be null or at least 1"),
    ],
)
def test_out_of_range(changed: dict[str, Any], said: str) -> None:
    sound = {"seed": 0, "accelerator": "auto", "dtype": "auto", "max_problems": None}
    with pytest.raises(ValueError, match=said):
        EvaluationSettings(**sound | changed)


SOUND: dict[str, Any] = {
    "samples": 16,
    "max_prompt_tokens": 2048,
    "max_response_tokens": 38912,
    "temperature": 0.6,
    "top_p": 0.95,
    "thinking": True,
}


def test_says_what_the_engine_is_told() -> None:
    sampling = EvaluationSampling(**SOUND)
    assert sampling.for_engine == Sampling(38912, 0.6, 0.95)
    assert str(sampling) == (
        "16 samples of up to 38912 tokens, temperature 0.6, top-p 0.95, thinking"
    )


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("samples", 0, "sampling.samples is 0, it must be at least 1"),
        ("max_prompt_tokens", 0, "sampling.max_prompt_tokens is 0"),
        ("max_response_tokens", -1, "sampling.max_response_tokens is -1"),
        ("temperature", -0.1, "temperature is -0.1"),
        ("top_p", 0.0, "top_p is 0.0"),
    ],
)
def test_sampling_out_of_range(setting: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EvaluationSampling(**SOUND | {setting: value})
