"""Clients of two runtimes in one process, for a moment: what they are told can be explained, and no longer can when the
store has a bug.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from stepwell import Runtime, StepwellError
from stepwell.stores.sqlite.store import SqliteStore
from tests.acceptance.histories import evidence
from tests.acceptance.histories.bugs import PLANTED
from tests.acceptance.histories.clients import (
    VERBS,
    Actor,
    Reader,
    Teller,
    is_cancelled,
    is_failing,
    runs_of,
)
from tests.acceptance.histories.program import app
from tests.acceptance.histories.recorder import GIVEN_UP, Log, Recorder
from tests.histories.appends import ISOLATED, SHARED, SYNCHRONIZED
from tests.histories.history import OK, UNKNOWN, Violation

BUSY: Final = {**VERBS, "cancel": 8, "pause": 8, "discard": 8}
WAVES: Final = (
    next(wave for wave in count() if any(is_cancelled(label) for label, _ in runs_of(wave))),
    next(wave for wave in count() if all(is_failing(label) for label, _ in runs_of(wave))),
)
"""One whose runs may be cancelled, and one whose runs may fail."""
TALES: Final = 3
ROUNDS: Final = 20
LONGEST: Final = 20
PATIENCE: Final = 120
SHORT: Final = 1.5


async def short_history(folder: Path, seed: int, *, longest: float = LONGEST, sound: bool = False) -> evidence.Evidence:
    """What the clients of two runtimes wrote down in a little while. Where they wait for ever, it is cut off. With a
    `sound` store they must come to their end, and every error is raised.
    """
    log = Log()
    async with AsyncExitStack() as stack:
        store = f"sqlite:///{folder}/{seed}.db"
        runtimes = [Runtime(app, store=store, capacity=8, lease=5) for _ in range(2)]
        for runtime in runtimes:
            await stack.enter_async_context(runtime)
        with nullcontext() if sound else suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await let_act(runtimes, log, str(seed), sound=sound)
    return evidence.from_lines(log.lines)


async def let_act(runtimes: Sequence[Runtime[Any]], log: Log, name: str, *, sound: bool) -> None:
    """All clients at once. Where a bug breaks what one relies on, what was told before counts."""
    try:
        async with asyncio.TaskGroup() as group:
            for number, runtime in enumerate(runtimes):
                for doing in clients(runtime, log, f"{name}.{number}"):
                    group.create_task(doing)
    except* StepwellError as broken:
        if sound:
            raise
        print(f"{name}: {broken.exceptions}")


def clients(runtime: Runtime[Any], log: Log, name: str) -> list[Any]:
    recorders = [Recorder(f"{name}.{number}", log, Random(f"{name}.{number}")) for number in range(5)]
    tasks: list[Any] = [
        act(Actor(runtime, each, Random(each.name + "!"), verbs=BUSY, rounds=16)) for each in recorders[:2]
    ]
    for teller in (Recorder(f"{name}.t{number}", log) for number in range(2)):
        tasks.append(tell(Teller(runtime, teller, Random(teller.name), [SHARED, SHARED, SYNCHRONIZED, ISOLATED])))
    tasks.append(read(Reader(runtime, recorders[4], Random(name))))
    return tasks


async def act(actor: Actor) -> None:
    for wave in WAVES:
        await actor.play(wave)


async def tell(teller: Teller) -> None:
    for number in range(TALES):
        await teller.play(number)


async def read(reader: Reader) -> None:
    tries = count()
    for wave in WAVES:
        await reader.play(wave, lambda: next(tries) > 8)


async def test_what_clients_are_told_can_be_explained(tmp_path: Path) -> None:
    for seed in range(2):
        found = await short_history(tmp_path, seed, longest=PATIENCE, sound=True)
        check_all(found)
        figures = found.figures()
        assert figures["operations"] > 100
        assert figures["events"] > 5
        heard = [each for each in found.operations if each.verb in ("hear", "count", "tell") and each.outcome == OK]
        assert len(heard) >= 2 * 2 * TALES * len(("tell", "hear", "count"))


def check_all(found: evidence.Evidence) -> None:
    """What must hold where no fault was done."""
    evidence.check_told(found)
    evidence.check(found)


async def never_answers(self: SqliteStore, session: str, **how: Any) -> Any:
    await asyncio.sleep(SHORT + 1)  # for longer than these clients wait; then workers can close
    return []


async def answers_with_nonsense(self: SqliteStore, session: str, **how: Any) -> Any:
    raise StepwellError("nonsense", code="no.sense")


@pytest.mark.parametrize(
    ("bug", "found"),
    [
        (never_answers, "answers that never came: .*'never told'"),
        (answers_with_nonsense, "cannot be looked into|cannot fail did"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_store_that_leaves_clients_without_an_answer_is_found(
    bug: object, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what the clients were told before makes sense."""
    monkeypatch.setattr(SqliteStore, "messages", bug)
    told = await short_history(tmp_path, 0, longest=SHORT)
    with pytest.raises(Violation, match=found):
        check_all(told)


