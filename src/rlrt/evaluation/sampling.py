"""How an evaluation asks: samples, lengths in tokens, temperature, and whether the model thinks."""

from dataclasses import dataclass

from rlrt.engine.engine import Sampling


@dataclass(frozen=True)
class EvaluationSampling:
    """``samples`` responses to every problem. ``thinking`` null leaves the prompts as they are."""

    samples: int
    max_prompt_tokens: int
    max_response_tokens: int
    temperature: float
    top_p: float
    thinking: bool | None

    def __post_init__(self) -> None:
        for name in ("samples", "max_prompt_tokens", "max_response_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"sampling.{name} is {getattr(self, name)}, it must be at least 1")
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
