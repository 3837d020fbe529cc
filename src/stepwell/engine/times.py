"""The times that a journal bears tell when the clock was set back. Asked by the replay, for what lasts a while."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from stepwell.domain.event import Entry


class _Stretch(NamedTuple):
    """A part of the journal in which no time is earlier than the one before; `seq` and `first` are its first fact's."""

    seq: int
    first: int
    last: int


class Times:
    """When facts were written, as far as the clock was set back."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        falls = [at for at, (before, entry) in enumerate(pairwise(entries), 1) if entry.at < before.at]
        ends = [*falls[1:], len(entries)]  # without a fall, one that nothing goes with
        self._set_back = [
            _Stretch(entries[start].seq, entries[start].at, entries[end - 1].at)
            for start, end in zip(falls, ends, strict=False)
        ]

    def begun_at(self, seq: int, at: int) -> int:
        """The moment from which something lasts that began with the fact of this number and time: the earliest of the
        times that were written since the journal last bore the fact's own. It means something only as long as the clock
        has not passed that again.
        """
        begun = at
        for stretch in reversed(self._set_back):
            if stretch.seq <= seq or stretch.last >= at:
                break
            begun = min(begun, stretch.first)
        return begun
