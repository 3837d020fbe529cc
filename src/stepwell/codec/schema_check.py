"""Checks plain data against a JSON Schema where the Python type is not at hand: at a door, for an answer.

It knows the part of JSON Schema that pydantic writes, and lets pass what it does not know: the last word has the codec
of the type. It never imports pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from stepwell.codec.problems import Problem
from stepwell.domain.values import Json, Trail, place, quote

Schema = Mapping[str, Any]

_SHOWN: Final = 20  # problems of one value
_OPTIONS: Final = 10  # of an enum, in one line

_TYPES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "string": ((str,), "text"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "array": ((list,), "a list"),
    "object": ((dict,), "an object"),
    "null": ((type(None),), "null"),
}
_FORMATS: Final[Mapping[str, tuple[Callable[[str], object], str]]] = {
    "date": (date.fromisoformat, "a date like 2026-11-19"),
    "date-time": (datetime.fromisoformat, "a date and time like 2026-11-19T14:30:00Z"),
    "uuid": (UUID, "a UUID"),
}
_BOUNDS: Final[Mapping[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "minimum": (lambda value, bound: value >= bound, "at least"),
    "maximum": (lambda value, bound: value <= bound, "at most"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "greater than"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "less than"),
    "multipleOf": (lambda value, bound: abs(value / bound - round(value / bound)) < 1e-9, "a multiple of"),
}
_LENGTHS: Final = (
    (str, "minLength", "maxLength", "characters"),
    (list, "minItems", "maxItems", "items"),
    (dict, "minProperties", "maxProperties", "fields"),
)


def check_schema(schema: Schema, value: Json, what: str = "answer") -> list[Problem]:
    """What is wrong with a value, each with its place (`answer.items[3].price`); empty when it fits.

    `what` is how the places begin. The first 20 problems are given.
    """
    found: list[Problem] = []
    for problem in _Check(schema).problems(schema, value, (None, what)):
        found.append(problem)
        if len(found) == _SHOWN:
            break
    return found


class _Check:
    """A walk over a value and its schema side by side; `root` is where references point into."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def problems(self, schema: Schema, value: Json, trail: Trail) -> Iterator[Problem]:
        if "$ref" in schema:
            yield from self.problems(self._resolve(schema["$ref"]), value, trail)
        for part in schema.get("allOf", ()):
            yield from self.problems(part, value, trail)
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            yield from self._no_option(schema, options, value, trail)
        reason = _own_reason(schema, value)
        if reason is not None:
            yield Problem(place(trail), f"{reason} (got {quote(value)})")
        elif isinstance(value, list):
            yield from self._items(schema, value, trail)
        elif isinstance(value, dict):
            yield from self._fields(schema, value, trail)

    def _resolve(self, reference: str) -> Schema:
        found: Any = self._root
        for name in reference.removeprefix("#/").split("/"):
            found = found[name.replace("~1", "/").replace("~0", "~")]
        resolved: Schema = found
        return resolved

    # ------------------------------------------------------------ alternatives

    def _no_option(self, schema: Schema, options: Sequence[Schema], value: Json, trail: Trail) -> Iterator[Problem]:
        """Nothing when the value fits one of the options; else what is wrong with it as the option that it means."""
        chosen = self._discriminated(schema, value)
        if chosen is not None:
            yield from self.problems(chosen, value, trail)
            return
        tried = [list(self.problems(option, value, trail)) for option in options]
        if not all(tried):
            return
        here = place(trail)
        inside = [problems for problems in tried if all(problem.path != here for problem in problems)]
        if inside:  # of the right shape: only something in it is wrong
            yield from min(inside, key=len)
        else:
            yield Problem(here, f"{_either([self.expected(option) for option in options])} (got {quote(value)})")

    def _discriminated(self, schema: Schema, value: Json) -> Schema | None:
        marker = schema.get("discriminator")
        if not marker or not isinstance(value, dict):
            return None
        meant = value.get(marker["propertyName"])
        reference = marker.get("mapping", {}).get(meant) if isinstance(meant, str) else None
        return None if reference is None else self._resolve(reference)

    def expected(self, schema: Schema) -> str:
        """What a schema asks for, in a few words."""
        if "$ref" in schema:
            return self.expected(self._resolve(schema["$ref"]))
        if "const" in schema:
            return quote(schema["const"])
        if "enum" in schema:
            shown = [quote(option) for option in schema["enum"][:_OPTIONS]]
            return ", ".join(shown) + (", …" if len(schema["enum"]) > _OPTIONS else "")
        if "format" in schema and schema["format"] in _FORMATS:
            return _FORMATS[schema["format"]][1]
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return _either([self.expected(option) for option in options], lead="")
        names = schema.get("type", ())
        return _either([_TYPES[name][1] for name in ([names] if isinstance(names, str) else names)], lead="")

    # ------------------------------------------------------------ containers

    def _items(self, schema: Schema, value: list[Json], trail: Trail) -> Iterator[Problem]:
        first: Sequence[Schema] = schema.get("prefixItems", ())
        rest = schema.get("items")
        for index, item in enumerate(value):
            inner = first[index] if index < len(first) else rest
            if isinstance(inner, Mapping):
                yield from self.problems(inner, item, (trail, index))

    def _fields(self, schema: Schema, value: dict[str, Json], trail: Trail) -> Iterator[Problem]:
        known: Mapping[str, Schema] = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield Problem(place((trail, name)), "is missing")
        for name, item in value.items():
            here: Trail = (trail, name)
            if name in known:
                yield from self.problems(known[name], item, here)
                continue
            if "propertyNames" in schema and any(self.problems(schema["propertyNames"], name, here)):
                yield Problem(place(here), f"should be named {self.expected(schema['propertyNames'])}")
            more = _additional(schema, name)
            if more is False:
                yield Problem(place(here), "is not a field that is known")
            elif isinstance(more, Mapping):
                yield from self.problems(more, item, here)


