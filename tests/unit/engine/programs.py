"""Random agent programs: trees of context calls that an agent interprets, and the outside world that they act on."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from hypothesis import strategies as st

from stepwell.app import App
from stepwell.domain.errors import NotExecuted, StepFailed
from stepwell.domain.retry import Retry
from stepwell.ports.context import Context


@dataclass(frozen=True)
class Do:
    """A step. It fails `failures` times, is tried `tries` times by its own policy, and `caught` where it fails."""

    label: str
    failures: int = 0
    tries: int = 1
    caught: bool = False
    keyed: bool = False
    must_know: bool = False


@dataclass(frozen=True)
class Note:
    """A call that records something else: `emit`, `artifact`, `now`, `uuid`, `random`."""

    label: str
    kind: str


@dataclass(frozen=True)
class Many:
    """`ctx.map` over labels."""

    labels: tuple[str, ...]
    limit: int | None = None
    keyed: bool = False


@dataclass(frozen=True)
class Tasks:
    """Steps with keys in tasks that the agent starts itself."""

    labels: tuple[str, ...]


@dataclass(frozen=True)
class Branches:
    """`ctx.gather` of programs."""

    programs: tuple["Program", ...]


@dataclass(frozen=True)
class Attempted:
    """A body, and what is done when a step of it fails; the failure goes on."""

    body: "Program"
    clean_up: "Program"


@dataclass(frozen=True)
class Break:
    """The agent's own code raises, the first `times` times."""

    label: str
    times: int


@dataclass(frozen=True)
class Await:
    """A wait for what comes from outside: `sleep`, `signal`, `ask`, `late` (nothing comes in time), `call`, `spawn`."""

    label: str
    kind: str
    keyed: bool = False


@dataclass(frozen=True)
class Asked:
    """Questions with keys in tasks that the agent starts itself."""

    labels: tuple[str, ...]


Op: TypeAlias = Do | Note | Many | Tasks | Branches | Attempted | Break | Await | Asked
Program: TypeAlias = tuple[Op, ...]

RETRY = Retry(1000, first_delay=0)


@dataclass
class World:
    """What lies outside: effects, in whatever order the event loop and the seed bring them about."""

    seed: int = 0
    effects: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    breaks: Counter[str] = field(default_factory=Counter)
    drawn: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    async def some_turns(self) -> None:
        """Take as many turns of the loop as the seed wants."""
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)

    async def act(self, label: str, failures: int) -> str:
        """A step's function."""
        await self.some_turns()
        self.effects[label] += 1
        await self.some_turns()
        if self.ends[label] < failures:
            self.ends[label] += 1
            raise ValueError(label)
        return f"<{label}>"

    async def find(self, label: str, failures: int) -> str | None:
        """Whether a step had its effect: it did if it was begun and did not fail."""
        await self.some_turns()
        if self.effects[label] <= self.ends[label]:
            raise NotExecuted
        return f"<{label}>"

    def note_drawn(self, label: str, value: object) -> None:
        """What was derived under a label, which must be the same always."""
        self.drawn.setdefault(label, set()).add(str(value))


