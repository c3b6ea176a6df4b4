"""What discourse markers do, by a small list of this project's own.

The paper groups the markers of its Table 2 by hand; its groups are not repeated here. These are made for
looking a word up. None is an English stop word of scikit-learn, which would never be shown: "perhaps",
"thus" and "however" are.
"""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "doubt": (
        "assume", "doubt", "guess", "hmm", "likely", "maybe", "possible", "possibly",
        "probably", "suppose", "think", "unclear", "unlikely", "unsure",
    ),
    "reflection": (
        "actually", "check", "confirm", "correct", "double", "error", "mistake", "oops", "recheck",
        "reconsider", "rethink", "revisit", "verify", "wait", "wrong",
    ),
    "alternative": (
        "alternative", "alternatively", "approach", "case", "cases", "different", "explore",
        "instead", "method", "option", "retry", "switch", "try", "way",
    ),
    "derivation": (
        "add", "apply", "compute", "divide", "equals", "equation", "expand", "factor", "gives",
        "given", "implies", "let", "multiply", "plus", "rewrite", "simplify", "solve", "start",
        "step", "substitute", "subtract", "sum", "times", "using",
    ),
    "conclusion": (
        "answer", "boxed", "conclude", "conclusion", "final", "finally", "overall", "result",
        "solution", "total",
    ),
}  # fmt: skip
OTHER = "other"

_CATEGORY = {word: name for name, words in CATEGORIES.items() for word in words}


def category(word: str) -> str:
    """The group of a lower-case word, ``OTHER`` where the list has none for it."""
    return _CATEGORY.get(word, OTHER)
