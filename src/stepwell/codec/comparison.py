"""Compares a value with what came back from its own text, and names the first place where they differ.

Stricter than `==`, which calls (1, 2) unlike [1, 2] but True like 1, and a member of a `StrEnum` like its text: types
must be equal at every level too. Only an int may come back as the equal float, where the annotation says `float`, and
a member of a `StrEnum` that is a key as its text, where the annotation says `str`: it finds the same entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime, time
from enum import StrEnum
from functools import lru_cache
from types import NoneType
from typing import Any

from stepwell.codec.structure import all_parts, field_names, kind
from stepwell.codec.tags import tagged
from stepwell.domain.errors import InvalidValue
from stepwell.domain.values import Trail, place, quote


def compare(given: object, back: object, what: str, is_same_text: Callable[[], bool]) -> None:
    """Raise `InvalidValue` (`value.round_trip`) naming the first place where `back` is not what was given.

    `is_same_text` tells whether both have the same text; it is asked only about objects that define no equality.
    """
    _Comparison(what, is_same_text).compare(given, back, (None, what))


_KEEP = "use a type that reads from JSON what it writes to it"
_EXACT = frozenset({str, int, float, bool, NoneType})  # the short way of most leaves


class _Comparison:
    def __init__(self, what: str, is_same_text: Callable[[], bool]) -> None:
        self._what = what
        self._is_same_text = is_same_text

    def compare(self, given: Any, back: Any, trail: Trail) -> None:
        if given is back or (type(given) in _EXACT and type(given) is type(back) and given == back):
            return
        if type(given) is not type(back):
            if type(given) is int and type(back) is float and given == back:
                return
            if kind(given) is not kind(back):
                raise self._other_type(given, back, trail)
        _comparer(type(given))(self, given, back, trail)

    def mapping(self, given: dict[object, object], back: dict[object, object], trail: Trail) -> None:
        keys = {key: key for key in back}
        for key, item in given.items():
            key_back = keys.get(key, str(key))
            if key_back not in keys:
                raise self._lost((trail, key))
            if type(key_back) is not type(key) and not (type(key_back) is str and isinstance(key, StrEnum)):
                raise self._other_key(key, key_back, (trail, key))
            self.compare(item, back[key], (trail, key))
        for key in keys:
            if key not in given:
                raise self._appeared((trail, key))

    def sequence(self, given: list[object], back: list[object], trail: Trail) -> None:
        for index, (item, item_back) in enumerate(zip(given, back, strict=False)):
            self.compare(item, item_back, (trail, index))
        if len(given) != len(back):
            raise self._lost((trail, len(back))) if len(given) > len(back) else self._appeared((trail, len(given)))

    def set(self, given: frozenset[object], back: frozenset[object], trail: Trail) -> None:
        members = {member: member for member in back}
        if len(given) == len(back) and all(member in members for member in given):
            for member in given:
                self.compare(member, members[member], trail)
        elif not _hold_equal_data(given, back):  # members that define no equality are never found
            raise self._other_value(given, back, trail)

    def parts(self, given: object, back: object, trail: Trail) -> None:
        ours, theirs = all_parts(given), all_parts(back)
        for name, part in ours.items():
            if name not in theirs:
                raise self._lost((trail, name))
            self.compare(part, theirs[name], (trail, name))
        if len(theirs) > len(ours):
            raise self._appeared((trail, next(name for name in theirs if name not in ours)))

    def moment(self, given: datetime | time, back: datetime | time, trail: Trail) -> None:
        # The name of a zone is not kept, its offset is. == would do for neither: equal moments may lie in different
        # zones, and in an hour that the clocks repeat it calls equal moments of two zones unequal, naive ones equal.
        is_same = (
            given.replace(tzinfo=None) == back.replace(tzinfo=None)
            and given.utcoffset() == back.utcoffset()
            and (given.tzinfo is None) == (back.tzinfo is None)
            and (given.tzinfo is not None or given.fold == back.fold)
        )
        if not is_same:
            hint = "convert it to UTC with .astimezone(UTC)"
            raise self._other_value(given, back, trail, hint)

    def leaf(self, given: object, back: object, trail: Trail) -> None:
        answer = given == back
        is_undecided = answer is not True and (answer is not False or type(given).__eq__ is object.__eq__)
        if not (self._is_same_text() if is_undecided else answer):
            raise self._other_value(given, back, trail)

    def _other_type(self, given: object, back: object, trail: Trail) -> InvalidValue:
        was, becomes = type(given).__qualname__, type(back).__qualname__
        if isinstance(given, type(back)):
            hint = (
                f"convert it to {becomes}, or annotate {was} (or a union that names it): {becomes} keeps only its part"
            )
        else:
            hint = f"return {becomes}, or annotate {was}: the annotation of {self._what} decides what comes back"
        return self._error(f"{place(trail)} is of type {was} and would come back as {becomes}", trail, hint)

    def _other_key(self, given: object, back: object, trail: Trail) -> InvalidValue:
        was, becomes = type(given).__qualname__, type(back).__qualname__
        hint = f"use keys of type {becomes}, or annotate the keys as {was}"
        return self._error(f"the key of {place(trail)} is of type {was} and would come back as {becomes}", trail, hint)

    def _other_value(self, given: object, back: object, trail: Trail, hint: str = _KEEP) -> InvalidValue:
        before, after = quote(given), quote(back)
        becomes = "otherwise" if before == after else f"as {after}"
        return self._error(f"{place(trail)} is {before} and would come back {becomes}", trail, hint)

    def _lost(self, trail: Trail) -> InvalidValue:
        hint = f"leave it out, or annotate {self._what} with a type that keeps it"
        return self._error(f"{place(trail)} would not come back", trail, hint)

    def _appeared(self, trail: Trail) -> InvalidValue:
        return self._error(f"{place(trail)} was not there and would come back", trail, _KEEP)

    def _error(self, message: str, trail: Trail, hint: str) -> InvalidValue:
        return InvalidValue(message, path=place(trail), code="value.round_trip", hint=hint)


_Comparer = Callable[[_Comparison, Any, Any, Trail], None]


def _choose_comparer(made: type[Any]) -> _Comparer:
    method: _Comparer
    if field_names(made) is not None:
        method = _Comparison.parts
    elif issubclass(made, dict):
        method = _Comparison.mapping
    elif issubclass(made, datetime | time):
        method = _Comparison.moment
    elif issubclass(made, set | frozenset):
        method = _Comparison.set
    elif issubclass(made, list | tuple | deque):
        method = _Comparison.sequence
    else:
        method = _Comparison.leaf
    return method


_comparer: Callable[[Any], _Comparer] = lru_cache(maxsize=1024)(_choose_comparer)


def _hold_equal_data(given: frozenset[object], back: frozenset[object]) -> bool:
    try:
        return tagged(given, (None, "")) == tagged(back, (None, ""))
    except InvalidValue:
        return False
