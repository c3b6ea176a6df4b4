"""DIVER: correct responses that differ from the rest of their group get a higher reward."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor
from torchmetrics.functional.text import bleu_score

from rlrt.batch import Credit, Outcomes, ScoredBatch
from rlrt.credit.assigner import CreditAssigner, group_advantages, has_signal
from rlrt.validation import validated

# an escaped character is one token, so that neither `\$` nor the bracket of `\\[4pt]` delimits
DELIMITER = re.compile(r"\\(.)|\$\$?", re.DOTALL)
CLOSED_BY = {r"\]": r"\[", r"\)": r"\(", "$": "$", "$$": "$$"}
BLEU_WEIGHTS = (0.02, 0.1, 0.15, 0.25, 0.38)  # of 1- to 5-grams
MAX_TEXT_DIVERSITY = 0.91
CEILINGS = {"equation": 0.42, "text": 0.68}  # the paper's σ


def formulas(text: str) -> set[str]:
    r"""What stands inside ``\[…\]``, ``\(…\)``, ``$…$`` and ``$$…$$``, stripped; nothing empty.

    A closer belongs to the last opener of its kind; openers without closers count for nothing. One
    pass over the text, so that hostile text costs no more than its length.
    """
    contents: set[str] = set()
    opened: dict[str, int] = {}  # kind of opener -> where its content starts
    for token in DELIMITER.finditer(text):
        mark = token[0]
        opener = CLOSED_BY.get(mark)
        if opener in opened:
            contents.add(text[opened.pop(opener) : token.start()].strip())
        elif mark in CLOSED_BY.values():
            opened[mark] = token.end()
    return contents - {""}


def equation_diversity(responses: Sequence[str], wanted: Sequence[int]) -> list[float]:
    r"""``|F_i \ ∪_{j≠i} F_j| / |F_i|`` of the wanted responses of one group, F their formulas.

    In [0, 1]: the share of a response's formulas that no other response has; 0 without formulas.
    """
    formulas_of = [formulas(text) for text in responses]
    holders = Counter(formula for own in formulas_of for formula in own)
    return [
        sum(holders[formula] == 1 for formula in own) / max(len(own), 1)
        for own in (formulas_of[index] for index in wanted)
    ]


def text_diversity(responses: Sequence[str], wanted: Sequence[int]) -> list[float]:
    """Mean over the other responses of ``1 - BLEU``, BLEU averaged over both directions; at most 0.91.

    BLEU of white-space tokens up to 5-grams, unsmoothed: texts without a common 5-gram, all texts of
    fewer than five words included, have BLEU 0. A group of one gives 0. About 0.1 s per direction
    and pair of 3000 words.
    """
    similarity: dict[frozenset[int], float] = {}

    def similar(first: int, second: int) -> float:
        pair = frozenset((first, second))
        if pair not in similarity:
            similarity[pair] = (
                _bleu(responses[first], responses[second])
                + _bleu(responses[second], responses[first])
            ) / 2
        return similarity[pair]

    others = max(len(responses) - 1, 1)
    return [
        min(
            sum(1 - similar(index, other) for other in range(len(responses)) if other != index)
            / others,
            MAX_TEXT_DIVERSITY,
        )
        for index in wanted
    ]


def _bleu(candidate: str, reference: str) -> float:
    return float(bleu_score([candidate], [[reference]], n_gram=5, weights=BLEU_WEIGHTS))


DIVERSITIES = {"equation": equation_diversity, "text": text_diversity}


class DIVER(CreditAssigner):
    """``r' = r + λ · min(d, σ)`` where r = 1, then the group advantage (arXiv:2509.26209). No teacher.

    ``d`` is the diversity against the whole group: the share of formulas that are the response's own
    (``equation``), or its distance in words (``text``). Only correct responses are paid, or being
    different would be worth more than being right; σ (``ceiling``, null: the paper's for that
    diversity) keeps noise from paying without end. ``weight`` is λ. From step ``until_step`` on
    (null: never) it is GRPO: exploration first.

    A group of correct rollouts gets advantages as soon as their diversities differ, which
    standardizing blows up to full size; a group of one gets 0.
    """

    zero_on_equal_rewards = False

    @validated("credit")
    def __init__(
        self,
        diversity: Literal["equation", "text"] = "equation",
        weight: NonNegativeFloat = 0.1,
        ceiling: Annotated[float, Field(gt=0, le=1)] | None = None,
        until_step: PositiveInt | None = 100,
        standardize: bool = True,
    ) -> None:
        self.diversity = DIVERSITIES[diversity]
        self.weight = weight
        self.ceiling = CEILINGS[diversity] if ceiling is None else ceiling
        self.until_step = until_step
        self.standardize = standardize

    def is_on(self, step: int) -> bool:
        """Whether diversity is paid at a rollout step counted from 0."""
        return self.weight > 0 and (self.until_step is None or step < self.until_step)

    def diversities(self, batch: ScoredBatch) -> Tensor:
        """``[B]`` diversity of correct rollouts, each within its group; 0 for the others."""
        diversity_B = torch.zeros_like(batch.rewards_B)
        for group in batch.group_B[batch.correct_B].unique():
            rows = (batch.group_B == group).nonzero()[:, 0]
            paid = batch.correct_B[rows].nonzero()[:, 0]
            texts = [batch.responses[row] for row in rows.tolist()]
            diversity_B[rows[paid]] = diversity_B.new_tensor(self.diversity(texts, paid.tolist()))
        return diversity_B

    def credited(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        """Groups with a signal, and those with a correct rollout while diversity is paid."""
        credited_B = has_signal(outcomes.shaped_rewards_B, outcomes.group_B)
        if self.is_on(step):
            solved = outcomes.group_B[outcomes.correct_B]
            credited_B = credited_B | torch.isin(outcomes.group_B, solved)
        return credited_B

    def reads_student(self, outcomes: Outcomes, has_context_B: Tensor, step: int) -> Tensor:
        return torch.zeros_like(has_context_B)

    def __call__(self, batch: ScoredBatch, step: int) -> Credit:
        rewards_B = batch.shaped_rewards_B
        diversity_B = torch.zeros_like(rewards_B)
        if self.is_on(step):
            diversity_B = self.diversities(batch)
            rewards_B = rewards_B + self.weight * diversity_B.clamp(max=self.ceiling)
        advantages_B = group_advantages(rewards_B, batch.group_B, self.standardize)
        return Credit(
            advantages_BT=advantages_B[:, None] * batch.response_mask_BT,
            advantages_B=advantages_B,
            metrics={"diversity_mean": diversity_B[batch.correct_B]},  # 0 once it is no longer paid
        )
