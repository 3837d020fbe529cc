"""Bugs for the simulation to find: those of the protocol's register that it can meet, and some of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from stepwell.domain import due, lane, transitions
from stepwell.domain.errors import StoreError
from stepwell.domain.outcome import Cancelled, Outcome, Retrying
from stepwell.domain.run import Lifecycle
from stepwell.engine import replay, waits, worker
from stepwell.engine.attempt import Attempt, AttemptStopped, Lost
from stepwell.engine.executor import Executor
from stepwell.engine.heartbeat import Heart
from stepwell.ports.clock import Clock
from stepwell.ports.runnable import Runnable
from stepwell.ports.store import Committed, Control
from stepwell.stores.memory.admission import Door
from stepwell.stores.memory.runs import Runs
from stepwell.stores.memory.sessions import Sessions
from stepwell.stores.memory.store import MemoryStore
from tests.protocol.bugs import BUGS
from tests.protocol.mutants import MUTANTS
from tests.simulation.audit import Request
from tests.simulation.doors import Network, StoreFault

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]
_FAR: Final = 1_000_000.0


def _transition(name: str) -> Plant:
    bug = BUGS[name]
    return lambda patch: patch.setattr(transitions, bug.target, bug.replacement)


def _mutant(name: str) -> Plant:
    plant = MUTANTS[name].plant
    assert plant is not None
    return plant


class _WallClock:
    """Leases by the time that people set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.now = clock.now
        self.sleep = clock.sleep

    def elapsed(self) -> float:
        return self._clock.now() / 1_000_000


def _judges_by_the_wall_clock(patch: Patch) -> None:
    make = MemoryStore.__init__

    def make_wrong(self: MemoryStore, clock: Clock) -> None:
        make(self, _WallClock(clock))

    patch.setattr(MemoryStore, "__init__", make_wrong)


def _acknowledges_first(patch: Patch) -> None:
    """The answer to a commit leaves before the commit is made."""
    serve = Network.serve

    def serve_late(self: Network, request: Request, fault: StoreFault | None, reply: Callable[..., None]) -> None:
        if request.verb != "commit":
            serve(self, request, fault, reply)
            return
        reply(Committed(0, Control()), None)
        self.loop.call_later(0.02, serve, self, request, fault, lambda *_: None)

    patch.setattr(Network, "serve", serve_late)


def _never_doubts_its_leases(patch: Patch) -> None:
    patch.setattr(Heart, "certain", lambda self: True)


def _trusts_hints(patch: Patch) -> None:
    """Nobody looks unless a hint says so."""
    patch.setattr(worker, "FULL_POLL", _FAR)
    patch.setattr(waits, "POLL", _FAR)


def _keeps_what_it_does_not_know(patch: Patch) -> None:
    """Runs that a lost answer gave to a worker are extended for ever."""
    patch.setattr(worker.Worker, "_hand_back", lambda self, unknown: None)


def _forgets_keys(patch: Patch) -> None:
    patch.setattr(Door, "_note_key", lambda self, submission, row: None)


def _goes_on_after_an_error(patch: Patch) -> None:
    """A commit that failed is taken for one that was not made: it is made again, under another number."""
    write = Attempt._write

    async def write_again(self: Attempt, *args: Any) -> None:
        try:
            await write(self, *args)
        except StoreError:
            await write(self, *args)

    patch.setattr(Attempt, "_write", write_again)


def _loses_updates(patch: Patch) -> None:
    """Who wrote last wins, whatever he had read."""
    patch.setattr(Sessions, "check", lambda self, *asked: None)


# ---------------------------------------------------------------- turns


def _passes_turns_on(patch: Patch) -> None:
    """A turn is free as soon as whoever took it has gone or wants to give it up, whoever lives on it."""
    patch.setattr(lane, "_is_given_back", lambda lines, ticket: ticket.state in (lane.GRANTED, lane.LEAVING))


# ---------------------------------------------------------------- clean-ups


def _settles_without_a_hook(patch: Patch) -> None:
    """A cancel in the moment in which an attempt lets go of its run skips the clean-up."""
    settle = transitions.settle
    patch.setattr(transitions, "settle", lambda life, outcome, now, **_: settle(life, outcome, now))


def _never_cleans_up(patch: Patch) -> None:
    async def leave_it(self: Executor, attempt: Attempt, runnable: Runnable) -> None:
        attempt.cleaning = True

    patch.setattr(Executor, "_clean_up", leave_it)


