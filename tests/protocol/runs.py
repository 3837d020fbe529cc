"""A run with its leases: what is stored, the newest lease, and those that were taken away and may still write.

A run is a number made of three: its core (what is stored) is looked up, and so are its leases. Leases of equal kind are
the same, so that workers are symmetric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from tests.protocol.core import LIVE_CHILD, Bounds, describe
from tests.protocol.messages import Message, may_write
from tests.protocol.promises import expect
from tests.protocol.stored import Landing, Stored

_BITS: Final = 10
_MASK: Final = (1 << _BITS) - 1
_TWO: Final = 2 * _BITS
_ZOMBIES: Final = (1 << _TWO) - 1
ENDS, MAKES = 1, 2
"""What a step means for relatives, beside what a request does."""
CORE: Final = 3 * _BITS
"""Where the number of the core begins in the number of a run."""


class Actor(NamedTuple):
    """A lease, as its holder knows it: what it sent last, or is about to send, and whether that was written before.

    `current`: no claim and no forced end has raised the fence since.
    """

    message: Message | None = None
    written: bool = False
    dead: bool = False
    current: bool = True


Edge: TypeAlias = tuple[int, int, int]
"""One step of a run: its label, the run after it, and what it means for relatives."""

_Own: TypeAlias = tuple[int, int, int, int]


class Runs:
    """The runs of one world, and all leases that were met."""

    def __init__(self, bounds: Bounds) -> None:
        self.stored = Stored(bounds)
        self.bounds = bounds
        self.cores = self.stored.cores
        self.labels = self.stored.labels
        self.actors: list[Actor | None] = [None]
        self._actor_ids: dict[Actor, int] = {}
        self._written: dict[tuple[int, int], Landing] = {}
        self._made: dict[int, list[tuple[int, int]]] = {}
        self._zombies: dict[tuple[int, int], tuple[int, ...]] = {}
        self._own: dict[int, list[_Own]] = {}
        self._after: dict[tuple[int, bool, bool, bool], int] = {}
        self.idle = self._actor(Actor())

    def start(self, *, hooked: bool, delayed: bool = False) -> int:
        """A run that was just submitted."""
        return self.stored.start(hooked=hooked, delayed=delayed) << CORE

    def describe(self, run: int) -> str:
        """A run in one line."""
        core, newest, zombies = self._parts(run)
        actors = [("lease", newest), *(("zombie", zombie) for zombie in zombies)]
        told = [f"{name} {self._told(self.actors[actor])}" for name, actor in actors if actor]
        return "; ".join([describe(self.cores[core]), *told])

    def has_ended(self, run: int) -> bool:
        """Whether the run has."""
        return self.cores[run >> CORE].life.ended

    @staticmethod
    def _told(actor: Actor | None) -> str:
        assert actor is not None
        if actor.message is None:
            return "dead" if actor.dead else "idle"
        stale = "" if actor.message.fresh else " behind"
        return f"{'dead, ' if actor.dead else ''}{'wrote' if actor.written else 'sends'} {actor.message.name}{stale}"

    def _actor(self, actor: Actor) -> int:
        found = self._actor_ids.get(actor)
        if found is None:
            found = self._actor_ids[actor] = len(self.actors)
            self.actors.append(actor)
            assert found <= _MASK
        return found

    @staticmethod
    def _parts(run: int) -> tuple[int, int, tuple[int, ...]]:
        zombies = (run >> _BITS & _MASK, run & _MASK)
        return run >> CORE, run >> _TWO & _MASK, tuple(each for each in zombies if each)

    # ------------------------------------------------------------ one step

    def steps(self, run: int) -> list[Edge]:
        """Everything that may happen to the run next."""
        zombies, known = run & _ZOMBIES, run >> _TWO
        own = self._own.get(known)
        if own is None:
            own = self._own[known] = list(self._of_the_run(known >> _BITS, known & _MASK))
        found = [(label, after | zombies, news) for label, after, old, news in own if not old]
        for label, after, old, news in own:
            if old:
                found += [(label, after | kept, news) for kept in self._with_zombie(zombies, old)]
        if zombies:
            found += self._of_zombies(run, zombies)
        return found

    def _of_the_run(self, core: int, newest: int) -> Iterator[_Own]:
        """All but what zombies do: `old` is the lease that becomes one."""
        life, actor = self.cores[core].life, self.actors[newest]
        for label, after, told, raised, news in self.stored.outside(core):
            yield label, self._run(after, self._later(newest, told, raised, after)), 0, news | self._news(core, after)
        for label, after, told, raised, _ in self.stored.takings(core, dead=actor is not None and actor.dead):
            old, taken = self._later(newest, told, raised, after), self.cores[after].life.status == "running"
            run = self._run(after, self.idle if taken else old)
            yield label, run, old if taken else 0, self._news(core, after)
        if actor is not None and actor.message is not None:
            landing = self._land(core, newest)
            kept = 0 if landing.refused else self._wrote(newest, landing.core)
            yield landing.label, self._run(landing.core, kept), 0, self._news(core, landing.core)
        if actor is not None and life.status == "running" and actor.current and not actor.dead:
            yield self.stored.label("the worker dies"), self._run(core, self._actor(actor._replace(dead=True))), 0, 0
            if actor.message is None or actor.written:
                for label, sends in self._decisions(core):
                    yield label, self._run(core, sends), 0, 0

    def _of_zombies(self, run: int, zombies: int) -> Iterator[Edge]:
        """Late writes: refused, whereupon their sender stops."""
        first, second = zombies >> _BITS, zombies & _MASK
        yield self._late(run >> CORE, first), run & ~_ZOMBIES | second << _BITS, 0
        if second:
            yield self._late(run >> CORE, second), run & ~_ZOMBIES | first << _BITS, 0

    def _late(self, core: int, zombie: int) -> int:
        landing = self._land(core, zombie)
        expect(landing.refused and landing.core == core, "P3: no write with an old fence is accepted")
        return landing.label

    @staticmethod
    def _run(core: int, newest: int) -> int:
        return core << CORE | newest << _TWO

    def _news(self, core: int, after: int) -> int:
        """What a step means for relatives."""
        was, now = self.cores[core], self.cores[after]
        return ENDS * (now.life.ended and not was.life.ended) | MAKES * (now.child == LIVE_CHILD and not was.child)

    # ------------------------------------------------------------ leases

    def _later(self, actor: int, told: bool, raised: bool, core: int) -> int:
        """The newest lease after something happened that its holder did not do."""
        running = self.cores[core].life.status == "running"
        key = actor, told, raised, running
        if actor and key not in self._after:
            self._after[key] = self._moved_on(*key)
        return self._after[key] if actor else 0

    def _moved_on(self, number: int, told: bool, raised: bool, running: bool) -> int:
        actor = self.actors[number]
        assert actor is not None
        message = actor.message
        if message is not None and message.parks() and not actor.written and (told or raised):
            message = replace(message, fresh=False)
        actor = actor._replace(message=message, current=actor.current and not raised)
        over = not actor.current or not running
        if over and (message is None or (actor.dead and actor.written)):
            return (
                0  # nothing that it could send is left: whoever has an old fence and sends anything is tried everywhere
            )
        return self._actor(actor)

    def _wrote(self, number: int, core: int) -> int:
        """The lease after its write was accepted."""
        actor = self.actors[number]
        assert actor is not None
        assert actor.message is not None
        running = self.cores[core].life.status == "running"
        if actor.dead and not running:
            return 0
        return self._actor(actor._replace(written=True, message=replace(actor.message, fresh=True)))

    def _with_zombie(self, zombies: int, more: int) -> tuple[int, ...]:
        """The leases that were taken away, with one more: when they are too many, any one of them is forgotten."""
        if not more:
            return (zombies,)
        key = zombies, more
        if key not in self._zombies:
            together = sorted({zombies >> _BITS, zombies & _MASK, more} - {0}, reverse=True)
            kept = [together]
            if len(together) > self.bounds.zombies:
                kept = [together[:place] + together[place + 1 :] for place in range(len(together))]
            pairs = ((*each, 0, 0)[:2] for each in kept)
            self._zombies[key] = tuple({first << _BITS | second for first, second in pairs})
        return self._zombies[key]

    def _decisions(self, number: int) -> list[tuple[int, int]]:
        """What a living holder may decide to write now."""
        if number not in self._made:
            messages = may_write(self.cores[number], self.bounds)
            self._made[number] = [
                (self.stored.label(f"the holder decides: {message.name}", helps=True), self._actor(Actor(message)))
                for message in messages
            ]
        return self._made[number]

    def _land(self, number: int, sender: int) -> Landing:
        """A write reaches the store."""
        key = number, sender
        if key not in self._written:
            actor = self.actors[sender]
            assert actor is not None
            assert actor.message is not None
            self._written[key] = self.stored.write(number, actor.message, current=actor.current, again=actor.written)
        return self._written[key]

    # ------------------------------------------------------------ relatives

    def befall(self, run: int, cause: str) -> int:
        """The run after something that its parent's or its child's change brings with it, in the same write."""
        core = self.cores[run >> CORE]
        move = self.stored.by_relatives(core, cause)
        if move is None:
            return run
        newest = self._later(run >> _TWO & _MASK, move.told, move.raised, move.core)
        return self._run(move.core, newest) | run & _ZOMBIES
