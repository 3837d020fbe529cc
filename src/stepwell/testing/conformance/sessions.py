"""What a store must do for sessions: values with versions, messages in order, and nothing of anybody else's."""

from __future__ import annotations

import asyncio

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict, LeaseLost, NotFound
from stepwell.domain.outcome import HandedBack, Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.domain.session import SessionMessage, SessionValue, SessionWrite
from stepwell.domain.values import loads
from stepwell.ports.store import RunQuery, Store
from stepwell.testing.conformance.children import family
from stepwell.testing.conformance.harness import Harness, events, kinds, note, stored, told

SESSION = "ses_support"


class SessionValueContract:
    """A session keeps values under keys."""

    async def test_a_value_is_kept_with_its_version_and_told(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one, session=SESSION)
        await one.commit(lease, Commit(1, writes=(_write("plan", '{"n":1}', step="0/3"),)))
        assert await other.session_value(SESSION, "plan") == SessionValue(1, Payload('{"n":1}'))
        entry = (await events(other, lease.run_id))[-1]
        assert (entry.kind, entry.step) == ("session.changed", "0/3")
        assert loads(entry.data) == {"key": "plan", "version": 1}

    async def test_each_write_raises_the_version_by_one(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        for number in range(1, 4):
            await store.commit(lease, Commit(number, writes=(_write("plan", str(number)), _write("plan", "0"))))
        assert await store.session_value(SESSION, "plan") == SessionValue(6, Payload("0"))
        versions = [data["version"] for data in await told(store, lease.run_id, "session.changed")]
        assert versions == [1, 2, 3, 4, 5, 6]

    async def test_what_was_never_written_is_not_there(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        await store.commit(lease, Commit(1, writes=(_write("plan", "1"),)))
        for session, key in ((SESSION, "Plan"), (SESSION, "pla"), (SESSION, "%"), ("ses_other", "plan")):
            assert await store.session_value(session, key) is None

    async def test_runs_of_one_session_see_each_others_values(self, harness: Harness) -> None:
        one, other = await harness.views()
        first, second = await harness.started(one, session=SESSION), await harness.started(other, session=SESSION)
        await one.commit(first, Commit(1, writes=(_write("plan", '"a"'),)))
        await other.commit(second, Commit(1, writes=(_write("plan", '"b"', expected=1),)))
        assert await one.session_value(SESSION, "plan") == SessionValue(2, Payload('"b"'))

    async def test_a_value_that_lies_elsewhere_is_kept_as_a_reference(self, harness: Harness) -> None:
        store = await harness.make()
        ref = await store.put_blob(b'{"large":true}')
        lease = await harness.started(store, session=SESSION)
        value = Payload(None, ref, 14)
        await store.commit(lease, Commit(1, writes=(SessionWrite(SESSION, "plan", value, "0/1"),)))
        assert await store.session_value(SESSION, "plan") == SessionValue(1, value)

    @pytest.mark.parametrize("expected", [0, 2, 7])
    async def test_a_write_that_expects_another_version_is_refused_with_all_that_came_with_it(
        self, harness: Harness, expected: int
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        await store.commit(lease, Commit(1, writes=(_write("plan", "1"),)))
        child = harness.child_of(await store.get(lease.run_id))
        before = await stored(store, lease.run_id)
        write = Commit(
            2,
            (note("fact"),),
            Succeeded(Payload("1")),
            opens=(harness.question(),),
            submits=(child,),
            writes=(_write("other", "1"), _write("plan", "2", expected=expected)),
            messages=(_message('"hello"'),),
        )
        with pytest.raises(Conflict) as refused:
            await store.commit(lease, write)
        assert refused.value.code == "session.changed"
        assert await stored(store, lease.run_id) == before
        assert await store.session_value(SESSION, "plan") == SessionValue(1, Payload("1"))
        assert await store.session_value(SESSION, "other") is None
        assert await store.messages(SESSION) == []
        assert await store.find(RunQuery(parent=lease.run_id)) == []

    async def test_a_holder_that_was_refused_may_write_on(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        with pytest.raises(Conflict):
            await store.commit(lease, Commit(1, writes=(_write("plan", "1", expected=3),)))
        await store.commit(lease, Commit(2, writes=(_write("plan", "1", expected=0),)))
        assert await store.session_value(SESSION, "plan") == SessionValue(1, Payload("1"))

    async def test_one_refused_write_harms_none_beside_it(self, harness: Harness) -> None:
        store = await harness.make()
        leases = [await harness.started(store, session=SESSION) for _ in range(3)]
        writes = [_write("a", "1"), _write("a", "2", expected=9), _write("b", "3")]
        calls = [store.commit(lease, Commit(1, writes=(write,))) for lease, write in zip(leases, writes, strict=True)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(answer, Conflict) for answer in answers] == [False, True, False]
        assert await store.session_value(SESSION, "a") == SessionValue(1, Payload("1"))
        assert await store.session_value(SESSION, "b") == SessionValue(1, Payload("3"))

    async def test_of_many_who_expect_the_same_version_one_writes(self, harness: Harness) -> None:
        views = await harness.views()
        leases = [await harness.started(views[n % 2], session=SESSION) for n in range(10)]
        calls = [
            views[n % 2].commit(lease, Commit(1, writes=(_write("plan", str(n), expected=0),)))
            for n, lease in enumerate(leases)
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(answer, Conflict) for answer in answers) == 9
        kept = await views[0].session_value(SESSION, "plan")
        assert kept is not None
        assert kept.version == 1
        winner = [isinstance(answer, Conflict) for answer in answers].index(False)
        assert kept.value == Payload(str(winner))

    async def test_a_second_write_of_one_commit_expects_what_the_first_made(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        await store.commit(lease, Commit(1, writes=(_write("plan", "1", expected=0), _write("plan", "2", expected=1))))
        assert await store.session_value(SESSION, "plan") == SessionValue(2, Payload("2"))

    async def test_one_who_lost_the_lease_writes_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        await store.commit(lease, Commit(1, outcome=HandedBack()))
        with pytest.raises(LeaseLost):
            await store.commit(lease, Commit(2, writes=(_write("plan", "1"),), messages=(_message('"hello"'),)))
        assert await store.session_value(SESSION, "plan") is None
        assert await store.messages(SESSION) == []

    async def test_the_same_number_twice_writes_once(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        write = Commit(1, writes=(_write("plan", "1", expected=0),), messages=(_message('"hello"'),))
        assert await store.commit(lease, write) == await store.commit(lease, write)
        assert await store.session_value(SESSION, "plan") == SessionValue(1, Payload("1"))
        assert len(await store.messages(SESSION)) == 1


class MessageContract:
    """A session keeps messages in order."""

    async def test_messages_are_numbered_in_order_and_told(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one, session=SESSION)
        await one.commit(lease, Commit(1, messages=(_message('"one"', "user"), _message('"two"', "assistant"))))
        harness.clock.advance(1)
        await one.commit(lease, Commit(2, messages=(_message('"three"', "user", step="0/9"),)))
        kept = await other.messages(SESSION)
        assert [(message.number, message.role, message.text.text) for message in kept] == [
            (1, "user", '"one"'),
            (2, "assistant", '"two"'),
            (3, "user", '"three"'),
        ]
        assert {message.run_id for message in kept} == {lease.run_id}
        assert kept[2].at - kept[0].at == 1_000_000
        assert await told(other, lease.run_id, "session.changed") == [
            {"key": "messages", "version": number} for number in (1, 2, 3)
        ]
        assert (await events(other, lease.run_id))[-1].step == "0/9"

    async def test_values_are_told_before_messages(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        await store.commit(lease, Commit(1, writes=(_write("plan", "1"),), messages=(_message('"hello"'),)))
        keys = [data["key"] for data in await told(store, lease.run_id, "session.changed")]
        assert keys == ["plan", "messages"]

    async def test_the_last_messages_up_to_a_number_are_read(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        await store.commit(lease, Commit(1, messages=tuple(_message(str(n)) for n in range(1, 11))))
        reads = {
            (None, None): [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
            (3, None): [8, 9, 10],
            (None, 4): [1, 2, 3, 4],
            (2, 4): [3, 4],
            (9, 4): [1, 2, 3, 4],
            (0, None): [],
            (3, 0): [],
            (2, 99): [9, 10],
        }
        for (last, upto), expected in reads.items():
            read = await store.messages(SESSION, last=last, upto=upto)
            assert [message.number for message in read] == expected

    async def test_messages_of_many_runs_are_numbered_without_gaps(self, harness: Harness) -> None:
        views = await harness.views()
        leases = [await harness.started(views[n % 2], session=SESSION) for n in range(6)]
        calls = [
            views[n % 2].commit(lease, Commit(number, messages=(_message(f'"{n} {number}"'),)))
            for number in range(1, 6)
            for n, lease in enumerate(leases)
        ]
        await asyncio.gather(*calls)
        kept = await views[0].messages(SESSION)
        assert [message.number for message in kept] == list(range(1, 31))
        for n, lease in enumerate(leases):
            mine = [message.text.text for message in kept if message.run_id == lease.run_id]
            assert mine == [f'"{n} {number}"' for number in range(1, 6)]

    async def test_a_message_that_lies_elsewhere_is_kept_as_a_reference(self, harness: Harness) -> None:
        store = await harness.make()
        ref = await store.put_blob(b'"long"')
        lease = await harness.started(store, session=SESSION)
        text = Payload(None, ref, 6)
        await store.commit(lease, Commit(1, messages=(SessionMessage(SESSION, "user", text, "0/1"),)))
        assert [message.text for message in await store.messages(SESSION)] == [text]


class SessionListContract:
    """Sessions are found, listed and forgotten."""

    async def test_a_session_exists_from_its_first_run_on(self, harness: Harness) -> None:
        one, other = await harness.views()
        with pytest.raises(NotFound) as refused:
            await one.session(SESSION)
        assert refused.value.code == "session.unknown"
        await harness.submit(one, session=SESSION)
        session = await other.session(SESSION)
        assert (session.id, session.tenant, session.created_at) == (SESSION, "", harness.clock.now())
        assert (session.messages, session.keys) == (0, ())

    async def test_a_session_says_what_it_keeps(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        created_at = harness.clock.now()
        harness.clock.advance(5)
        writes = _write("plan", "1"), _write("mood", "2"), _write("plan", "3")
        await store.commit(lease, Commit(1, writes=writes, messages=(_message('"a"'), _message('"b"'))))
        session = await store.session(SESSION)
        assert (session.messages, sorted(session.keys)) == (2, ["mood", "plan"])
        assert (session.created_at, session.updated_at) == (created_at, harness.clock.now())

    async def test_the_session_that_changed_last_is_listed_first(self, harness: Harness) -> None:
        store = await harness.make()
        leases: dict[str, Lease] = {}
        for name in ("ses_a", "ses_b", "ses_c"):
            leases[name] = await harness.started(store, session=name)
            harness.clock.advance(1)
        for name in ("ses_b", "ses_c", "ses_a"):
            await store.commit(leases[name], Commit(1, messages=(_message('"hi"', session=name),)))
            harness.clock.advance(1)
        assert [session.id for session in await store.sessions()] == ["ses_a", "ses_c", "ses_b"]
        assert [session.id for session in await store.sessions(limit=2)] == ["ses_a", "ses_c"]

    async def test_a_run_without_a_session_of_its_own_shows_none_unless_it_keeps_something(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        session = (await store.get(lease.run_id)).session
        await harness.submit(store, session=SESSION)
        assert [found.id for found in await store.sessions()] == [SESSION]
        await store.commit(lease, Commit(1, writes=(_write("plan", "1", session=session),)))
        assert {found.id for found in await store.sessions()} == {SESSION, session}

    async def test_a_child_writes_to_the_session_of_its_parent(self, harness: Harness) -> None:
        store = await harness.make()
        _, [child] = await family(harness, store, parent={"session": SESSION})
        await harness.finish(store, child.id, HandedBack(), writes=(_write("plan", "1"),))
        assert await store.session_value(SESSION, "plan") == SessionValue(1, Payload("1"))

    async def test_a_deleted_session_keeps_nothing_and_its_runs_stay(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one, session=SESSION)
        write = Commit(1, (), Succeeded(Payload("1")), writes=(_write("plan", "1"),), messages=(_message('"hi"'),))
        await one.commit(lease, write)
        await other.delete_session(SESSION)
        assert await one.session_value(SESSION, "plan") is None
        assert await one.messages(SESSION) == []
        assert (await kinds(one, lease.run_id))[-1] == "run.succeeded"

    async def test_a_deleted_session_begins_anew(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        write = Commit(1, (), Succeeded(Payload("1")), writes=(_write("plan", "1"),), messages=(_message('"hi"'),))
        await store.commit(lease, write)
        await store.delete_session(SESSION)
        again = await harness.started(store, session=SESSION)
        await store.commit(again, Commit(1, writes=(_write("plan", "2", expected=0),), messages=(_message('"ho"'),)))
        assert await store.session_value(SESSION, "plan") == SessionValue(1, Payload("2"))
        assert [message.number for message in await store.messages(SESSION)] == [1]

    async def test_a_session_with_a_live_run_is_not_deleted(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store, session=SESSION)
        await store.commit(lease, Commit(1, writes=(_write("plan", "1"),)))
        with pytest.raises(Conflict) as refused:
            await store.delete_session(SESSION)
        assert refused.value.code == "session.busy"
        assert await store.session_value(SESSION, "plan") == SessionValue(1, Payload("1"))

    async def test_an_unknown_session_is_not_deleted(self, harness: Harness) -> None:
        store = await harness.make()
        with pytest.raises(NotFound) as refused:
            await store.delete_session(SESSION)
        assert refused.value.code == "session.unknown"


class SessionPrivacyContract:
    """One session's data never reaches another, nor one tenant's."""

    async def test_the_session_of_another_tenant_is_never_seen(self, harness: Harness) -> None:
        store = await harness.make()
        mine = await self._written(harness, store, "acme", '"mine"')
        yours = await self._written(harness, store, "other", '"yours"')
        assert mine != yours
        for tenant, text in (("acme", '"mine"'), ("other", '"yours"')):
            value = await store.session_value(SESSION, "plan", tenant=tenant)
            assert value == SessionValue(1, Payload(text))
            assert [message.text.text for message in await store.messages(SESSION, tenant=tenant)] == [text]
            assert (await store.session(SESSION, tenant=tenant)).tenant == tenant
            assert [session.tenant for session in await store.sessions(tenant=tenant)] == [tenant]

    async def test_a_tenant_without_the_session_finds_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        await self._written(harness, store, "acme", '"mine"')
        assert await store.session_value(SESSION, "plan") is None
        assert await store.messages(SESSION) == []
        assert await store.sessions() == []
        with pytest.raises(NotFound):
            await store.session(SESSION)
        with pytest.raises(NotFound):
            await store.delete_session(SESSION)

    async def test_a_deletion_leaves_the_same_session_of_another_tenant(self, harness: Harness) -> None:
        store = await harness.make()
        await self._written(harness, store, "acme", '"mine"')
        await self._written(harness, store, "other", '"yours"')
        await store.delete_session(SESSION, tenant="acme")
        assert await store.session_value(SESSION, "plan", tenant="acme") is None
        assert await store.session_value(SESSION, "plan", tenant="other") == SessionValue(1, Payload('"yours"'))

    async def test_sessions_of_one_tenant_keep_their_own(self, harness: Harness) -> None:
        store = await harness.make()
        first, second = await harness.started(store, session="ses_a"), await harness.started(store, session="ses_b")
        for lease, name in ((first, "ses_a"), (second, "ses_b")):
            text = f'"{name}"'
            await store.commit(
                lease,
                Commit(1, writes=(_write("plan", text, session=name),), messages=(_message(text, session=name),)),
            )
        for name in ("ses_a", "ses_b"):
            assert await store.session_value(name, "plan") == SessionValue(1, Payload(f'"{name}"'))
            assert [message.text.text for message in await store.messages(name)] == [f'"{name}"']
            assert [message.number for message in await store.messages(name)] == [1]

    async def _written(self, harness: Harness, store: Store, tenant: str, text: str) -> str:
        """A run of this tenant that wrote to the session and ended."""
        lease = await harness.started(store, tenant=tenant, session=SESSION)
        write = Commit(1, (), Succeeded(Payload("1")), writes=(_write("plan", text),), messages=(_message(text),))
        await store.commit(lease, write)
        return lease.run_id


def _write(
    key: str, text: str, *, expected: int | None = None, session: str = SESSION, step: str = "0/1"
) -> SessionWrite:
    return SessionWrite(session, key, Payload(text), step, expected)


def _message(text: str, role: str = "user", *, session: str = SESSION, step: str = "0/1") -> SessionMessage:
    return SessionMessage(session, role, Payload(text), step)
