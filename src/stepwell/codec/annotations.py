"""From an annotation to its codec, and the doors' view of it: accept input, encode input, show a schema.

Codecs are built once and kept. Building one only reads the annotation; pydantic is imported when it is first used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, overload

from stepwell.codec.codec import Codec, T, name_of
from stepwell.codec.ordering import with_sorted_sets
from stepwell.codec.plain import PlainCodec, plain_shapes
from stepwell.domain.errors import InvalidInput, InvalidValue
from stepwell.domain.values import check, dumps, reread


@overload
def codec_for(annotation: type[T]) -> Codec[T]: ...
@overload
def codec_for(annotation: Any) -> Codec[Any]: ...
def codec_for(annotation: Any) -> Codec[Any]:
    """The codec of an annotation as it stands on a function (resolved, not as text).

    No annotation (`inspect.Parameter.empty`), `Any` and `object` mean plain JSON. Whether pydantic knows the types in
    it shows at first use, as `InvalidDefinition`.
    """
    if isinstance(annotation, type):
        return _known(annotation, "")
    try:
        return _known(annotation, repr(annotation))
    except TypeError:  # unhashable metadata in Annotated
        return _build(annotation)


@lru_cache(maxsize=2048)
def _known(annotation: Any, spelling: str) -> Codec[Any]:
    # Equal annotations may differ in meaning, as `A | B` and `B | A` do where both fit: the spelling tells them apart.
    return _build(annotation)


def _build(annotation: Any) -> Codec[Any]:
    shapes = plain_shapes(annotation)
    if shapes is not None:
        return PlainCodec(annotation, shapes)
    from stepwell.codec.typed import TypedCodec  # a program of plain values never needs it

    return TypedCodec(annotation)


def decode_input(annotation: Any, plain_value: object, what: str = "input") -> Any:
    """The typed input that parsed JSON from outside stands for.

    Text is never taken for a number, nor a number for a truth value; dates, enums, paths and the like are read from
    their text. Unknown fields of a dataclass are refused, those of a model as the model says. Raises `InvalidInput`
    with one line for each field that is wrong, and `InvalidValue` for what is no value at all (NaN, NUL, …).
    """
    return codec_for(annotation).accept(plain_value, what)


def encode_input(annotation: Any, value: object, what: str = "input") -> str:
    """The JSON text of an input given in Python: an object of the annotated type, or plain JSON data that fits it.

    Equal inputs give equal text, up to the order of keys. It is read back with `codec_for(annotation).decode`.
    Raises `InvalidInput` naming the field, and `InvalidValue` for what is no value at all (NaN, NUL, …).
    """
    codec = codec_for(annotation)
    try:
        return _stable_text(codec, value, what)
    except InvalidValue as error:
        if error.code not in ("value.round_trip", "value.type", "value.key"):
            raise
        refused = error
    if not _is_plain(value):
        hint = f"pass {name_of(annotation)}, or plain JSON that fits it, or annotate the parameter with what you pass"
        raise InvalidInput(refused.message, path=refused.path, hint=hint)
    return _stable_text(codec, codec.accept(value, what), what)


def _stable_text(codec: Codec[Any], value: object, what: str) -> str:
    text = codec.encode(value, what)
    return text if isinstance(codec, PlainCodec) else dumps(with_sorted_sets(reread(text), value))


def _is_plain(value: object) -> bool:
    try:
        check(value)
    except InvalidValue:
        return False
    return True


def json_schema(annotation: Any) -> dict[str, Any]:
    """The JSON Schema of what `decode_input` takes. Raises `InvalidDefinition` for types without one."""
    return codec_for(annotation).schema()
