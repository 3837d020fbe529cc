"""What a person gives as an agent's input: words, `key=value` and `key:=JSON` by the agent's types, or a document.

Called by `run` before a store is opened, so that bad input leaves nothing behind.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NewType

from stepwell.cli.schemas import kinds, properties, summary
from stepwell.cli.terminal import size
from stepwell.config import Unreadable, read_yaml
from stepwell.domain.errors import InvalidInput, InvalidValue, NotFound
from stepwell.domain.values import Json, loads

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from stepwell.runtime import AgentDescription

_PAIR: Final = re.compile(r"(?P<key>[^=:\s][^=:]*)(?P<sign>:?=)(?P<value>.*)", re.DOTALL)
_LARGEST_DOCUMENT: Final = 16 * 1024 * 1024
_YAML: Final = (".yaml", ".yml")


def input_for(agent: AgentDescription, words: Sequence[str], document: str | None) -> Any:
    """The typed input that the words or the document (`JSON`, `@file`, `-` for stdin) stand for; `None` for no input.

    Raises `InvalidInput`, a line for each field that is wrong, `InvalidValue` for what is no value at all,
    `NotFound` for a missing file.
    """
    if document is not None and words:
        raise InvalidInput("input is given twice: as words and as --input", code="input.twice", hint="leave one out")
    if document is not None:
        return _from_document(agent, document)
    if not agent.takes_input:
        if words:
            raise InvalidInput(
                f"agent {agent.name!r} takes no input, and was given {words[0]!r}", code="input.unexpected"
            )
        return None
    return _from_words(agent, words)


# ---------------------------------------------------------------- words


def _from_words(agent: AgentDescription, words: Sequence[str]) -> Any:
    shapes = kinds(agent.input_schema)
    as_object = "object" in shapes and (shapes == {"object"} or (words and all(map(_PAIR.fullmatch, words))))
    if as_object:
        return _from_pairs(agent, words)
    if not words:
        return _without_words(agent, shapes)
    if not shapes - {"array", "null"}:
        raise InvalidInput(
            f"agent {agent.name!r} takes {summary(agent.input_schema)}, which words cannot say",
            code="input.shape",
            hint="use --input JSON, --input @FILE or --input -",
        )
    return _read_text(agent, " ".join(words))


def _without_words(agent: AgentDescription, shapes: set[str]) -> Any:
    if "null" in shapes or "any" in shapes:
        return None
    raise InvalidInput(
        f"agent {agent.name!r} takes {summary(agent.input_schema)}, and nothing was given",
        code="input.missing",
        hint="write it behind the target, or use --input JSON, --input @FILE or --input -",
    )


def _read_text(agent: AgentDescription, text: str) -> Any:
    """Text as it is where the agent takes text, else what it says: `12.5`, `2026-11-19`, a member of an enum."""
    from stepwell.codec import decode_input

    if kinds(agent.input_schema) & {"text", "any"}:
        return decode_input(agent.input, text)
    return _validated(agent, text, has_json=False)


def _from_pairs(agent: AgentDescription, words: Sequence[str]) -> Any:
    made: dict[str, Any] = {}
    known = properties(agent.input_schema)
    has_json = False
    for word in words:
        parts = _PAIR.fullmatch(word)
        if parts is None:
            raise InvalidInput(
                f"{word!r} is not key=value, and agent {agent.name!r} takes {summary(agent.input_schema)}",
                code="input.shape",
                hint="write key=value or key:=JSON for each field, or use --input @FILE",
            )
        value: Any = parts["value"]
        if parts["sign"] == ":=":
            has_json = True
            value = loads(value, what=f"input.{parts['key']}")
        path = [parts["key"]] if parts["key"] in known else parts["key"].split(".")
        _check_known(path[0], known, agent)
        _put(made, path, value)
    return _validated(agent, made, has_json=has_json)


def _check_known(key: str, known: Mapping[str, Any], agent: AgentDescription) -> None:
    if not known or key in known:
        return
    near = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean: {near[0]}" if near else f"fields: {', '.join(known)}"
    raise InvalidInput(f"input.{key}: agent {agent.name!r} has no such field", path=f"input.{key}", hint=hint)


def _put(made: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *outer, last = path
    here = made
    for key in outer:
        inner = here.setdefault(key, {})
        if not isinstance(inner, dict):
            raise _given_twice(path)
        here = inner
    if last in here:
        raise _given_twice(path)
    here[last] = value


def _given_twice(path: Sequence[str]) -> InvalidInput:
    shown = ".".join(("input", *path))
    return InvalidInput(f"{shown} is given twice", path=shown, code="input.twice")


def _validated(agent: AgentDescription, given: Any, *, has_json: bool) -> Any:
    """Read text leaves as the types say. With JSON among them every leaf is read leniently: text may still be a
    number or a date.
    """
    from pydantic import ValidationError

    from stepwell.codec.problems import problems_of
    from stepwell.domain.values import check, dumps

    check(given, what="input")
    adapter = _adapter(agent.input)
    try:
        return adapter.validate_json(dumps(given)) if has_json else adapter.validate_strings(given)
    except ValidationError as error:
        problems = problems_of(error, given, "input")
    raise InvalidInput(
        "\n".join(map(str, problems)),
        path=problems[0].path,
        hint=f"agent {agent.name!r} takes {summary(agent.input_schema)}",
    )


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    wrapped = NewType("wrapped", annotation)  # type: ignore[valid-newtype]  # so that a bare dataclass takes the settings
    return TypeAdapter(wrapped, config=ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"))


# ---------------------------------------------------------------- documents


def _from_document(agent: AgentDescription, document: str) -> Any:
    from stepwell.codec import decode_input

    plain, origin = read_document(document)
    if not agent.takes_input and plain is not None:
        raise InvalidInput(f"agent {agent.name!r} takes no input", code="input.unexpected", hint="leave --input out")
    try:
        return decode_input(agent.input, plain)
    except (InvalidInput, InvalidValue) as error:
        if origin is not None:
            error.add_note(f"in {origin}")
        raise


def read_document(document: str) -> tuple[Json, str | None]:
    """The plain data of `JSON`, `@file` (YAML by its ending, else JSON) or `-` (JSON from stdin), and the name of
    where it stood.
    """
    if document == "-":
        return _parse_json(_bounded(sys.stdin.buffer.read(_LARGEST_DOCUMENT + 1), "stdin"), "stdin"), "stdin"
    if not document.startswith("@"):
        return _parse_json(document, None), None
    path = Path(document[1:])
    content = _read_file(path)
    if path.suffix.lower() in _YAML:
        return _parse_yaml(content, str(path)), str(path)
    return _parse_json(content, str(path)), str(path)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _bounded(file.read(_LARGEST_DOCUMENT + 1), str(path))
    except FileNotFoundError:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, 1)
        hint = f"did you mean: {path.with_name(near[0])}" if near else None
        raise NotFound(f"there is no file {path}", code="input.file", hint=hint) from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", code="input.file") from error


def _bounded(content: bytes, origin: str) -> bytes:
    if len(content) > _LARGEST_DOCUMENT:
        raise InvalidInput(
            f"{origin} is larger than {size(_LARGEST_DOCUMENT)}",
            code="input.size",
            hint="keep large data in a file or a store of your own, and pass its name",
        )
    return content


def _parse_json(text: str | bytes, origin: str | None) -> Json:
    try:
        return loads(text, what="input")
    except InvalidValue as error:
        told = error.message.replace("input", origin, 1) if origin and error.code == "value.json" else error.message
        hint = error.hint
        if origin is None and error.code == "value.json":
            hint = "--input takes JSON, @FILE or -; plain words go behind the target, without --input"
        raise InvalidInput(told, code=error.code, path=error.path, hint=hint) from None


def _parse_yaml(content: bytes, origin: str) -> Json:
    try:
        plain: Json = read_yaml(content.decode(), origin)
    except Unreadable as error:
        raise InvalidInput(str(error), code="input.syntax") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{origin} is not UTF-8: byte {error.start} is wrong", code="input.syntax") from None
    return plain


def json_or_text(text: str) -> Json:
    """What a single word stands for where no schema says what is wanted: JSON, or else the text as it is. Raises
    `InvalidValue` for JSON that no value can be.
    """
    try:
        return loads(text, what="value")
    except InvalidValue as error:
        if error.code == "value.json":
            return text
        raise
