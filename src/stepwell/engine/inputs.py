"""What a caller gives to start a run, checked: input, session, priority, keys. Everything else is refused, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from stepwell.domain import values
from stepwell.domain.errors import InvalidInput, InvalidValue
from stepwell.domain.ids import NAME
from stepwell.domain.outcome import Payload
from stepwell.domain.run import PRIORITY_RANGE

if TYPE_CHECKING:
    from stepwell.ports.runnable import Runnable
    from stepwell.ports.store import Store

MAX_INPUT: Final = 1024 * 1024
INLINE_INPUT: Final = 256 * 1024
_MAX_KEY: Final = 500
_MAX_METADATA: Final = 64 * 1024


async def payload(store: Store, text: str) -> Payload:
    """A JSON text on its way into a journal: as it is, or by reference where it is large."""
    content = text.encode() if len(text) * 4 > INLINE_INPUT else b""
    if len(content) <= INLINE_INPUT:
        return Payload(text)
    return Payload(None, await store.put_blob(content), len(content))


def input_text(runnable: Runnable, value: Any) -> str:
    """The JSON text of an input, no larger than allowed. Raises `InvalidInput`."""
    text = runnable.encode_input(value)
    try:
        values.check_size(text, MAX_INPUT, "input")
    except InvalidValue as error:
        raise InvalidInput(
            error.message,
            code="input.size",
            hint="keep large data in a file or a store of your own, and pass its name",
        ) from None
    return text


def checked_session(session: str) -> str:
    """The name of a session, as a caller gives it. Raises `InvalidInput` (`input.session`)."""
    if not isinstance(session, str) or NAME.fullmatch(session) is None:
        raise InvalidInput(
            f"{session!r:.80} cannot name a session",
            code="input.session",
            hint="use a letter or digit, then up to 127 letters, digits, _ . : @ or -",
        )
    return session


def checked_priority(priority: int) -> int:
    """A priority in its range. Raises `InvalidInput` (`input.priority`)."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not -PRIORITY_RANGE <= priority <= PRIORITY_RANGE:
        raise InvalidInput(
            f"priority {priority!r} is not a whole number from {-PRIORITY_RANGE} to {PRIORITY_RANGE}",
            code="input.priority",
            hint="one point is worth a place 30 seconds earlier in the queue",
        )
    return priority


def checked_key(key: str | None) -> str | None:
    """An idempotency key that can be kept. Raises `InvalidInput` (`input.idempotency_key`)."""
    if key is None:
        return None
    if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY:
        raise InvalidInput(
            f"idempotency key {key!r:.80} is not a text of 1 to {_MAX_KEY} characters", code="input.idempotency_key"
        )
    _check_text(key, "idempotency_key")
    return key


def metadata_text(metadata: Mapping[str, str] | None) -> str:
    """The JSON text of what is kept with a run. Raises `InvalidInput` (`input.metadata`)."""
    if not metadata:
        return "{}"
    plain = dict(metadata)
    for name, value in plain.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidInput(
                f"metadata[{name!r}] is {type(value).__name__}; names and values are texts", code="input.metadata"
            )
    _check_text(plain, "metadata")
    text = values.dumps(plain)
    if len(text) > _MAX_METADATA:
        raise InvalidInput(
            f"metadata has {len(text):,} characters; the limit is {_MAX_METADATA:,}", code="input.metadata"
        )
    return text


def _check_text(value: Any, what: str) -> None:
    try:
        values.check(value, what=what)
    except InvalidValue as error:
        raise InvalidInput(error.message, code=error.code, path=error.path) from None
