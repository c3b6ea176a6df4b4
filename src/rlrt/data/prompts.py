"""The prompts of both views, as token ids through the tokenizer's own chat template."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

Messages = Sequence[tuple[str, str]]  # (role, content)
BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class TeacherPrompt:
    """Token ids of a teacher view's prompt, and whether its demonstration had to be shortened."""

    ids: tuple[int, ...]
    shortened: bool


@dataclass(frozen=True)
class TeacherRendering:
    """A teacher view's prompt with the whole demonstration, which can be cut token by token.

    Cutting removes ids and tokenizes nothing again, so that a prompt which is cut costs no more than
    one that fits.
    """

    encoding: Encoding
    demonstration: range  # its tokens, which may be removed
    keep_start: bool
    without: Callable[[], tuple[int, ...]]  # the prompt with an empty demonstration

    def fit(self, max_tokens: int) -> TeacherPrompt | None:
        """The prompt in at most ``max_tokens`` tokens.

        Where it would be longer the demonstration loses tokens from its start, since its end holds
        the answer, or with ``keep_start`` from its end; the question is never cut. None where not
        even an empty demonstration fits.
        """
        ids = self.encoding.ids
        excess = len(ids) - max_tokens
        if excess <= 0:
            return TeacherPrompt(tuple(ids), shortened=False)
        start, stop = self.demonstration.start, self.demonstration.stop
        if self.keep_start:
            cut = range(self._character_start(stop - excess, -1), stop)
        else:
            cut = range(start, self._character_start(start + excess, 1))
        if cut.start < start or cut.stop > stop:
            empty = self.without()
            return TeacherPrompt(empty, shortened=True) if len(empty) <= max_tokens else None
        return TeacherPrompt((*ids[: cut.start], *ids[cut.stop :]), shortened=True)

    def _character_start(self, token: int, step: int) -> int:
        """``token``, or the next in direction ``step`` that begins a character: its bytes share one."""
        while token in self.demonstration[1:]:
            if _place(self.encoding, token)[0] >= _place(self.encoding, token - 1)[1]:
                break
            token += step
        return token


class Prompts:
    """Writes prompts for one tokenizer.

    ``instruction`` follows the question on a line of its own. ``system`` is a system message before
    it, in both views, where the problem has none of its own. ``student_thinking`` and
    ``teacher_thinking`` go to the chat template as ``enable_thinking``, each for its own view; None
    leaves the template's default.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        instruction: str = BOXED_INSTRUCTION,
        student_thinking: bool | None = None,
        teacher_thinking: bool | None = None,
        system: str | None = None,
    ) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; "
                "choose a model whose tokenizer has one"
            )
        if not tokenizer.is_fast:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path} does not tell where its tokens stand in "
                "the text; choose a model with a fast tokenizer (a tokenizer.json)"
            )
        self.tokenizer = tokenizer
        self.instruction = instruction
        self.student_thinking = student_thinking
        self.teacher_thinking = teacher_thinking
        self.system = system
        special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        try:
            self.student_ids("trial")
        except TemplateError as error:
            raise ValueError(
                f"the chat template of {tokenizer.name_or_path} cannot be used: {error}"
            ) from error

    def student_ids(self, question: str, preceding: Messages = ()) -> tuple[int, ...]:
        """The plain prompt: the messages before the question, the question and the instruction."""
        message = f"{question}\n{self.instruction}"
        _, encoding = self._encode(preceding, message, self.student_thinking)
        return tuple(encoding.ids)

    def teacher_ids(
        self,
        question: str,
        template: str,
        demonstration: str,
        max_tokens: int,
        keep_start: bool = False,
        preceding: Messages = (),
    ) -> TeacherPrompt | None:
        """The prompt that also holds a demonstration, at most ``max_tokens`` long."""
        rendering = self.render_teacher(question, template, demonstration, keep_start, preceding)
        return rendering.fit(max_tokens)

    def render_teacher(
        self,
        question: str,
        template: str,
        demonstration: str,
        keep_start: bool = False,
        preceding: Messages = (),
    ) -> TeacherRendering:
        """The prompt that holds the whole demonstration, to be fitted into any number of tokens.

        Special tokens that the demonstration spells out become spaces: a response is untrusted, and
        "<|im_end|>" in it would end the user's message.
        """
        before, after = (
            part.format(question=question, instruction=self.instruction)
            for part in template.split("{demonstration}")
        )
        cleaned = self._special.sub(" ", demonstration)
        thinking = self.teacher_thinking
        text, encoding = self._encode(preceding, before + cleaned + after, thinking)
        # Where the demonstration stands in the text: chat templates may strip the message.
        until_end = (before + cleaned).strip()
        end = text.rfind(until_end) + len(until_end)
        return TeacherRendering(
            encoding,
            _tokens_within(encoding, end - len(cleaned.strip()), end),
            keep_start,
            lambda: tuple(self._encode(preceding, before + after, thinking)[1].ids),
        )

    def _encode(
        self, preceding: Messages, message: str, thinking: bool | None
    ) -> tuple[str, Encoding]:
        """The rendered text of a user's message, and its tokens with their places in the text."""
        options = {} if thinking is None else {"enable_thinking": thinking}
        messages = [*preceding, ("user", message)]
        if self.system is not None and messages[0][0] != "system":
            messages.insert(0, ("system", self.system))
        text = self.tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages],
            add_generation_prompt=True,
            tokenize=False,
            **options,
        )
        return text, self.tokenizer(text, add_special_tokens=False, verbose=False).encodings[0]


def _tokens_within(encoding: Encoding, start: int, end: int) -> range:
    """The tokens that hold nothing but characters from ``start`` to before ``end``."""
    if start >= end or start < 0:
        return range(0)
    first = _first_token(encoding, range(start, end))
    last = _first_token(encoding, range(end - 1, start - 1, -1))
    if first is None or last is None:
        return range(0)
    first += _place(encoding, first)[0] < start  # it shares a token with the template
    last -= _place(encoding, last)[1] > end
    return range(first, last + 1)


def _first_token(encoding: Encoding, places: range) -> int | None:
    """The token of the first of the places that has one."""
    tokens = map(encoding.char_to_token, places)
    return next((token for token in tokens if token is not None), None)


def _place(encoding: Encoding, token: int) -> tuple[int, int]:
    """Where a token's characters start in the text, and where they end."""
    place = encoding.token_to_chars(token)
    assert place is not None  # only special tokens that are no text have none
    return place
