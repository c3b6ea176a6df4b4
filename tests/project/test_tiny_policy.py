import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.paths import ROOT
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlrt.context.answer import TEMPLATE as ANSWER_TEMPLATE
from rlrt.context.correct_peer import TEMPLATE as PEER_TEMPLATE
from rlrt.data.arithmetic import STYLES, Arithmetic, write_solution
from rlrt.data.prompts import BOXED_INSTRUCTION, Prompts

FOLDER = ROOT / "models" / "tiny"


def test_the_folder_is_small_and_holds_a_float32_qwen3(tiny: PreTrainedModel) -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 4_000_000
    assert tiny.config.model_type == "qwen3"
    assert tiny.config.tie_word_embeddings
    assert tiny.dtype == torch.float32
    assert tiny.num_parameters() <= 1_000_000


# Surrogates are no characters: they do not stand in any valid text.
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "三个数的和是多少？",
        "e\u0301 \u00e9 ﬁ ½ ①",
        "🧮👩\u200d🔬",
        " a ,  b .\n\n c 's",
        "\x00\r\n\t",
    ],
)
def test_chosen_text_survives(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(number=st.integers(0, 10**12))
def test_every_digit_is_a_token(tokenizer: PreTrainedTokenizerBase, number: int) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(str(number))) == list(str(number))


def test_words_of_the_prompts_are_single_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = (BOXED_INSTRUCTION, PEER_TEMPLATE, ANSWER_TEMPLATE, "user\nassistant\nsystem")
    words = {word for text in texts for word in re.findall(r" ?[^\W_]+", text)}
    split = {word for word in words if len(tokenizer.encode(word)) != 1}
    assert split <= {"instruction", "demonstration"}  # fields of the templates, never in a prompt


def test_chat_template_writes_the_usual_turns(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Compute 1 + 2."},
    ]
    expected = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nCompute 1 + 2.<|im_end|>\n"
    )
    assert tokenizer.apply_chat_template(turns, tokenize=False) == expected
    for thinking in (True, False):
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
        assert text == expected + "<|im_start|>assistant\n"


def test_a_response_ends_with_the_end_of_turn(
    tokenizer: PreTrainedTokenizerBase, tiny: PreTrainedModel
) -> None:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    pad = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert tokenizer.eos_token_id == tiny.generation_config.eos_token_id == end
    assert tokenizer.pad_token_id == tiny.generation_config.pad_token_id == pad
    assert len({end, pad, tokenizer.convert_tokens_to_ids("<|im_start|>")}) == 3


@torch.no_grad()
def logprob_of(policy: PreTrainedModel, prompt: tuple[int, ...], response: list[int]) -> float:
    """Mean log-prob of a response token given the prompt."""
    ids = torch.tensor([[*prompt, *response]])
    logprobs = policy(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(response)[:, None]).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("view", ["peer", "answer"])
def test_a_correct_solution_is_likelier_behind_a_privileged_context(
    view: str, tokenizer: PreTrainedTokenizerBase, tiny: PreTrainedModel
) -> None:
    prompts, gains = Prompts(tokenizer), []
    styles = list(STYLES)
    for index, problem in enumerate(Arithmetic(0, 1, 64).held_out().problems):
        terms = [int(term) for term in problem.id.removeprefix("arithmetic/").split("+")]
        response = write_solution(terms, styles[index % len(styles)])
        if view == "peer":
            peer = write_solution(terms, styles[(index + 1) % len(styles)])
            template, shown = PEER_TEMPLATE, peer
        else:
            template, shown = ANSWER_TEMPLATE, problem.answer
        teacher = prompts.teacher_ids(problem.question, template, shown, max_tokens=1024)
        assert teacher is not None
        ids = tokenizer.encode(response + "<|im_end|>")
        plain = logprob_of(tiny, prompts.student_ids(problem.question), ids)
        gains.append(logprob_of(tiny, teacher.ids, ids) - plain)
    assert sum(gains) / len(gains) > 0
    assert sum(gain > 0 for gain in gains) > 0.75 * len(gains)
