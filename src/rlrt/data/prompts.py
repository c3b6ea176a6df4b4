"""The prompts of both views, as token ids through the tokenizer's own chat template."""

from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class TeacherPrompt:
    """Token ids of a teacher view's prompt, and whether its demonstration had to be shortened."""

    ids: tuple[int, ...]
    shortened: bool


class Prompts:
    """Writes prompts for one tokenizer.

    ``instruction`` follows the question on a line of its own; ``enable_thinking`` goes to the chat
    template, the same for both views; null leaves the template's default.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        instruction: str = BOXED_INSTRUCTION,
        enable_thinking: bool | None = None,
    ) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; "
                "choose a model whose tokenizer has one"
            )
        self.tokenizer = tokenizer
        self.instruction = instruction
        self.enable_thinking = enable_thinking
        try:
            self.student_ids("trial")
        except TemplateError as error:
            raise ValueError(
                f"the chat template of {tokenizer.name_or_path} cannot be used: {error}"
            ) from error

    def student_ids(self, question: str) -> tuple[int, ...]:
        """The plain prompt: the question and the instruction."""
        return self._encode(f"{question}\n{self.instruction}")

    def teacher_ids(
        self, question: str, template: str, demonstration: str, max_tokens: int
    ) -> TeacherPrompt | None:
        """The prompt that also holds a demonstration, at most ``max_tokens`` long.

        Where it would be longer the demonstration loses tokens from its start, since its end holds
        the answer; the question is never cut. None where not even an empty demonstration fits.
        """
        text, shortened = demonstration, False
        while len(ids := self._fill(question, template, text)) > max_tokens:
            if not text:
                return None
            shortened = True
            text = self._drop_start(text, len(ids) - max_tokens)
        return TeacherPrompt(ids, shortened)

    def _drop_start(self, text: str, tokens: int) -> str:
        """``text`` without at least its first ``tokens`` tokens; always shorter than before."""
        kept = self.tokenizer(text, add_special_tokens=False)["input_ids"][tokens:]
        rest = self.tokenizer.decode(kept, skip_special_tokens=True)
        return rest if len(rest) < len(text) else text[tokens:]

    def _fill(self, question: str, template: str, demonstration: str) -> tuple[int, ...]:
        return self._encode(
            template.format(
                question=question, instruction=self.instruction, demonstration=demonstration
            )
        )

    def _encode(self, message: str) -> tuple[int, ...]:
        options = {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            add_generation_prompt=True,
            return_dict=False,
            **options,
        )
        return tuple(ids)
