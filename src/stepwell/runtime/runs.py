"""The runs of a runtime, as a group: get one, find one by what a person types, list them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stepwell.domain.errors import Conflict, NotFound
from stepwell.domain.ids import RUN, is_id
from stepwell.domain.run import RunRecord, RunStatus
from stepwell.ports.store import RunQuery, Store
from stepwell.runtime.access import checked_by
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
        session: str | None = None,
        parent: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Run[Any]]:
        """Runs that match everything given, newest first, at most `limit`.

        `dead` are those that were given up, attempts or losses used up, and not discarded since; `parent` is the id of
        the run that started them; `before` (a run's id) is where the next page begins.
        """
        query = RunQuery(
            status=status,
            agent=agent,
            ended=ended,
            dead=dead,
            session=session,
            parent=parent,
            before=before,
            limit=limit,
        )
        return [self._make(record) for record in await self._store().find(query)]

    async def discard(self, run_id: str, /, *, by: str | None = None) -> None:
        """Take a dead run off the list of the dead; it stays failed. `by` (default "api") is kept for the record.

        Raises `NotFound` (`run.unknown`), `Conflict` (`run.not_dead`).
        """
        await self._store().discard(run_id, by=checked_by(by))

    async def find(self, text: str, /) -> Run[Any]:
        """The run that a person means: an id, a unique ending of at least 4 characters, or `last` for the newest one
        that is nobody's child.

        Raises `NotFound` (`run.unknown`) and `Conflict` (`run.ambiguous`).
        """
        if is_id(RUN, text):
            return await self.get(text)
        if text == "last":
            found = await self._store().find(RunQuery(limit=1))
            if found and found[0].root is not None:  # the ids of children lie beside their root's
                return await self.get(found[0].root)
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
