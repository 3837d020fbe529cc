"""Clients that operate on runs and sessions through the public API, several at once and whatever comes to their minds.
Each of them writes down what it does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple, TypeVar, cast

from stepwell import Runtime
from stepwell.domain.event import Event
from stepwell.runtime.questions import Question
from stepwell.runtime.result import RunResult
from stepwell.runtime.run import Run
from tests.acceptance.histories.program import Tale, Told
from tests.acceptance.histories.recorder import Log, Recorder, ending, nothing, snapshot, what_is
from tests.histories.appends import ISOLATED, SHARED, SYNCHRONIZED
from tests.histories.run_model import ASKS, ENDS, FAILING

T = TypeVar("T")

PLANS: Final = ("a?", "ab?a", "b?a?", "aab", "?b?")
RUSHED: Final = "aaa?"
SCOPES: Final = (SHARED, SYNCHRONIZED, SHARED, SYNCHRONIZED, ISOLATED)
ROUNDS: Final = 24
VISITS: Final = 10
PAUSE_BETWEEN: Final = 0.035


def events_of(run: Run[Any], after: int) -> AsyncGenerator[Event]:
    """The events of a run from a number on, as what they are: a generator, which can be closed."""
    return cast("AsyncGenerator[Event]", run.events(after=after))


class Errand:
    """One client's hold on one run, and the verbs on it."""

    def __init__(self, runtime: Runtime[Any], recorder: Recorder, label: str, plan: str) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self.label = label
        self.plan = plan
        self.run: Run[Any] | None = None
        self.questions: dict[int, Question[Any]] = {}
        self._answers = count(1)

    async def start(self, *, plan: str | None = None) -> bool:
        """Have the run, under its key; whether that is so now."""
        plan = plan or self.plan
        starting = self._runtime.start(agent_of(self.label), plan, idempotency_key=self.label)
        found = await self._recorder.ask("start", self.label, {"plan": plan}, starting, snapshot)
        self.run = found or self.run
        return self.run is not None

    async def start_without_key(self) -> bool:
        starting = self._runtime.start(agent_of(self.label), self.plan)
        found = await self._recorder.ask("start", self.label, {"plan": self.plan}, starting, snapshot)
        self.run = found
        return found is not None

    async def _ask(self, verb: str, doing: Awaitable[T], told: Callable[[T], Any] = nothing, **given: Any) -> T | None:
        assert self.run is not None
        return await self._recorder.ask(verb, self.label, {"run": self.run.id, **given}, doing, told)

    def _run(self) -> Run[Any]:
        assert self.run is not None
        return self.run

    async def get(self) -> Run[Any] | None:
        return await self._ask("get", self._runtime.runs.get(self._run().id), snapshot)

    async def result(self, timeout: float) -> RunResult[Any] | None:
        return await self._ask("result", self._run().result(timeout=timeout), ending)

    async def signal(self, id: str, name: str, value: str) -> bool | None:
        sending = self._run().signal(name, value, id=id)
        return await self._ask("signal", sending, bool, id=id, name=name, value=value)

    async def list_questions(self) -> list[Question[Any]]:
        listing = self._runtime.questions.list(run=self._run().id)
        found = await self._ask("questions", listing, lambda found: [int(question.text) for question in found])
        for question in found or ():
            self.questions[int(question.text)] = question
        return found or []

    async def get_question(self, index: int) -> None:
        reading = self._runtime.questions.get(self.questions[index].id)
        await self._ask(
            "question", reading, lambda read: {"outcome": read.outcome, "by": read.answered_by}, index=index
        )

    async def answer(self, index: int, value: str) -> None:
        by = f"{self._recorder.name}/{self.label}/{next(self._answers)}"
        answering = self._runtime.questions.answer(self.questions[index].id, value, by=by)
        await self._ask("answer", answering, nothing, index=index, value=value, by=by)

    async def cancel(self) -> None:
        await self._ask("cancel", self._run().cancel(), str)

    async def pause(self) -> None:
        run = await self._runtime.runs.get(self._run().id)
        await self._ask("pause", run.pause(), lambda _: snapshot(run))

    async def resume(self) -> None:
        run = await self._runtime.runs.get(self._run().id)
        await self._ask("resume", run.resume(), lambda _: snapshot(run))

    async def retry(self) -> None:
        await self._ask("retry", self._run().retry(), snapshot)

    async def discard(self) -> None:
        await self._ask("discard", self._runtime.runs.discard(self._run().id))


