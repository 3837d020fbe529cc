"""Finds the part of a typed object that cannot be stored, once storing it has failed.

pydantic writes NaN as null and says of other faults only that there is one; the user needs the place. Called on failure
alone, so it may be slow. It changes nothing and never decides whether a value is acceptable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum

from stepwell.codec.structure import named_parts
from stepwell.domain.errors import InvalidValue
from stepwell.domain.values import MAX_DEPTH, Trail, check, place, quote


def find_fault(value: object, what: str) -> InvalidValue | None:
    """The first thing in `value` that no store can hold (NaN, NUL, a huge integer, nesting too deep), or None."""
    for leaf, trail in _leaves(value, (None, what), MAX_DEPTH):
        fault = _fault_of(leaf, place(trail))
        if fault is not None:
            return fault
    return None


def find_unwritable(value: object, what: str) -> InvalidValue | None:
    """The first thing in `value` that has no JSON form: something open or alive, or else bytes in a model; or None."""
    leaves = list(_leaves(value, (None, what), MAX_DEPTH))
    for leaf, trail in leaves:
        if not _is_writable(leaf):
            return _not_data(leaf, place(trail))
    for leaf, trail in leaves:
        if isinstance(leaf, bytes) and not _is_utf8(leaf):
            return _not_utf8(place(trail))
    return None


class _TooDeep:
    """Stands for a container that is nested too deeply, or that contains itself."""


def _leaves(value: object, trail: Trail, room: int) -> Iterator[tuple[object, Trail]]:
    parts = _parts(value)
    if parts is None:
        yield value, trail
    elif room <= 0:
        yield _TooDeep(), trail
    else:
        for key, part in parts:
            yield from _leaves(part, (trail, key), room - 1)


def _parts(value: object) -> list[tuple[object, object]] | None:
    if isinstance(value, dict):
        return list(value.items()) + [(key, key) for key in value if not isinstance(key, int)]
    named = named_parts(value)
    if named is not None:
        return list(named.items())
    if isinstance(value, list | tuple | deque | set | frozenset):
        return list(enumerate(value))
    return None


def _fault_of(leaf: object, path: str) -> InvalidValue | None:
    if isinstance(leaf, Enum):
        return None
    if isinstance(leaf, _TooDeep):
        reason = f"{path} is nested more than {MAX_DEPTH} levels deep, or contains itself"
        return InvalidValue(reason, path=path, code="value.depth", hint="flatten it, or refer to its parts by name")
    if isinstance(leaf, Decimal) and not leaf.is_finite():
        reason = f"{path} is {quote(leaf)}, which is not a number that can be stored"
        return InvalidValue(reason, path=path, code="value.nan", hint="use None or text")
    if type(leaf) in (str, int, float):
        try:
            check(leaf, what=path)
        except InvalidValue as fault:
            return fault
    return None


def _is_writable(leaf: object) -> bool:
    from pydantic_core import PydanticSerializationError, to_json

    try:
        to_json(leaf, bytes_mode="base64")
    except PydanticSerializationError:
        return False
    return True


def _is_utf8(leaf: bytes) -> bool:
    try:
        leaf.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_data(leaf: object, path: str) -> InvalidValue:
    reason = f"{path} is of type {type(leaf).__qualname__}, which is not data"
    hint = "keep to data: numbers, text, dates, lists, dicts, dataclasses, models"
    return InvalidValue(reason, path=path, code="value.type", hint=hint)


def _not_utf8(path: str) -> InvalidValue:
    reason = f"{path} holds bytes that are not UTF-8 text, as its model would write them"
    hint = 'set model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64") in the model'
    return InvalidValue(reason, path=path, code="value.type", hint=hint)
