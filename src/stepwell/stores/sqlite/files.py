"""The place of the store in the file system: what is made there, who may read it, and that a failure leaves nothing.

The database file itself is never opened here: closing any descriptor of it would drop the locks of this process's
connections.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from typing import Final

from stepwell.domain.errors import StoreUnusable
from stepwell.stores.sqlite import errors

FOLDER: Final = ".stepwell"
FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
SIDE_FILES: Final = ("-wal", "-shm", "-journal")

_MOUNTS: Final = "/proc/self/mountinfo"
_REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "sshfs", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "s3fs"}
)
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def exists(path: str) -> bool:
    """Whether a database is there. Refuses a folder, a device, and an emptied file whose log still holds something."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise errors.place(error, path) from error
    if stat.S_ISDIR(found.st_mode):
        raise errors.not_a_store(path, "it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise errors.not_a_store(path, "it is not a regular file")
    if found.st_size == 0 and size(path + "-wal"):
        raise errors.damaged(path, "it is empty, and the log beside it is not")
    return True


def check_place(path: str) -> None:
    """Refuse a place whose file system lies on another machine: SQLite's log needs memory that all its users share."""
    kind = _file_system(os.path.dirname(path) or ".")
    if kind in _REMOTE or kind.removeprefix("fuse.") in _REMOTE:
        raise StoreUnusable(
            f"{path} lies on a network file system ({kind}), where two users of the file would damage it",
            code="store.network",
            hint="keep the store on a local disk, or name another place with --store",
        )


def _file_system(folder: str) -> str:
    """What kind of file system a folder is on; empty where the system does not say. A folder that is missing will be
    on that of the nearest one that exists.
    """
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    try:
        device = os.stat(folder).st_dev
        with open(_MOUNTS) as file:
            mounts = [line.split() for line in file]
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = [fields[fields.index("-") + 1] for fields in mounts if fields[2] == wanted and "-" in fields]
    return found[-1] if found else ""


def size(path: str) -> int:
    """How many bytes a file has; 0 when there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def identity(path: str) -> tuple[int, int] | None:
    """What tells the file from another one put in its place later; `None` when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def moved(path: str) -> StoreUnusable:
    """The file that this process writes is no longer the one at its path."""
    return StoreUnusable(
        f"{path} was deleted or replaced while it was open; nothing more is written",
        code="store.moved",
        hint="put the file back and start again; what this process wrote after the file went may be lost",
    )


def create(path: str, fill: Callable[[str], None]) -> None:
    """Put a database that `fill` made at `path`, whole or not at all; if another process was first, its one stays.

    `fill` gets the path of an empty file with the right mode. Missing folders are made, and removed again on failure.
    """
    made: list[str] = []
    try:
        _make_folders(os.path.dirname(path), made)
        _create_aside(path, fill)
        for folder in {os.path.dirname(path), *map(os.path.dirname, made)}:
            sync_folder(folder)
    except BaseException as error:  # whatever it was, what was made is removed and the error goes on
        for folder in reversed(made):
            _remove_folder(folder)
        if isinstance(error, OSError):
            raise errors.place(error, path) from error
        raise


def _create_aside(path: str, fill: Callable[[str], None]) -> None:
    aside = f"{path}.{secrets.token_hex(8)}.new"
    try:
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE))
        fill(aside)
        _put_in_place(aside, path)
    finally:
        for name in (aside, *(aside + ending for ending in SIDE_FILES)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


def _put_in_place(aside: str, path: str) -> None:
    """Give the finished file its name, unless the name is taken by now."""
    try:
        os.link(aside, path)
    except FileExistsError:  # another process was first
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # This file system knows no second names: the file is made where it belongs, empty, for the migration to fill.
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE))


def _make_folders(folder: str, made: list[str]) -> None:
    if os.path.isdir(folder):
        return
    _make_folders(os.path.dirname(folder), made)
    try:
        os.mkdir(folder, FOLDER_MODE)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder should be", folder) from None
        return  # another process was first
    made.append(folder)
    if os.path.basename(folder) == FOLDER:
        with open(os.path.join(folder, ".gitignore"), "w") as file:
            file.write("*\n")


def _remove_folder(folder: str) -> None:
    with contextlib.suppress(OSError):  # somebody else uses it by now
        if os.path.basename(folder) == FOLDER and os.listdir(folder) == [".gitignore"]:
            os.unlink(os.path.join(folder, ".gitignore"))
        os.rmdir(folder)


def sync_folder(folder: str) -> None:
    """Have the names in the folder written to the disk. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