def _additional(schema: Schema, name: str) -> Any:
    """The schema of a field that is not declared; `False` where there must be none."""
    for pattern, inner in schema.get("patternProperties", {}).items():
        if _matches(pattern, name):
            return inner
    return schema.get("additionalProperties", False if "patternProperties" in schema else None)


# ---------------------------------------------------------------- a value by itself


def _own_reason(schema: Schema, value: Json) -> str | None:
    """Why a value does not fit what a schema says of it at the top; `None` when it does."""
    if "const" in schema and not _same(schema["const"], value):
        return f"should be {quote(schema['const'])}"
    if "enum" in schema and not any(_same(option, value) for option in schema["enum"]):
        return f"should be {_either([quote(option) for option in schema['enum'][:_OPTIONS]], lead='')}" + (
            ", …" if len(schema["enum"]) > _OPTIONS else ""
        )
    names = schema.get("type")
    if names is not None:
        names = [names] if isinstance(names, str) else names
        if not any(_is_of_type(value, name) for name in names):
            return _either([_TYPES[name][1] for name in names if name in _TYPES])
    return _bound_reason(schema, value) or _length_reason(schema, value) or _text_reason(schema, value)


def _is_of_type(value: Json, name: str) -> bool:
    if name not in _TYPES:
        return True
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name][0])


def _same(one: Json, other: Json) -> bool:
    """Equal as JSON: neither 1 and true, nor 1 and 1.0 are the same."""
    return type(one) is type(other) and one == other


def _bound_reason(schema: Schema, value: Json) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    for name, (holds, words) in _BOUNDS.items():
        if name in schema and not holds(value, schema[name]):
            return f"should be {words} {schema[name]}"
    return None


def _length_reason(schema: Schema, value: Json) -> str | None:
    for kind, least, most, words in _LENGTHS:
        if isinstance(value, kind):
            length = len(value)
            if length < schema.get(least, 0):
                return f"should have at least {schema[least]} {words}"
            if length > schema.get(most, length):
                return f"should have at most {schema[most]} {words}"
    return None


def _text_reason(schema: Schema, value: Json) -> str | None:
    if not isinstance(value, str):
        return None
    if "pattern" in schema and not _matches(schema["pattern"], value):
        return f"should match {schema['pattern']}"
    reads, words = _FORMATS.get(schema.get("format", ""), (None, ""))
    if reads is None:
        return None
    try:
        reads(value)
    except ValueError:
        return f"should be {words}"
    return None


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:  # written in the dialect of another engine, which will look at it
        return True


def _either(words: Sequence[str], lead: str = "should be ") -> str:
    """`should be a, b or c`."""
    *first, last = dict.fromkeys(words) or ("anything",)
    return lead + (f"{', '.join(first)} or {last}" if first else last)
