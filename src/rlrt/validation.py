"""Settings against the annotations of the constructor that they are for: the one check of types and ranges.

A constructor states what it takes, and ``validated`` checks every call of it:

    @validated("credit")
    def __init__(self, mixing: Annotated[float, Field(ge=0, le=1)] = 0.5, steps: PositiveInt | None = None)

so that ``credit.mixing=2`` ends in "credit.mixing is 2, it must lie in [0, 1]". pydantic decides; the
sentence is written here. A ``description`` takes the place of the second half of the sentence. Checks of
one setting against another are code of the constructor.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import AllowInfNan, Strict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    NoneType: "null",
}
# true is no number, 1 is not true, "1" is neither; a number that is due may be whole, but not infinite
STRICT: dict[Any, Any] = {
    bool: Annotated[bool, Strict()],
    int: Annotated[int, Strict()],
    float: Annotated[float, Strict(), AllowInfNan(False)],
    str: Annotated[str, Strict()],
    Path: str | Path,
}
OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
DESCRIBED = {"literal_error", "finite_number"}
Made = TypeVar("Made", bound=Callable[..., Any])


def validated(group: str) -> Callable[[Made], Made]:
    """Decorator of a constructor, or of a dataclass: ValueError for an argument that does not fit.

    ``group`` is the settings' name in the configuration, "" where they have none.
    """

    def decorate(made: Made) -> Made:
        init = made.__init__ if isinstance(made, type) else made  # type: ignore[misc]
        signature = inspect.signature(init)

        @wraps(init)
        def checking(*arguments: Any, **settings: Any) -> Any:
            given = signature.bind(*arguments, **settings).arguments
            for name, hint in _hints(init).items():
                if name in given:
                    _check(given[name], hint, _full_name(group, name), _spelled_in_python, Any)
            return init(*arguments, **settings)

        if isinstance(made, type):
            made.__init__ = checking  # type: ignore[misc]
            return made
        return checking  # type: ignore[return-value]

    return decorate


def check_settings(make: Callable[..., Any], settings: Mapping[str, Any], group: str) -> None:
    """ValueError for the first setting that ``make`` does not take, or does not take with this value.

    The settings are those of a configuration: plain values, and mappings for what is yet to be built.
    """
    parameters = inspect.signature(make).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    hints = _hints(make.__init__ if isinstance(make, type) else make)  # type: ignore[misc]
    for name, value in settings.items():
        if name not in parameters and not takes_any:
            raise ValueError(
                f"{_full_name(group, name)} is no setting; {group} has: {', '.join(parameters)}"
            )
        if name in hints:
            part = Mapping[str, Any]
            _check(value, hints[name], _full_name(group, name), spelled, part)


def spelled(value: Any) -> str:
    """A value as the configuration spells it: null, true, "text", [1, 2]."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _spelled_in_python(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def _full_name(group: str, name: str) -> str:
    return f"{group}.{name}" if group else name


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:  # a library's hints may name what only its type checker imports
        return {}


def _check(value: Any, hint: Any, name: str, show: Callable[[Any], str], part: Any) -> None:
    """ValueError where a value does not fit; ``part``: what stands for a class of the project."""
    try:
        _adapter(hint, part).validate_python(value)
    except ValidationError as error:
        problems = {problem["type"]: problem for problem in error.errors(include_url=False)}
        outside = [problem for kind, problem in problems.items() if kind in OUT_OF_RANGE]
        description = _description(hint)
        if description is not None and (outside or problems.keys() & DESCRIBED):
            joint = "; " if description.startswith("allowed") else ", "
            raise ValueError(f"{name} is {show(value)}{joint}{description}") from None
        if outside:
            value, allowed = outside[0]["input"], range_in_words(hint)
        else:
            allowed = f"be {type_in_words(hint)}"
        raise ValueError(f"{name} is {show(value)}, it must {allowed}") from None


@cache
def _adapter(hint: Any, part: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_strict(hint, part))


def _strict(hint: Any, part: Any) -> Any:
    """The hint with strict scalars, any list for a tuple, and ``part`` for every other class."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[_strict(inner[0], part), *inner[1:]]
    if origin in (Union, UnionType):
        return Union[tuple(_strict(choice, part) for choice in inner)]  # noqa: UP007
    if origin is tuple:
        return tuple[tuple(x if x is Ellipsis else _strict(x, part) for x in inner)]  # type: ignore[misc]
    if _is_list(origin):
        return list[_strict(inner[0], part)]  # type: ignore[misc]
    if hint is Any or hint is None or hint is NoneType or origin is Literal:
        return hint
    return STRICT.get(hint, part)


def _is_list(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(list, origin)


def type_in_words(hint: Any) -> str:
    """A hint without its range: "null or a whole number"."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_in_words(inner[0])
    if hint in WORDS:
        return WORDS[hint]
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(sorted({type_in_words(choice) for choice in inner}))
    if origin is tuple and Ellipsis not in inner:
        return f"a list of {len(inner)}, each {type_in_words(inner[0])}"
    return f"a list, each {type_in_words(inner[0])}" if inner else f"a {_class_name(hint)}"


def _class_name(hint: Any) -> str:
    return str(getattr(hint, "__name__", hint))


def range_in_words(hint: Any) -> str:
    """What a hint allows, after "it must": "lie in [0, 1]", "be null or at least 1"."""
    bounds = _bounds(hint)
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    whole = "whole number" in type_in_words(hint)
    if low is not None and high is not None:
        left, right = "[" if "ge" in bounds else "(", "]" if "le" in bounds else ")"
        verb, allowed = "lie", f"in {left}{low}, {high}{right}"
    elif low is None:
        verb, allowed = "be", f"at most {high}" if "le" in bounds else f"below {high}"
    elif "gt" in bounds:
        verb, allowed = "be", f"at least {low + 1}" if whole else f"above {low}"
    elif low == 0 and not whole:
        return "be null or not negative" if _is_optional(hint) else "not be negative"
    else:
        verb, allowed = "be", f"at least {low}"
    if not _is_optional(hint):
        return f"{verb} {allowed}"
    return "be null or " + (allowed if verb == "be" else f"lie {allowed}")


def _parts(hint: Any) -> Iterable[Any]:
    """The hint and all that it is made of, metadata included."""
    yield hint
    for inner in get_args(hint):
        yield from _parts(inner)
        if isinstance(inner, FieldInfo):
            yield from inner.metadata


def _bounds(hint: Any) -> dict[str, Any]:
    bounds = {}
    for part in _parts(hint):
        for side in ("ge", "gt", "le", "lt"):
            if not isinstance(part, type) and (bound := getattr(part, side, None)) is not None:
                bounds[side] = bound
    return bounds


def _is_optional(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _is_optional(get_args(hint)[0])
    return NoneType in get_args(hint)


def _description(hint: Any) -> str | None:
    texts: Sequence[str] = [
        part.description
        for part in _parts(hint)
        if isinstance(part, FieldInfo) and part.description
    ]
    return texts[0] if texts else None
