"""The agents of a simulation and what they are told to do: a program is data, so that it can be drawn and shrunk.

Each operation is a list whose first word says what it is; `OPERATIONS` gives for each how it is executed, `fits` says
whether what a run returned can have come from its program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final, TypeAlias

from stepwell import App, Context, Limit, NotExecuted, Retry, RunFailed, StepContext, StepFailed

Operation: TypeAlias = list[Any]
Program: TypeAlias = dict[str, Any]
"""`ops` is what to do; `key` is what `keyed` agents are limited by, `n` the number of the run in its plan, `delay` by
how much its start is put off, if it is.
"""

SIGNALS: Final = ("go", "more")
LONGEST: Final = 1.0
"""Seconds: no sleep, limit, backoff or delay of a program is longer."""
FAILED: Final = "failed"
NOTHING: Final = "nothing came"


# ---------------------------------------------------------------- steps


async def work(step: StepContext[Any], name: str, seconds: float) -> str:
    """Takes a while, then has its effect."""
    if seconds:
        await asyncio.sleep(seconds)
    step.deps(step, name)
    return name


def plain(step: StepContext[Any], name: str) -> str:
    """Has its effect off the loop."""
    step.deps(step, name)
    return name


async def flaky(step: StepContext[Any], name: str, failures: int) -> str:
    """Has its effect and fails all the same, so many times."""
    await asyncio.sleep(0.01)
    step.deps(step, name)
    if step.attempt <= failures:
        raise ConnectionError(f"{name} broke off")
    return name


async def bad(step: StepContext[Any], name: str) -> str:
    """Never succeeds."""
    step.deps(step, name)
    raise ValueError(f"{name} cannot be done")


async def found(step: StepContext[Any], name: str, seconds: float) -> str:
    """Finds out whether `work` had its effect."""
    await asyncio.sleep(0.01)
    if not step.deps.had_effect(step, name):
        raise NotExecuted
    return name


# ---------------------------------------------------------------- operations


async def _step(ctx: Context[Any], name: str, seconds: float) -> str:
    return await ctx.step(work, name, seconds, name=name)


async def _keyed(ctx: Context[Any], name: str, seconds: float) -> str:
    return await ctx.step(work, name, seconds, name="keyed", key=name)


async def _plain(ctx: Context[Any], name: str) -> str:
    step: Any = ctx.step  # a plain function that takes its context has no overload
    result: str = await step(plain, name, name=name)
    return result


async def _flaky(ctx: Context[Any], name: str, failures: int) -> str:
    retry = Retry(max_attempts=failures + 1, first_delay=0.2, max_delay=0.5)
    return await ctx.step(flaky, name, failures, name=name, retry=retry)


async def _bad(ctx: Context[Any], name: str) -> str:
    try:
        return await ctx.step(bad, name, name=name)
    except StepFailed:
        return FAILED


async def _slow(ctx: Context[Any], name: str) -> str:
    try:
        return await ctx.step(work, name, 0.5, name=name, timeout=0.1)
    except StepFailed:
        return FAILED


async def _sure(ctx: Context[Any], name: str, policy: str, seconds: float) -> str:
    in_doubt: Any = found if policy == "find" else policy
    return await ctx.step(work, name, seconds, name=name, in_doubt=in_doubt)


async def _map(ctx: Context[Any], names: list[str], limit: int) -> list[str]:
    async def each(step: StepContext[Any], name: str) -> str:
        return await work(step, name, 0.02)

    mapped: Any = ctx.map
    result: list[str] = await mapped(each, names, limit=limit, name="each")
    return result


async def _both(ctx: Context[Any], *branches: list[Operation]) -> list[Any]:
    return list(await ctx.gather(*[_all(ctx, branch) for branch in branches]))


async def _sleep(ctx: Context[Any], seconds: float, mark: str = "sleep") -> None:
    ctx.deps.lengths.begins(ctx.run.id, mark, seconds)
    await ctx.sleep(seconds)
    ctx.deps.lengths.is_over(ctx.run.id, mark)


async def _wait(ctx: Context[Any], name: str, timeout: float | None, mark: str = "wait") -> Any:
    if timeout is None:
        return await ctx.wait_for(name)
    ctx.deps.lengths.begins(ctx.run.id, mark, timeout)
    value = await ctx.wait_for(name, timeout=timeout, default=NOTHING)
    if value == NOTHING:
        ctx.deps.lengths.is_over(ctx.run.id, mark)
    return value


async def _ask(ctx: Context[Any], text: str, timeout: float | None, release: bool) -> Any:
    if timeout is None:
        return await ctx.ask(text, str, release=release)
    ctx.deps.lengths.begins(ctx.run.id, text, timeout)
    value = await ctx.ask(text, str, timeout=timeout, default=NOTHING, release=release)
    if value == NOTHING:
        ctx.deps.lengths.is_over(ctx.run.id, text)
    return value


async def _call(ctx: Context[Any], agent: str, program: Program) -> Any:
    try:
        return await ctx.call(agent, program)
    except RunFailed:
        return FAILED


async def _spawn(ctx: Context[Any], agent: str, program: Program, joined: bool, detach: bool) -> Any:
    child = await ctx.spawn(agent, program, detach=detach)
    if not joined:
        return None
    await ctx.step(work, "beside", 0.05, name="beside")
    result = await child.result()
    return result.output if result.ok else FAILED


async def _count(ctx: Context[Any], key: str) -> int:
    result: int = await ctx.session.state.update(key, lambda n: n + 1, default=0)
    return result


async def _say(ctx: Context[Any], text: str) -> None:
    await ctx.session.add("user", text)


async def _emit(ctx: Context[Any], name: str) -> None:
    await ctx.emit(name, {"at": ctx.now().isoformat()})


async def _text(ctx: Context[Any], text: str) -> None:
    await ctx.stream_text(text)


async def _raise(ctx: Context[Any], failures: int) -> None:
    if ctx.attempt <= failures:
        ctx.deps.lengths.fails(ctx.run.id)
        raise ConnectionError("the attempt broke off")


_VERBS: Final[dict[str, Callable[..., Coroutine[Any, Any, Any]]]] = {
    "step": _step,
    "keyed": _keyed,
    "plain": _plain,
    "flaky": _flaky,
    "bad": _bad,
    "slow": _slow,
    "sure": _sure,
    "map": _map,
    "both": _both,
    "sleep": _sleep,
    "wait": _wait,
    "ask": _ask,
    "call": _call,
    "spawn": _spawn,
    "count": _count,
    "say": _say,
    "emit": _emit,
    "text": _text,
    "raise": _raise,
}


async def _all(ctx: Context[Any], operations: list[Operation]) -> list[Any]:
    return [await _VERBS[verb](ctx, *arguments) for verb, *arguments in operations]


# ---------------------------------------------------------------- agents

LANES: Final = {"narrow": 2, "keyed": 1, "wide": 2, "wide_too": 2, "both_ways": 1}
"""How many runs may execute at once, of each agent that has a limit."""
RETRY: Final = Retry(max_attempts=4, first_delay=0.2, max_delay=0.5)


def make_apps() -> tuple[App[Any], ...]:
    """The agents, each with another policy. All execute programs."""
    free = App[Any]("free")
    wide = App[Any]("wide", limit=LANES["wide"])
    _declare(free, "plain")
    _declare(free, "retrying", retry=RETRY)
    _declare(free, "narrow", concurrency=LANES["narrow"])
    _declare(free, "keyed", concurrency=Limit(LANES["keyed"], key=lambda program: str(program["key"])))
    _declare(free, "turns", session="synchronized", retry=RETRY)
    _declare(free, "polite", session="synchronized", busy="reject")
    _declare(free, "pushy", session="synchronized", busy="interrupt")
    _declare(free, "chatty", session="synchronized", busy="answer")
    _declare(free, "cleaning", cleans=True)
    _declare(wide, "wide")
    _declare(wide, "wide_too", retry=RETRY, concurrency=Limit(1, key=lambda program: str(program["key"])))
    _declare(wide, "both_ways", session="synchronized")
    _declare_saving(free)
    return free, wide


def _declare(app: App[Any], name: str, *, cleans: bool = False, **policy: Any) -> None:
    async def play(ctx: Context[Any], program: dict[str, Any]) -> list[Any]:
        return await _all(ctx, program["ops"])

    agent = app.agent(name=name, **policy)(play)
    if cleans:

        @agent.on_cancel
        async def clean_up(ctx: Context[Any]) -> None:
            ctx.deps.cleans_up(ctx.run.id)
            await ctx.step(work, "clean", 0.02, name="clean")


def _declare_saving(app: App[Any]) -> None:
    """Saves after every operation, and goes on there."""

    @app.agent(name="saving")
    async def saving(ctx: Context[Any], program: dict[str, Any]) -> list[Any]:
        done: list[Any] = await ctx.restore(list[Any]) or []
        for operation in program["ops"][len(done) :]:
            done = [*done, *await _all(ctx, [operation])]
            await ctx.checkpoint(done)
        return done


AGENTS: Final = (
    *("plain", "plain", "retrying", "narrow", "keyed", "turns", "turns", "cleaning", "saving"),
    *("wide", "wide_too", "both_ways", "polite", "pushy", "chatty"),
)
TAKES_TURNS: Final = frozenset({"turns", "polite", "pushy", "chatty", "both_ways"})
RETRIES: Final = frozenset({"retrying", "turns", "wide_too"})
CLEANS: Final = frozenset({"cleaning"})
_CHILDREN: Final = ("plain", "retrying", "narrow", "keyed", "wide", "turns", "cleaning")


# ---------------------------------------------------------------- drawing programs


class Drawer:
    """Draws programs. `kinds` are the operations that this seed uses at all."""

    def __init__(self, random: Random, kinds: tuple[str, ...]) -> None:
        self._random = random
        self._kinds = kinds
        self._names = 0

    def program(self, number: int, *, agent: str, most: int, depth: int = 0) -> Program:
        """What a run of that agent is told to do."""
        random = self._random
        operations = [self._operation(agent, depth) for _ in range(random.randint(1, most))]
        return {"n": number, "key": random.choice(("a", "b")), "ops": [each for each in operations if each]}

    def _name(self) -> str:
        self._names += 1
        return f"s{self._names}"

    def _seconds(self) -> float:
        return self._random.choice((0.0, 0.0, 0.05, 0.3, 1.0))

    def _operation(self, agent: str, depth: int) -> Operation:
        random, kind = self._random, self._random.choice(self._kinds)
        match kind:
            case "step" | "keyed":
                return [kind, self._name(), self._seconds()]
            case "plain" | "bad" | "slow":
                return [kind, self._name()]
            case "flaky":
                return [kind, self._name(), random.randint(1, 2)]
            case "sure":
                return [kind, self._name(), random.choice(("ask", "fail", "find")), self._seconds()]
            case "map":
                return [kind, [self._name() for _ in range(random.randint(1, 4))], random.randint(1, 3)]
            case "sleep":
                return [kind, random.choice((0.05, 0.4, LONGEST)), self._name()]
            case "wait":
                return [kind, random.choice(SIGNALS), random.choice((None, 0.1, 0.6)), self._name()]
            case "ask":
                return [kind, f"{self._name()}?", random.choice((None, None, 0.5)), random.random() < 0.3]
            case "count":
                return [kind, random.choice(("x", "x", "y"))]
            case "say" | "emit" | "text":
                return [kind, self._name()]
            case "raise":
                return [kind, random.randint(1, 2)] if agent in RETRIES else ["step", self._name(), 0.0]
            case _:
                return self._nested(kind, agent, depth)

    def _nested(self, kind: str, agent: str, depth: int) -> Operation:
        random = self._random
        if depth >= 2:
            return ["step", self._name(), self._seconds()]
        if kind == "both":
            branches = [[self._operation(agent, depth + 1) for _ in range(random.randint(1, 2))] for _ in range(2)]
            return [kind, *[[self._in_branch(each) for each in branch] for branch in branches]]
        child = random.choice(_CHILDREN)
        if child in TAKES_TURNS and agent in TAKES_TURNS:
            child = "plain"
        program = self.program(-1, agent=child, most=2, depth=depth + 1)
        if kind == "call":
            return [kind, child, program]
        detach = random.random() < 0.3
        return ["spawn", child, program, random.random() < 0.5 and not detach, detach]

    def _in_branch(self, operation: Operation) -> Operation:
        """What a branch may do: an attempt does not break off in one, so that the others are not left open."""
        return ["step", self._name(), 0.0] if operation[0] == "raise" else operation


def agents_in(agent: str, program: Program) -> set[str]:
    """The agents that a run of that agent may need: itself, and those of its children."""
    return {agent} | _called(program["ops"])


def _called(operations: list[Operation]) -> set[str]:
    found: set[str] = set()
    for operation in operations:
        match operation:
            case ["call" | "spawn", agent, program, *_]:
                found |= agents_in(agent, program)
            case ["both", *branches]:
                found |= set[str]().union(*map(_called, branches))
            case _:
                pass
    return found


# ---------------------------------------------------------------- what comes of them


def fits(program: Program, output: Any) -> str | None:
    """Why a run cannot have returned this if it kept to its program and everything that was remembered was true."""
    return _fit_all(program["ops"], output)


def _fit_all(operations: list[Operation], outputs: Any) -> str | None:
    if not isinstance(outputs, list) or len(outputs) != len(operations):
        return f"{len(operations)} operations gave {outputs!r}"
    return next((why for pair in zip(operations, outputs, strict=True) if (why := _fit(*pair))), None)


def _fit(operation: Operation, output: Any) -> str | None:
    verb, *arguments = operation
    match verb:
        case "step" | "keyed" | "plain" | "flaky" | "sure":
            right = output == arguments[0] or (verb == "sure" and output == "settled")
        case "map":
            right = output == arguments[0]
        case "bad" | "slow":
            right = output == FAILED
        case "both":
            if not isinstance(output, list) or len(output) != len(arguments):
                return f"{operation} gave {output!r}"
            return next((why for pair in zip(arguments, output, strict=True) if (why := _fit_all(*pair))), None)
        case "wait":
            name = arguments[0]
            right = output == NOTHING if not isinstance(output, dict) else output.get("name") == name
        case "ask":
            right = isinstance(output, str)
        case "call":
            return None if output == FAILED else _fit_all(arguments[1]["ops"], output)
        case "spawn":
            if not arguments[2] or output in (None, FAILED):
                right = output in (None, FAILED)
            else:
                return _fit_all(arguments[1]["ops"], output)
        case "count":
            right = isinstance(output, int) and output >= 1
        case _:
            right = output is None
    return None if right else f"{operation} gave {output!r}"
