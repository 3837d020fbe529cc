"""Answers as people type them: by the schema of the question, since the program that asks is not at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from stepwell.cli.schemas import alternatives, kinds, summary
from stepwell.domain.errors import InvalidInput, InvalidValue
from stepwell.domain.values import Json, loads

_WORDS: Final[Mapping[str, bool]] = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}
_NOTHING: Final = ("null", "none")


def read_answer(schema: Mapping[str, Any], text: str) -> Json:
    """What the typed text stands for: text as it is where text is asked for, else a choice, yes or no, a number, or
    JSON.

    Raises `InvalidInput` (`answer.invalid`), saying what is asked for.
    """
    from stepwell.codec.schema_check import check_schema

    readings = list(_readings(schema, text))
    for value in readings:
        if not check_schema(schema, value):
            return value
    problems = check_schema(schema, readings[0]) if readings else []
    reason = "is not JSON" if kinds(schema) & {"object", "array"} else f"is not {choices(schema)}"
    told = "\n".join(map(str, problems)) or f"answer: {text!r} {reason}"
    raise InvalidInput(told, code="answer.invalid", path="answer", hint=f"it asks for: {choices(schema)}")


def choices(schema: Mapping[str, Any]) -> str:
    """What may be typed, in a few words: `yes/no`, `allow/deny`, `a number`, `text`."""
    wanted = kinds(schema)
    if wanted == {"boolean"}:
        return "yes/no"
    words = "/".join(str(option) for option in _options(schema))
    if wanted == {"word"} and words:
        return words
    if not wanted & {"object", "array"}:
        return summary(schema)
    rest = [part for part in alternatives(schema) if "enum" not in part and "const" not in part]
    as_json = f"JSON ({summary({**schema, 'anyOf': rest} if words else schema)})"
    return f"{words} or {as_json}" if words else as_json


def _readings(schema: Mapping[str, Any], text: str) -> Iterator[Json]:
    """What the text could mean, the likeliest first."""
    wanted = kinds(schema)
    word = text.strip()
    if "text" in wanted:
        yield text
        return
    yield from _chosen(_options(schema), word)
    if "boolean" in wanted and word.lower() in _WORDS:
        yield _WORDS[word.lower()]
    parsed = _parsed(word)
    if parsed is not _NOT_JSON:
        yield parsed
    if "null" in wanted and word.lower() in _NOTHING:
        yield None
    if wanted & {"word", "any"}:
        yield text


def _chosen(options: Sequence[Any], word: str) -> Iterator[Json]:
    """The option that is meant: typed exactly, or alone in being spelled so but for its capitals."""
    exact = [option for option in options if str(option) == word]
    alike = [option for option in options if str(option).lower() == word.lower()]
    yield from exact or (alike if len(alike) == 1 else ())


def _options(schema: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = []
    for part in alternatives(schema):
        found += [part["const"]] if "const" in part else part.get("enum", ())
    return found


_NOT_JSON: Final[Any] = object()


def _parsed(text: str) -> Any:
    try:
        return loads(text, what="answer")
    except InvalidValue as error:
        if error.code == "value.json":
            return _NOT_JSON
        raise InvalidInput(error.message, code="answer.invalid", path=error.path, hint=error.hint) from None
