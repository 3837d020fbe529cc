"""A harness over one file, and an open store on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("stepwell.testing.conformance")

from stepwell.stores.sqlite.store import SqliteStore  # noqa: E402  (the rewriting must come first)
from stepwell.testing.conformance import Harness  # noqa: E402


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store of the test is."""
    return tmp_path / "data.db"


@pytest.fixture
async def harness(path: Path) -> AsyncIterator[Harness]:
    """Stores over the file, with a clock that is moved by hand."""
    harness = Harness(lambda clock: SqliteStore(str(path), clock=clock))
    yield harness
    await harness.close()


@pytest.fixture
async def store(harness: Harness) -> SqliteStore:
    """An open store on the file."""
    store = await harness.make()
    assert isinstance(store, SqliteStore)
    return store
