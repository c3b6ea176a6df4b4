"""Mistakes of the command line, each with what it is told: one sentence that can be acted on."""

import re

import pytest
from omegaconf import OmegaConf

from rlrt.config.compose import compose
from rlrt.config.mistakes import REMARKS, SYNONYMS, leaves
from rlrt.errors import UserError

LIST = r"allowed: [\w, ]+"
MISTAKES = [
    (
        ["prompts.instruction=do it (in a box)"],
        r"cannot be read: a text with signs in it goes into two pairs of quotes, "
        r"""'prompts\.instruction="do it \(in a box\)"'$""",
    ),
    (["lr=1e-5,"], r"^lr=1e-5, cannot be read: "),
    (["credit", "=", "grpo"], r"^credit = grpo: no blanks around =, credit=grpo$"),
    (["credit", "=grpo"], r"^credit =grpo: no blanks around =, credit=grpo$"),
    (["tiny"], r"^tiny is no setting: each is written name=value$"),
    (
        ["credit=[rlrt,grpo]"],
        r"^credit is \[rlrt,grpo\], .* several runs, one after the other: -m credit=rlrt,grpo$",
    ),
    (
        ["lr=1e-5"],
        rf"^lr is no setting; {LIST}; did you mean training\.optimization\.learning_rate\?$",
    ),
    (
        ["training.learning_rate=1"],
        r"^learning_rate is no setting of training; .* mean training\.optimization\.learning_rate\?$",
    ),
    (["training.num_generations=4"], r"did you mean training\.rollouts_per_problem\?$"),
    (["training.rolouts_per_problem=4"], r"did you mean training\.rollouts_per_problem\?$"),
    (["training.batch_size=4"], r"did you mean training\.problems_per_update\?$"),
    (
        ["credit.mixin=1"],
        rf"^mixin is no setting of credit; {LIST}; did you mean credit\.mixing\?$",
    ),
    (["modle=tiny"], r"did you mean model\?$"),
    (["output_dir=x"], r"did you mean hydra\.run\.dir\?$"),
    (
        ["trainer.max_steps=10"],
        r"^trainer\.max_steps has no use here; it is trainer\.max_epochs \(an epoch is a rollout step",
    ),
    (
        ["+trainer.gradient_clip_val=1"],
        r"^trainer\.gradient_clip_val has no use here; it is training\.optimization\.max_grad_norm$",
    ),
    (
        ["data.path=x.jsonl"],
        r"data is arithmetic, and path is a setting of data=dapo_math_17k \| file \| gsm8k$",
    ),
    (
        ["model=tiny", "data=gsm8k", "data.question_column=q"],
        r"data is gsm8k, and question_column is a setting of data=file \| hub$",
    ),
    (["nothing.zzz=1"], r"^nothing\.zzz is no setting: there is no group nothing$"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=lambda x: " ".join(x)[:40])
def test_says_what_was_meant(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(words)
    text = str(caught.value)
    assert re.search(sentence, text), text
    assert "\n" not in text
    assert "hydra.cc" not in text


def test_what_is_meant_is_a_setting() -> None:
    known = {*leaves(OmegaConf.to_container(compose([]))), "hydra.run.dir"}
    assert set(SYNONYMS.values()) | set(REMARKS) <= known
    assert not SYNONYMS.keys() & {name.rpartition(".")[2] for name in known}


@pytest.mark.parametrize(
    "words",
    [
        ["credit=grpo", "model=tiny"],
        ["data.terms=[3,4]"],
        ['prompts.instruction="do it (in a box)"'],
        ["~logger"],
        ["+engine.max_logprob_gap=0.1"],
        ["evaluation.pass_at=[1, 2]"],
        ['resume="a b/ü"'],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_what_is_sound_composes(words: list[str]) -> None:
    compose(words)
