"""Text of others and its tokens, made visible."""

from transformers import PreTrainedTokenizerBase

from rlrt.analysis.text import pieces_of, visible


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
