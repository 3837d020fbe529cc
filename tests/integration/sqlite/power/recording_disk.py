"""A disk that remembers what was asked of it: an SQLite VFS that notes every write, truncation and sync in order.

The files themselves are written as usual, so that everybody sees them; a sync is noted and saves its time. What
`PowerCut` makes of the notes is what a machine may find after the power failed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from itertools import count
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import apsw

from stepwell.stores.sqlite.store import SqliteStore
from tests.integration.sqlite.power.store_on_disk import StoreOnDisk, SyncFailed

Kind: TypeAlias = Literal["make", "name", "delete", "write", "truncate", "sync", "sync_failed", "sync_folder"]

_names: Final = count(1)
_KEPT_WITH_FIRST_SYNC: Final = ("-wal", "-journal")


class Change(NamedTuple):
    """One thing that was done. `file` numbers the files that ever existed, `path` is the name that it was done under.

    `make` begins a file whose content is `data`; `name` gives a file another name; `offset` is the size for `truncate`.
    """

    kind: Kind
    file: int
    path: str
    offset: int = 0
    data: bytes = b""


class RecordingDisk(apsw.VFS):
    """The system's files, and a log of all changes to them. The sync number `fail_sync` of a log (`-wal`)
    fails.
    """

    def __init__(self, fail_sync: int = 0) -> None:
        self.name = f"recording-{next(_names)}"
        self.closing = False
        self._syncs = 0
        self._fail_sync = fail_sync
        self.log: list[Change] = []
        self._files: dict[str, int] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()
        super().__init__(self.name, "")

    def find(self, paths: Iterable[str]) -> None:
        """Begin with these files, which are on the disk already."""
        for path in paths:
            self._identify(path, existed=True)

    def store(self, path: str, **options: Any) -> SqliteStore:
        """A store on this disk."""
        return StoreOnDisk(self, path, vfs=self.name, **options)

    @property
    def position(self) -> int:
        """How much has happened so far."""
        return len(self.log)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        with self._lock:
            existed = os.path.exists(path)
            file = _File(self, path, name, flags)
            file.number, made = self._identify(path, existed)
        file.names_folder = made and path.endswith(_KEPT_WITH_FIRST_SYNC)
        return file

    def xDelete(self, name: str, sync_folder: bool) -> None:
        super().xDelete(name, sync_folder)
        with self._lock:
            self.log.append(Change("delete", self._files.pop(name, 0), name))
        if sync_folder:
            self.log.append(Change("sync_folder", 0, name))

    def sync_fails(self, path: str) -> bool:
        """Count one more sync of a log, and tell whether it is to fail."""
        if self.closing or not path.endswith("-wal"):
            return False
        self._syncs += 1
        return self._syncs == self._fail_sync

    def _identify(self, path: str, existed: bool) -> tuple[int, bool]:
        """The number of the file that is at the path now, and whether it was made just now."""
        if existed and path in self._files:
            return self._files[path], False
        number = self._twin(path) if existed else None
        if number is not None:
            self.log.append(Change("name", number, path))
        else:
            number = next(self._numbers)
            self.log.append(Change("make", number, path, data=_content(path) if existed else b""))
        if existed:  # made or linked by somebody else, who has synced the folder
            self.log.append(Change("sync_folder", 0, path))
        self._files[path] = number
        return number, not existed

    def _twin(self, path: str) -> int | None:
        for other, number in self._files.items():
            if os.path.exists(other) and os.path.samefile(other, path):
                return number
        return None


class _File(apsw.VFSFile):
    number = 0
    names_folder = False  # SQLite syncs the folder of a new log or journal together with the first sync of that

    def __init__(self, disk: RecordingDisk, path: str, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = path
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        super().xWrite(data, offset)
        self._disk.log.append(Change("write", self.number, self._path, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        self._disk.log.append(Change("truncate", self.number, self._path, size))

    def xSync(self, flags: int) -> None:
        if self._disk.sync_fails(self._path):
            self._disk.log.append(Change("sync_failed", self.number, self._path))
            raise SyncFailed("disk I/O error")
        self._disk.log.append(Change("sync", self.number, self._path))
        if self.names_folder:
            self.names_folder = False
            self._disk.log.append(Change("sync_folder", 0, self._path))


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
