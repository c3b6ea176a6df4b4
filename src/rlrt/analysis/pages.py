"""Pages of one file each, which load nothing else and in which untrusted text stays text.

A page is a template that extends ``page.html.jinja``. Beside ``templates/<name>.html.jinja`` its own
``<name>.css`` and ``<name>.js`` may stand; they and the shared ``page.css`` go into the page. Three
things keep text from becoming markup or script: jinja escapes every value, JSON is escaped for the
place where it stands, and a Content-Security-Policy allows exactly the project's own styles and
scripts, by their hashes. Inline ``style=`` and ``on…=`` attributes have no effect.
Text that others wrote is shown with every character visible, and every token on its own.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rlrt.files import write_text

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


FOLDER = files("rlrt.analysis") / "templates"
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    "style-src {styles}; script-src {scripts}"
)
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # has no UTF-8


def render(template: str, **values: Any) -> str:
    """The page of ``templates/<template>.html.jinja``; it needs a ``title`` at least.

    Values are escaped. In the template, ``{{ value | embed_json }}`` is for a JSON block. A value that
    the template names and nobody gave is an error (jinja2.UndefinedError). Lone surrogates become U+FFFD.
    """
    styles = _sources("page.css", f"{template}.css")
    scripts = _sources(f"{template}.js")
    html = (
        _environment()
        .get_template(f"{template}.html.jinja")
        .render(
            **values,
            styles=[Markup(style) for style in styles],
            scripts=[Markup(script) for script in scripts],
            policy=POLICY.format(styles=_hashes(styles), scripts=_hashes(scripts)),
        )
    )
    return LONE_SURROGATE.sub("\ufffd", html)


def embed_json(value: Any) -> Markup:
    """JSON that may stand inside ``<script type="application/json">``: ASCII, without <, > and &.

    ValueError for a number that JSON does not have (NaN, infinity).
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def save_page(html: str, path: Path) -> Path:
    """Write a page, whole or not at all; returns the path."""
    write_text(path, html)  # the hashes of its policy hold for these bytes
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rlrt.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embed_json"] = embed_json
    return environment


def _sources(*names: str) -> list[str]:
    """The texts of these files, as far as they are there."""
    existing = [FOLDER / name for name in names if (FOLDER / name).is_file()]
    return [file.read_text(encoding="utf-8") for file in existing]


def _hashes(sources: list[str]) -> str:
    """The sources of a CSP directive that allow these texts alone."""
    digests = [hashlib.sha256(source.encode()).digest() for source in sources]
    hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    return " ".join(hashes) or "'none'"
