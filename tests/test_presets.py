"""The presets hold the study's values (arXiv:2605.10781, Table 5, §6.1, App. G)."""

import pytest

from rlrt.assembly.configuration import CONFIGS, compose

KINDS = {
    "qwen3_4b_base": "base",
    "qwen3_8b_base": "base",
    "qwen3_4b_instruct": "instruct",
    "qwen3_8b": "thinking",
}
RLRT_RADIUS = {"base": 1.0, "instruct": 0.5, "thinking": 0.2}
RLRT_DECAY = {"base": None, "instruct": 30, "thinking": 30}


@pytest.mark.parametrize(("model", "kind"), KINDS.items())
@pytest.mark.parametrize("credit", ["rlrt", "rlrt_all", "teacher_favoring"])
def test_peer_methods_follow_the_kind_of_backbone(model: str, kind: str, credit: str) -> None:
    config = compose([f"model={model}", f"credit={credit}"])
    assert config.model.kind == kind
    assert config.credit.mixing == 0.5
    assert config.credit.clip_radius == RLRT_RADIUS[kind]
    assert config.credit.mixing_decay_steps == RLRT_DECAY[kind]
    assert config.credit.standardize is True
    assert config.context._target_.endswith("CorrectPeer")


@pytest.mark.parametrize("model", KINDS)
def test_grpo_and_rlsd(model: str) -> None:
    grpo = compose([f"model={model}", "credit=grpo"])
    assert grpo.credit.standardize is False
    assert not grpo.context
    rlsd = compose([f"model={model}", "credit=rlsd"])
    assert rlsd.credit.standardize is True
    assert (rlsd.credit.mixing, rlsd.credit.clip_radius) == (0.5, 0.2)
    assert rlsd.credit.mixing_decay_steps == 50
    assert rlsd.context._target_.endswith("Answer")


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
    assert config.trainer.accelerator == "gpu"


def test_every_option_of_every_group_composes() -> None:
    groups = [folder for folder in CONFIGS.iterdir() if folder.is_dir()]
    options = [
        f"{group.name}={path.stem}" for group in groups for path in sorted(group.glob("*.yaml"))
    ]
    assert len(options) > 20
    for option in options:
        compose([option, *(["data.path=x"] if option == "data=jsonl" else [])])


def test_the_command_line_overrides_what_a_model_brings() -> None:
    config = compose(
        ["model=qwen3_4b_base", "data=gsm8k", "training=tiny", "context=peer_or_answer"]
    )
    assert config.data._target_.endswith("Gsm8kProblems")
    assert config.training.problems_per_step == 16
    assert config.context._target_.endswith("FirstOf")
