"""What a store must answer to readers: the run, listings, the journal, and facts about itself."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.domain.errors import NotFound
from stepwell.domain.outcome import ErrorInfo, Failed, Held, Parked, Payload, Succeeded
from stepwell.domain.submission import KEY_LANE, SESSION_LANE, Lane
from stepwell.ports.store import Blockage, LaneInfo, RunQuery, Store
from stepwell.testing.conformance.harness import SECOND, Harness, append, take


class ReadingContract:
    """Runs and journals are read."""

    async def test_an_unknown_run_is_not_found(self, harness: Harness) -> None:
        store = await harness.make()
        with pytest.raises(NotFound) as missing:
            await store.get("run_0000000000000000000000000z")
        assert missing.value.code == "run.unknown"

    async def test_the_run_of_another_tenant_is_not_found(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, tenant="acme")
        assert await store.get(run.id, tenant="acme") == run
        for tenant in ("", "other", "ACME"):
            with pytest.raises(NotFound) as missing:
                await store.get(run.id, tenant=tenant)
            assert missing.value.code == "run.unknown"

    async def test_a_journal_is_read_in_pages(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await append(store, lease, 1, *(str(n) for n in range(8)))
        whole = await store.journal(lease.run_id)
        assert [entry.seq for entry in whole] == list(range(1, 11))
        assert await store.journal(lease.run_id, limit=4) == whole[:4]
        assert await store.journal(lease.run_id, after=4, limit=4) == whole[4:8]
        assert await store.journal(lease.run_id, after=8, limit=4) == whole[8:]
        assert await store.journal(lease.run_id, after=10) == []
        assert await store.journal(lease.run_id, after=99) == []

    async def test_a_journal_can_be_read_by_kinds(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await append(store, lease, 1, "a", "b", "c")
        notes = (await store.journal(lease.run_id))[2:]
        assert await store.journal(lease.run_id, kinds=("custom.note",)) == notes
        assert await store.journal(lease.run_id, kinds=("custom.note", "run.lost"), after=3, limit=1) == notes[1:2]
        assert await store.journal(lease.run_id, kinds=("run.lost",)) == []

    async def test_a_journal_holds_the_facts_of_its_run_alone(self, harness: Harness) -> None:
        store = await harness.make()
        lease, other = await harness.started(store), await harness.started(store)
        await append(store, other, 1, "elsewhere")
        assert [entry.kind for entry in await store.journal(lease.run_id)] == ["run.queued", "run.started"]

    async def test_the_last_entry_is_the_newest_of_the_kinds_asked_for(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await append(store, lease, 1, "a", "b", "c")
        whole = await store.journal(lease.run_id)
        assert await store.last_entry(lease.run_id, ("custom.note",)) == whole[-1]
        assert await store.last_entry(lease.run_id, ("run.queued", "run.started")) == whole[1]
        assert await store.last_entry(lease.run_id, ("run.succeeded",)) is None
        assert await store.last_entry(lease.run_id, ()) is None

    async def test_the_report_counts_runs_by_the_status_that_people_see(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.ended(store, Succeeded(Payload("1")))
        await harness.ended(store, Held("diverged", by="replay"))
        await harness.submit(store, delay=60)
        await harness.submit(store, delay=60)
        report = await store.report()
        assert report.runs == {"succeeded": 1, "diverged": 1, "queued": 2}
        assert report.url
        assert report.version
        assert report.size_bytes > 0
        assert list(report.problems) == []

    async def test_the_report_names_the_agents_whose_runs_nobody_takes(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.started(store, agent="busy")
        await harness.submit(store, agent="busy")
        await harness.submit(store, agent="nobody")
        await harness.submit(store, agent="nobody")
        await harness.submit(store, agent="later", delay=3600)
        await harness.ended(store, Held("diverged", by="replay"), agent="aside")
        assert (await store.report()).unserved == {}
        harness.clock.advance(60)
        assert (await store.report()).unserved == {"nobody": 2}

    async def test_the_report_names_agents_whose_runs_nobody_takes_once_they_have_waited(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        lanes = (Lane(KEY_LANE, "eu", 1),)
        await harness.submit(store, agent="nobody", delay=5, lanes=lanes)
        harness.clock.advance(60)
        assert (await store.report()).unserved == {"nobody": 1}

    async def test_the_report_names_the_lanes_that_such_runs_keep_from_others(self, harness: Harness) -> None:
        store = await harness.make()
        session, key = Lane(SESSION_LANE, "ses_a", 1), Lane(KEY_LANE, "eu", 1)
        await harness.submit(store, agent="nobody", session="ses_a", lanes=(session,))
        await harness.submit(store, agent="nobody", lanes=(key,))
        await harness.started(store, lanes=(Lane(KEY_LANE, "us", 1),))
        for lane in (session, key, key, Lane(KEY_LANE, "us", 1)):
            await harness.submit(store, session="ses_a", lanes=(lane,))
        assert list((await store.report()).blockages) == []
        harness.clock.advance(60)
        assert list((await store.report()).blockages) == [
            Blockage(LaneInfo("", KEY_LANE, "eu", 1, 1, 2), "nobody", 1),
            Blockage(LaneInfo("", SESSION_LANE, "ses_a", 1, 1, 1), "nobody", 1),
        ]

    async def test_the_report_names_the_lanes_that_lost_runs_keep_from_others(self, harness: Harness) -> None:
        store = await harness.make()
        lane = (Lane(KEY_LANE, "eu", 1),)
        lease = await harness.started(store, agent="nobody", lanes=lane)
        await harness.submit(store, lanes=lane)
        assert list((await store.report()).blockages) == []
        await store.close_worker(lease.worker)
        blockage = Blockage(LaneInfo("", KEY_LANE, "eu", 1, 1, 1), "nobody", 1)
        assert list((await store.report()).blockages) == [blockage]


class ListingContract:
    """Runs are found."""

    async def test_an_empty_store_lists_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        assert await store.find(RunQuery()) == []

    async def test_a_listing_begins_with_the_newest(self, harness: Harness) -> None:
        one, other = await harness.views()
        runs = await self._some(harness, one, 5)
        assert await self._ids(other) == runs[::-1]

    async def test_a_listing_goes_on_where_a_page_ended(self, harness: Harness) -> None:
        store = await harness.make()
        runs = await self._some(harness, store, 7)
        pages, before = [], None
        while page := await self._ids(store, limit=3, before=before):
            pages.append(page)
            before = page[-1]
        assert pages == [runs[:3:-1], runs[3:0:-1], runs[:1]]

    async def test_a_page_is_not_moved_by_runs_that_came_after_it(self, harness: Harness) -> None:
        store = await harness.make()
        runs = await self._some(harness, store, 4)
        first = await self._ids(store, limit=2)
        await self._some(harness, store, 3)
        assert first + await self._ids(store, limit=2, before=first[-1]) == runs[::-1]

    async def test_a_listing_is_narrowed_by_each_field(self, harness: Harness) -> None:
        store = await harness.make()
        queued = await harness.submit(store, delay=60, session="ses_a")
        held = await harness.ended(store, Held("diverged", by="replay"))
        waiting = await harness.ended(store, Parked(harness.clock.now() + 60 * SECOND, "[]"))
        succeeded = await harness.ended(store, Succeeded(Payload("1")), agent="report")
        failed = await harness.ended(store, Failed(ErrorInfo("x", "y")), session="ses_a")
        dead = await harness.ended(store, Failed(ErrorInfo("x", "y"), dead=True))
        expected: list[tuple[dict[str, Any], set[str]]] = [
            ({"status": "queued"}, {queued.id}),
            ({"status": "diverged"}, {held.id}),
            ({"status": "waiting"}, {waiting.id}),
            ({"status": "failed"}, {failed.id, dead.id}),
            ({"status": "running"}, set()),
            ({"agent": "report"}, {succeeded.id}),
            ({"session": "ses_a"}, {queued.id, failed.id}),
            ({"ended": True}, {succeeded.id, failed.id, dead.id}),
            ({"ended": False}, {queued.id, held.id, waiting.id}),
            ({"dead": True}, {dead.id}),
            ({"ended": True, "dead": False}, {succeeded.id, failed.id}),
            ({"session": "ses_a", "status": "failed"}, {failed.id}),
            ({"agent": "report", "status": "failed"}, set()),
        ]
        for fields, found in expected:
            assert (fields, set(await self._ids(store, **fields))) == (fields, found)

    async def test_a_listing_shows_one_tenant_alone(self, harness: Harness) -> None:
        store = await harness.make()
        ours, theirs = await harness.submit(store), await harness.submit(store, tenant="acme")
        assert await self._ids(store) == [ours.id]
        assert await self._ids(store, tenant="acme") == [theirs.id]
        assert await self._ids(store, tenant="acme", ending=ours.id[-6:]) == []

    async def test_a_run_is_found_by_the_ending_of_its_id(self, harness: Harness) -> None:
        store = await harness.make()
        runs = await self._some(harness, store, 40)
        assert await self._ids(store, ending=runs[17]) == [runs[17]]
        for ending in (runs[17][-4:], runs[17][-1:]):
            assert await self._ids(store, ending=ending) == [run for run in runs[::-1] if run.endswith(ending)]

    @pytest.mark.parametrize("ending", ["%", "_", "*", "?", "'", "nothing", "\\"])
    async def test_an_ending_is_text_and_not_a_pattern(self, harness: Harness, ending: str) -> None:
        store = await harness.make()
        await self._some(harness, store, 2)
        assert await self._ids(store, ending=ending) == []

    async def test_what_is_listed_is_the_run_as_it_is(self, harness: Harness) -> None:
        store = await harness.make()
        await harness.submit(store)
        [claim] = await take(store, await harness.worker(store))
        assert await store.find(RunQuery()) == [claim.run]

    async def _some(self, harness: Harness, store: Store, runs: int) -> list[str]:
        """So many runs, oldest first, a millisecond apart."""
        ids = []
        for _ in range(runs):
            ids.append((await harness.submit(store)).id)
            harness.clock.advance(0.001)
        return ids

    async def _ids(self, store: Store, **fields: Any) -> list[str]:
        return [run.id for run in await store.find(RunQuery(**fields))]
