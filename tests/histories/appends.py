"""What runs said and counted in one session, and what others read there. Appends are seen in one order by everybody, so
the order need not be searched for: the longest read is it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from tests.histories.history import Violation

SHARED: Final = "shared"
SYNCHRONIZED: Final = "synchronized"
ISOLATED: Final = "isolated"


class AppendsBroken(Violation):
    """What was read in a session is not what its runs put there."""


class Telling(NamedTuple):
    """A run that says `name:0`, `name:1` and so on, counts one for each, and reads all messages in the end.

    It was asked for at `called`; at `returned` somebody was told that it had succeeded, with what it `read` and the
    `counts` it got. Without `returned` nothing is known but that it was asked for.
    """

    name: str
    size: int
    scope: str
    called: int
    returned: int | None = None
    read: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    def says(self) -> list[str]:
        return [f"{self.name}:{number}" for number in range(self.size)]


class Hearing(NamedTuple):
    """Somebody outside read the messages (or the count), between two moments."""

    called: int
    returned: int
    messages: tuple[str, ...] | None = None
    counted: int | None = None


def check_session(tellings: Sequence[Telling], hearings: Sequence[Hearing]) -> None:
    """Raise `AppendsBroken` unless every read is a beginning of one order, in which nothing acknowledged is missing,
    nothing stands twice or was never said, each run's own order is kept, and what came later in time is never lost to a
    later reader. Runs of a synchronized session speak one after the other; isolated ones are heard by themselves only.
    """
    apart = [telling for telling in tellings if telling.scope == ISOLATED]
    together = [telling for telling in tellings if telling.scope != ISOLATED]
    _check_apart(apart)
    order = _one_order(together, hearings)
    _check_said(order, together)
    _check_seen(order, together, hearings)
    _check_counts(together, hearings)


def _check_apart(apart: Iterable[Telling]) -> None:
    for telling in apart:
        if telling.returned is None:
            continue
        if list(telling.read) != telling.says():
            raise AppendsBroken(f"{telling.name} is alone and said {telling.says()}, and read {list(telling.read)}")
        if list(telling.counts) != list(range(1, telling.size + 1)):
            raise AppendsBroken(f"{telling.name} is alone and counted {list(telling.counts)}")


def _one_order(together: Sequence[Telling], hearings: Sequence[Hearing]) -> tuple[str, ...]:
    reads = [hearing.messages for hearing in hearings if hearing.messages is not None]
    reads += [telling.read for telling in together if telling.returned is not None]
    order = max(reads, key=len, default=())
    for read in reads:
        if read != order[: len(read)]:
            at = next(index for index, both in enumerate(zip(read, order, strict=False)) if both[0] != both[1])
            raise AppendsBroken(f"at place {at} one read {read[at]}, and another {order[at]}")
    return order


def _check_said(order: Sequence[str], together: Sequence[Telling]) -> None:
    """What stands in the order was said, once each, as each run said it."""
    said: dict[str, list[str]] = {telling.name: [] for telling in together}
    places: dict[str, list[int]] = {telling.name: [] for telling in together}
    for place, message in enumerate(order):
        name = message.rpartition(":")[0]
        if name not in said:
            raise AppendsBroken(f"{message} was read, and nobody said it")
        said[name].append(message)
        places[name].append(place)
    for telling in together:
        found = said[telling.name]
        if found != telling.says()[: len(found)]:
            raise AppendsBroken(f"{telling.name} said {telling.says()}, and {found} is there")
        at = places[telling.name]
        if telling.scope == SYNCHRONIZED and at and at[-1] - at[0] != len(at) - 1:
            raise AppendsBroken(f"somebody spoke in between while {telling.name} held the session, at {at}")


def _check_seen(order: Sequence[str], together: Sequence[Telling], hearings: Sequence[Hearing]) -> None:
    """Reads against time: what was acknowledged before is there, what was not asked for yet is not."""
    end_of = {telling.name: _end_of(order, telling) for telling in together if telling.returned is not None}
    reads = [(each.called, each.returned, len(each.messages)) for each in hearings if each.messages is not None]
    reads += [(each.called, each.returned, len(each.read)) for each in together if each.returned is not None]
    for telling in together:
        if telling.returned is not None and len(telling.read) < end_of[telling.name]:
            raise AppendsBroken(f"{telling.name} did not read what it had said itself")
    for called, returned, length in reads:
        _check_read(order, together, end_of, called, returned, length)
    _check_growing([(called, returned, length) for called, returned, length in reads], "messages")


def _end_of(order: Sequence[str], telling: Telling) -> int:
    """How long a read must be to hold all that an acknowledged run said."""
    says = telling.says()
    if says and says[-1] not in order:
        raise AppendsBroken(f"{telling.name} was acknowledged, and {says[-1]} is not there")
    return order.index(says[-1]) + 1 if says else 0


def _check_read(
    order: Sequence[str],
    together: Sequence[Telling],
    end_of: dict[str, int],
    called: int,
    returned: int,
    length: int,
) -> None:
    read = {message.rpartition(":")[0] for message in order[:length]}
    for telling in together:
        if telling.returned is not None and telling.returned < called and length < end_of[telling.name]:
            raise AppendsBroken(f"a read of {length} messages misses {telling.name}, acknowledged before it began")
        if telling.called > returned and telling.name in read:
            raise AppendsBroken(f"a read shows {telling.name}, which was asked for only afterwards")


def _check_growing(reads: list[tuple[int, int, int]], what: str) -> None:
    """Whoever reads after somebody else has read does not read less."""
    by_return = sorted(reads, key=lambda read: read[1])
    known, index = 0, 0
    for called, _, length in sorted(reads):
        while index < len(by_return) and by_return[index][1] < called:
            known = max(known, by_return[index][2])
            index += 1
        if length < known:
            raise AppendsBroken(f"{known} {what} were read before, and {length} later")


def _check_counts(together: Sequence[Telling], hearings: Sequence[Hearing]) -> None:
    """Every increment of one shared number has a result of its own, and none is lost."""
    acked = [telling for telling in together if telling.returned is not None]
    counts = [count for telling in acked for count in telling.counts]
    if len(set(counts)) != len(counts):
        raise AppendsBroken(f"two increments gave the same number: {sorted(counts)}")
    for telling in acked:
        if len(telling.counts) != telling.size or list(telling.counts) != sorted(telling.counts):
            raise AppendsBroken(f"{telling.name} counted {list(telling.counts)}")
    most = sum(telling.size for telling in together)
    seen = [hearing.counted for hearing in hearings if hearing.counted is not None]
    if max([0, *counts, *seen]) > most:
        raise AppendsBroken(f"{max([*counts, *seen])} was counted, with {most} increments")
    spans = [(each.called, each.returned, each.counted) for each in hearings if each.counted is not None]
    _check_growing(spans, "increments")
    for telling in acked:
        assert telling.returned is not None
        later = [count for called, _, count in spans if called > telling.returned]
        later += [each.counts[0] for each in acked if each.called > telling.returned and each.counts]
        if telling.counts and later and min(later) < telling.counts[-1]:
            raise AppendsBroken(f"{telling.name} had counted {telling.counts[-1]}, and {min(later)} was seen later")


def check_total(tellings: Iterable[Telling], hearing: Hearing) -> None:
    """When all runs have ended with success: as much was counted, and said, as was asked for."""
    total = sum(telling.size for telling in tellings if telling.scope != ISOLATED)
    if hearing.counted is not None and hearing.counted != total:
        raise AppendsBroken(f"{total} increments were made, and the count is {hearing.counted}")
    if hearing.messages is not None and len(hearing.messages) != total:
        raise AppendsBroken(f"{total} messages were said, and {len(hearing.messages)} are there")
