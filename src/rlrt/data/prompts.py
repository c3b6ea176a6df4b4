"""The prompts of both views, as token ids through the tokenizer's own chat template."""

import re
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

    ``instruction`` follows the question on a line of its own. ``student_thinking`` and
    ``teacher_thinking`` go to the chat template as ``enable_thinking``, each for its own view; None
    leaves the template's default.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        instruction: str = BOXED_INSTRUCTION,
        student_thinking: bool | None = None,
        teacher_thinking: bool | None = None,
    ) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; "
                "choose a model whose tokenizer has one"
            )
        self.tokenizer = tokenizer
        self.instruction = instruction
        self.student_thinking = student_thinking
        self.teacher_thinking = teacher_thinking
        special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        try:
            self.student_ids("trial")
        except TemplateError as error:
            raise ValueError(
                f"the chat template of {tokenizer.name_or_path} cannot be used: {error}"
            ) from error

    def student_ids(self, question: str) -> tuple[int, ...]:
        """The plain prompt: the question and the instruction."""
        return self._encode(f"{question}\n{self.instruction}", self.student_thinking)

    def teacher_ids(
        self,
        question: str,
        template: str,
        demonstration: str,
        max_tokens: int,
        keep_start: bool = False,
    ) -> TeacherPrompt | None:
        """The prompt that also holds a demonstration, at most ``max_tokens`` long.

        Where it would be longer the demonstration loses tokens from its start, since its end holds
        the answer, or with ``keep_start`` from its end; the question is never cut. None where not
        even an empty demonstration fits. Special tokens that it spells out become spaces: a response
        is untrusted, and "<|im_end|>" in it would end the user's message.
        """
        text, shortened = self._special.sub(" ", demonstration), False
        while len(ids := self._fill(question, template, text)) > max_tokens:
            if not text:
                return None
            shortened = True
            text = self._shorten(text, len(ids) - max_tokens, keep_start)
        return TeacherPrompt(ids, shortened)

    def _shorten(self, text: str, tokens: int, keep_start: bool) -> str:
        """``text`` without about ``tokens`` tokens of one end; always shorter than before."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        kept = ids[:-tokens] if keep_start else ids[tokens:]
        rest = self.tokenizer.decode(kept, skip_special_tokens=True)
        if len(rest) < len(text):
            return rest
        return text[:-tokens] if keep_start else text[tokens:]

    def _fill(self, question: str, template: str, demonstration: str) -> tuple[int, ...]:
        return self._encode(
            template.format(
                question=question, instruction=self.instruction, demonstration=demonstration
            ),
            self.teacher_thinking,
        )

    def _encode(self, message: str, thinking: bool | None) -> tuple[int, ...]:
        options = {} if thinking is None else {"enable_thinking": thinking}
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            add_generation_prompt=True,
            return_dict=False,
            **options,
        )
        return tuple(ids)
