"""What a power cut leaves: everything that was synced, and any part of the rest.

Of the writes since the last sync of a file any set of sectors may have reached the disk, in any order, one of them
only up to some byte; a file may have got its new size without its new content; names may be those of before or after.
What a failed sync was to write is in doubt for ever: the system takes it for written, and later syncs leave it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeAlias

from tests.integration.sqlite.power.recording_disk import Change

SECTORS: Final = (512, 4096)
_CHANCES: Final = (0.0, 0.05, 0.5, 0.95, 1.0)
_TORN: Final = 0.1
_GROWN: Final = 0.3


@dataclass(slots=True)
class _Asked:
    """A change that was asked for, and how a sync went since."""

    change: Change
    synced: bool = False
    failed: bool = False


@dataclass(slots=True)
class _Content:
    """A file: what is safe, and what was asked for since, in order."""

    safe: bytearray
    since: list[_Asked] = field(default_factory=list)

    def sync(self) -> None:
        for asked in self.since:
            asked.synced = asked.synced or not asked.failed
        while self.since and self.since[0].synced:
            _apply(self.safe, self.since.pop(0).change)

    def sync_failed(self) -> None:
        for asked in self.since:
            asked.failed = not asked.synced


_Choice: TypeAlias = Callable[[_Content], Iterable[Change]]


class Surface:
    """The disk as the log tells it, up to a position that only moves on."""

    def __init__(self, log: Sequence[Change]) -> None:
        self._log = log
        self._position = 0
        self._contents: dict[int, _Content] = {}
        self._names: dict[str, int] = {}
        self._renames: list[Change] = []

    def advance(self, position: int) -> None:
        """Let happen what the log tells before `position`."""
        for change in self._log[self._position : position]:
            self._take(change)
        self._position = max(self._position, position)

    def kept(self) -> dict[str, bytes]:
        """The files as everybody sees them while the power is on, by path."""
        return self._files(self._after(self._renames), lambda content: (asked.change for asked in content.since))

    def left(self, random: Random) -> dict[str, bytes]:
        """The files as they may be after a power cut at this moment, by path."""
        renames = [*self._renames, *self._linked()]
        names = self._after(renames[: random.randint(0, len(renames))])
        sector = random.choice(SECTORS)
        one_chance = random.choice((None, *_CHANCES))  # for all files, or for each its own

        def survivors(content: _Content) -> Iterator[Change]:
            chance = random.choice(_CHANCES) if one_chance is None else one_chance
            if random.random() < 0.25:  # a disk that keeps the order, and stopped somewhere
                end = random.randint(0, len(content.since))
                return (asked.change for nth, asked in enumerate(content.since) if asked.synced or nth < end)
            return _survivors(content, random, sector, chance)

        return self._files(names, survivors)

    def _take(self, change: Change) -> None:
        match change.kind:
            case "make":
                self._contents[change.file] = _Content(bytearray(change.data))
                self._renames.append(change)
            case "name" | "delete":
                self._renames.append(change)
            case "sync":
                self._contents[change.file].sync()
            case "sync_failed":
                self._contents[change.file].sync_failed()
            case "sync_folder":
                self._names = self._after(self._renames)
                self._renames.clear()
            case _:
                self._contents[change.file].since.append(_Asked(change))

    def _linked(self) -> Sequence[Change]:
        """A name that a file got without SQLite: it is noticed when the file is opened by it, and was there before."""
        coming = self._log[self._position : self._position + 1]
        return [change for change in coming if change.kind == "name"]

    def _after(self, renames: Sequence[Change]) -> dict[str, int]:
        names = dict(self._names)
        for change in renames:
            if change.kind == "delete":
                names.pop(change.path, None)
            else:
                names[change.path] = change.file
        return names

    def _files(self, names: dict[str, int], survivors: _Choice) -> dict[str, bytes]:
        files = {}
        for path, number in names.items():
            content = self._contents[number]
            found = bytearray(content.safe)
            for change in survivors(content):
                _apply(found, change)
            files[path] = bytes(found)
        return files


def _survivors(content: _Content, random: Random, sector: int, chance: float) -> Iterator[Change]:
    """Those parts of what was asked for that reached the disk."""
    for asked in content.since:
        change = asked.change
        if asked.synced or change.kind == "truncate":
            if asked.synced or random.random() < chance:
                yield change
            continue
        if random.random() < _GROWN:
            yield change._replace(kind="write", offset=change.offset + len(change.data), data=b"")
        for piece in _pieces(change, sector):
            if random.random() < chance:
                yield piece
            elif random.random() < _TORN:
                yield _torn(piece, random)


def _pieces(change: Change, sector: int) -> Iterator[Change]:
    """A write cut at the borders of the sectors."""
    start = 0
    while start < len(change.data):
        stop = min(len(change.data), start + sector - (change.offset + start) % sector)
        yield change._replace(offset=change.offset + start, data=change.data[start:stop])
        start = stop


def _torn(piece: Change, random: Random) -> Change:
    """One end of a write: a sector is written from either side."""
    cut = random.randint(0, len(piece.data))
    if random.random() < 0.5:
        return piece._replace(data=piece.data[:cut])
    return piece._replace(offset=piece.offset + cut, data=piece.data[cut:])


def _apply(content: bytearray, change: Change) -> None:
    """Do what was asked for. What lies between the old end and a write behind it is zeros."""
    if change.kind == "truncate":
        del content[change.offset :]
    end = change.offset if change.kind == "truncate" else change.offset + len(change.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if change.kind == "write":
        content[change.offset : end] = change.data