async def test_a_store_that_never_answers_does_not_pass_for_a_sound_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteStore, "messages", never_answers)
    with pytest.raises(TimeoutError):
        await short_history(tmp_path, 0, longest=SHORT, sound=True)


async def test_a_store_that_fails_its_clients_does_not_pass_for_a_sound_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteStore, "journal", answers_with_nonsense)
    with pytest.raises(ExceptionGroup):
        await short_history(tmp_path, 0, sound=True)


class TestAnswers:
    """What a client was never told."""

    def told(self, *outcomes: str) -> evidence.Evidence:
        """Twenty answered calls, and one for each outcome."""
        lines: list[dict[str, Any]] = []
        for number, outcome in enumerate([OK] * 20 + list(outcomes)):
            whose = {"client": "one", "n": number, "at": number}
            lines.append({**whose, "verb": "count", "on": "here", "given": {}})
            if outcome != evidence.NEVER_TOLD:
                known = outcome == OK
                lines.append({**whose, "outcome": OK if known else UNKNOWN, "value": 0 if known else outcome})
        return evidence.from_lines(lines)

    def test_is_explained_where_it_gave_up_itself(self) -> None:
        evidence.check_told(self.told(GIVEN_UP, "wait.timeout"))

    def test_is_explained_by_its_death(self) -> None:
        evidence.check_told(self.told(evidence.NEVER_TOLD), killed=1)
        with pytest.raises(Violation, match="never came"):
            evidence.check_told(self.told(evidence.NEVER_TOLD))
        with pytest.raises(Violation, match="never came"):
            evidence.check_told(self.told(*[evidence.NEVER_TOLD] * 5), killed=1)

    def test_is_explained_by_a_fault_of_the_store_and_not_by_its_word(self) -> None:
        evidence.check_told(self.told("store.unavailable"), blocked=1)
        with pytest.raises(Violation, match="never came"):
            evidence.check_told(self.told("store.unavailable"))

    def test_may_not_be_most_of_all(self) -> None:
        with pytest.raises(Violation, match="too little is known"):
            evidence.check_told(self.told(*[GIVEN_UP] * 20))


class TestRunsThatWereGivenUp:
    """Somebody sees that a run has failed because its workers died."""

    FACTS: Final = tuple(("run_1", 10 * at, kind) for at, kind in enumerate(["run.started", "run.lost"] * 3))

    def test_are_a_violation_without_a_fault(self) -> None:
        run = {"run": "run_1", "agent": "errand", "cancelling": False, "reason": None}
        started = run | {"status": "queued", "dead": False, "seq": 1}
        failed = run | {"status": "failed", "dead": True, "seq": 8, "reason": "run.lost"}
        log = Log()
        for number, (verb, given, value) in enumerate(
            [("start", {"plan": "a"}, started), ("get", {"run": "run_1"}, failed)]
        ):
            log.write(client="one", n=number, at=2 * number, verb=verb, on="wave-0", given=given)
            log.write(client="one", n=number, at=2 * number + 1, outcome=OK, value=value)
        found = evidence.from_lines(log.lines)
        with pytest.raises(Violation):
            evidence.check(found)
        evidence.check(found, given_up={"run_1"})

    def test_are_explained_by_as_many_faults_as_it_takes(self) -> None:
        assert evidence.given_up_by_faults(self.FACTS, [(5, 5), (25, 25), (45, 45)]) == {"run_1"}

    @pytest.mark.parametrize("hits", [[], [(5, 5), (25, 25)], [(5, 5), (25, 25), (55, 55)], [(5, 5), (6, 6), (45, 45)]])
    def test_are_not_explained_by_fewer_or_others(self, hits: list[tuple[int, int]]) -> None:
        assert evidence.given_up_by_faults(self.FACTS, hits) == set()


@pytest.mark.parametrize("bug", PLANTED)
async def test_a_bug_cannot_be_explained(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, name, planted = PLANTED[bug]
    monkeypatch.setattr(place, name, planted)
    with pytest.raises(Violation):
        await look_for_a_violation(tmp_path)


async def look_for_a_violation(folder: Path) -> None:
    """Short histories, until one cannot be explained."""
    for seed in range(ROUNDS):
        evidence.check(await short_history(folder, seed))
