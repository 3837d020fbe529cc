"""What an agent may give to the verbs of its context, and what becomes of it. Everything else is refused, by name."""

from __future__ import annotations

import mimetypes
from typing import Any, Final

from stepwell.codec import codec_for
from stepwell.domain import values
from stepwell.domain.errors import InvalidDefinition, InvalidValue, Seconds
from stepwell.domain.retry import Retry, seconds
from stepwell.engine.function import BoundStep
from stepwell.engine.step import PLAIN, Policy

MAX_ARTIFACT: Final = 64 * 1024 * 1024
_MAX_KEY: Final = 1000


def step_policy(bound: BoundStep, timeout: Seconds | None, retry: Retry | None, in_doubt: Any, run_in: str) -> Policy:
    """How a step is to be tried. Raises `InvalidDefinition` for what cannot work."""
    if timeout is None and retry is None and in_doubt == "rerun" and run_in == "thread":
        return PLAIN
    if retry is not None and not isinstance(retry, Retry):
        raise InvalidDefinition(f"retry={retry!r:.80}", code="definition.retry", hint="use Retry(max_attempts=...)")
    if not callable(in_doubt) and in_doubt not in ("rerun", "ask", "fail"):
        raise InvalidDefinition(
            f"in_doubt={in_doubt!r:.80}", code="definition.in_doubt", hint='use "rerun", "ask", "fail" or a function'
        )
    if callable(in_doubt) and not bound.described.typed:
        raise InvalidDefinition(
            f"step {bound.described.name} has no return annotation, so what its in_doubt function found cannot be told "
            "from nothing",
            code="definition.in_doubt",
            hint="annotate the step's return type",
        )
    if run_in not in ("thread", "process"):
        raise InvalidDefinition(f"run_in={run_in!r:.80}", code="definition.run_in", hint='use "thread" or "process"')
    if run_in == "process" and (bound.described.is_async or bound.described.wants_context or bound.kwargs):
        raise InvalidDefinition(
            f'step {bound.described.name} cannot run with run_in="process"',
            code="definition.run_in",
            hint="only a plain function without StepContext and keyword arguments runs in another interpreter",
        )
    bounded = None if timeout is None else seconds(timeout, what="timeout")
    return Policy(bounded, retry, in_doubt, run_in)


def checked_key(key: str, name: str) -> str:
    """The key of a step. Raises `InvalidDefinition` for what is not a text of some length."""
    if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY:
        raise InvalidDefinition(
            f"step {name}: key {key!r:.80} is not a text of 1 to {_MAX_KEY} characters",
            code="definition.step_key",
            hint="use key=str(...)",
        )
    values.check(key, what="key")
    return key


def distinct(keys: list[str], name: str) -> list[str]:
    """The keys of the items of a map. Raises `InvalidDefinition` for two that are equal."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise InvalidDefinition(
                f"ctx.map({name}): two items have the key {key!r:.80}",
                code="definition.step_key",
                hint="give each item a key of its own, or leave key= out",
            )
        seen.add(key)
    return keys


def artifact_bytes(name: str, content: str | bytes) -> bytes:
    """What is kept of an artifact. Raises `InvalidValue` for what is neither text nor bytes, or too much."""
    if isinstance(content, str):
        values.check(content, what=f"artifact {name}")
        raw = content.encode()
    elif isinstance(content, (bytes, bytearray, memoryview)):
        raw = bytes(content)
    else:
        raise InvalidValue(
            f"artifact {name} is {type(content).__qualname__}; it must be text or bytes", path=name, code="value.type"
        )
    if len(raw) > MAX_ARTIFACT:
        raise InvalidValue(
            f"artifact {name} has {len(raw):,} bytes; the limit is {MAX_ARTIFACT:,}", path=name, code="value.size"
        )
    return raw


def media_type_of(name: str, content: str | bytes) -> str:
    """The media type of an artifact, by the ending of its name."""
    guessed = mimetypes.guess_type(name)[0]
    return guessed or ("text/plain" if isinstance(content, str) else "application/octet-stream")


def json_data(value: Any, what: str) -> Any:
    """A value of the agent's as plain JSON data: plain already, or an instance of a model or a dataclass.

    Raises `InvalidValue` for what is not data.
    """
    return None if value is None else values.loads(codec_for(type(value)).encode(value, what))


def check_text(text: str, what: str) -> None:
    """Do nothing for text that can be kept; raise for anything else."""
    if not isinstance(text, str) or not text:
        raise InvalidDefinition(f"{what} is {values.quote(text)}; it must be a text", code="definition.text")
    values.check(text, what=what)
