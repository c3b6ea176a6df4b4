"""Which settings make a method, so that runs which differ in nothing else are its seeds; and its name.

Methods are compared under the same surroundings: with another model, other problems or another batch
size a run is no further seed of the method, and its name says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

PARTS = ("credit", "context", "teacher", "loss", "aggregation", "prompts")
SURROUNDINGS = (  # in the order in which names draw on them
    "model.name",
    "model.path",
    "model",
    "data",
    "training",
    "reward",
    "evaluation",
    "trainer.precision",
)
FREE = (  # of these: what leaves the computed numbers as they are, rounding apart
    "model.accelerator",
    "model.precision",  # the default of trainer.precision
    "model.gradient_checkpointing",
    "model.save_attention",
    "model.kernels",
    "model.attention",
    "training.rollout_steps",  # how long a run is, which may be resumed for more
    "training.token_budget",
    "training.score_all",
    "reward.workers",
    "evaluation.every_n_steps",
)
LONGEST = 32  # characters of a value in a name

Method = dict[str, Any]  # its settings by full name, as in credit.mixing; no nulls


def leaves(settings: Any, name: str = "") -> dict[str, Any]:
    """The values of nested settings by their full names, as in ``a.b`` and ``a.c[0].d``; empty groups
    and lists of plain values are values.
    """
    if isinstance(settings, dict) and (settings or not name):
        prefix = f"{name}." if name else ""
        parts = [leaves(value, f"{prefix}{key}") for key, value in settings.items()]
    elif isinstance(settings, list) and any(isinstance(part, dict | list) for part in settings):
        parts = [leaves(part, f"{name}[{number}]") for number, part in enumerate(settings)]
    else:
        return {name: settings}
    return {key: value for part in parts for key, value in part.items()}


def spelled(value: Any) -> str:
    """A value as a line of YAML spells it."""
    if isinstance(value, list):
        return f"[{', '.join(map(spelled, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def has_method(config: Any) -> bool:
    """Whether these are settings of a run: their credit names a class by its full name."""
    credit = config.get("credit") if isinstance(config, dict) else None
    target = credit.get("_target_") if isinstance(credit, dict) else None
    return isinstance(target, str) and all(target.split(".")) and "." in target


def method_settings(config: Mapping[str, Any]) -> Method:
    """Of all settings of a run those that make its method, and those of its surroundings; without
    the run's seed, which parts that choose by chance repeat.
    """
    groups = dict.fromkeys(name.partition(".")[0] for name in (*PARTS, *SURROUNDINGS))
    found = leaves({group: config[group] for group in groups if config.get(group)})
    return {
        name: value
        for name, value in found.items()
        if value is not None
        and name.rpartition(".")[2] != "seed"
        and name not in FREE
        and _rank(name, (*PARTS, *SURROUNDINGS)) is not None
    }


def method_names(methods: Sequence[Method]) -> list[str]:
    """For each of these settings of methods its name: its credit, how its parts differ from those of
    others with the same credit, and as many of its surroundings as tell it from all others'.
    """
    kinds = [method for i, method in enumerate(methods) if method not in methods[:i]]
    around = _told_around(kinds)

    def name(method: Method) -> str:
        target = method["credit._target_"]
        alike = [other for other in kinds if other["credit._target_"] == target]
        parts = [
            key
            for key in sorted({key for other in alike for key in other})
            if _rank(key, PARTS) is not None
            and any(other.get(key) != method.get(key) for other in alike)
        ]
        told = [_shown(key, method, kinds) for key in (*parts, *around)]
        return " ".join([target.split(".")[-2], *told])

    names = [name(kind) for kind in kinds]
    names = [  # classes of one name in two packages
        f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
    return [names[kinds.index(method)] for method in methods]


def _rank(name: str, groups: Sequence[str]) -> int | None:
    """Number of the first of these groups or settings that a setting belongs to; None: of no one."""
    numbers = (
        number
        for number, group in enumerate(groups)
        if name == group or name.startswith((f"{group}.", f"{group}["))
    )
    return next(numbers, None)


def _told_around(kinds: Sequence[Method]) -> list[str]:
    """Settings that together tell apart all surroundings that differ, in names few of them: another
    model alone brings some thirty other settings with it.
    """
    ranks = {name: _rank(name, SURROUNDINGS) for kind in kinds for name in kind}
    names = [name for name in ranks if _rank(name, PARTS) is None]
    chosen: list[str] = []
    for name in sorted(names, key=lambda name: ranks[name] or 0):
        if _distinct(kinds, [*chosen, name]) > _distinct(kinds, chosen):
            chosen.append(name)
    return chosen


def _distinct(kinds: Sequence[Method], names: Sequence[str]) -> int:
    """How many different values these settings have together."""
    values = [[kind.get(name) for name in names] for kind in kinds]
    return sum(value not in values[:i] for i, value in enumerate(values))


def _shown(key: str, method: Method, kinds: Sequence[Method]) -> str:
    """A setting in a name: ``credit.mixing=0.5``, or ``teacher=Live`` for the part of a group.

    Of a long value its end, or else its beginning, where that still tells it from the others'.
    """
    values = list(dict.fromkeys(spelled(kind.get(key)) for kind in kinds))
    value = spelled(method.get(key))
    if key.endswith("._target_"):
        key, value = key.removesuffix("._target_"), value.rpartition(".")[2]
        return f"{key}={value}"
    for cut in (_end, _beginning):
        if len({cut(other) for other in values}) == len(values):
            return f"{key}={cut(value)}"
    return f"{key}={value}"


def _end(text: str) -> str:
    return text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"


def _beginning(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
