"""Clients, workers and readers in processes of their own over one file, some of which are killed or stopped all the
time. What the clients were told is then explained by a model of a run, or it is not.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from stepwell import Runtime
from tests.acceptance.audit import audit
from tests.acceptance.fleet import Fleet, Process, all_of
from tests.acceptance.histories import evidence
from tests.acceptance.histories.clients import VERBS, Finisher
from tests.acceptance.histories.evidence import Evidence
from tests.acceptance.histories.program import app
from tests.acceptance.histories.recorder import Log
from tests.histories.appends import check_total
from tests.histories.history import OK, UNKNOWN, Operation
from tests.histories.streams import check_whole

PROGRAM = Path(__file__).parent / "program.py"
SCALE = int(os.environ.get("STORM_SCALE", "1"))
WORKERS, CLIENTS = 2, 3
LEASE: Final = 1.0
FAULTS: Final = 12
EVERY = 0.3
MADE: Final = """
    select id, json_extract(data, '$.input') from run join journal on run = n and journal.seq = 1
    where agent in ('errand', 'careful')
"""
"""What each run was given, as its first fact tells."""
LOSSES: Final = """
    select id, at, kind from run join journal on run = n
    where kind in ('run.started', 'run.resumed', 'run.lost') order by n, journal.seq
"""


class Campaign:
    """The processes, a seeded hand that hits them, and what it did."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.kills = self.stops = self.deaths = 0
        self.hits: list[tuple[int, int]] = []
        """From when to when workers were hit, in microseconds since the epoch."""
        self._chance = random.Random(seed)
        self._workers: list[Process] = []
        self._clients: dict[str, Process] = {}
        self._generations = 0

    @property
    def faults(self) -> int:
        return self.kills + self.stops + self.deaths

    def begin(self) -> None:
        self._workers = self.fleet.start_many(WORKERS, "worker", str(LEASE))
        for number in range(CLIENTS):
            self._clients[f"client{number}"] = self._begin_client(f"client{number}")
        for process in self._clients.values():
            self.fleet.await_ready(process)

    def _begin_client(self, slot: str) -> Process:
        self._generations += 1
        return self.fleet.begin("client", slot, str(self._generations))

    def rage(self) -> None:
        """Hit one process after the other, until it is enough; each is replaced, or goes on."""
        while self.faults < FAULTS:
            pause(EVERY)
            turn = self.faults % 4
            if turn == 1:
                self._stop_worker()
            elif turn == 3:
                self._kill_client()
            else:
                self._kill_worker()

    def _kill_worker(self) -> None:
        since = now()
        self.fleet.kill(self._workers.pop(self._chance.randrange(len(self._workers))))
        self.hits.append((since, now()))
        self._workers.append(self.fleet.start("worker", str(LEASE)))
        self.kills += 1

    def _stop_worker(self) -> None:
        """For one and a half leases a worker does nothing, and does not know it."""
        worker = self._chance.choice(self._workers)
        since = now()
        worker.send_signal(signal.SIGSTOP)
        pause(1.5 * LEASE)
        worker.send_signal(signal.SIGCONT)
        self.hits.append((since, now()))
        self.stops += 1

    def _kill_client(self) -> None:
        slot = self._chance.choice(list(self._clients))
        self.fleet.kill(self._clients[slot])
        self._clients[slot] = self._begin_client(slot)
        self.fleet.await_ready(self._clients[slot])
        self.deaths += 1

    def let_go(self) -> None:
        """Tell the clients that it is enough, and wait for them."""
        (self.fleet.folder / "stop").touch()
        for slot, process in self._clients.items():
            process.communicate(timeout=120)
            assert process.returncode == 0, f"{slot} ended with {process.returncode}"
            self.fleet.processes.remove(process)


def now() -> int:
    return time.time_ns() // 1000


def pause(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROGRAM, tmp_path) as fleet:
        yield fleet


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(1, SCALE + 1))
async def test_what_clients_are_told_while_processes_die_can_be_explained(fleet: Fleet, seed: int) -> None:
    campaign = Campaign(fleet, seed)
    campaign.begin()
    campaign.rage()
    campaign.let_go()

    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        with Log(fleet.folder / "last-0.log") as log:
            finisher = Finisher(runtime, log)
            await finish(finisher, evidence.from_logs(fleet.folder), fleet)
    found = evidence.from_logs(fleet.folder)
    begun = time.monotonic()
    losses = [(run, int(at), kind) for run, at, kind in fleet.query(LOSSES)]
    evidence.check(found, given_up=evidence.given_up_by_faults(losses, campaign.hits))
    took = time.monotonic() - begun
    check_whole(found.visits, {run: int(seq) for run, seq in fleet.query("select id, seq from run")})
    check_totals(found)
    evidence.check_told(found, killed=campaign.deaths, blocked=campaign.stops)
    figures = found.figures()
    told = ", ".join(f"{count} {what}" for what, count in figures.items())
    print(
        f"\nhistories, seed {seed}: {told}; {campaign.faults} faults "
        f"({campaign.kills} workers killed, {campaign.stops} stopped, "
        f"{campaign.deaths} clients killed); runs {evidence.ends(found)}; checked in {took:.1f} s"
    )
    assert audit(fleet.database).faults == []
    assert campaign.faults >= FAULTS
    assert figures["operations"] >= 50 * FAULTS
    assert figures["unknown"] >= campaign.deaths
    assert figures["events"] >= 50
    assert {each.verb for each in found.operations if each.outcome == OK} >= {*VERBS, "answer", "tell", "hear", "count"}
    assert set(evidence.ends(found)) == {"succeeded", "failed", "cancelled"}


async def finish(finisher: Finisher, found: Evidence, fleet: Fleet) -> None:
    """See every run to its end, and read everything once more."""
    ids = found.ids()
    made = dict(fleet.query(MADE))
    nameless = set(made) - set(ids.values())
    makers = [each for each in found.operations if each.verb in ("start", "retry") and each.outcome == UNKNOWN]
    assert len(nameless) <= len(makers), "a run came out of nothing"
    doing = [partial(finisher.end, label, run) for label, run in ids.items() if label.startswith(evidence.RETRY)]
    doing += [partial(finisher.end, f"{evidence.NAMELESS}{run}", run) for run in nameless]
    for label, run in ids.items():
        if not label.startswith(evidence.RETRY):
            assert made[run] in found.plans(label), "a run has an input that nobody gave under its key"
            doing.append(partial(finisher.finish, label, made[run], run))
    for session, operations in found.sessions.items():
        tales = {each.given["name"]: each.given for each in operations if is_open(each)}
        doing.append(partial(finisher.hear, session, tales))
    await all_of(doing, at_once=8)
    left = evidence.unfinished(found.visits)
    await all_of([partial(finisher.follow, *who, after) for who, after in left.items()], at_once=8)


def is_open(operation: Operation) -> bool:
    """Whether nobody knows what became of what a run was asked to tell."""
    return operation.verb == "tell" and operation.outcome == UNKNOWN


def check_totals(found: Evidence) -> None:
    """All has ended: nothing that was said or counted is missing."""
    for operations in found.sessions.values():
        for hearing in evidence.hearings(operations)[-2:]:
            check_total(evidence.tellings(operations), hearing)
