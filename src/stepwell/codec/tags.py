"""Data as text that tells every type from every other: what fingerprints are made of.

Unlike JSON it knows a tuple from a list and a date from its text, and it does not depend on the order of a set or a
dict, on the process, on the hash seed, or on the module that a class was loaded from. It is compared, and never read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, tzinfo
from enum import Enum
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii
from math import isfinite
from types import NoneType
from typing import TYPE_CHECKING, Any

from stepwell.codec.structure import field_names, kind, named_parts
from stepwell.domain.errors import InvalidValue
from stepwell.domain.values import MAX_DEPTH, MAX_INTEGER, Trail, place

if TYPE_CHECKING:
    from decimal import Decimal

_Tagger = Callable[[Any, Trail, int], str]

# Other types of these modules are data, and their text says all of it: addresses, URLs, fractions; secrets show a mask.
_TEXT_MODULES = frozenset(
    {"fractions", "ipaddress", "pydantic.networks", "pydantic.types", "pydantic_core._pydantic_core"}
)


def tagged(value: Any, trail: Trail, room: int = MAX_DEPTH) -> str:
    """The tagged text of `value`, in ASCII.

    Raises `InvalidValue` naming the place: `step.argument` for what is not data, `value.nan`, `value.depth`.
    """
    return _tagger(type(value))(value, trail, room)


def _choose_tagger(made: type[Any]) -> _Tagger:
    if made in _EXACT:
        return _EXACT[made]
    if field_names(made) is not None:
        return _bounded(_named)
    for base, tagger in _taggers():
        if issubclass(made, base):
            return tagger
    return _as(made.__qualname__, str) if made.__module__ in _TEXT_MODULES else _refuse


_tagger: Callable[[Any], _Tagger] = lru_cache(maxsize=1024)(_choose_tagger)


def _refuse(value: object, trail: Trail, room: int) -> str:
    here = place(trail)
    reason = f"{here} ({type(value).__qualname__}) is not data"
    hint = "make the step a method of ctx.deps, and pass it data alone"
    raise InvalidValue(reason, path=here, code="step.argument", hint=hint)


def _bounded(tagger: _Tagger) -> _Tagger:
    def bounded(value: Any, trail: Trail, room: int) -> str:
        if room > 0:
            return tagger(value, trail, room - 1)
        here = place(trail)
        reason = f"{here} is nested more than {MAX_DEPTH} levels deep, or contains itself"
        raise InvalidValue(reason, path=here, code="value.depth", hint="pass it flat, or refer to its parts by name")

    return bounded


def _node(name: str, parts: Iterable[str]) -> str:
    return f"({name} {' '.join(parts)})"


# --- leaves -----------------------------------------------------------------------------------------------------------


def _text(value: str, trail: Trail, room: int) -> str:
    return encode_basestring_ascii(value)  # lone surrogates are welcome: names of files may hold them


def _integer(value: int, trail: Trail, room: int) -> str:
    return int.__repr__(value) if -MAX_INTEGER <= value <= MAX_INTEGER else hex(value)


def _float(value: float, trail: Trail, room: int) -> str:
    if isfinite(value):
        return float.__repr__(value)
    raise _not_finite(trail)


def _decimal(value: Decimal, trail: Trail, room: int) -> str:
    if value.is_finite():
        return _node("decimal", [str(value)])
    raise _not_finite(trail)


def _not_finite(trail: Trail) -> InvalidValue:
    here = place(trail)
    return InvalidValue(f"{here} is not a finite number", path=here, code="value.nan", hint="use None or text")


def _enum(value: Enum, trail: Trail, room: int) -> str:
    return _node(f"enum {type(value).__qualname__}", [encode_basestring_ascii(str(value.name or value.value))])


def _as(name: str, write: Callable[[Any], str]) -> _Tagger:
    return lambda value, trail, room: _node(name, [encode_basestring_ascii(write(value))])


# --- containers -------------------------------------------------------------------------------------------------------


def _named(value: object, trail: Trail, room: int) -> str:
    parts = [
        f"{encode_basestring_ascii(name)}:{tagged(part, (trail, name), room)}"
        for name, part in (named_parts(value) or {}).items()
    ]
    return _node(f"data {kind(value).__qualname__}", sorted(parts))


def _mapping(value: dict[object, object], trail: Trail, room: int) -> str:
    pairs = [f"{tagged(key, (trail, key), room)}:{tagged(item, (trail, key), room)}" for key, item in value.items()]
    return _node("dict", sorted(pairs))


def _set(value: frozenset[object], trail: Trail, room: int) -> str:
    return _node("set", sorted(tagged(member, trail, room) for member in value))


def _sequence(name: str) -> _Tagger:
    def sequence(value: Iterable[object], trail: Trail, room: int) -> str:
        return _node(name, [tagged(item, (trail, index), room) for index, item in enumerate(value)])

    return _bounded(sequence)


_EXACT: dict[type, _Tagger] = {
    dict: _bounded(_mapping),
    list: _sequence("list"),
    tuple: _sequence("tuple"),
    str: _text,
    int: _integer,
    float: _float,
    bool: lambda value, trail, room: "true" if value else "false",
    NoneType: lambda value, trail, room: "null",
}


@cache
def _taggers() -> tuple[tuple[type, _Tagger], ...]:
    """By class, subclasses before their bases: a datetime is a date, and members of some enums are text or integers."""
    # Imported when first needed: most arguments are scalars, and these three take a while.
    from decimal import Decimal
    from pathlib import PurePath
    from uuid import UUID

    return (
        (Enum, _enum),
        (datetime, _as("datetime", lambda value: f"{value.isoformat()} {value.fold}")),
        (date, _as("date", date.isoformat)),
        (time, _as("time", lambda value: f"{value.isoformat()} {value.fold}")),
        (timedelta, _as("timedelta", lambda value: f"{value.days} {value.seconds} {value.microseconds}")),
        (tzinfo, _as("zone", str)),
        (Decimal, _decimal),
        (UUID, _as("uuid", str)),
        (PurePath, _as("path", PurePath.as_posix)),
        (bytes, _as("bytes", bytes.hex)),
        (bytearray, _as("bytearray", bytearray.hex)),
        (dict, _bounded(_mapping)),
        (list, _sequence("list")),
        (tuple, _sequence("tuple")),
        (deque, _sequence("deque")),
        (set, _bounded(_set)),
        (frozenset, _bounded(_set)),
        (str, _as("str", str.__str__)),
        (float, lambda value, trail, room: _node("float", [_float(value, trail, room)])),
        (int, lambda value, trail, room: _node("int", [_integer(int(value), trail, room)])),
    )
