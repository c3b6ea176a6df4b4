from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from rlrt.context.answer import TEMPLATE as ANSWER
from rlrt.context.correct_peer import TEMPLATE as PEER
from rlrt.data.prompts import BOXED_INSTRUCTION, Prompts

QUESTION = "Compute 3 + 4 + 5."


def message(prompts: Prompts, ids: tuple[int, ...]) -> str:
    """The user message of a prompt, from its token ids."""
    text = prompts.tokenizer.decode(list(ids))
    return text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]


def test_the_texts_of_all_views(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = Prompts(tokenizer)
    assert message(prompts, prompts.student_ids(QUESTION)) == f"{QUESTION}\n{BOXED_INSTRUCTION}"
    peer = prompts.teacher_ids(QUESTION, PEER, "It is \\boxed{12}.", 1000)
    assert peer is not None
    assert not peer.shortened
    assert message(prompts, peer.ids) == (
        f"{QUESTION}\n{BOXED_INSTRUCTION}\nCorrect solution:\n\nIt is \\boxed{{12}}."
        "\n\nCorrectly solve the original question."
    )
    answer = prompts.teacher_ids(QUESTION, ANSWER, "12", 1000)
    assert answer is not None
    assert message(prompts, answer.ids) == (
        f"{QUESTION}\n\nHere is a reference solution:\n12\n\nAfter understanding the reference "
        "solution, please try to solve this problem using your own approach below.\n"
        f"{BOXED_INSTRUCTION}"
    )


def test_both_views_end_with_the_same_generation_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = Prompts(tokenizer)
    peer = prompts.teacher_ids(QUESTION, PEER, "x", 1000)
    assert peer is not None
    tail = prompts.tokenizer.decode(list(prompts.student_ids(QUESTION))).rsplit("<|im_end|>", 1)[1]
    assert prompts.tokenizer.decode(list(peer.ids)).endswith(tail)


@given(st.text(max_size=300), st.integers(0, 200))
def test_the_demonstration_is_shortened_and_never_the_question(
    tokenizer: PreTrainedTokenizerBase, demonstration: str, extra: int
) -> None:
    prompts = Prompts(tokenizer)
    empty = prompts.teacher_ids(QUESTION, PEER, "", 1000)
    assert empty is not None
    room = len(empty.ids) + extra
    found = prompts.teacher_ids(QUESTION, PEER, demonstration, room)
    assert found is not None
    assert len(found.ids) <= room
    full = prompts.teacher_ids(QUESTION, PEER, demonstration, 10**6)
    assert full is not None
    assert found.shortened == (len(full.ids) > room)
    assert QUESTION in message(prompts, found.ids)


def test_the_end_of_a_demonstration_is_kept(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = Prompts(tokenizer)
    text = "3 + 4 = 7. " * 40 + "So it is \\boxed{12}."
    found = prompts.teacher_ids(QUESTION, PEER, text, 150)
    assert found is not None
    assert found.shortened
    assert "So it is \\boxed{12}." in message(prompts, found.ids)


def test_no_room_for_the_question_means_no_teacher(tokenizer: PreTrainedTokenizerBase) -> None:
    assert Prompts(tokenizer).teacher_ids(QUESTION, PEER, "x", 20) is None