VERBS: Final[Mapping[str, int]] = {
    "get": 24,
    "signal": 24,
    "questions": 20,
    "question": 6,
    "start": 7,
    "result": 4,
    "pause": 4,
    "resume": 8,
    "cancel": 2,
    "retry": 3,
    "discard": 3,
}
"""How often an actor does what."""


class Actor:
    """A client that does to a few runs whatever comes to its mind, several others at its side."""

    def __init__(
        self,
        runtime: Runtime[Any],
        recorder: Recorder,
        chance: Random,
        *,
        verbs: Mapping[str, int] | None = None,
        rounds: int = ROUNDS,
    ) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._chance = chance
        self._verbs = verbs or VERBS
        self._rounds = rounds

    async def play(self, wave: int) -> None:
        """Have a part in the runs of a wave."""
        await self.rush(wave)
        hands = [Errand(self._runtime, self._recorder, label, plan) for label, plan in runs_of(wave)]
        free = f"free-{self._recorder.name}-{wave}"
        hands.append(Errand(self._runtime, self._recorder, free, self._chance.choice(PLANS)))
        for number in range(self._rounds):
            hand = self._chance.choice(hands[: 3 if number % 8 == 0 else 2])
            if hand.run is not None or await self._begin(hand):
                await self._do(hand, self._chance.choices(list(self._verbs), list(self._verbs.values()))[0])
            await asyncio.sleep(self._chance.uniform(0, PAUSE_BETWEEN))

    async def rush(self, wave: int) -> None:
        """Send a run of one's own all that it waits for before it can have taken any of it. When it asks, cancel it
        every other time; else answer, and now and then let it fail.
        """
        hand = Errand(self._runtime, self._recorder, f"rush-{self._recorder.name}-{wave}", RUSHED)
        if not await hand.start():
            return
        for number in range(len(RUSHED)):
            await hand.signal(f"s{number}", RUSHED[0], str(number))
        tries = 0
        while (now := await hand.get()) is None or now.status not in ENDS:
            if await hand.list_questions():
                if self._chance.random() < 0.5:
                    await hand.cancel()
                    await hand.result(5)
                await hand.answer(0, FAILING if self._chance.random() < 0.3 else self._recorder.name)
                await hand.result(self._chance.uniform(0.1, 0.5))
                break
            tries += 1
            await asyncio.sleep(PAUSE_BETWEEN * tries)

    async def _begin(self, hand: Errand) -> bool:
        if hand.label.startswith("free-"):
            return await hand.start_without_key()
        return await hand.start(plan=self._chance.choice(PLANS) if self._chance.random() < 0.1 else None)

    async def _do(self, hand: Errand, verb: str) -> None:
        chance = self._chance
        match verb:
            case "signal":
                number = chance.randrange(8)
                value = "other" if chance.random() < 0.04 else str(number)
                await hand.signal(f"s{number}", "ab"[number % 2], value)
            case "questions":
                await self._answer(hand)
            case "question" if hand.questions:
                await hand.get_question(chance.choice(list(hand.questions)))
            case "result":
                await hand.result(chance.uniform(0.001, 0.05))
            case "start" if not hand.label.startswith("free-"):
                await hand.start(plan=chance.choice(PLANS) if chance.random() < 0.3 else None)
            case "cancel" if is_cancelled(hand.label):
                await hand.cancel()
            case "pause" | "resume" | "retry" | "discard":
                await getattr(hand, verb)()
            case _:
                await hand.get()

    async def _answer(self, hand: Errand) -> None:
        """Answer what is open, or what was open some time ago."""
        await hand.list_questions()
        if hand.questions:
            index = self._chance.choice([max(hand.questions), *hand.questions])
            fails = is_failing(hand.label) and self._chance.random() < 0.5
            await hand.answer(index, FAILING if fails else f"{self._recorder.name}-{self._chance.randrange(1000)}")


