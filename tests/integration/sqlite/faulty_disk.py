"""A disk that fails on demand: an SQLite VFS whose writes find no space, or whose flushes report an error."""

from __future__ import annotations

from itertools import count
from typing import Any, Final

import apsw

_names: Final = count(1)


class FaultyDisk(apsw.VFS):
    """The system's files, until `full` or `broken` is set. To be named to the store as `vfs=disk.name`."""

    def __init__(self) -> None:
        self.name = f"faulty-{next(_names)}"
        self.full = False
        self.broken = False
        self.flushes = 0
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        if self._disk.full:
            raise apsw.FullError("no space left on this device")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.flushes += 1
        if self._disk.broken:
            raise apsw.IOError("the device does not answer")
        super().xSync(flags)
