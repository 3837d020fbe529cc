"""The codec of plain JSON: scalars, `dict`, `list`, `Any`, no annotation at all, and unions of these.

The fast path of nearly every step. It never imports pydantic.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from stepwell.codec.codec import UNTYPED, Codec, name_of, undecodable
from stepwell.domain.errors import InvalidInput, InvalidValue
from stepwell.domain.values import Json, check, dumps, loads, quote, reread

Shapes = frozenset[type]

ANY_SHAPE: Shapes = frozenset({NoneType, bool, int, float, str, list, dict})
_SCALARS: Shapes = ANY_SHAPE - {list, dict}

_SCHEMAS: dict[type, tuple[str, str]] = {  # by type: its name in JSON Schema, and in an error message
    str: ("string", "a valid string"),
    int: ("integer", "a valid integer"),
    float: ("number", "a valid number"),
    bool: ("boolean", "a valid boolean"),
    list: ("array", "a valid list"),
    dict: ("object", "a valid object"),
    NoneType: ("null", "null"),
}


def plain_shapes(annotation: Any) -> Shapes | None:
    """The types that a value of `annotation` may have at the top if plain JSON is all it says; None if it says more."""
    if annotation in UNTYPED:
        return ANY_SHAPE
    if annotation is None:
        return frozenset({NoneType})
    if isinstance(annotation, type) and annotation in ANY_SHAPE:
        return frozenset({annotation})
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Union or origin is UnionType:
        return _union(arguments)
    is_untyped = all(argument in UNTYPED for argument in arguments[-1:])
    if (origin is list and is_untyped) or (origin is dict and is_untyped and arguments[:1] in ((), (str,))):
        return frozenset({origin})
    return None


def _union(members: tuple[Any, ...]) -> Shapes | None:
    shapes: Shapes = frozenset()
    for member in members:
        more = plain_shapes(member)
        if more is None:
            return None
        shapes |= more
    return shapes


class PlainCodec(Codec[Any]):
    """Plain JSON, with the given types at the top. Scalars come back as they are, lists and dicts as copies."""

    def __init__(self, annotation: Any, shapes: Shapes) -> None:
        super().__init__(annotation)
        self._shapes = shapes
        self._is_anything = shapes == ANY_SHAPE
        self._widens = float in shapes and int not in shapes

    def remember(self, value: object, what: str) -> tuple[str, Any]:
        if type(value) not in self._shapes:
            value = self._fit(value, what)
        try:
            check(value, what=what)
        except InvalidValue as error:
            raise self._advised(error, what) from None
        text = dumps(value)
        return text, value if type(value) in _SCALARS else reread(text)

    def decode(self, text: str, what: str) -> Any:
        try:
            value = reread(text)
        except ValueError:  # damaged: parsed again, strictly, to say where
            value = loads(text, what=what)
        if type(value) in self._shapes:
            return value
        if type(value) is int and self._widens:
            return float(value)
        raise undecodable(f"it is {quote(value)}, and the annotation says {name_of(self.annotation)}", what)

    def accept(self, plain: object, what: str) -> Json:
        check(plain, what=what)
        if type(plain) in self._shapes:
            return plain  # type: ignore[return-value]  # checked in the first line
        if type(plain) is int and self._widens:
            return float(plain)
        expected = " or ".join(name for kind, (_, name) in _SCHEMAS.items() if kind in self._shapes)
        raise InvalidInput(f"{what}: Input should be {expected} (got {quote(plain)})", path=what)

    def schema(self) -> dict[str, Any]:
        if self._is_anything:
            return {}
        names = [name for kind, (name, _) in _SCHEMAS.items() if kind in self._shapes]
        return {"type": names[0] if len(names) == 1 else names}

    def _fit(self, value: object, what: str) -> object:
        if type(value) is int and self._widens:
            check(value, what=what)
            return float(value)
        if self._is_anything:
            return value  # what it is, `check` says
        kind, says = type(value).__qualname__, name_of(self.annotation)
        base = next((shape.__name__ for shape in self._shapes if isinstance(value, shape)), None)
        way_out = f"convert it with {base}(…)" if base else f"return {says}"
        raise InvalidValue(
            f"{what} is of type {kind}, and its annotation says {says}",
            path=what,
            code="value.round_trip",
            hint=f"{way_out}, or annotate {kind}",
        )

    def _advised(self, error: InvalidValue, what: str) -> InvalidValue:
        if error.code not in ("value.type", "value.key"):
            return error
        return InvalidValue(
            error.message, path=error.path, code=error.code, hint=f"annotate the return type of {what}, or {error.hint}"
        )