def runs_of(wave: int) -> list[tuple[str, str]]:
    """The runs of a wave: their keys and plans."""
    return [(f"wave-{wave}-{number}", PLANS[(2 * wave + number) % len(PLANS)]) for number in range(2)]


def _mark(label: str) -> int:
    return sha256(label.encode()).digest()[0]


def agent_of(label: str) -> str:
    """Which agent serves that run."""
    return "careful" if is_hooked(label) else "errand"


def is_hooked(label: str) -> bool:
    """Whether that run has a clean-up: every other one that may be cancelled."""
    return is_cancelled(label) and _mark(label) % 2 == 0


def is_cancelled(label: str) -> bool:
    """Whether clients may cancel that run: most are left to go on."""
    return _mark(label) % 3 == 0


def is_failing(label: str) -> bool:
    """Whether people may make that run fail."""
    return _mark(label) % 3 == 1


class Teller:
    """A client that lets runs speak in sessions, and listens."""

    def __init__(
        self, runtime: Runtime[Any], recorder: Recorder, chance: Random, scopes: Sequence[str] = SCOPES
    ) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._chance = chance
        self._scopes = scopes

    async def play(self, number: int) -> None:
        """Let one run speak."""
        scope = self._chance.choice(self._scopes)
        session = SHARED if scope == ISOLATED else scope
        await self.hear(session)
        await self.tell(session, f"{self._recorder.name}-{number}", self._chance.randrange(1, 6), scope)
        await self.hear(session)

    async def tell(self, session: str, name: str, size: int, scope: str) -> None:
        given = {"name": name, "size": size, "scope": scope}
        await self._recorder.ask("tell", session, given, self._told(session, Tale(name=name, size=size), scope), _tale)

    async def _told(self, session: str, tale: Tale, scope: str) -> Told:
        run = await self._runtime.start(scope, tale, session=session, idempotency_key=tale.name)
        told: Told = (await run.result()).output
        return told

    async def hear(self, session: str) -> None:
        """Read the messages and the count, if anybody was there yet."""
        found = await self._recorder.ask("open", session, {}, self._runtime.sessions.get(session), nothing)
        if found is not None:
            await self._recorder.ask("hear", session, {}, found.messages(), lambda read: [each.text for each in read])
            await self._recorder.ask("count", session, {}, found.state.get("count", int, default=0), int)


def _tale(told: Told) -> dict[str, Any]:
    return told.model_dump()


class Reader:
    """A client that follows runs event by event, goes away in the middle, and comes back with the last number."""

    def __init__(self, runtime: Runtime[Any], recorder: Recorder, chance: Random) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._chance = chance

    async def play(self, wave: int, stop: Callable[[], bool]) -> None:
        """Follow one run of a wave, to its end if that comes soon."""
        hand = Errand(self._runtime, self._recorder, *self._chance.choice(runs_of(wave)))
        if await hand.start():
            assert hand.run is not None
            await self.follow(f"{self._recorder.name}/{next(self._recorder.log.numbers)}", hand.run.id, 0, stop)

    async def follow(self, name: str, run_id: str, after: int, stop: Callable[[], bool]) -> None:
        """Have the events after a number, in several visits, until the run ends or the reader has lost interest."""
        for _ in range(VISITS):
            after, ended = await self.visit(name, run_id, after, most=self._chance.randrange(1, 8), patience=0.1)
            if ended or stop():
                return

    async def visit(self, name: str, run_id: str, after: int, *, most: int, patience: float) -> tuple[int, bool]:
        """One connection: the last number, and whether the stream ended by itself."""
        log = self._recorder.log
        whose = {"reader": name, "n": next(log.numbers)}
        log.write(**whose, visits=run_id, after=after)
        run = await self._runtime.runs.get(run_id)
        try:
            async with asyncio.timeout(patience), aclosing(events_of(run, after)) as events:
                async for event in events:
                    log.write(**whose, event=[event.seq, what_is(event)])
                    after, most = event.seq, most - 1
                    if not most:
                        return after, False
        except TimeoutError:
            return after, False
        log.write(**whose, ended=True)
        return after, True


class Left(NamedTuple):
    """Where the clients of a process that is gone were: their wave, and what their reader was following."""

    wave: int = 0
    reader: str = ""
    run: str = ""
    after: int = 0


