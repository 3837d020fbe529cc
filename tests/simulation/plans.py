"""A plan: everything that a seed decides beforehand, as a list of items that can be left out one by one.

What it does not decide beforehand (delays, the order of what is ready) is drawn from the same seed while the plan is
carried out.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final, NamedTuple

from tests.simulation.programs import AGENTS, LONGEST, SIGNALS, TAKES_TURNS, Drawer

LEASE: Final = 2.0
STORM: Final = 5.0
"""Seconds in which faults happen; after them it is calm."""
_HOURS: Final = 7200.0


class Item(NamedTuple):
    """Something that happens `at` a moment (seconds), or is armed then: a fault of the store hits the next request of
    its kind.
    """

    kind: str
    at: float
    args: tuple[Any, ...] = ()

    @property
    def is_fault(self) -> bool:
        """Whether it is something that goes wrong, and no work."""
        return self.kind in FAULTS


class Plan(NamedTuple):
    """What happens in one simulation. `delay` is how long a message takes at most, in seconds."""

    seed: int
    items: tuple[Item, ...]
    workers: int = 2
    capacity: int = 2
    delay: float = 0.002

    def without(self, items: set[int]) -> Plan:
        """The plan, and these items left out."""
        return self._replace(items=tuple(item for number, item in enumerate(self.items) if number not in items))

    @property
    def has_one_clock(self) -> bool:
        """Whether no clock ever differs from another."""
        return all(item.args[2] == "all" for item in self.items if item.kind == "jump")

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.workers} workers for {self.capacity} runs each, {self.delay:g} s"]
        lines += [f"  at {item.at:g}: {item.kind} {' '.join(map(str, item.args))}" for item in self.items]
        return "\n".join(lines)


class When(NamedTuple):
    """When a worker is hit: so many turns of its loop after the moment of the item or, `in_step`, after the next step
    that it begins then.
    """

    in_step: bool
    turns: int


WORK: Final = ("start", "signal", "cancel", "cross", "strand", "pause", "resume", "answer", "retry")
FAULTS: Final = ("crash", "stop", "stall", "jump", "dip", "drain", "store", "hints", "order")
_BASIC: Final = ("step", "step", "keyed")
_OTHERS: Final = (
    *("plain", "flaky", "bad", "slow", "sure", "map", "both", "sleep", "wait", "ask", "call", "spawn", "count"),
    *("say", "emit", "text", "raise"),
)


class _Theme(NamedTuple):
    """What a share of the seeds is about: the operations and agents of its work (any, where none are named), its
    sessions, how often each run is cancelled, or crossed by a cancel when it is let go, or cancelled before its worker
    is stopped; and which faults there are in any case.
    """

    share: float
    kinds: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ("s", "t")
    cancels: float = 0.12
    crossings: float = 0.03
    strandings: float = 0.03
    faults: tuple[str, ...] = ()


_ANYTHING: Final = _Theme(1.0)
_THEMES: Final = (
    _Theme(0.1, ("count", "count", "say", "step"), ("plain", "retrying")),  # everybody writes to the same places
    _Theme(0.1, ("spawn", "spawn", "call", "step", "step"), ("turns", "turns", "both_ways"), ("s",), 0.4),
    _Theme(
        0.1,
        ("step", "step", "sleep", "wait", "ask", "spawn"),
        ("cleaning",),
        (),
        0.3,
        0.3,
        0.5,
        ("stop", "store"),
    ),
    _Theme(0.1, ("sleep", "sleep", "wait", "ask", "raise", "step"), ("plain", "retrying", "turns"), faults=("clocks",)),
)


def draw(seed: int) -> Plan:
    """The plan of a seed. Each seed leaves out most kinds of work and of faults, so that some go deep."""
    random = Random(f"plan {seed}")
    workers = random.choice((1, 2, 2, 2, 3, 3, 4))
    theme = _theme(random)
    items = _work(random, workers, theme) + _faults(random, workers, theme)
    items.sort(key=lambda item: (item.at, item.kind))
    return Plan(seed, tuple(items), workers, random.choice((1, 2, 2, 4)), random.choice((0.002, 0.01, 0.05, 0.1)))


def _theme(random: Random) -> _Theme:
    drawn = random.random()
    for theme in _THEMES:
        drawn -= theme.share
        if drawn < 0:
            return theme
    return _ANYTHING


def _work(random: Random, workers: int, theme: _Theme) -> list[Item]:
    kinds = theme.kinds or (*_BASIC, *random.sample(_OTHERS, random.randint(2, 6)))
    agents: Sequence[str] = theme.agents or random.sample(AGENTS, random.randint(1, 4))
    drawer = Drawer(random, kinds)
    runs, within = random.choice((1, 2, 3, 4, 5, 7)), random.choice((0.1, 1.0, 2.0))
    starts = [_start(random, drawer, number, random.choice(agents), workers, theme.sessions) for number in range(runs)]
    items = [item._replace(at=item.at * within) for item in starts]
    chances = {"cancel": theme.cancels, "cross": theme.crossings, "pause": 0.12, "answer": 0.3, "retry": 0.15}
    for verb, chance in chances.items():
        items += [Item(verb, _moment(random), (number,)) for number in range(runs) if random.random() < chance]
    items += [
        Item("strand", start.at + random.uniform(0.1, 0.5), (start.args[0], LEASE + random.uniform(0.1, 1.0)))
        for start in items
        if start.kind == "start" and random.random() < theme.strandings
    ]
    items += [Item("resume", item.at + random.random() * 2, item.args) for item in items if item.kind == "pause"]
    for number in range(runs if "wait" in kinds else 0):
        for n in range(random.randint(0, 3)):
            args = (number, random.choice(SIGNALS), f"{number}.{n}", random.choice((1, 1, 2)))
            items.append(Item("signal", _moment(random), args))
    return items


def _start(random: Random, drawer: Drawer, number: int, agent: str, workers: int, sessions: Sequence[str]) -> Item:
    program = drawer.program(number, agent=agent, most=random.choice((3, 5, 8)))
    takes_turns = agent in TAKES_TURNS or any(operation[0] in ("count", "say") for operation in program["ops"])
    session = random.choice(sessions) if sessions and takes_turns and random.random() < 0.8 else None
    if random.random() < 0.1:
        program["delay"] = random.choice((0.1, 0.5, LONGEST))
    key = f"k{random.randint(0, 2)}" if random.random() < 0.3 else None
    door = random.randrange(workers) if random.random() < 0.4 else None
    return Item("start", random.random(), (number, agent, program, session, key, door))


def _moment(random: Random) -> float:
    return random.random() * STORM


def _faults(random: Random, workers: int, theme: _Theme) -> list[Item]:
    items = [Item("order", 0.0)] if random.random() < 0.9 else []
    kinds = random.sample(("crash", "stop", "stall", "clocks", "drain", "store", "hints"), random.randint(1, 5))
    clocks = random.choice((_BACK, _BACK, _ALL, _APART, _APART))
    for kind in dict.fromkeys((*theme.faults, *kinds)):
        for _ in range(random.choice((1, 2, 3, 4))):
            items.append(_fault(random, random.choice(clocks) if kind == "clocks" else kind, workers))
    return [item for number, item in enumerate(items) if item.kind != "hints" or item not in items[:number]]


_BACK: Final = ("back", "dip")
_ALL: Final = ("back", "ahead", "dip")
_APART: Final = ("back", "ahead", "apart", "apart")
"""What happens to clocks in one seed: all are set back only, all are set, each is set for itself."""


def _fault(random: Random, kind: str, workers: int) -> Item:
    worker = random.randrange(workers)
    at = _moment(random) if random.random() < 0.3 else random.random() * 2.5
    match kind:
        case "crash":
            proof = None if random.random() < 0.3 else random.choice((0.0, 0.05, 0.5))
            return Item(kind, at, (worker, _when(random), proof, random.choice((0.1, 0.5, 3.0))))
        case "stop" | "stall":
            return Item(kind, at, (worker, _when(random), round(LEASE * random.uniform(0.5, 2.5), 3)))
        case "apart" | "ahead" | "back":
            whose = random.choice((worker, "store", "client")) if kind == "apart" else "all"
            seconds = random.choice((_HOURS, 5.0, round(random.uniform(0, 60), 1)))
            ahead = kind == "ahead" or (kind == "apart" and random.random() < 0.5)
            return Item("jump", at, (worker, _when(random), whose, seconds if ahead else -seconds))
        case "dip":
            seconds = random.choice((_HOURS, 5.0, round(random.uniform(0, 60), 1)))
            return Item(kind, at, (worker, _when(random), seconds, random.choice((0.1, 0.5, 2.0))))
        case "drain":
            return Item(kind, at, (worker, _when(random), random.choice((0.0, 0.2, 2.0)), random.choice((0.1, 1.0))))
        case "store":
            how = random.choice(("before", "after", "after", "twice", "slow", "slow"))
            whose = random.choice((worker, worker, worker, "client"))
            verb = random.choice(("commit", "commit", "commit", "claim", "heartbeat", "submit", "any"))
            return Item(kind, at, (whose, verb, how, random.choice((0.1, 0.5, 0.9 * LEASE, 1.5 * LEASE))))
        case _:
            return Item(kind, 0.0, tuple(random.choice((0.0, 0.2, 0.5, 1.0)) for _ in range(3)))


def _when(random: Random) -> When:
    """Half of what hits a worker hits it soon after it begins a step."""
    return When(random.random() < 0.5, random.randint(1, 12 if random.random() < 0.7 else 80))
