import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from transformers import PreTrainedTokenizerBase

from rlrt.analysis import pages
from rlrt.analysis.pages import embed_json, pieces_of, render, save_page, visible


def test_signs_that_do_not_show_become_escapes() -> None:
    text = "a<b>\n\tü漢\x07\x1b\u2028\u202e\ud800\u200d"
    assert visible(text) == "a<b>\n\tü漢\\x07\\x1b\\u2028\\u202e\\ud800\\u200d"
    assert visible("a\nb", kept="") == "a\\nb"


def test_bytes_that_are_half_a_character_become_escapes(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    ids = tokenizer.encode("1€", add_special_tokens=False)
    assert len(ids) == 4
    assert pieces_of(tokenizer)(ids, "1€") == ["1", "\\xe2", "\\x82", "\\xac"]


def test_another_tokenizer_is_noticed(tokenizer: PreTrainedTokenizerBase) -> None:
    pieces = pieces_of(tokenizer)
    assert pieces(tokenizer.encode("Add 1"), "Add 1") is not None
    assert pieces(tokenizer.encode("Add 1"), "Add 2") is None
    assert pieces([len(tokenizer)], "") is None
    assert pieces([-1], "") is None


TEMPLATES = Path(pages.__file__).parent / "templates"
EVIL = "</script><img src=x onerror=alert(1)>\"'&\u2028\ud800\x00"


def page(**values: object) -> str:
    found = {"title": "t", "about": "a", "trajectories": [], "data": []} | values
    return render("critical_positions", **found)


@given(st.text(st.characters(exclude_categories=[])))
def test_json_comes_back_and_cannot_end_its_block(text: str) -> None:
    embedded = embed_json({text: [text, 1.5, None]})
    assert json.loads(embedded) == {text: [text, 1.5, None]}
    assert embedded.isascii()
    assert not set("<>&") & set(embedded)


def test_a_number_that_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        embed_json([float("nan")])


def test_values_are_escaped_and_have_a_utf_8() -> None:
    found = page(title=EVIL, about=EVIL, data=[EVIL])
    assert found.encode("utf-8")
    assert "<img" not in found
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;\u2028\ufffd" in found


def test_what_a_template_names_must_be_given() -> None:
    with pytest.raises(UndefinedError):
        render("critical_positions", title="t")


def test_the_policy_allows_the_own_styles_and_script_alone() -> None:
    found = page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', found)
    assert policy is not None
    rules = dict(part.strip().split(" ", 1) for part in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for kind, count in (("style", 2), ("script", 1)):
        texts = re.findall(f"<{kind}>(.*?)</{kind}>", found, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        assert rules[f"{kind}-src"].split() == [f"'sha256-{value}'" for value in hashes]
        assert len(texts) == count


def test_a_page_is_written_as_its_hashes_were_made(tmp_path: Path) -> None:
    found = page()
    assert save_page(found, tmp_path / "new" / "a.html").read_bytes() == found.encode()


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.name)
def test_templates_leave_no_value_unescaped(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"\|\s*safe|autoescape|Markup", text)
    assert not re.findall(r"=\s*\{\{", text), "an attribute without quotes"
    assert not re.findall(r"<[^>]*\s(?:on\w+|style)\s*=", text), "what the policy stops"
    assert not re.findall(r"(?:href|src)\s*=\s*\"(?!#|data:|\{\{)", text), "another resource"


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.js")), ids=lambda path: path.name)
def test_scripts_set_texts_as_texts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
