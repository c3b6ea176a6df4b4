r"""How much a response differs from the others of its group (arXiv:2509.26209), from its text alone."""

import re
from collections import Counter
from collections.abc import Sequence

from torchmetrics.functional.text import bleu_score

# an escaped character is one token, so that neither `\$` nor the bracket of `\\[4pt]` delimits
DELIMITER = re.compile(r"\\(.)|\$\$?", re.DOTALL)
CLOSED_BY = {r"\]": r"\[", r"\)": r"\(", "$": "$", "$$": "$$"}
BLEU_WEIGHTS = (0.02, 0.1, 0.15, 0.25, 0.38)  # of 1- to 5-grams
MAX_TEXT_DIVERSITY = 0.91


def formulas(text: str) -> set[str]:
    r"""What stands inside ``\[…\]``, ``\(…\)``, ``$…$`` and ``$$…$$``, stripped; nothing empty.

    A closer belongs to the last opener of its kind; openers without closers count for nothing. One
    pass over the text, so that hostile text costs no more than its length.
    """
    found: set[str] = set()
    opened: dict[str, int] = {}  # kind of opener -> where its content starts
    for token in DELIMITER.finditer(text):
        mark = token[0]
        opener = CLOSED_BY.get(mark)
        if opener in opened:
            found.add(text[opened.pop(opener) : token.start()].strip())
        elif mark in CLOSED_BY.values():
            opened[mark] = token.end()
    return found - {""}


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
