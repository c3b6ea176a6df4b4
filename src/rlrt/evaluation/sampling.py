"""How an evaluation asks: samples, lengths in tokens, temperature, and whether the model thinks."""

from dataclasses import dataclass

from pydantic import PositiveInt

from rlrt.engine.engine import Sampling
from rlrt.validation import validated


@validated("sampling")
@dataclass(frozen=True)
class EvaluationSampling:
    """``samples`` responses to every problem. ``thinking`` null leaves the prompts as they are."""

    samples: PositiveInt
    max_prompt_tokens: PositiveInt
    max_response_tokens: PositiveInt
    temperature: float
    top_p: float
    thinking: bool | None

    def __post_init__(self) -> None:
        _ = self.drawn  # refuses values out of range

    @property
    def drawn(self) -> Sampling:
        """What the engine is told."""
        return Sampling(self.max_response_tokens, self.temperature, self.top_p)

    def __str__(self) -> str:
        thinking = {True: ", thinking", False: ", without thinking", None: ""}[self.thinking]
        return (
            f"{self.samples} samples of up to {self.max_response_tokens} tokens, "
            f"temperature {self.temperature:g}, top-p {self.top_p:g}{thinking}"
        )