def _cleans_up_twice(patch: Patch) -> None:
    clean_up = Executor._clean_up

    async def clean_up_twice(self: Executor, attempt: Attempt, runnable: Runnable) -> None:
        await clean_up(self, attempt, runnable)
        await clean_up(self, attempt, runnable)

    patch.setattr(Executor, "_clean_up", clean_up_twice)


def _cleans_up_what_it_lost(patch: Patch) -> None:
    """Who is cleaning up, or about to, does not care that he lost the run."""
    end = Attempt.end

    def end_wrong(self: Attempt, stop: Any) -> Any:
        if isinstance(stop, Lost) and isinstance(self.stop, Cancelled):
            return AttemptStopped()
        return end(self, stop)

    patch.setattr(Attempt, "end", end_wrong)


# ---------------------------------------------------------------- lengths


def _puts_off(patch: Patch) -> None:
    """What is due stays due at its moment, however far the clock was set back."""
    patch.setattr(Runs, "put_off", lambda self, now: [])


def _is_due_at_once(patch: Patch) -> None:
    """A clock that was set back makes everything due."""
    settle = due.made_up

    def make_up_for_all(life: Lifecycle, now: int) -> Lifecycle | None:
        made_up = settle(life, now)
        return None if made_up is None else made_up._replace(available_at=min(made_up.available_at, now))

    patch.setattr(due, "made_up", make_up_for_all)


def _waits_for_moments(patch: Patch) -> None:
    """An attempt waits until a moment has come, also where that stands for a length."""
    patch.setattr(waits.Waits, "_until", lambda self, limit: limit.until)
    patch.setattr(replay.Replay, "begun_at", lambda self, record: record.at)


def _backs_off_never(patch: Patch) -> None:
    settle = transitions.settle

    def settle_at_once(life: Lifecycle, outcome: Outcome, now: int, **options: Any) -> transitions.Change:
        at_once = replace(outcome, available_at=now) if isinstance(outcome, Retrying) else outcome
        return settle(life, at_once, now, **options)

    patch.setattr(transitions, "settle", settle_at_once)


def _starts_at_once(patch: Patch) -> None:
    submit = transitions.submit
    patch.setattr(transitions, "submit", lambda **asked: submit(**asked | {"available_at": asked["now"]}))


PLANTED: Final[dict[str, Plant]] = {
    "no fence": _transition("no fence check"),
    "no fence at a forced end": _transition("no fence at a forced end"),
    "no fence at a claim": _transition("no fence at a claim"),
    "late check": _mutant("late check"),
    "split claim": _mutant("split claim"),
    "two transactions": _mutant("two transactions"),
    "event outside the transaction": _transition("an end without its event"),
    "unconditional heartbeat": _mutant("unconditional heartbeat"),
    "wall-clock lease": _judges_by_the_wall_clock,
    "acknowledged before the commit": _acknowledges_first,
    "attempt counted after the run": _transition("an attempt is counted at its end"),
    "signal ignored while leased": _transition("a signal is ignored while leased"),
    "lane released outside the commit": _mutant("lane released outside the commit"),
    "lost wake-up": _transition("a park ignores what was read"),
    "no self-stop": _never_doubts_its_leases,
    "duplicate on an ambiguous commit": _transition("a repeated commit is applied twice"),
    "written again after an error": _goes_on_after_an_error,
    "hint trusted": _trusts_hints,
    "a lost answer keeps a run": _keeps_what_it_does_not_know,
    "idempotency key forgotten": _forgets_keys,
    "lost update": _loses_updates,
    "the end of a child wakes nobody": _transition("the end of a child wakes nobody"),
    "a late cancel overwrites the end": _transition("a late cancel overwrites the end"),
    "an expiry taken for a death": _transition("an expiry is taken for a death"),
    "no turn is lent": lambda patch: patch.setattr(lane, "turns", lambda tickets: []),
    "a turn passed on although children live on it": _passes_turns_on,
    "a cancel while parking skips the clean-up": _settles_without_a_hook,
    "no clean-up": _never_cleans_up,
    "two clean-ups": _cleans_up_twice,
    "a clean-up of what was lost": _cleans_up_what_it_lost,
    "a clock set back puts runs off": _puts_off,
    "a clock set back makes all due": _is_due_at_once,
    "lengths are moments": _waits_for_moments,
    "no backoff": _backs_off_never,
    "no delay": _starts_at_once,
}
