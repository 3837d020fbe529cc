"""What the disks of these tests have in common: a store that tells its disk when it closes, and the error of a sync."""

from __future__ import annotations

from typing import Any, Protocol

import apsw

from stepwell.stores.sqlite.store import SqliteStore


class SyncFailed(apsw.IOError):
    """What SQLite gets to see when the device cannot write."""

    extendedresult = apsw.SQLITE_IOERR_FSYNC


class Disk(Protocol):
    """While it is `closing`, SQLite keeps an error to itself; its binding would not if a VFS in Python raised one."""

    closing: bool


class StoreOnDisk(SqliteStore):
    """The store as it is."""

    def __init__(self, disk: Disk, path: str, **options: Any) -> None:
        super().__init__(path, **options)
        self._disk = disk

    async def close(self) -> None:
        """Close it, and let the disk know."""
        self._disk.closing = True
        try:
            await super().close()
        finally:
            self._disk.closing = False