class Interpreter:
    """Runs a program through a context."""

    def __init__(self, ctx: Context, world: World) -> None:
        self._ctx = ctx
        self._world = world

    async def run(self, program: Program) -> list[Any]:
        results = []
        for op in program:
            await self._world.some_turns()
            results.append(await self._one(op))
        return results

    async def _one(self, op: Op) -> Any:
        match op:
            case Do():
                return await self._do(op)
            case Note():
                return await self._note(op)
            case Many(labels, limit, keyed):
                return await self._ctx.map(self._effect, labels, key=str if keyed else None, limit=limit)
            case Tasks(labels):
                async with asyncio.TaskGroup() as group:
                    calls = [self._ctx.step(self._effect, label, key=label) for label in labels]
                    tasks = [group.create_task(call) for call in calls]
                return [task.result() for task in tasks]
            case Await():
                return await self._await(op)
            case Asked(labels):
                async with asyncio.TaskGroup() as group:
                    asked = [group.create_task(self._ctx.ask(label, str, key=label)) for label in labels]
                return [task.result() for task in asked]
            case Branches(programs):
                return list(await self._ctx.gather(*[self.run(program) for program in programs]))
            case Attempted(body, clean_up):
                try:
                    return await self.run(body)
                except StepFailed:
                    await self.run(clean_up)
                    raise
            case Break(label, times):
                self._world.breaks[label] += 1
                if self._world.breaks[label] <= times:
                    raise OSError(label)
                return label

    async def _effect(self, label: str) -> str:
        return await self._world.act(label, 0)

    async def _do(self, op: Do) -> str:
        try:
            return await self._ctx.step(
                self._world.act,
                op.label,
                op.failures,
                key=op.label if op.keyed else None,
                retry=Retry(op.tries, first_delay=0) if op.tries > 1 else None,
                in_doubt=self._world.find if op.must_know else "rerun",
            )
        except StepFailed:
            if op.caught:
                return f"!{op.label}"
            raise

    async def _await(self, op: Await) -> str:
        ctx, label, key = self._ctx, op.label, op.label if op.keyed else None
        match op.kind:
            case "sleep":
                await ctx.sleep(0.0005)
            case "signal":
                return await ctx.wait_for(label, str)
            case "late":
                return await ctx.wait_for(label + "-late", str, timeout=0.0001, default=f"<{label}>")
            case "ask":
                return await ctx.ask(label, str, key=key)
            case "call":
                return str(await ctx.call("child", label, key=key))
            case "spawn":
                child = await ctx.spawn("child", label, key=key)
                await self._world.some_turns()
                return str((await child.result()).output)
        return f"<{label}>"

    async def _note(self, op: Note) -> None:
        ctx, label = self._ctx, op.label
        match op.kind:
            case "emit":
                await ctx.emit("noted", {"label": label})
            case "artifact":
                await ctx.artifact(f"{label}.txt", label)
            case "now":
                await ctx.step(self._world.act, f"{label} {ctx.now()}", 0)
            case "uuid":
                self._world.note_drawn(label, ctx.uuid())
            case "random":
                self._world.note_drawn(label, ctx.random.random())


def result_of(program: Program) -> list[Any]:
    """What a program returns in the end, whatever happens on the way."""
    return [_result_of(op) for op in program]


def _result_of(op: Op) -> Any:
    match op:
        case Do(label, failures, tries, caught):
            return f"!{label}" if caught and failures >= tries else f"<{label}>"
        case Await(label):
            return f"<{label}>"
        case Note():
            return None
        case Many(labels) | Tasks(labels) | Asked(labels):
            return [f"<{label}>" for label in labels]
        case Branches(programs):
            return [result_of(program) for program in programs]
        case Attempted(body, _):
            return result_of(body)
        case Break(label, _):
            return label


def app_of(segments: Sequence[Program], world: World) -> App[Any]:
    """An app whose agent runs the segments one after the other, with a checkpoint after each but the last."""
    app = App("test")

    @app.agent(name="agent", retry=RETRY)
    async def agent(ctx: Context) -> list[Any]:
        done: list[Any] = []
        if len(segments) > 1:
            done = await ctx.restore(list[Any]) or []
        for segment in segments[len(done) :]:
            done.append(await Interpreter(ctx, world).run(segment))
            if len(done) < len(segments):
                await ctx.checkpoint(done)
        return done

    @app.agent(name="child")
    async def child(ctx: Context, label: str) -> str:
        return await ctx.step(world.act, label, 0)

    return app


def changed(program: Program, label: str, how: str) -> Program:
    """The program with one of its calls changed: `other arguments`, `left out`, `another in front`, `another kind`."""
    made: list[Op] = []
    for op in program:
        match op:
            case Do() | Note() if op.label == label:
                made += _change(op, how)
            case Many(labels, limit, keyed) if label in labels:
                others = tuple(f"{one} changed" if one == label else one for one in labels)
                made.append(
                    Many(tuple(one for one in labels if one != label) if how == "left out" else others, limit, keyed)
                )
            case Branches(programs):
                made.append(Branches(tuple(changed(one, label, how) for one in programs)))
            case _:
                made.append(op)
    return tuple(made)


def _change(op: Do | Note, how: str) -> list[Op]:
    match how:
        case "other arguments":
            return [replace(op, label=f"{op.label} changed")]
        case "left out":
            return []
        case "another in front":
            return [Do("new"), op]
        case _:
            return [Note("new", "emit")]


