"""What an agent records besides steps: events, files, the time; what it derives; what it logs."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.commit import Commit
from stepwell.domain.retry import Retry
from stepwell.domain.run import Lease
from stepwell.ports.context import Context
from stepwell.ports.store import Committed, Store
from stepwell.testing.clock import START, ManualClock
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives, twice
from tests.unit.engine.samples import double, effect, executed


class SlowToAnswer:
    """A store whose first write of a kind of fact is answered when `answers` is set. Does it land before, or then?"""

    def __init__(self, store: Store, kind: str, *, lands: bool) -> None:
        self._store = store
        self._kind = kind
        self._lands = lands
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        if self.asked.is_set() or not any(draft.kind == self._kind for draft in write.drafts):
            return await self._store.commit(lease, write)
        self.asked.set()
        if not self._lands:
            await self.answers.wait()
        answer = await self._store.commit(lease, write)
        await self.answers.wait()
        return answer


class TestEmit:
    async def test_an_event_is_appended_once(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.emit("seen", {"n": 1})
            await ctx.emit("seen", {"n": 1})
            await ctx.emit("plain", [1, "a"])
            await ctx.emit("empty")

        lives, run = await twice(agent)
        told = [(entry.kind, entry.data) for entry in await lives.journal(run) if entry.kind.startswith(event.CUSTOM)]
        assert told == [
            ("custom.seen", '{"n":1}'),
            ("custom.seen", '{"n":1}'),
            ("custom.plain", '{"value":[1,"a"]}'),
            ("custom.empty", '{"value":null}'),
        ]

    @pytest.mark.parametrize("name", ["", "has space", "x" * 129, ".dot", 5, "é"])
    async def test_a_name_is_a_plain_word(self, name: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.emit(name)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "definition.name"

    @pytest.mark.parametrize("data", [object(), (1, 2), {"a": float("nan")}, {1: 2}, "x" * 300_000], ids=range(5))
    async def test_what_is_not_data_or_too_large_is_refused(self, data: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.emit("seen", data)

        lives = Lives(app)
        run = await lives.run()
        assert (await lives.error(run))["code"].startswith("value.")
        assert not any(entry.kind.startswith(event.CUSTOM) for entry in await lives.journal(run))


class TestArtifact:
    async def test_a_file_is_kept_once(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.artifact("report.md", "# Hi")
            await ctx.artifact("raw", b"\x00\xff")
            await ctx.artifact("table", "a;b", media_type="text/csv")

        lives, run = await twice(agent)
        facts = await lives.facts(run, event.ARTIFACT_SAVED)
        assert [(fact["name"], fact["media_type"], fact["size"]) for fact in facts] == [
            ("report.md", "text/markdown", 4),
            ("raw", "application/octet-stream", 2),
            ("table", "text/csv", 3),
        ]
        assert [await lives.store.get_blob(fact["artifact"]) for fact in facts] == [b"# Hi", b"\x00\xff", b"a;b"]

    async def test_a_crash_between_its_bytes_and_its_event_loses_nothing(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.artifact("a.txt", "a")

        lives = Lives(app)
        run = await lives.run(crashes=(Crash("artifact.after_blob"),))
        assert len(await lives.facts(run, event.ARTIFACT_SAVED)) == 1

    async def test_other_content_on_a_replay_holds_the_run(self) -> None:
        app = App("test")
        content = ["a", "b"]

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.artifact("a.txt", content.pop(0))

        lives, run = await twice(agent)
        assert "artifact a.txt with other content" in (await lives.hold(run))["message"]

    @pytest.mark.parametrize(
        ("name", "content", "media_type"),
        [
            ("", "a", None),
            (5, "a", None),
            ("\ud800", "a", None),
            ("a", 5, None),
            ("a", None, None),
            ("a", ["a"], None),
            ("a", "\ud800", None),
            ("a", "a", ""),
            ("a", "a", 5),
            ("a", b"x" * (64 * 1024 * 1024 + 1), None),
        ],
        ids=range(10),
    )
    async def test_what_cannot_be_kept_is_refused(self, name: Any, content: Any, media_type: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.artifact(name, content, media_type=media_type)

        lives = Lives(app)
        run = await lives.run()
        assert (await lives.error(run))["type"] in ("InvalidValue", "InvalidDefinition")
        assert await lives.facts(run, event.ARTIFACT_SAVED) == []


class TestDerived:
    async def test_time_ids_and_randomness_stay_the_same_over_attempts(self) -> None:
        app = App("test")
        seen: list[Any] = []

        @app.agent
        async def agent(ctx: Context) -> None:
            async def branch() -> list[Any]:
                return [ctx.uuid(), ctx.random.random(), ctx.now()]

            drawn = [ctx.now(), ctx.uuid(), ctx.uuid(), ctx.random.random(), ctx.random.randrange(10**9)]
            await ctx.step(double, 1)
            drawn += await ctx.gather(branch(), branch(), branch())
            drawn += [ctx.now(), ctx.uuid(), ctx.random.random()]
            await ctx.step(double, 2)
            seen.append(drawn)

        lives, run = await twice(agent)
        await lives.output(run)
        assert seen[0] == seen[1]
        ids = [seen[0][1], seen[0][2], *[drawn[0] for drawn in seen[0][5:8]], seen[0][9]]
        assert len(set(ids)) == len(ids)
        assert {one.version for one in ids} == {8}
        numbers = [seen[0][3], *[drawn[1] for drawn in seen[0][5:8]], seen[0][10]]
        assert len(set(numbers)) == len(numbers)

    async def test_two_runs_draw_differently(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[str]:
            return [str(ctx.uuid()), str(ctx.random.random())]

        lives = Lives(app)
        first, second = await lives.output(await lives.run()), await lives.output(await lives.run())
        assert not set(first) & set(second)

    async def test_the_time_is_the_clocks_and_aware(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> datetime:
            return ctx.now()

        lives = Lives(app, clock=ManualClock())
        run = await lives.run()
        assert await lives.output(run) == datetime(2026, 1, 1, tzinfo=UTC)
        assert [fact["value"] for fact in await lives.facts(run, event.TIME_READ)] == [START]

    async def test_the_time_rides_on_the_next_write(self) -> None:
        app = App("test")
        seen: list[datetime] = []

        @app.agent
        async def agent(ctx: Context) -> None:
            seen.append(ctx.now())
            await ctx.step(double, 1)

        lives = Lives(app)
        run = await lives.submit()
        await lives.live(run, crash=Crash("commit.before"))
        assert await lives.facts(run, event.TIME_READ) == []
        await lives.live(run, crash=Crash("commit.after"))
        await lives.live(run)
        kinds = [entry.kind for entry in await lives.journal(run) if entry.step]
        assert kinds == [event.TIME_READ, event.STEP_COMPLETED]
        assert seen[1] == seen[2]

    async def test_what_was_noted_before_an_error_is_kept(self) -> None:
        app = App("test")
        seen: list[datetime] = []

        @app.agent(retry=Retry(3, first_delay=0))
        async def agent(ctx: Context) -> None:
            seen.append(ctx.now())
            if len(seen) < 3:
                raise OSError("volatile")

        lives = Lives(app)
        run = await lives.run()
        await lives.output(run)
        assert len(await lives.facts(run, event.TIME_READ)) == 1
        assert len(set(seen)) == 1


class TestLog:
    async def test_it_is_quiet_while_the_agent_repeats_itself(self, caplog: pytest.LogCaptureFixture) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            ctx.log.info("before the first step")
            await ctx.step(double, 1)
            ctx.log.info("after the first step")
            await ctx.step(double, 2)
            ctx.log.info("after the second step")

        lives = Lives(app)
        with caplog.at_level(logging.INFO, "stepwell.run"):
            run = await lives.run(crashes=(Crash("step.before_function", passing=2),))
        told = [(record.message, record.run_id) for record in caplog.records if record.name == "stepwell.run"]  # type: ignore[attr-defined]
        assert told == [
            ("before the first step", run),
            ("after the first step", run),
            ("after the first step", run),
            ("after the second step", run),
        ]

    async def test_records_that_will_never_be_asked_for_again_do_not_silence_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = App("test")

        @app.agent(retry=Retry(2, first_delay=0))
        async def agent(ctx: Context) -> None:
            done = await ctx.restore(int) or 0
            if done == 0:
                await ctx.step(double, 1, key="only before the checkpoint")
                await ctx.checkpoint(1)
            if effect("attempt") == 1:
                await ctx.step(double, 2, key="only in the first attempt")
                raise OSError("volatile")
            await ctx.step(double, 3)
            ctx.log.info("loud")

        lives = Lives(app)
        with caplog.at_level(logging.INFO, "stepwell.run"):
            await lives.output(await lives.run())
        assert "loud" in caplog.messages

    async def test_a_level_that_is_off_stays_off(self, caplog: pytest.LogCaptureFixture) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            ctx.log.debug("hidden")

        lives = Lives(app)
        with caplog.at_level(logging.INFO, "stepwell.run"):
            await lives.run()
        assert "hidden" not in caplog.messages


class TestRunInfo:
    async def test_the_agent_knows_its_run(self) -> None:
        app = App("test")

        @app.agent(version="7")
        async def agent(ctx: Context) -> list[Any]:
            run = ctx.run
            return [
                run.id,
                run.agent,
                run.version,
                run.session_id[:4],
                run.metadata,
                ctx.attempt,
                run.created_at.tzinfo is UTC,
            ]

        lives = Lives(app, clock=ManualClock())
        run = await lives.submit(metadata={"a": "b"})
        await lives.live(run)
        assert await lives.output(run) == [run, "agent", "7", "ses_", {"a": "b"}, 1, True]

    async def test_the_deps_are_the_ones_of_the_process(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context[list[str]]) -> list[str]:
            return ctx.deps

        lives = Lives(app, deps=["pool"])
        assert await lives.output(await lives.run()) == ["pool"]


class TestCheckpoint:
    def counting(self, upto: int) -> tuple[App[Any], Any]:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            done = await ctx.restore(int) or 0
            while done < upto:
                await ctx.step(double, done)
                done += 1
                await ctx.checkpoint(done)
            return done

        return app, agent

    @pytest.mark.parametrize("passing", range(1, 9))
    @pytest.mark.parametrize("point", ["commit.before", "commit.after"])
    async def test_a_later_attempt_goes_on_from_the_saved_state(self, point: str, passing: int) -> None:
        app, _ = self.counting(4)
        lives = Lives(app)
        run = await lives.run(crashes=(Crash(point, passing=passing),))
        assert await lives.output(run) == 4
        assert len(executed) == 4
        assert sum(executed.values()) <= 5
        assert [fact["version"] for fact in await lives.facts(run, event.CHECKPOINT_SAVED)] == [1, 2, 3, 4]

    async def test_places_before_a_checkpoint_are_not_expected_after_it(self) -> None:
        app, _ = self.counting(3)
        lives = Lives(app)
        run = await lives.run(crashes=(Crash(AFTER_AGENT),))
        places = [entry.step for entry in await lives.journal(run, event.STEP_COMPLETED)]
        assert places == ["0/1", "1/1", "2/1"]
        assert set(executed.values()) == {1}

    async def test_steps_with_keys_stay_remembered(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            done = await ctx.restore(int) or 0
            total = 0
            for turn in range(done, 3):
                total = await ctx.step(double, 21, key="once")
                await ctx.checkpoint(turn + 1)
            return total or await ctx.step(double, 21, key="once")

        lives = Lives(app)
        run = await lives.run(crashes=(Crash("checkpoint.after_record"), Crash(AFTER_AGENT)))
        assert await lives.output(run) == 42
        assert executed == {"double 21": 1}

    async def test_a_state_has_a_type_and_may_be_large(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            state = await ctx.restore(dict[str, datetime])
            if state is None:
                state = {f"{n}" * 10: datetime(2026, 1, 1, tzinfo=UTC) for n in range(5000)}
                await ctx.checkpoint(state)
            return [len(state), all(isinstance(at, datetime) for at in state.values())]

        lives, run = await twice(agent)
        assert await lives.output(run) == [5000, True]
        assert "ref" in (await lives.facts(run, event.CHECKPOINT_SAVED))[0]

    @pytest.mark.parametrize("lands", [True, False], ids=["it lands", "it does not land"])
    async def test_what_rides_on_a_write_that_a_drain_interrupts_is_told_once(self, lands: bool) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[str]:
            done = await ctx.restore(list[str]) or []
            while len(done) < 3:
                done = [*done, ctx.now().isoformat()]
                await ctx.checkpoint(done)
            return done

        lives = Lives(app)
        store = SlowToAnswer(lives.store, event.CHECKPOINT_SAVED, lands=lands)
        run = await lives.submit()
        worker = lives.make_worker(store=store)
        await worker.start()
        await store.asked.wait()
        stopping = asyncio.create_task(worker.stop(drain=0))
        for _ in range(100):  # the drain cancels the agent in its call
            await asyncio.sleep(0)
        store.answers.set()
        await stopping
        async with lives.working():
            await lives.settled(run)
        assert len(await lives.output(run)) == 3
        assert len(await lives.journal(run, event.TIME_READ)) == 3

    async def test_derived_values_differ_between_generations_and_stay_within_one(self) -> None:
        app = App("test")
        seen: dict[int, set[str]] = {}

        @app.agent
        async def agent(ctx: Context) -> None:
            done = await ctx.restore(int) or 0
            for turn in range(done, 3):
                seen.setdefault(turn, set()).add(f"{ctx.uuid()} {ctx.random.random()}")
                await ctx.step(double, turn)
                await ctx.checkpoint(turn + 1)

        lives = Lives(app)
        await lives.output(await lives.run(crashes=(Crash("step.after_record"), Crash("step.after_record", passing=2))))
        assert all(len(drawn) == 1 for drawn in seen.values())
        assert len(set().union(*seen.values())) == 3

    async def test_a_state_of_another_type_holds_the_run(self) -> None:
        old, new = App("test"), App("test")

        @old.agent(name="agent")
        async def before(ctx: Context) -> None:
            await ctx.restore(int)
            await ctx.checkpoint(1)

        @new.agent(name="agent")
        async def after(ctx: Context) -> None:
            await ctx.restore(dict[str, int])

        lives = Lives(old)
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run, app=new)
        assert (await lives.hold(run))["why"] == "diverged"

    async def test_a_program_that_saves_earlier_than_before_is_held(self) -> None:
        def app_with(steps: int) -> App[Any]:
            app = App("test")

            @app.agent(name="agent")
            async def agent(ctx: Context) -> int:
                if await ctx.restore(int) is None:
                    for n in range(steps):
                        await ctx.step(double, n)
                    await ctx.checkpoint(1)
                return steps

            return app

        lives = Lives(app_with(3))
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record", passing=2))
        await lives.live(run, app=app_with(1))
        assert (await lives.hold(run))["step"] == "0/2"
        assert await lives.facts(run, event.CHECKPOINT_SAVED) == []

    async def test_a_program_that_no_longer_restores_is_held_and_repeats_nothing(self) -> None:
        old, _ = self.counting(2)
        for calls in ("step", "uuid", "nothing"):
            new = App("test")

            @new.agent(name="agent")
            async def after(ctx: Context) -> int:
                if calls == "step":  # noqa: B023 - called within its own turn
                    await ctx.step(double, 0)
                elif calls == "uuid":  # noqa: B023
                    ctx.uuid()
                return 9

            executed.clear()
            lives = Lives(old)
            run = await lives.submit()
            await lives.live(run, crash=Crash(AFTER_AGENT))
            await lives.live(run, app=new)
            hold = await lives.hold(run)
            assert hold["why"] == "diverged"
            assert "a checkpoint" in hold["message"]
            assert executed == {"double 0": 1, "double 1": 1}

    @pytest.mark.parametrize(
        ("misuse", "code"),
        [
            (lambda ctx: _step_then_restore(ctx), "checkpoint.late"),
            (lambda ctx: _uuid_then_restore(ctx), "checkpoint.late"),
            (lambda ctx: _restore_twice(ctx), "checkpoint.late"),
            (lambda ctx: ctx.checkpoint(1), "checkpoint.not_restored"),
            (lambda ctx: _checkpoint_in_branch(ctx), "checkpoint.in_branch"),
        ],
        ids=["restore after a step", "restore after uuid", "restore twice", "no restore", "in a branch"],
    )
    async def test_misuse_is_refused(self, misuse: Any, code: str) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await misuse(ctx)

        lives = Lives(app)
        run = await lives.run()
        assert (await lives.error(run))["code"] == code
        assert await lives.facts(run, event.CHECKPOINT_SAVED) == []

    @pytest.mark.parametrize("state", [object(), {"a": (1,)}, "x" * (1024 * 1024)], ids=range(3))
    async def test_a_state_that_is_not_data_or_too_large_is_refused(self, state: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.restore(str)
            await ctx.checkpoint(state)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"].startswith("value.")


async def _step_then_restore(ctx: Context) -> None:
    await ctx.step(double, 1)
    await ctx.restore(int)


async def _uuid_then_restore(ctx: Context) -> None:
    ctx.uuid()
    await ctx.restore(int)


async def _restore_twice(ctx: Context) -> None:
    await ctx.restore(int)
    await ctx.restore(int)


async def _checkpoint_in_branch(ctx: Context) -> None:
    async def branch() -> None:
        await ctx.checkpoint(1)

    await ctx.restore(int)
    await ctx.gather(branch())
