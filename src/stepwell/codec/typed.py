"""The codec of every annotation that says more than plain JSON, on pydantic, which is imported at first use.

No error and no warning of pydantic leaves this module: errors become `InvalidValue`, `InvalidInput` or
`InvalidDefinition`.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NewType, cast

from stepwell.codec.codec import Codec, T, name_of, undecodable
from stepwell.codec.comparison import compare
from stepwell.codec.faults import find_fault, find_unwritable
from stepwell.codec.problems import problems_of
from stepwell.domain.errors import InvalidDefinition, InvalidInput, InvalidValue
from stepwell.domain.values import check, dumps, loads, reread

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import PydanticSerializationError


class TypedCodec(Codec[T]):
    """Values of any type that pydantic knows.

    Stored text holds fields under their names, never under aliases, which may differ between writing and reading.
    """

    def remember(self, value: object, what: str) -> tuple[str, T]:
        text = self._write(value, what)
        back = self._read_back(value, text, what)
        try:
            compare(value, back, what, lambda: self._write(back, what) == text)
        except InvalidValue as error:
            raise find_fault(value, what) or error from None
        return text, back

    def decode(self, text: str, what: str) -> T:
        try:
            return self._stored.validate_json(text, strict=True, by_alias=False, by_name=True)
        except _invalid() as error:
            problems = problems_of(error, loads(text, what=what), what)  # `loads` raises if the text is damaged
        raise undecodable("; ".join(map(str, problems)), what, problems[0].path)

    def accept(self, plain: object, what: str) -> T:
        check(plain, what=what)
        try:
            return self._outside.validate_json(dumps(plain), strict=True)
        except _invalid() as error:
            problems = problems_of(error, plain, what)
        raise InvalidInput("\n".join(map(str, problems)), path=problems[0].path)

    def schema(self) -> dict[str, Any]:
        from pydantic.errors import PydanticUserError

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of defaults that JSON Schema cannot show
            try:
                return self._outside.json_schema()
            except PydanticUserError as error:
                reason = f"{name_of(self.annotation)} has no JSON Schema: {_gist(error)}"
                raise InvalidDefinition(reason, code="definition.type") from None

    @cached_property
    def _stored(self) -> TypeAdapter[T]:
        return _adapter(self.annotation, "ignore")

    @cached_property
    def _outside(self) -> TypeAdapter[T]:
        return _adapter(self.annotation, "forbid")

    def _write(self, value: object, what: str) -> str:
        try:
            # A value of another type is written as what it is: what comes back differs, and the comparison says where.
            written = self._stored.dump_json(cast(T, value), by_alias=False, round_trip=True, warnings=False)
        except _unwritable() as error:
            reason = f"{what} cannot be written as JSON: {_gist(error)}"
            unknown = InvalidValue(reason, path=what, code="value.type")
            raise find_fault(value, what) or find_unwritable(value, what) or unknown from None
        text = written.decode()
        try:
            check(reread(text), what=what)
        except ValueError as error:  # from `check`, or from an integer of more digits than Python reads
            raise find_fault(value, what) or _not_read_back(error, what) from None
        return text

    def _read_back(self, value: object, text: str, what: str) -> T:
        try:
            return self._stored.validate_json(text, strict=True, by_alias=False, by_name=True)
        except _invalid() as error:
            problems = problems_of(error, reread(text), what)
        raise find_fault(value, what) or InvalidValue(
            "\n".join(map(str, problems)),
            path=problems[0].path,
            code="value.round_trip",
            hint=f"return what the annotation {name_of(self.annotation)} says, or change the annotation",
        )


# What an `except` names is looked up when something was raised, and pydantic is loaded by then: a call that goes well
# pays for no import statement.
def _invalid() -> type[ValidationError]:
    from pydantic import ValidationError

    return ValidationError


def _unwritable() -> type[PydanticSerializationError]:
    from pydantic_core import PydanticSerializationError

    return PydanticSerializationError


def _adapter(annotation: Any, extra: Literal["ignore", "forbid"]) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    # A NewType, because an adapter takes no configuration for a bare dataclass; inside another type, dataclasses,
    # typed dicts and named tuples inherit it. Models have their own.
    wrapped = NewType("wrapped", annotation)  # type: ignore[valid-newtype]  # a value, not a declaration
    settings = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", extra=extra)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's remarks on the user's types, which are no matter of this call
        try:
            adapter = TypeAdapter(wrapped, config=settings)
            adapter.rebuild(raise_errors=True)
        except Exception as error:  # types may carry hooks of their own, and whatever fails is the fault of the type
            raise _bad_annotation(annotation, error) from error
    return adapter


_USE_DATA = "use data: numbers, text, dates, lists, dicts, dataclasses, models"


def _bad_annotation(annotation: Any, error: Exception) -> InvalidDefinition:
    hints = {
        "typed-dict-version": "import TypedDict from typing_extensions, as Python before 3.12 needs it",
        "undefined-annotation": "define the missing type at the top of its module",
        "class-not-fully-defined": "define the missing type at the top of its module",
    }
    reason = f"values of {name_of(annotation)} cannot be stored: {_gist(error)}"
    advice = hints.get(getattr(error, "code", None) or "", _USE_DATA)
    return InvalidDefinition(reason, code="definition.type", hint=advice)


def _not_read_back(error: ValueError, what: str) -> InvalidValue:
    if isinstance(error, InvalidValue):
        return error
    reason = f"{what} is written as JSON that cannot be read back: {_gist(error)}"
    return InvalidValue(reason, path=what, code="value.round_trip")


def _gist(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0]
