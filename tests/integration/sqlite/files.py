"""What the tests do to files: look into a database from beside the store, and damage one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness


@contextlib.contextmanager
def beside(path: Path) -> Iterator[apsw.Connection]:
    """A connection of another program to the file."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(5000)
    try:
        yield connection
    finally:
        connection.close()


def ask(path: Path, text: str, *arguments: Any) -> Any:
    """What another program finds in the file."""
    with beside(path) as connection:
        return connection.execute(text, arguments).get


def change(path: Path, text: str) -> None:
    """What another program does to the file."""
    with beside(path) as connection:
        connection.execute(text)


def fingerprint(path: Path) -> str:
    """Tells whether a single byte of the file has changed."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listing(folder: Path) -> set[str]:
    """The names of everything below a folder."""
    return {str(entry.relative_to(folder)) for entry in folder.rglob("*")}


async def make_store(path: Path, runs: int = 3) -> None:
    """A closed store with a few runs in it."""
    harness = Harness(lambda clock: SqliteStore(str(path), clock=clock))
    store = await harness.make()
    for _ in range(runs):
        await harness.submit(store)
    await harness.close()


async def refusal(path: Path, **options: Any) -> Exception:
    """The error with which a store refuses to open this file."""
    store = SqliteStore(str(path), **options)
    try:
        await store.open()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return error
    await store.close()
    raise AssertionError(f"{path} was opened")
