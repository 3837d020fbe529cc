"""The one value domain: what may be stored, sent and hashed, and how it becomes text.

Inputs, results, events, signals, session state and answers all live here: I-JSON (RFC 7493), narrowed. A value is
`None`, `bool`, `int`, `float`, `str`, `list` or `dict` with text keys, in exactly these types; a tuple, a date or a
subclass is refused, never converted. Refused as well: NaN and infinity, integers beyond ±(2^53 - 1), lone surrogates,
NUL, nesting below 64 levels, duplicate keys. Every store and every client can hold what is left without changing it.

Called by `stepwell.codec`, by the doors, and by the stores. It never sees a typed object: that is the codec's work.

Codes: `value.nan`, `value.integer_range`, `value.surrogate`, `value.nul`, `value.key`, `value.duplicate_key`,
`value.depth`, `value.type`, `value.size`, and `value.json` for text that is not JSON.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections import Counter
from collections.abc import Callable
from types import NoneType

from stepwell.domain.errors import InvalidValue

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

# Where a value lies, from the inside out: (the trail of its container, its key or index). The root is (None, its name).
# Passed down as it is and turned into text only for an error, because it is built for every container that is checked.
Trail = tuple["Trail | None", object]

MAX_DEPTH = 64
MAX_INTEGER = 2**53 - 1

_SHOWN = 64  # characters of a key or value that an error quotes
_SHOWN_SEGMENTS = 12

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_canonical_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), sort_keys=True
)
_own_decoder = json.JSONDecoder()


# --- checking ---------------------------------------------------------------------------------------------------------


def check(value: object, *, what: str = "value", max_depth: int = MAX_DEPTH) -> None:
    """Do nothing if `value` belongs to the domain; raise `InvalidValue` naming the place if it does not.

    `what` is how the path begins: `what="input"` gives `input.items[3].price`. A container at the top has depth 1. A
    structure that contains itself is refused as too deep.
    """
    _CHECKS.get(type(value), _refuse_type)(value, (None, what), max_depth)


def check_size(text: str | bytes, limit: int, what: str) -> None:
    """Raise `InvalidValue` (`value.size`) if `text` takes more than `limit` bytes as UTF-8."""
    if len(text) * 4 <= limit:
        return
    size = len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
    if size > limit:
        raise InvalidValue(
            f"{what} is {_human(size)}, and the limit is {_human(limit)} ({size:,} and {limit:,} bytes)",
            path=what,
            code="value.size",
            hint="pass a reference to the data, for example the name of an artifact, instead of the data",
        )


def _accept(value: object, trail: Trail, room: int) -> None:
    pass


def _check_text(value: str, trail: Trail, room: int) -> None:
    if value.isascii():
        if "\x00" in value:
            raise _nul(trail)
        return
    if "\x00" in value:
        raise _nul(trail)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValue(
            f"{place(trail)} holds half of a surrogate pair, which is not text",
            path=place(trail),
            code="value.surrogate",
            hint='clean it with text.encode("utf-8", "replace").decode()',
        ) from None


def _nul(trail: Trail) -> InvalidValue:
    return InvalidValue(
        f"{place(trail)} holds a NUL character, which not every store can keep",
        path=place(trail),
        code="value.nul",
        hint='remove it with text.replace("\\0", "")',
    )


def _check_integer(value: int, trail: Trail, room: int) -> None:
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise _integer_range(trail)


def _integer_range(trail: Trail) -> InvalidValue:
    # The number itself is left out: turning a huge one into digits is slow, and refused by Python from 4,300 digits on.
    return InvalidValue(
        f"{place(trail)} is an integer beyond ±(2^53 - 1), which JSON readers round",
        path=place(trail),
        code="value.integer_range",
        hint="carry it as text",
    )


def _check_float(value: float, trail: Trail, room: int) -> None:
    if value - value != 0.0:  # true for NaN and both infinities alone
        name = "NaN" if value != value else "infinite"
        raise InvalidValue(
            f"{place(trail)} is {name}, which JSON cannot hold",
            path=place(trail),
            code="value.nan",
            hint="use None or text",
        )


def _check_object(value: dict[object, object], trail: Trail, room: int) -> None:
    if room <= 0:
        raise _too_deep(trail)
    for key, item in value.items():
        if type(key) is not str:
            raise _bad_key(key, trail)
        if not key.isascii() or "\x00" in key:
            _check_text(key, (trail, key), 0)
        _CHECKS.get(type(item), _refuse_type)(item, (trail, key), room - 1)


def _check_array(value: list[object], trail: Trail, room: int) -> None:
    if room <= 0:
        raise _too_deep(trail)
    for index, item in enumerate(value):
        _CHECKS.get(type(item), _refuse_type)(item, (trail, index), room - 1)


def _bad_key(key: object, trail: Trail) -> InvalidValue:
    here = place((trail, key))
    return InvalidValue(
        f"the key of {here} is of type {type(key).__qualname__}, and keys of JSON objects are text",
        path=here,
        code="value.key",
        hint="use str keys",
    )


def _too_deep(trail: Trail) -> InvalidValue:
    levels = len(_keys(trail)) - 1
    return InvalidValue(
        f"{place(trail)} is nested more than {levels} levels deep, or contains itself",
        path=place(trail),
        code="value.depth",
        hint="flatten it, or refer to its parts by name",
    )


def _refuse_type(value: object, trail: Trail, room: int) -> None:
    kind = type(value).__qualname__
    raise InvalidValue(
        f"{place(trail)} is of type {kind}, which is not plain JSON",
        path=place(trail),
        code="value.type",
        hint=_ADVICE.get(type(value), "use None, bool, int, float, str, list, or dict with str keys"),
    )


_ADVICE: dict[type, str] = {
    tuple: "use a list",
    set: "use a sorted list",
    frozenset: "use a sorted list",
    bytes: "use base64 text",
}


class _Refused:
    """Stands in parsed JSON for what a parser hook cannot accept, so that `check` finds it and names its path."""

    def __init__(self, error: Callable[[Trail], InvalidValue]) -> None:
        self.error = error


def _raise_refused(value: _Refused, trail: Trail, room: int) -> None:
    raise value.error(trail)


_CHECKS: dict[type, Callable[..., None]] = {
    str: _check_text,
    int: _check_integer,
    float: _check_float,
    bool: _accept,
    NoneType: _accept,
    dict: _check_object,
    list: _check_array,
    _Refused: _raise_refused,
}


# --- text -------------------------------------------------------------------------------------------------------------


def dumps(value: object) -> str:
    """The compact JSON text of a value that `check` accepted, keys in their order, other alphabets unescaped."""
    try:
        return _encoder.encode(value)
    except (ValueError, TypeError, RecursionError):
        check(value)  # names the place of what was not checked before
        raise


def canonical(value: object) -> bytes:
    """The one UTF-8 text of a value that `check` accepted, keys sorted: equal values give equal bytes.

    1 and 1.0 are different values.
    """
    try:
        return _canonical_encoder.encode(value).encode()
    except (ValueError, TypeError, RecursionError):
        check(value)
        raise


def digest(value: object) -> str:
    """32 hexadecimal digits that identify a value that `check` accepted, the same in every process."""
    return hashlib.blake2b(canonical(value), digest_size=16).hexdigest()


def reread(text: str) -> Json:
    """Parse text that `dumps` wrote. Raises `ValueError` if it is damaged; says nothing of the place: use `loads`
    then.
    """
    value: Json
    value, end = _own_decoder.raw_decode(text)
    if end != len(text):
        raise ValueError("text follows the JSON value")
    return value


def loads(text: str | bytes, *, what: str = "value", max_depth: int = MAX_DEPTH) -> Json:
    """Parse JSON from anywhere, strictly: what it returns, `check` accepts.

    Refused with `InvalidValue` naming the path: duplicate keys, NaN, infinite or overflowing numbers, and whatever else
    the domain refuses; with code `value.json` text that is not JSON or not UTF-8. The size is not bounded here but by
    `check_size`.
    """
    try:
        value = _parse(text if isinstance(text, str) else text.decode())
    except json.JSONDecodeError as error:
        reason = f"{what} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise InvalidValue(reason, path=what, code="value.json") from None
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{what} is not UTF-8: byte {error.start} is wrong", path=what, code="value.json") from None
    except RecursionError:  # nested so deep that parsing gave up; the place is unknown
        reason = f"{what} is nested more than {max_depth} levels deep"
        raise InvalidValue(reason, path=what, code="value.depth", hint="flatten it") from None
    check(value, what=what, max_depth=max_depth)
    return value


def _parse(text: str) -> Json:
    value: Json
    try:
        value = _strict_decoder.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python refuses integers of thousands of digits: parsed again, so that `check` names the place
        value = _digits_decoder.decode(text)
    return value


def _unique(pairs: list[tuple[str, object]]) -> object:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Refused(_duplicate(pairs))


def _duplicate(pairs: list[tuple[str, object]]) -> Callable[[Trail], InvalidValue]:
    keys = [key for key, _ in pairs]
    twice = Counter(keys).most_common(1)[0][0]

    def error(trail: Trail) -> InvalidValue:
        here = place((trail, twice))
        return InvalidValue(
            f"{here} is given twice, and only one of them could be kept", path=here, code="value.duplicate_key"
        )

    return error


def _bounded_integer(digits: str) -> object:
    return int(digits) if len(digits) <= 20 else _Refused(_integer_range)


_strict_decoder = json.JSONDecoder(object_pairs_hook=_unique)
_digits_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_bounded_integer)


# --- places -----------------------------------------------------------------------------------------------------------


def place(trail: Trail) -> str:
    """The path that a trail stands for, `input.items[3]["odd key"]`; the middle of a very long one is left out."""
    root, *keys = _keys(trail)
    segments = [_segment(key) for key in keys]
    if len(segments) > _SHOWN_SEGMENTS:
        half = _SHOWN_SEGMENTS // 2
        segments[half:-half] = ["…"]
    return f"{root}{''.join(segments)}"


def _keys(trail: Trail) -> list[object]:
    keys: list[object] = []
    here: Trail | None = trail
    while here is not None:
        here, key = here
        keys.append(key)
    return keys[::-1]


def _segment(key: object) -> str:
    if not isinstance(key, str):
        return f"[{quote(key)}]"
    if key.isascii() and key.isidentifier() and len(key) <= _SHOWN:
        return f".{key}"
    return f"[{json.dumps(key if len(key) <= _SHOWN else key[:_SHOWN] + '…')}]"


def quote(value: object) -> str:
    """`repr(value)` on one line, short enough for an error message."""
    try:
        text = _short.repr(value)
    except Exception:  # noqa: BLE001 - repr is anybody's code, and an error about a value must not fail because of it
        text = f"<{type(value).__qualname__}>"
    return " ".join(text.split("\n"))


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _SHOWN


def _human(size: int) -> str:
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if amount == int(amount) else f"{amount:.1f} {unit}"
