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
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import AllowInfNan, Strict, TypeAdapter, ValidationError, WithJsonSchema

WORDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a finite number",
    "string": "text",
    "null": "null",
    "dict": "a mapping",
}
# true is no number, 1 is not true, "1" is neither; a number that is due may be whole, but not infinite
STRICT: dict[Any, Any] = {
    bool: Annotated[bool, Strict()],
    int: Annotated[int, Strict()],
    float: Annotated[float, Strict(), AllowInfNan(False)],
    str: Annotated[str, Strict()],
    Path: Annotated[str | Path, WithJsonSchema({"type": "Path"})],
}
OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
DESCRIBED = {"literal_error", "finite_number"}
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
Constructor = TypeVar("Constructor", bound=Callable[..., Any])


def validated(group: str) -> Callable[[Constructor], Constructor]:
    """Decorator of a constructor, or of a dataclass: ValueError for an argument that does not fit.

    ``group`` is the settings' name in the configuration, "" where they have none.
    """

    def decorate(constructor: Constructor) -> Constructor:
        init = constructor.__init__ if isinstance(constructor, type) else constructor  # type: ignore[misc]
        signature = inspect.signature(init)

        @wraps(init)
        def checking(*arguments: Any, **settings: Any) -> Any:
            given = signature.bind(*arguments, **settings).arguments
            for name, hint in _hints(init).items():
                if name in given:
                    _check(given[name], hint, _full_name(group, name), _spelled_in_python, Any)
            return init(*arguments, **settings)

        if isinstance(constructor, type):
            constructor.__init__ = checking  # type: ignore[misc]
            return constructor
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
            _check(value, hints[name], _full_name(group, name), spelled, Mapping[str, Any])


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


def _check(value: Any, hint: Any, name: str, spell: Callable[[Any], str], any_class: Any) -> None:
    """ValueError where a value does not fit; ``any_class`` is the type of whatever is due for a class."""
    adapter = _adapter(hint, any_class)
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        problems = {problem["type"]: problem for problem in error.errors(include_url=False)}
        outside = [problem for kind, problem in problems.items() if kind in OUT_OF_RANGE]
        schema = adapter.json_schema()
        description = _collected(schema, ("description",)).get("description")
        if description is not None and (outside or problems.keys() & DESCRIBED):
            joint = "; " if description.startswith("allowed") else ", "
            raise ValueError(f"{name} is {spell(value)}{joint}{description}") from None
        if outside:
            value, allowed = outside[0]["input"], _range_in_words(schema)
        else:
            allowed = f"be {_type_in_words(schema)}"
        raise ValueError(f"{name} is {spell(value)}, it must {allowed}") from None


@cache
def _adapter(hint: Any, any_class: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_strict(hint, any_class))


def _strict(hint: Any, any_class: Any) -> Any:
    """The hint with strict scalars, a list for any sequence, and ``any_class`` for every other class."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[_strict(inner[0], any_class), *inner[1:]]
    if origin in (Union, UnionType):
        return Union[tuple(_strict(choice, any_class) for choice in inner)]  # noqa: UP007
    if origin is tuple:
        return tuple[tuple(x if x is Ellipsis else _strict(x, any_class) for x in inner)]  # type: ignore[misc]
    if isinstance(origin, type) and issubclass(list, origin):
        return list[_strict(inner[0], any_class)]  # type: ignore[misc]
    if hint in (Any, None, NoneType) or origin is Literal:
        return hint
    name = getattr(hint, "__name__", str(hint))
    return STRICT.get(hint, Annotated[any_class, WithJsonSchema({"type": name})])


def _type_in_words(schema: Mapping[str, Any]) -> str:
    """The type of a JSON schema without its range: "null or a whole number"."""
    if "anyOf" in schema:
        return " or ".join(sorted({_type_in_words(choice) for choice in schema["anyOf"]}))
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return "one of " + ", ".join(map(str, choices))
    if "prefixItems" in schema:
        items = schema["prefixItems"]
        return f"a list of {len(items)}, each {_type_in_words(items[0])}"
    if "items" in schema:
        return f"a list, each {_type_in_words(schema['items'])}"
    return WORDS.get(schema["type"], f"a {schema['type']}")


def _range_in_words(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, after "it must": "lie in [0, 1]", "be null or at least 1"."""
    bounds = _collected(schema, BOUNDS)
    low, above, high, below = map(bounds.get, BOUNDS)
    types = _type_in_words(schema)
    optional, counted = "null" in types, "whole number" in types
    has_low = low is not None or above is not None
    has_high = high is not None or below is not None
    if has_low and has_high:
        left = f"({above}" if low is None else f"[{low}"
        right = f"{below})" if high is None else f"{high}]"
        verb, allowed = "lie", f"in {left}, {right}"
    elif has_high:
        verb, allowed = "be", f"below {below}" if high is None else f"at most {high}"
    elif above is not None:
        verb, allowed = "be", f"at least {above + 1}" if counted else f"above {above}"
    elif low == 0 and not counted:
        return "be null or not negative" if optional else "not be negative"
    else:
        verb, allowed = "be", f"at least {low}"
    if not optional:
        return f"{verb} {allowed}"
    return "be null or " + (allowed if verb == "be" else f"lie {allowed}")


def _collected(schema: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The values of these keywords, wherever a JSON schema has them."""
    values = {name: schema[name] for name in names if name in schema}
    for inner in (*schema.get("anyOf", []), *schema.get("prefixItems", []), schema.get("items")):
        if isinstance(inner, Mapping):
            values = _collected(inner, names) | values
    return values