def left_at(folder: Path, slot: str) -> Left:
    """Where the last process in this slot left off."""
    left = Left()
    for log in sorted(folder.glob(f"{slot}-*.log"), key=lambda log: int(log.stem.rpartition("-")[2])):
        for line in map(json.loads, log.read_text().splitlines()):
            if line.get("on", "").startswith("wave-"):
                left = left._replace(wave=max(left.wave, int(line["on"].split("-")[1])))
            elif "visits" in line:
                left = left._replace(reader=line["reader"], run=line["visits"], after=line["after"])
            elif "event" in line:
                left = left._replace(after=line["event"][0])
            elif "ended" in line:
                left = left._replace(run="", after=0)
    return left


class Party:
    """The clients of one process: two actors, a teller and a reader, until they are told to stop."""

    def __init__(
        self, runtime: Runtime[Any], log: Log, slot: str, generation: str, *, stop: Callable[[], bool]
    ) -> None:
        name = f"{slot}.{generation}"
        self._stop = stop
        self._recorders = [Recorder(f"{name}.{part}", log, Random(f"{name}.{part}")) for part in range(3)]
        self._actors = [Actor(runtime, each, Random(each.name + "!")) for each in self._recorders[:2]]
        self._teller = Teller(runtime, Recorder(f"{name}.t", log), Random(f"{name}.t"))
        self._reader = Reader(runtime, self._recorders[2], Random(f"{name}.r"))

    async def go_on(self, left: Left) -> None:
        async with asyncio.TaskGroup() as group:
            for actor in self._actors:
                group.create_task(self._act(actor, left.wave))
            group.create_task(self._tell())
            group.create_task(self._read(left))

    async def _act(self, actor: Actor, wave: int) -> None:
        for number in self._until_stopped(wave):
            await actor.play(number)

    async def _tell(self) -> None:
        for number in self._until_stopped(0):
            await self._teller.play(number)

    async def _read(self, left: Left) -> None:
        if left.run:
            await self._reader.follow(left.reader, left.run, left.after, self._stop)
        for number in self._until_stopped(left.wave):
            await self._reader.play(number, self._stop)

    def _until_stopped(self, first: int) -> Iterator[int]:
        number = first
        while not self._stop():
            yield number
            number += 1


class Finisher:
    """The last client: sees to it that every run ends, and reads everything once more."""

    def __init__(self, runtime: Runtime[Any], log: Log) -> None:
        self._runtime = runtime
        self._recorder = Recorder("last", log)

    async def finish(self, label: str, plan: str, run: str) -> None:
        """Give a run all that it waits for, and see how it ends."""
        hand = Errand(self._runtime, self._recorder, label, plan)
        hand.run = await self._runtime.runs.get(run)
        for number, name in enumerate(plan):
            if name != ASKS:
                await hand.signal(f"last-{number}", name, f"last-{number}")
        patience = 0.1
        while (now := await hand.get()) is not None and now.status not in ENDS:
            if now.status == "paused":
                await hand.resume()
            for question in await hand.list_questions():
                await hand.answer(int(question.text), "last")
            await hand.result(patience)
            patience = min(2 * patience, 4)
        if now is not None and now.dead:
            await hand.discard()
        for index in hand.questions:
            await hand.get_question(index)
        await hand.result(60)
        await hand.get()

    async def end(self, label: str, run: str) -> None:
        """End a run that nobody is to help: one that retries another, or whose client died before it knew its name."""
        hand = Errand(self._runtime, self._recorder, label, "")
        hand.run = await self._runtime.runs.get(run)
        await hand.cancel()
        await hand.result(60)
        await hand.get()

    async def follow(self, reader: str, run: str, after: int) -> None:
        """Read on where a reader stopped."""
        reading = Reader(self._runtime, self._recorder, Random(reader))
        _, ended = await reading.visit(reader, run, after, most=10_000, patience=60)
        assert ended, f"{reader} came to no end of {run}"

    async def hear(self, session: str, tales: Mapping[str, Mapping[str, Any]]) -> None:
        """Wait for all that was to be said in a session, and listen once more."""
        teller = Teller(self._runtime, self._recorder, Random(session))
        for name, given in tales.items():
            await teller.tell(session, name, given["size"], given["scope"])
        await teller.hear(session)
