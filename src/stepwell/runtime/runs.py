"""The runs of a runtime, as a group: get one, find one by what a person types, list them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stepwell.domain.errors import Conflict, NotFound
from stepwell.domain.ids import RUN, is_id
from stepwell.domain.run import RunRecord, RunStatus
from stepwell.ports.store import RunQuery, Store
from stepwell.runtime.run import Run

_SHORTEST_ENDING: Final = 4


class Runs:
    """`runtime.runs`."""

    def __init__(self, store: Callable[[], Store], make: Callable[[RunRecord], Run[Any]]) -> None:
        self._store = store
        self._make = make

    async def get(self, run_id: str, /) -> Run[Any]:
        """The run of that id. Raises `NotFound` (`run.unknown`)."""
        return self._make(await self._store().get(run_id))

    async def list(
        self,
        *,
        status: RunStatus | None = None,
        agent: str | None = None,
        ended: bool | None = None,
        dead: bool | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Run[Any]]:
        """Runs that match everything given, newest first, at most `limit`; `before` (a run's id) is where the next
        page begins.
        """
        query = RunQuery(status=status, agent=agent, ended=ended, dead=dead, before=before, limit=limit)
        return [self._make(record) for record in await self._store().find(query)]

    async def find(self, text: str, /) -> Run[Any]:
        """The run that a person means: an id, a unique ending of at least 4 characters, or `last`.

        Raises `NotFound` (`run.unknown`) and `Conflict` (`run.ambiguous`).
        """
        if is_id(RUN, text):
            return await self.get(text)
        if text == "last":
            found = await self._store().find(RunQuery(limit=1))
        elif len(text) < _SHORTEST_ENDING:
            raise NotFound(
                f"{text!r} is too short to name a run",
                code="run.unknown",
                hint=f"give at least {_SHORTEST_ENDING} characters of the id's ending, or `last`",
            )
        else:
            found = await self._store().find(RunQuery(ending=text.lower(), limit=2))
        if not found:
            raise NotFound(f"no run ends in {text!r}" if text != "last" else "there is no run yet", code="run.unknown",
                           hint="see: stepwell runs list")  # fmt: skip
        if len(found) > 1:
            raise Conflict(
                f"more than one run ends in {text!r}", code="run.ambiguous", hint="give more characters of the id"
            )
        return self._make(found[0])
