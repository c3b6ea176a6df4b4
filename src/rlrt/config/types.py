"""Settings against the type hints of the constructor that they are for: the one check of types.

Hydra hands on whatever YAML or the command line holds. Unchecked, ``credit.mixing=abc`` would fail in
a comparison somewhere, and ``seed=true`` would count as 1.
"""

import inspect
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rlrt.errors import UserError

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    NoneType: "null",
}


def require_types(make: Callable[..., Any], settings: Mapping[str, Any], group: str) -> None:
    """UserError for the first setting that ``make`` does not take, or takes in another type only.

    ``group`` is the settings' name in the configuration, as in ``credit``; a number that is due may
    be whole, true is never a number, and neither infinity nor NaN is one.
    """
    prefix = f"{group}." if group else ""
    parameters = inspect.signature(make).parameters
    for name in settings:
        if name not in parameters and inspect.Parameter.VAR_KEYWORD not in {
            parameter.kind for parameter in parameters.values()
        }:
            raise UserError(f"{prefix}{name} is no setting; {group} has: {', '.join(parameters)}")
    try:
        hints = get_type_hints(make.__init__ if isinstance(make, type) else make)  # type: ignore[misc]
    except NameError:  # a library's hints may name what only its type checker imports
        return
    for name, value in settings.items():
        if name in hints and not fits(value, hints[name]):
            raise UserError(f"{prefix}{name} is {shown(value)}, it must be {said(hints[name])}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value, or a part to be built (a mapping with ``_target_``), fits a hint."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, choice) for choice in inner)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin is tuple and Ellipsis not in inner:
        fit = isinstance(value, list) and len(value) == len(inner)
        return fit and all(map(fits, value, inner))
    if (isinstance(origin, type) and issubclass(list, origin)) or origin is tuple:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint in WORDS:
        return type(value) is (NoneType if hint is None else hint)
    if hint in (Any, Path):
        return hint is Any or isinstance(value, str)
    return isinstance(value, Mapping)


def said(hint: Any) -> str:
    """A hint in words: "null or a whole number"."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in WORDS:
        return WORDS[hint]
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(sorted({said(choice) for choice in inner}))
    if origin is tuple and Ellipsis not in inner:
        return f"a list of {len(inner)}, each {said(inner[0])}"
    return f"a list, each {said(inner[0])}" if inner else f"a {getattr(hint, '__name__', hint)}"


def shown(value: Any) -> str:
    """A value as the configuration spells it: null, true, "text", [1, 2]."""
    return json.dumps(value, ensure_ascii=False, default=str)
