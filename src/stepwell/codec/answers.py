"""Values that people and programs send into a run: as plain JSON, whatever Python objects they were, and for an answer
checked against the schema of its question.
"""

from __future__ import annotations

from typing import Any

from stepwell.codec.schema_check import Schema, check_schema
from stepwell.domain.errors import InvalidInput, InvalidValue
from stepwell.domain.values import Json, check, dumps


def encode_answer(schema: Schema, value: object, what: str = "answer") -> str:
    """The JSON text of an answer: plain data, or a typed object (a member of an enum, a dataclass, a model).

    Raises `InvalidInput` (`answer.invalid`) with a line for each place that does not fit what was asked for.
    """
    plain = plain_data(value, what)
    problems = check_schema(schema, plain, what)
    if problems:
        raise InvalidInput("\n".join(map(str, problems)), code="answer.invalid", path=problems[0].path)
    return dumps(plain)


def plain_data(value: Any, what: str) -> Json:
    """A value as plain JSON. What is plain already stays as it is; fields are written under their aliases, as the
    schemas have them.

    Raises `InvalidInput` naming the place that cannot be JSON.
    """
    try:
        check(value, what=what)
    except InvalidValue as error:
        if error.code != "value.type":
            raise InvalidInput(error.message, code=error.code, path=error.path, hint=error.hint) from None
        return _converted(value, what, error)
    return value  # type: ignore[no-any-return]  # checked above


def _converted(value: Any, what: str, refused: InvalidValue) -> Json:
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        plain = to_jsonable_python(value, by_alias=True, bytes_mode="base64", inf_nan_mode="constants")
        check(plain, what=what)
    except PydanticSerializationError:
        error = refused
    except InvalidValue as wrong:
        error = wrong
    else:
        return plain  # type: ignore[no-any-return]  # checked above
    raise InvalidInput(error.message, code=error.code, path=error.path, hint=error.hint) from None
