"""Clients of a simulation: they start runs, send signals, answer, cancel, pause and resume; and in the calm they see to
what only a person can do.
"""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import TYPE_CHECKING, Any, Final

from stepwell.domain.errors import Busy, Conflict, NotFound, RunEnded, StepwellError, StoreError
from stepwell.domain.ids import ENTROPY_BYTES, SIGNAL, make_id
from stepwell.domain.outcome import Payload
from stepwell.domain.run import IN_DOUBT
from stepwell.domain.wait import Signal
from stepwell.engine import resumption
from stepwell.engine.submission import Options, Submitter
from stepwell.ports.runnable import Runnable
from stepwell.ports.store import QuestionQuery
from tests.simulation.doors import Clock
from tests.simulation.plans import Item

if TYPE_CHECKING:
    from stepwell.domain.wait import WaitRecord
    from tests.simulation.world import Machine, World

_TRIES: Final = 8
_AGAIN: Final = 0.2


class Clients:
    """One process that never fails, with one task for each thing that somebody wants.

    `accepted` are the runs that a caller was told of, by their numbers in the plan; `asked` notes who wanted what.
    """

    def __init__(self, world: World, runnables: dict[str, Runnable]) -> None:
        self.clock = Clock(world.loop)
        self.accepted: dict[int, str] = {}
        self.keys: dict[tuple[str, str], set[str]] = {}
        self.cancelled: set[str] = set()
        self._world = world
        self._runnables = runnables
        self._process = world.loop.add_process("client")
        self._store = world.network.view(self._process, "client")
        self._entropy = Random(f"{world.plan.seed} client").randbytes
        self._tasks: list[asyncio.Task[None]] = []
        self._helping: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether somebody still wants something."""
        return any(not task.done() for task in self._tasks)

    def do(self, item: Item) -> None:
        """Somebody wants something."""
        machine = None
        if item.kind == "start" and item.args[5] is not None:
            machine = self._world.machines[item.args[5]]
        if machine is not None and machine.worker is not None:
            with self._world.loop.within(machine.process):
                self._world.loop.begin(self._start_there(machine, item))
            return
        with self._world.loop.within(self._process):
            self._tasks.append(self._world.loop.create_task(self._do(item)))

    async def _do(self, item: Item) -> None:
        match item.kind, item.args:
            case "start", _:
                await self._start(item)
            case "cross", (number,):
                self._world.network.crossed.add(f"run {number}")
            case "signal", (number, name, payload, times):
                made = make_id(SIGNAL, self.clock.now(), self._entropy(ENTROPY_BYTES))
                text = json.dumps({"name": name, "payload": payload})
                for _ in range(times):
                    await self._to(number, self._signal, Signal(made, name, Payload(text)))
            case verb, (number, *_):
                await self._to(number, getattr(self, f"_{verb}"))

    # ------------------------------------------------------------ starting

    async def _start(self, item: Item) -> None:
        submitter = Submitter(self._store, clock=self.clock, entropy=self._entropy, worker=None)
        for _ in range(_TRIES):
            if await self._submit(submitter, item) or item.args[4] is None:
                return
            await asyncio.sleep(_AGAIN)

    async def _start_there(self, machine: Machine, item: Item) -> None:
        """Start a run from inside a worker's process, which may execute it in the very write that makes it."""
        submitter = Submitter(machine.store, clock=machine.clock, entropy=self._entropy, worker=machine.worker)
        await self._submit(submitter, item)

    async def _submit(self, submitter: Submitter, item: Item) -> bool:
        """Whether it is known what became of it."""
        number, agent, program, session, key, _ = item.args
        options = Options(key, program.get("delay"), metadata={"n": str(number)}, session=session)
        self._world.lengths.asks(number)
        try:
            made = await submitter.submit(self._runnables[agent], program, options)
        except (Busy, Conflict) as error:
            self._world.tell("client", f"run {number} is refused: {error.message}")
            return True
        except StoreError as error:
            self._world.tell("client", f"nobody knows whether run {number} was started: {error.message}")
            return False
        self.accepted[number] = made.run.id
        if key is not None:
            self.keys.setdefault((agent, key), set()).add(made.run.id)
        return True

    # ------------------------------------------------------------ verbs

    async def _to(self, number: int, verb: Any, *args: Any) -> None:
        """Do something to a run, once it is there."""
        for _ in range(_TRIES):
            run_id = self.accepted.get(number)
            if run_id is not None:
                try:
                    await verb(run_id, *args)
                    return
                except (RunEnded, NotFound, Busy):
                    return
                except Conflict:
                    pass
                except StoreError:
                    pass
            await asyncio.sleep(_AGAIN)

    async def _signal(self, run_id: str, signal: Signal) -> None:
        await self._store.signal(run_id, signal)

    async def _cancel(self, run_id: str) -> None:
        self.cancelled.add(run_id)
        await self._store.cancel(run_id, by="client")

    async def _retry(self, run_id: str) -> None:
        run = await self._store.get(run_id)
        submitter = Submitter(self._store, clock=self.clock, entropy=self._entropy, worker=None)
        await submitter.retry(self._runnables[run.agent], run)

    async def _pause(self, run_id: str) -> None:
        await self._store.pause(run_id, by="client")

    async def _resume(self, run_id: str) -> None:
        run = await self._store.get(run_id)
        if run.life.hold or run.life.pausing:
            verdict: Any = self._verdict(run_id) if run.life.hold == IN_DOUBT else None
            result = "settled" if verdict == "done" else None
            await resumption.resume(self._store, self.clock, run, by="client", verdict=verdict, result=result)

    async def _answer(self, run_id: str) -> None:
        for question in await self._store.questions(QuestionQuery(run_id=run_id)):
            await self._answer_one(question)

    async def _answer_one(self, question: WaitRecord) -> None:
        schema = json.loads(question.wait.data)["schema"]
        if schema.get("type") == "string":
            value: Any = "yes"
        else:
            value = "rerun" if self._verdict(question.run_id) == "rerun" else {"done": "settled"}
        await self._store.answer(question.wait.id, Payload(json.dumps(value)), by="client")

    def _verdict(self, run_id: str) -> str:
        """What a person says of a step in doubt."""
        return "rerun" if sum(run_id.encode()) % 2 else "done"

    # ------------------------------------------------------------ calm

    def help(self) -> None:
        """Do what people do who look after runs: resume, settle, answer, send what is waited for."""
        if self._helping is None or self._helping.done():
            with self._world.loop.within(self._process):
                self._helping = self._world.loop.create_task(self._help())

    async def _help(self) -> None:
        for run_id, row in list(self._world.store.rows.items()):
            life = row.run.life
            if life.ended:
                continue
            try:
                if life.hold:
                    await self._resume(run_id)
                await self._answer(run_id)
                for number, name in enumerate(self._awaited(run_id)):
                    text = json.dumps({"name": name, "payload": number})
                    made = make_id(SIGNAL, self.clock.now(), self._entropy(ENTROPY_BYTES))
                    await self._store.signal(run_id, Signal(made, name, Payload(text)))
            except StepwellError as error:
                self._world.tell("client", f"cannot help {self._world.audit.name(run_id)}: {error.message}")

    def _awaited(self, run_id: str) -> list[str]:
        """The signals that a run waits for without a limit of time."""
        waits = self._world.store._tables.waits
        found = [waits.get(wait_id) for wait_id in waits.open_of(run_id)]
        return [one.wait.name for one in found if one is not None and one.wait.type == "signal" and not one.wait.until]
