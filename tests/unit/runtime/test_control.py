"""The verbs on a run that change it: cancel, pause, signal, discard; and how runs of a tree are found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain.errors import Conflict, Fail, InvalidInput, NotFound, RunEnded
from stepwell.domain.retry import Retry
from stepwell.ports.context import Context
from stepwell.runtime import Run, Runtime

MEMORY = "memory://"

app = App("test")


@app.agent
async def patient(ctx: Context) -> Any:
    return await ctx.wait_for("go")


@app.agent
async def parent(ctx: Context, count: int) -> list[Any]:
    children = [await ctx.spawn(patient) for _ in range(count)]
    return [(await child.result()).status for child in children]


@app.agent(retry=Retry(1))
async def doomed(ctx: Context) -> None:
    raise Fail("no", code="test.no", retryable=True)


@app.agent
async def quick(ctx: Context) -> None: ...


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime[Any]]:
    async with Runtime(app, store=MEMORY) as opened:
        yield opened


async def kinds(run: Run[Any], kind: str) -> list[dict[str, Any]]:
    return [dict(told.data) async for told in run.events() if told.kind == kind]


async def until(condition: Callable[[], Any]) -> Any:
    """The first true answer of a question that is asked again and again."""
    async with asyncio.timeout(10):
        while not (answer := await condition()):
            await asyncio.sleep(0.005)
        return answer


async def with_status(run: Run[Any], status: str) -> Run[Any]:
    async def look() -> Run[Any] | None:
        now = await run.refresh()
        return now if now.status == status else None

    found: Run[Any] = await until(look)
    return found


class TestCancelling:
    async def test_a_run_that_waits_ends_at_once_and_its_waiter_is_told(self, runtime: Runtime[Any]) -> None:
        run = await with_status(await runtime.start(patient), "waiting")
        result = asyncio.create_task(run.result(timeout=10))
        assert await run.cancel(reason="not needed", by="ada") == "cancelled"
        assert ((await result).status, (await result).reason) == ("cancelled", "not needed")
        assert await kinds(run, "run.cancelled") == [{"by": "ada", "reason": "not needed"}]

    async def test_without_a_name_it_was_the_api(self, runtime: Runtime[Any]) -> None:
        run = await with_status(await runtime.start(patient), "waiting")
        await run.cancel()
        assert await kinds(run, "run.cancelled") == [{"by": "api", "reason": None}]

    async def test_a_run_that_has_ended_stays_as_it_is(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(quick)
        await run.result()
        assert await run.cancel() == "already_ended"
        assert (await run.refresh()).status == "succeeded"

    @pytest.mark.parametrize(("given", "code"), [({"by": ""}, "input.by"), ({"reason": 5}, "input.reason")])
    async def test_why_and_by_whom_are_short_texts(self, runtime: Runtime[Any], given: Any, code: str) -> None:
        run = await runtime.start(patient)
        with pytest.raises(InvalidInput) as refused:
            await run.cancel(**given)
        assert refused.value.code == code


class TestPausing:
    async def test_a_run_that_waits_is_set_aside_and_goes_on_when_it_is_resumed(self, runtime: Runtime[Any]) -> None:
        run = await with_status(await runtime.start(patient), "waiting")
        await run.pause(by="ada")
        assert run.status == "paused"
        assert (await kinds_until(run, "run.held"))["by"] == "ada"
        await run.signal("go", 5)
        assert (await run.refresh()).status == "paused"
        await run.resume()
        assert (await run.result(timeout=10)).output == 5

    async def test_without_a_name_it_was_the_api(self, runtime: Runtime[Any]) -> None:
        run = await with_status(await runtime.start(patient), "waiting")
        await run.pause()
        assert (await kinds_until(run, "run.held"))["by"] == "api"

    async def test_a_run_that_has_ended_is_not_set_aside(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(quick)
        await run.result()
        with pytest.raises(RunEnded):
            await run.pause()


async def kinds_until(run: Run[Any], kind: str) -> dict[str, Any]:
    """The data of the first event of a kind of a run that goes on."""
    async for told in run.events():
        if told.kind == kind:
            return dict(told.data)
    raise AssertionError(f"no {kind}")


class TestSignalling:
    async def test_a_signal_brings_its_payload(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(patient)
        assert await run.signal("go", {"a": [1]}, by="ada") is True
        assert (await run.result(timeout=10)).output == {"a": [1]}
        [received] = await kinds(run, "signal.received")
        assert (received["name"], received["value"], received["by"]) == ("go", {"a": [1]}, "ada")
        assert received["signal"].startswith("sig_")

    async def test_without_a_payload_it_is_nothing(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(patient)
        await run.signal("go")
        assert (await run.result(timeout=10)).output is None

    async def test_one_of_the_same_id_is_received_once(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(patient)
        await runtime.runs.get(run.id)
        assert [await run.signal("other", 1, id="a"), await run.signal("other", 1, id="a")] == [True, False]
        with pytest.raises(Conflict) as refused:
            await run.signal("other", 2, id="a")
        assert refused.value.code == "signal.conflict"

    async def test_two_without_an_id_are_two(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(patient)
        assert [await run.signal("other", 1), await run.signal("other", 1)] == [True, True]

    async def test_a_large_payload_lies_beside_the_journal(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(patient)
        await run.signal("go", "x" * 300_000)
        assert (await run.result(timeout=10)).output == "x" * 300_000
        [received] = await kinds(run, "signal.received")
        assert "ref" in received

    @pytest.mark.parametrize(
        ("name", "payload", "more", "code"),
        [
            ("", None, {}, "input.signal"),
            ("x" * 201, None, {}, "input.signal"),
            (5, None, {}, "input.signal"),
            ("a\0", None, {}, "input.signal"),
            ("go", None, {"id": ""}, "input.signal"),
            ("go", None, {"by": ""}, "input.by"),
            ("go", object(), {}, "value.type"),
            ("go", "x" * 1_100_000, {}, "value.size"),
        ],
        ids=range(8),
    )
    async def test_what_cannot_be_sent_is_refused(
        self, runtime: Runtime[Any], name: Any, payload: Any, more: dict[str, Any], code: str
    ) -> None:
        run = await runtime.start(patient)
        with pytest.raises(InvalidInput) as refused:
            await run.signal(name, payload, **more)
        assert refused.value.code == code

    async def test_a_run_that_has_ended_receives_nothing(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(quick)
        await run.result()
        with pytest.raises(RunEnded):
            await run.signal("go")


class TestTrees:
    async def test_children_know_their_parent_and_a_parent_its_children(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(parent, 3)

        async def all_there() -> list[Run[Any]]:
            children = await run.children()
            return children if len(children) == 3 else []

        children = await until(all_there)
        assert [child.parent_id for child in children] == [run.id] * 3
        assert [child.created_at for child in children] == sorted(child.created_at for child in children)
        assert run.parent_id is None
        assert {found.id for found in await runtime.runs.list(parent=run.id)} == {child.id for child in children}
        for child in children:
            await child.signal("go")
        assert (await run.result(timeout=10)).output == ["succeeded"] * 3

    async def test_the_last_run_is_nobodys_child(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(parent, 20)

        async def all_there() -> bool:
            return len(await run.children()) == 20

        await until(all_there)
        assert (await runtime.runs.find("last")).id == run.id
        newer = await runtime.start(quick)
        assert (await runtime.runs.find("last")).id == newer.id


class TestSessions:
    async def test_runs_of_a_session_are_found_by_it(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(quick, session="cust-42")
        other = await runtime.start(quick)
        assert run.session_id == "cust-42"
        assert [found.id for found in await runtime.runs.list(session="cust-42")] == [run.id]
        assert [found.id for found in await runtime.runs.list(session=other.session_id)] == [other.id]

    async def test_run_takes_a_session_too(self, runtime: Runtime[Any]) -> None:
        result = await runtime.run(quick, session="cust-42")
        assert (await runtime.runs.get(result.run_id)).session_id == "cust-42"

    @pytest.mark.parametrize("session", ["", "a b", "~x", 5, "x" * 129])
    async def test_a_session_has_a_name(self, runtime: Runtime[Any], session: Any) -> None:
        with pytest.raises(InvalidInput) as refused:
            await runtime.start(quick, session=session)
        assert refused.value.code == "input.session"


class TestDeadLetters:
    async def test_a_dead_run_is_listed_until_it_is_discarded(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(doomed)
        assert (await run.result()).status == "failed"
        [dead] = await runtime.runs.list(dead=True)
        assert (dead.id, dead.dead) == (run.id, True)
        await runtime.runs.discard(run.id, by="ada")
        assert await runtime.runs.list(dead=True) == []
        assert await kinds(run, "run.discarded") == [{"by": "ada"}]

    async def test_only_the_dead_are_discarded(self, runtime: Runtime[Any]) -> None:
        run = await runtime.start(quick)
        await run.result()
        with pytest.raises(Conflict) as refused:
            await runtime.runs.discard(run.id)
        assert refused.value.code == "run.not_dead"
        with pytest.raises(NotFound):
            await runtime.runs.discard("run_nothing")
