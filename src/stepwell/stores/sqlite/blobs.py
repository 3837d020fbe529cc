"""Values that lie beside the journal: bytes by the hash of their content, in parts so that no transaction is long."""

from __future__ import annotations

from typing import Final

import apsw

from stepwell.domain.blob import blob_name
from stepwell.domain.errors import NotFound
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.operations import Operation

PART_BYTES: Final = 256 * 1024

_ENTER: Final = "INSERT INTO blob (name, size, created_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING"
_PUT: Final = "INSERT OR REPLACE INTO blob_chunk (blob, part, data) SELECT n, ?, ? FROM blob WHERE name = ?"
_COMPLETE: Final = "UPDATE blob SET complete = 1 WHERE name = ? AND complete = 0"
_EXISTS: Final = "SELECT 1 FROM blob WHERE name = ? AND complete"
_PARTS: Final = (
    "SELECT data FROM blob_chunk WHERE blob = (SELECT n FROM blob WHERE name = ? AND complete) ORDER BY part"
)


class PutPart(Operation):
    """Write one part of a blob; the last one makes it readable. Writing the same part again changes nothing."""

    kind = "blob"

    def __init__(self, name: str, content: bytes, part: int) -> None:
        self._name = name
        self._size = len(content)
        self._part = part
        self._data = content[part * PART_BYTES : (part + 1) * PART_BYTES]
        self._last = (part + 1) * PART_BYTES >= self._size

    def apply(self, batch: Batch) -> None:
        execute = batch.connection.execute
        execute(_ENTER, (self._name, self._size, batch.now))
        execute(_PUT, (self._part, self._data, self._name))
        if self._last:
            execute(_COMPLETE, (self._name,))


def look_for(connection: apsw.Connection, content: bytes) -> tuple[str, bool]:
    """The name that these bytes have everywhere, and whether they are kept already."""
    name = blob_name(content)
    return name, _exists(connection, name)


def parts(content: bytes) -> int:
    """How many parts the bytes take; none at all still take one."""
    return max(1, -(-len(content) // PART_BYTES))


def read(connection: apsw.Connection, name: str) -> bytes:
    """All bytes of a blob, or `NotFound`."""
    if not _exists(connection, name):
        raise NotFound(f"there are no bytes named {name!r}", code="blob.unknown")
    found = connection.execute(_PARTS, (name,)).fetchall()
    return b"".join(data for (data,) in found if isinstance(data, bytes))


def _exists(connection: apsw.Connection, name: str) -> bool:
    return connection.execute(_EXISTS, (name,)).get is not None
