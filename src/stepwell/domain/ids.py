"""Ids: a prefix that says what is named, and 26 base-32 characters whose order is the order of creation.

The 128 bits are a UUID version 7 (RFC 9562): 48 bits of milliseconds, 12 bits of the fraction below a millisecond, and
62 random bits. Time and randomness are given by the caller, so that a test or a simulation decides them.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NewType

RunId = NewType("RunId", str)
SessionId = NewType("SessionId", str)
WorkerId = NewType("WorkerId", str)

RUN: Final = "run_"
SESSION: Final = "ses_"
WORKER: Final = "wrk_"
QUESTION: Final = "q_"
SIGNAL: Final = "sig_"

ENTROPY_BYTES: Final = 8
NAME: Final = re.compile(r"[A-Za-z0-9][\w.:@-]{0,127}", re.ASCII)

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
_PAIRS: Final = [a + b for a in _ALPHABET for b in _ALPHABET]
_SHIFTS: Final = tuple(range(120, -1, -10))
_BODY: Final = re.compile(rf"[{_ALPHABET}]{{26}}")


def make_id(prefix: str, at: int, entropy: bytes) -> str:
    """An id for something created `at` (microseconds since the epoch), with 8 bytes of randomness."""
    milliseconds, below = divmod(at, 1000)
    head = (milliseconds & 0xFFFFFFFFFFFF) << 16 | 0x7000 | below * 4096 // 1000
    tail = 0x8000000000000000 | int.from_bytes(entropy, "big") & 0x3FFFFFFFFFFFFFFF
    return prefix + _encode(head << 64 | tail)


def own_session(run_id: str) -> SessionId:
    """The session of a run that was started without one."""
    return SessionId(SESSION + run_id[len(RUN) :])


def derived_id(prefix: str, from_id: str, *parts: str) -> str:
    """An id that sorts beside `from_id` and is the same for the same parts: its time is that id's, the rest is a hash.

    So a run that makes a child twice makes it once.
    """
    head = _decode(from_id[-26:]) >> 64
    digest = hashlib.blake2b(digest_size=8)
    for part in (from_id, *parts):
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big") + data)
    tail = 0x8000000000000000 | int.from_bytes(digest.digest(), "big") & 0x3FFFFFFFFFFFFFFF
    return prefix + _encode(head << 64 | tail)


def derived(prefix: str, *parts: str) -> str:
    """A short, stable token from `parts`; equal parts give equal tokens, and no joining of parts can collide."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big") + data)
    return prefix + _encode(int.from_bytes(digest.digest(), "big"))


def is_id(prefix: str, text: str) -> bool:
    """Whether `text` is a whole id with that prefix."""
    return text.startswith(prefix) and _BODY.fullmatch(text, len(prefix)) is not None


def _decode(body: str) -> int:
    bits = 0
    for character in body:
        bits = bits << 5 | _ALPHABET.index(character)
    return bits


def _encode(bits: int) -> str:
    return "".join([_PAIRS[bits >> shift & 1023] for shift in _SHIFTS])
