"""How an evaluation asks."""

from typing import Any

import pytest

from rlrt.engine.engine import Sampling
from rlrt.evaluation.sampling import EvaluationSampling

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
    assert sampling.drawn == Sampling(38912, 0.6, 0.95)
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
def test_out_of_range(setting: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EvaluationSampling(**SOUND | {setting: value})
