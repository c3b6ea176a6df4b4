"""Text that others wrote, as a page shows it: every sign visible, every token on its own."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

KEPT = "\n\t"

Pieces = Callable[[Sequence[int], str], list[str] | None]


def visible(text: object, kept: str = KEPT) -> str:
    r"""The text with every sign that prints nothing, turns the direction of writing around, or is
    half of a character written as its escape: ``\x07``, ``\u202e``, ``\ud800``.

    Without markup of its own: what becomes of ``<`` is for the page to see to.
    """
    return "".join(
        sign if sign.isprintable() or sign in kept else sign.encode("unicode_escape").decode()
        for sign in str(text)
    )


def pieces_of(tokenizer: Any) -> Pieces:
    r"""A function of a response's ids and text that gives the text of each token alone, special ones
    included; None where this tokenizer does not turn these ids into this text.

    Bytes that are part of a character stand as escapes: ``\xe2\x82`` and ``\xac`` for a euro sign of
    two tokens.
    """
    byte_of = {sign: byte for byte, sign in bytes_to_unicode().items()}

    def piece(number: int) -> str:
        text = tokenizer.decode([number])
        token = tokenizer.convert_ids_to_tokens(number)
        if "\ufffd" not in text or token is None:
            return visible(text)
        if not set(token) <= byte_of.keys():
            return visible(token)  # <0xE2> of SentencePiece
        return visible(bytes(byte_of[sign] for sign in token).decode("utf-8", "backslashreplace"))

    def pieces(ids: Sequence[int], text: str) -> list[str] | None:
        if not all(0 <= number < len(tokenizer) for number in ids):
            return None
        if tokenizer.decode(ids, skip_special_tokens=True) != text:
            return None
        return [piece(number) for number in ids]

    return pieces