# ------------------------------------------------------------ strategies


class Labels:
    """Gives every op of a program a label of its own."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> str:
        self._last += 1
        return f"s{self._last}"


def labelled(program: Program, labels: Labels) -> Program:
    """The program with labels of its own for all that needs one."""
    return tuple(_labelled(op, labels) for op in program)


def _labelled(op: Op, labels: Labels) -> Op:
    match op:
        case Do(_, failures, tries, caught, keyed, must_know):
            return Do(labels.next(), failures, tries, caught, keyed, must_know)
        case Note(_, kind):
            return Note(labels.next(), kind)
        case Many(names, limit, keyed):
            return Many(tuple(labels.next() for _ in names), limit, keyed)
        case Await(_, kind, keyed):
            return Await(labels.next(), kind, keyed)
        case Asked(names):
            return Asked(tuple(labels.next() for _ in names))
        case Tasks(names):
            return Tasks(tuple(labels.next() for _ in names))
        case Branches(programs):
            return Branches(tuple(labelled(program, labels) for program in programs))
        case Attempted(body, clean_up):
            return Attempted(labelled(body, labels), labelled(clean_up, labels))
        case Break(_, times):
            return Break(labels.next(), times)


_done = st.builds(
    Do,
    st.just(""),
    failures=st.sampled_from([0, 0, 0, 1, 2]),
    tries=st.just(9),
    keyed=st.booleans(),
    must_know=st.booleans(),
)
_caught = st.builds(
    Do, st.just(""), failures=st.just(1000), tries=st.sampled_from([1, 2]), caught=st.just(True), keyed=st.booleans()
)
_failing = st.builds(Do, st.just(""), failures=st.sampled_from([1, 2]), keyed=st.booleans(), must_know=st.booleans())
_notes = st.builds(Note, st.just(""), st.sampled_from(["emit", "artifact", "now", "uuid", "random"]))
_many = st.builds(
    Many,
    st.lists(st.just(""), max_size=4).map(tuple),
    limit=st.sampled_from([None, 1, 2]),
    keyed=st.booleans(),
)
_breaks = st.builds(Break, st.just(""), st.sampled_from([1, 2]))
_tasks = st.builds(Tasks, st.lists(st.just(""), max_size=3).map(tuple))
_waits = st.builds(
    Await, st.just(""), st.sampled_from(["sleep", "signal", "late", "ask", "call", "spawn"]), keyed=st.booleans()
)
_asked = st.builds(Asked, st.lists(st.just(""), max_size=3).map(tuple))
_steady = _done | _caught | _notes | _many | _tasks
_shaky = _steady | _failing | _breaks


def _nested(ops: st.SearchStrategy[Op], *, with_attempts: bool) -> st.SearchStrategy[Op]:
    programs = st.lists(ops, max_size=3).map(tuple)
    nested: st.SearchStrategy[Op] = st.builds(Branches, st.lists(programs, max_size=3).map(tuple))
    return nested | st.builds(Attempted, programs, programs) if with_attempts else nested


def _segments(ops: st.SearchStrategy[Op], *, with_attempts: bool) -> st.SearchStrategy[list[Program]]:
    tree = st.recursive(ops, lambda inner: _nested(inner, with_attempts=with_attempts), max_leaves=8)
    programs = st.lists(tree, min_size=1, max_size=4).map(tuple)

    def name(segments: list[Program]) -> list[Program]:
        labels = Labels()
        return [labelled(program, labels) for program in segments]

    return st.lists(programs, min_size=1, max_size=3).map(name)


steady_programs = _segments(_steady, with_attempts=False)
"""Programs whose attempts never end in an error: every step is completed exactly once."""

shaky_programs = _segments(_shaky, with_attempts=True)
"""Programs whose attempts end in errors now and then, and are tried again."""

waiting_programs = _segments(_waits | _asked | _steady, with_attempts=False)
"""Steady programs that also wait: for time, for signals, for people, for other runs."""

shaky_waiting_programs = _segments(_waits | _asked | _shaky, with_attempts=True)
"""The same, with attempts that end in errors now and then."""
