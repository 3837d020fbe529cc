"""Pydantic's validation errors in Stepwell's words: where, what should be there, what is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from stepwell.domain.values import Trail, place, quote

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_SHOWN = 20  # lines of one error
_PREFIXES = ("Value error, ", "Assertion failed, ")


class Problem(NamedTuple):
    """One thing that is wrong. As text it is a line of an error, `input.age: Input should be … (got 'x')`."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def problems_of(error: ValidationError, plain: object, what: str) -> list[Problem]:
    """What is wrong with `plain`, in pydantic's order and without repetition; the rest of very many is counted."""
    details = error.errors(include_url=False, include_context=False)
    problems = [Problem(_path(detail, plain, what), _text(detail)) for detail in details[:_SHOWN]]
    if len(details) > _SHOWN:
        problems.append(Problem(what, f"and {len(details) - _SHOWN} more"))
    return list(dict.fromkeys(problems))


def _path(detail: ErrorDetails, plain: object, what: str) -> str:
    # Only the part of the location that lies in the data: pydantic also names the union members and functions it tried.
    trail: Trail = (None, what)
    here: Any = plain
    for key in detail["loc"]:
        if _holds(here, key):
            trail, here = (trail, key), here[key]
    if _is_missing(detail):
        trail = (trail, detail["loc"][-1])
    return place(trail)


def _holds(here: object, key: int | str) -> bool:
    if isinstance(here, dict):
        return key in here
    return isinstance(here, list) and isinstance(key, int) and key < len(here)


def _is_missing(detail: ErrorDetails) -> bool:
    return detail["type"].startswith("missing") and bool(detail["loc"])


def _text(detail: ErrorDetails) -> str:
    if _is_missing(detail):
        return "Field required"
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return "Unknown field"
    message = " ".join(detail["msg"].split())
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return f"{message} (got {quote(detail['input'])})"
