"""What a sync that failed leaves behind: a log of which the system says that it is on the disk, and it may not be.

Whoever opens the file later reads the log from memory, finds it whole, and writes on behind the doubtful part. After a
cut of the power all of that would be lost together with it. So a note is left beside the file, and whoever opens it
next writes the log once more, as it is, and its name with it, before anything else. The note is about the memory of
this machine, and means nothing once it has been started again.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

import apsw

from stepwell.stores.sqlite import files
from stepwell.stores.sqlite.files import sync_folder

_ENDING: Final = "-doubt"
_PIECE: Final = 64 * 1024  # SQLite passes no more than 128 KiB on at once, and less than is asked for counts as full


def leave(path: str, boot_id: str) -> None:
    """Note that the device failed under the file. Where no note can be made nothing else can be written either."""
    with contextlib.suppress(OSError):
        note = os.open(path + _ENDING, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, files.FILE_MODE)
        try:
            os.write(note, boot_id.encode())
        finally:
            os.close(note)


def settle(connection: apsw.Connection, path: str, boot_id: str, vfs: str | None) -> None:
    """If there is a note, have the log written to the disk as it is, and take the note away. Raises `apsw.Error` when
    the device fails again; then the note stays.
    """
    try:
        with open(path + _ENDING) as note:
            noted = note.read()
    except FileNotFoundError:
        return
    if noted == boot_id and files.size(path + "-wal"):
        connection.execute("BEGIN IMMEDIATE")  # nobody appends to the log or begins it anew meanwhile
        try:
            _write_again(path + "-wal", vfs)
        finally:
            connection.execute("ROLLBACK")
    with contextlib.suppress(FileNotFoundError):  # another process was first
        os.unlink(path + _ENDING)


def _write_again(log: str, vfs: str | None) -> None:
    """The log with its name: SQLite has the name of a new one written together with its first sync, and only then."""
    file = apsw.VFSFile(vfs or "", log, [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    try:
        size = file.xFileSize()
        for offset in range(0, size, _PIECE):
            file.xWrite(file.xRead(min(_PIECE, size - offset), offset), offset)
        file.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        file.xClose()
    try:
        sync_folder(os.path.dirname(log))
    except OSError as error:
        raise apsw.IOError(f"the folder could not be synced: {error}") from error
