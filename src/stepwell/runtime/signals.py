"""A signal on its way into a run: checked, written as data, and large payloads put beside the journal."""

from __future__ import annotations

from typing import Any, Final

from stepwell.codec.answers import plain_data
from stepwell.domain.errors import InvalidInput, InvalidValue
from stepwell.domain.ids import ENTROPY_BYTES, NAME, SIGNAL, make_id
from stepwell.domain.values import check, check_size, dumps
from stepwell.domain.wait import Signal
from stepwell.engine.inputs import MAX_INPUT, payload
from stepwell.runtime.access import Access

_LONGEST: Final = 200


async def make(access: Access, name: str, value: Any, *, id: str | None, by: str) -> Signal:
    """A signal, ready to be sent. Raises `InvalidInput`."""
    _check_name(name, "name")
    if NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"{name!r:.80} cannot name a signal: no agent could wait for it",
            code="input.signal",
            hint="use a letter or digit, then up to 127 letters, digits, _ . : @ or -",
        )
    if id is None:
        id = make_id(SIGNAL, access.clock.now(), access.entropy(ENTROPY_BYTES))
    else:
        _check_name(id, "id")
    text = dumps(plain_data(value, "payload"))
    try:
        check_size(text, MAX_INPUT, "payload")
    except InvalidValue as error:
        raise InvalidInput(error.message, code=error.code, path=error.path, hint=error.hint) from None
    return Signal(id, name, await payload(access.store, text), by)


def _check_name(text: str, what: str) -> None:
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
        raise InvalidInput(
            f"{text!r:.80} cannot be the {what} of a signal",
            code="input.signal",
            hint=f"use a text of 1 to {_LONGEST} characters",
        )
    try:
        check(text, what=what)
    except InvalidValue as error:
        raise InvalidInput(error.message, code="input.signal", path=error.path, hint=error.hint) from None
