"""Builds models/tiny from nothing: tokenizer, chat template and a small Qwen3-shaped policy.

The policy learns sums from generated solutions. Given the plain prompt a share of the steps slips,
so that reinforcement learning has something to unlearn; given a peer solution or an answer none
does, so that the teacher view knows more than the student view. The loss is on responses only.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rlrt.batch import Problem
from rlrt.context.answer import TEMPLATE as ANSWER_TEMPLATE
from rlrt.context.correct_peer import TEMPLATE as PEER_TEMPLATE
from rlrt.data.arithmetic import STYLES, Arithmetic, write_solution
from rlrt.data.prompts import BOXED_INSTRUCTION, Prompts
from rlrt.training.exports import export

Example = tuple[tuple[int, ...], tuple[int, ...]]  # ids of a prompt and of a response

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# `enable_thinking` is accepted and ignored: this policy never thinks apart from its response.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
VOCABULARY = 512  # tokens at most
MAX_POSITIONS = 1024  # tokens

PROBLEMS = 40_000
SEQUENCES = 32  # of one view, in one step
VIEWS = {"student": 0.5, "peer": 0.3, "answer": 0.2}  # share of the steps
SLIP_RATE = 0.25  # share of the solution's steps that go wrong given the plain prompt
CLEAN_SHARE = 0.45  # of the training comes before the first slip: arithmetic is learned faster so
REPAIR_RATE = 0.1  # share of slips that are noticed
PEAK_LR, WEIGHT_DECAY = 6e-3, 0.01
WARMUP_STEPS, DECAY_SHARE = 40, 0.3  # linear up, constant, linear down to 0


def build_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text encodes, every digit is a token of its own."""
    words = Regex(r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_POSITIONS,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Randomly initialized, 0.8 M parameters in float32."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,  # as in Qwen3 0.6B to 4B
        use_cache=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config.do_sample = True
    return model


def corpus(problems: Sequence[Problem], rng: Random) -> Iterator[str]:
    """The words that the policy will read and write, those of the prompts once."""
    yield from (BOXED_INSTRUCTION, PEER_TEMPLATE, ANSWER_TEMPLATE, "user\nassistant\nsystem\n")
    for problem in problems:
        yield problem.question
        yield write_solution(_terms(problem), rng.choice(list(STYLES)), 0.5, 0.5, rng)


def _terms(problem: Problem) -> list[int]:
    return [int(term) for term in problem.id.removeprefix("arithmetic/").split("+")]


def example(
    view: str, problem: Problem, slip_rate: float, prompts: Prompts, rng: Random
) -> Example:
    """A prompt of the view and a response to it; only the student view's response has slips."""

    def solution(slip_rate: float) -> str:
        style = rng.choice(list(STYLES))
        return write_solution(_terms(problem), style, slip_rate, REPAIR_RATE, rng)

    if view == "student":
        prompt = prompts.student_ids(problem.question)
    else:
        slip_rate = 0.0
        template, hint = {
            "peer": (PEER_TEMPLATE, solution(slip_rate=0.0)),
            "answer": (ANSWER_TEMPLATE, problem.answer),
        }[view]
        hinted = prompts.teacher_ids(problem.question, template, hint, MAX_POSITIONS)
        assert hinted is not None
        prompt = hinted.ids
    return prompt, tuple(prompts.tokenizer(solution(slip_rate) + END)["input_ids"])


def collate(examples: Sequence[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and labels, right-padded; labels are -100 outside responses."""
    length = max(len(prompt) + len(response) for prompt, response in examples)
    ids = torch.full((len(examples), length), pad_id)
    labels = torch.full_like(ids, -100)
    for row, (prompt, response) in enumerate(examples):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        labels[row, len(prompt) : end] = torch.tensor(response)
    return ids, labels


def response_loss(model: Qwen3ForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of the response tokens."""
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    targets = labels[:, 1:]
    chosen = targets != -100  # the output head runs on response positions alone
    return F.cross_entropy(model.lm_head(hidden[chosen]), targets[chosen])


def build_optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms.

    AdamW alone needs more than twice as many steps here.
    """
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)),
    ]


def train(
    model: Qwen3ForCausalLM,
    prompts: Prompts,
    problems: Sequence[Problem],
    steps: int,
    rng: Random,
) -> None:
    """Trains in place; prints the mean loss per response token."""
    optimizers = build_optimizers(model)
    begin, losses = time.perf_counter(), []
    for step in range(steps):
        scale = min((step + 1) / WARMUP_STEPS, (1 - step / steps) / DECAY_SHARE, 1.0)
        (view,) = rng.choices(list(VIEWS), list(VIEWS.values()))
        slip_rate = SLIP_RATE if step >= CLEAN_SHARE * steps else 0.0
        chosen = rng.choices(problems, k=SEQUENCES)
        batch = [example(view, problem, slip_rate, prompts, rng) for problem in chosen]
        loss = response_loss(model, *collate(batch, prompts.tokenizer.pad_token_id))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = scale * PEAK_LR
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step == steps - 1:
            seconds = time.perf_counter() - begin
            loss_mean = fmean(losses[-50:])
            print(f"step {step + 1:4d}  loss {loss_mean:.4f}  {seconds:5.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("models/tiny"))
    parser.add_argument("--steps", type=int, default=1500, help="supervised steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    rng = Random(arguments.seed)
    problems = Arithmetic(arguments.seed, PROBLEMS, 1).train().problems
    tokenizer = build_tokenizer(corpus(problems[:2000], rng))
    model = build_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    train(model, Prompts(tokenizer), problems, arguments.steps, rng)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    export(model, tokenizer, arguments.out, torch.float32)


if __name__ == "__main__":
    main()
