"""Reading a store from a command: no app is imported, nothing is executed, and no store comes into being by looking
for it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from stepwell.app import App
from stepwell.config import find_store, store_file
from stepwell.domain.errors import NotFound, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from stepwell.domain.event import Event
    from stepwell.runtime import Run, Runtime


@asynccontextmanager
async def opened(store: str | None, app: App[Any] | None = None) -> AsyncIterator[Runtime[Any]]:
    """A runtime that only reads and records decisions; where agents matter, with their `app`.

    Raises `NotFound` (`store.missing`) where there is no store yet.
    """
    from stepwell.runtime import Runtime

    setting = find_store(store)
    file = store_file(setting.value)
    if file is not None and not is_there(file):
        raise NotFound(
            f"there is no store at {file} ({setting.source})",
            code="store.missing",
            hint="the first `stepwell run` makes it; to look elsewhere: --store sqlite:///FILE",
        )
    async with Runtime(app or App("commands"), store=setting.value, worker=False) as runtime:
        yield runtime


def is_there(file: Path) -> bool:
    """Whether the store exists. Raises `StoreUnavailable` (`store.hidden`) when this user may not look."""
    try:
        return file.exists()
    except PermissionError as error:
        raise StoreUnavailable(
            f"{file} cannot be looked at: this user may not enter its folder",
            code="store.hidden",
            hint="act as the user to whom the store belongs, or name another place with --store",
        ) from error


def tail(run: Run[Any], *, after: int = 0) -> aclosing[AsyncGenerator[Event]]:
    """The run's events as they come, to be entered with `async with`, so that leaving early leaves nothing behind."""
    return aclosing(cast("AsyncGenerator[Event]", run.events(after=after)))


async def history(run: Run[Any], *, after: int = 0) -> list[Event]:
    """The run's events up to the moment at which it was read; does not wait for more."""
    found: list[Event] = []
    if run.seq <= after:
        return found
    async with tail(run, after=after) as events:
        async for event in events:
            found.append(event)
            if event.seq >= run.seq:
                break
    return found
