"""Retry: how often something that raised is tried again, and after which delay."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from stepwell.domain.errors import Fail, InvalidDefinition, Seconds

_LARGEST_SHIFT: Final = 62


def seconds(duration: Seconds, *, what: str = "duration") -> float:
    """A duration as seconds. Accepts seconds or a timedelta; anything negative, infinite or not a number is refused."""
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):
        value = float(duration)
    else:
        raise InvalidDefinition(
            f"{what} is {duration!r}, which is neither seconds nor a timedelta",
            code="definition.duration",
            hint="write 30, 0.5 or timedelta(minutes=5)",
        )
    if not 0 <= value < 1e10:
        raise InvalidDefinition(
            f"{what} is {duration!r}; it must be zero or more and finite", code="definition.duration"
        )
    return value


def micros(duration: Seconds, *, what: str = "duration") -> int:
    """A duration as whole microseconds, with the same checks as `seconds`."""
    return round(seconds(duration, what=what) * 1_000_000)


def jitter(*parts: str) -> float:
    """A fraction in [0, 1), drawn from a hash of the parts: spread evenly, and the same wherever it is drawn."""
    drawn = hashlib.blake2b("\x00".join(parts).encode(), digest_size=6).digest()
    return int.from_bytes(drawn, "big") / 2**48


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after an exception: at most `max_attempts` tries in all, the first one included.

    The delay before the next try is drawn evenly between zero and a ceiling ("full jitter") that starts at
    `first_delay` and doubles up to `max_delay` (seconds or timedelta). Only exceptions of the types in `on` and of
    none in `never_on` are tried again; a `Fail` decides by its own `retryable`. Crashes and lost leases do not count:
    they always continue.
    """

    max_attempts: int = 3
    first_delay: Seconds = field(default=1, kw_only=True)
    max_delay: Seconds = field(default=60, kw_only=True)
    on: tuple[type[BaseException], ...] = field(default=(Exception,), kw_only=True)
    never_on: tuple[type[BaseException], ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise InvalidDefinition(
                f"Retry(max_attempts={self.max_attempts!r}): it must be a whole number of at least 1",
                code="definition.retry",
                hint="1 means: do not try again",
            )
        seconds(self.first_delay, what="Retry(first_delay=)")
        seconds(self.max_delay, what="Retry(max_delay=)")

    def covers(self, error: BaseException) -> bool:
        """Whether this kind of error is tried again at all."""
        if isinstance(error, Fail):
            return error.retryable
        return isinstance(error, self.on) and not isinstance(error, self.never_on)

    def delay(self, failures: int, fraction: float) -> float:
        """Seconds to wait after the given number of failures (1 or more); `fraction` in [0, 1) is the jitter drawn."""
        ceiling = seconds(self.first_delay) * float(2 ** min(failures - 1, _LARGEST_SHIFT))
        return min(ceiling, seconds(self.max_delay)) * fraction
