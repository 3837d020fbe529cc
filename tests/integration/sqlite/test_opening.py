"""Opening the file: what is made, with which settings, and what is refused untouched."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from stepwell.domain.errors import StoreError, StoreFull, StoreUnavailable, StoreUnusable
from stepwell.ports.store import WorkerInfo
from stepwell.stores.sqlite import connection, schema
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.testing.conformance import Harness
from tests.integration.sqlite.files import ask, change, fingerprint, listing, make_store, refusal


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestWhatIsMade:
    async def test_the_file_and_what_lies_beside_it_are_the_owners_alone(self, store: SqliteStore, path: Path) -> None:
        worker = await Harness(lambda _: store).worker(store)
        beside = [path, Path(f"{path}-wal"), Path(f"{path}-shm"), Path(f"{path}-workers") / f"{worker}.lock"]
        assert [mode(file) for file in beside] == [0o600] * 4
        assert mode(Path(f"{path}-workers")) == 0o700

    async def test_missing_folders_are_made_for_the_owner_alone(self, tmp_path: Path) -> None:
        await make_store(tmp_path / "project" / "deep" / "data.db")
        assert mode(tmp_path / "project") == mode(tmp_path / "project" / "deep") == 0o700

    async def test_a_folder_that_exists_keeps_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / "open").mkdir(mode=0o755)
        await make_store(tmp_path / "open" / "data.db")
        assert mode(tmp_path / "open") == 0o755

    async def test_the_folder_of_the_default_place_is_kept_out_of_version_control(self, tmp_path: Path) -> None:
        await make_store(tmp_path / ".stepwell" / "stepwell.db")
        assert (tmp_path / ".stepwell" / ".gitignore").read_text() == "*\n"

    async def test_a_folder_of_that_name_that_exists_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / ".stepwell").mkdir()
        await make_store(tmp_path / ".stepwell" / "stepwell.db")
        assert listing(tmp_path) == {".stepwell", ".stepwell/stepwell.db"}

    async def test_a_closed_store_is_one_file(self, path: Path) -> None:
        await make_store(path)
        assert listing(path.parent) == {"data.db"}

    async def test_the_file_says_whose_it_is_and_how_old(self, path: Path) -> None:
        await make_store(path)
        assert ask(path, "PRAGMA application_id") == schema.APPLICATION_ID
        assert ask(path, "PRAGMA user_version") == schema.latest()
        assert ask(path, "SELECT checksum FROM migration ORDER BY version") == [
            step.checksum for step in schema.migrations()
        ]
        assert len(str(ask(path, "SELECT value FROM meta WHERE key = 'generation'"))) == 32

    async def test_two_stores_differ_in_their_generation(self, tmp_path: Path) -> None:
        await make_store(tmp_path / "one.db")
        await make_store(tmp_path / "two.db")
        generation = "SELECT value FROM meta WHERE key = 'generation'"
        assert ask(tmp_path / "one.db", generation) != ask(tmp_path / "two.db", generation)

    async def test_opening_again_applies_nothing(self, path: Path) -> None:
        await make_store(path)
        applied = ask(path, "SELECT applied_at FROM migration")
        harness = Harness(lambda clock: SqliteStore(str(path), clock=clock))
        harness.clock.advance(60)
        await harness.make()
        await harness.close()
        assert ask(path, "SELECT applied_at FROM migration") == applied

    async def test_an_empty_file_is_filled(self, path: Path) -> None:
        path.touch()
        await make_store(path)
        assert ask(path, "SELECT count(*) FROM run") == 3

    async def test_twenty_may_open_a_new_file_at_once(self, path: Path) -> None:
        stores = [SqliteStore(str(path)) for _ in range(20)]
        await asyncio.gather(*(store.open() for store in stores))
        run = await Harness(lambda _: stores[0]).submit(stores[0])
        assert [(await store.get(run.id)).id for store in stores] == [run.id] * 20
        await asyncio.gather(*(store.close() for store in stores))
        assert listing(path.parent) == {"data.db"}
        assert ask(path, "SELECT count(*) FROM migration") == len(schema.migrations())

    async def test_a_file_system_without_second_names_still_gets_a_store(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def link(source: str, target: str) -> None:
            raise PermissionError(1, "Operation not permitted", target)

        monkeypatch.setattr(os, "link", link)
        await make_store(path)
        assert listing(path.parent) == {"data.db"}
        assert mode(path) == 0o600

    async def test_a_relative_path_through_a_link_is_the_same_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        monkeypatch.chdir(tmp_path)
        assert SqliteStore("link/data.db").path == str(tmp_path / "real" / "data.db")


class TestSettings:
    async def test_a_connection_is_made_fit_for_writing(self, path: Path) -> None:
        await make_store(path)
        writing = connection.connect(str(path))
        connection.settle(writing, str(path), synchronous="full")
        assert writing.pragma("journal_mode") == "wal"
        assert writing.pragma("synchronous") == 2
        assert writing.pragma("mmap_size") == 0
        assert writing.pragma("temp_store") == 2
        writing.close()

    async def test_the_writer_waits_for_the_disk(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        settle = connection.settle

        def note(opened: apsw.Connection, where: str, *, synchronous: str) -> connection.Checkpoints:
            asked.append(synchronous)
            return settle(opened, where, synchronous=synchronous)

        monkeypatch.setattr("stepwell.stores.sqlite.opening.settle", note)
        await make_store(path)
        assert set(asked) == {"full"}

    async def test_readers_cannot_write(self, store: SqliteStore, path: Path) -> None:
        reader = connection.connect_reader(str(path))
        with pytest.raises(apsw.ReadOnlyError):
            reader.execute("DELETE FROM run")
        reader.close()

    async def test_an_old_sqlite_is_refused(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
        error = await refusal(path)
        assert isinstance(error, StoreUnusable)
        assert error.code == "store.old_sqlite"
        assert "3.51.3" in str(error)
        assert listing(path.parent) == set()

    async def test_a_file_system_without_a_log_is_refused(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = apsw.Connection.pragma

        def pragma(self: apsw.Connection, name: str, value: object = None) -> object:
            if (name, value) == ("journal_mode", "wal"):
                return "delete"
            return plain(self, name) if value is None else plain(self, name, value)

        monkeypatch.setattr(apsw, "Connection", type("Stub", (apsw.Connection,), {"pragma": pragma}))
        error = await refusal(path)
        assert isinstance(error, StoreUnusable)
        assert error.code == "store.no_wal"
        assert listing(path.parent) == set()


def _newer(path: Path) -> None:
    change(path, "PRAGMA user_version = 7")


def _other_application(path: Path) -> None:
    change(path, "PRAGMA application_id = 1234")


def _foreign_database(path: Path) -> None:
    path.unlink()
    foreign = apsw.Connection(str(path))
    foreign.execute("CREATE TABLE notes (text)")
    foreign.close()


def _changed_migration(path: Path) -> None:
    change(path, "UPDATE migration SET checksum = 'other'")


def _unknown_migration(path: Path) -> None:
    change(path, "INSERT INTO migration VALUES (0, 'unknown', 'sum', 0)")


def _garbage(path: Path) -> None:
    path.write_bytes(b"these are my notes, not a database" * 100)


def _short_garbage(path: Path) -> None:
    path.write_bytes(b"hello")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:8192])


def _damaged_schema(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:140] = os.urandom(40)
    path.write_bytes(content)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("harm", "code"),
        [
            (_newer, "store.newer_schema"),
            (_other_application, "store.not_a_store"),
            (_foreign_database, "store.not_a_store"),
            (_changed_migration, "store.changed_migration"),
            (_unknown_migration, "store.changed_migration"),
            (_garbage, "store.not_a_store"),
            (_short_garbage, "store.not_a_store"),
            (_truncated, "store.damaged"),
            (_damaged_schema, "store.damaged"),
        ],
    )
    async def test_a_file_that_must_not_be_touched(self, harm: object, code: str, path: Path) -> None:
        assert callable(harm)
        await make_store(path)
        harm(path)
        before = fingerprint(path)
        error = await refusal(path)
        assert isinstance(error, StoreUnusable)
        assert error.code == code
        assert str(path) in error.message
        assert error.hint
        assert fingerprint(path) == before
        assert listing(path.parent) == {"data.db"}

    async def test_a_newer_schema_is_named(self, path: Path) -> None:
        await make_store(path)
        _newer(path)
        assert f"schema 7; this one knows {schema.latest()}" in str(await refusal(path))

    async def test_a_refused_file_keeps_its_log(self, path: Path) -> None:
        """What a crashed process of a newer version left in the log is for that version to take over."""
        await make_store(path)
        newer = connection.connect(str(path))
        newer.execute("PRAGMA user_version = 7")
        crashed = path.with_name("crashed.db")
        for ending in ("", "-wal"):
            Path(f"{crashed}{ending}").write_bytes(Path(f"{path}{ending}").read_bytes())
        newer.close()
        before = fingerprint(crashed), fingerprint(Path(f"{crashed}-wal"))
        error = await refusal(crashed)
        assert isinstance(error, StoreUnusable)
        assert (fingerprint(crashed), fingerprint(Path(f"{crashed}-wal"))) == before

    async def test_an_emptied_file_with_a_log_is_not_taken_for_a_new_one(self, path: Path) -> None:
        path.touch()
        Path(f"{path}-wal").write_bytes(b"frames")
        error = await refusal(path)
        assert isinstance(error, StoreUnusable)
        assert error.code == "store.damaged"
        assert path.stat().st_size == 0

    async def test_a_folder_is_no_store(self, path: Path) -> None:
        path.mkdir()
        error = await refusal(path)
        assert isinstance(error, StoreUnusable)
        assert "it is a folder" in str(error)

    async def test_a_pipe_is_no_store(self, path: Path) -> None:
        os.mkfifo(path)
        error = await refusal(path)
        assert isinstance(error, StoreUnusable)
        assert "not a regular file" in str(error)

    async def test_a_file_in_the_way_of_a_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "notes").write_text("mine")
        error = await refusal(tmp_path / "notes" / "data.db")
        assert isinstance(error, StoreUnavailable)
        assert error.code == "store.place"
        assert not error.retryable
        assert (tmp_path / "notes").read_text() == "mine"

    async def test_a_failed_opening_leaves_no_folder_and_no_thread(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise apsw.FullError("database or disk is full")

        threads = threading.active_count()
        monkeypatch.setattr(schema, "migrate", fail)
        error = await refusal(tmp_path / "a" / ".stepwell" / "data.db")
        assert isinstance(error, StoreUnavailable)
        assert error.code == "store.full"
        assert listing(tmp_path) == set()
        assert threading.active_count() == threads

    async def test_an_interrupted_migration_leaves_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path.touch()

        def fail(*_: object) -> None:
            raise StoreError("interrupted")

        monkeypatch.setattr(schema, "_before_commit", fail)
        assert str(await refusal(path)) == "interrupted"
        assert ask(path, "SELECT count(*) FROM sqlite_schema") == 0


AS_NOBODY = """
import asyncio, os, sys
from stepwell.domain.errors import StoreError
from stepwell.stores.sqlite import schema
from stepwell.stores.sqlite.store import SqliteStore

async def main() -> None:
    schema.migrations()
    if os.getuid() == 0:  # from here on, what was not imported yet may be out of reach
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    store = SqliteStore(sys.argv[1])
    try:
        await store.open()
    except StoreError as error:
        print(error.code, error.retryable)
        print(error)
    else:
        await store.close()
        print("opened")

asyncio.run(main())
"""


def open_as_nobody(path: Path) -> str:
    """What a process prints that opens the store without any rights of the superuser."""
    command = [sys.executable, "-c", AS_NOBODY, str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def readable(tmp_path: Path) -> Path:
    """A folder that anybody may enter and nobody but the superuser may write to."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    for parent in tmp_path.parents[: len(tmp_path.parents) - 2]:
        if parent.stat().st_uid == os.getuid():
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    return folder


class TestPlacesThatCannotBeWritten:
    def test_a_new_store_in_a_read_only_folder(self, readable: Path) -> None:
        readable.chmod(0o555)
        printed = open_as_nobody(readable / "data.db")
        assert printed.startswith("store.read_only False\n")
        assert str(readable / "data.db") in printed
        assert listing(readable) == set()

    async def test_a_store_in_a_read_only_folder(self, readable: Path) -> None:
        await make_store(readable / "data.db")
        (readable / "data.db").chmod(0o666)
        readable.chmod(0o555)
        assert open_as_nobody(readable / "data.db").startswith("store.read_only False\n")

    async def test_a_read_only_file(self, readable: Path) -> None:
        await make_store(readable / "data.db")
        (readable / "data.db").chmod(0o444)
        readable.chmod(0o777)
        before = fingerprint(readable / "data.db")
        assert open_as_nobody(readable / "data.db").startswith("store.read_only False\n")
        assert fingerprint(readable / "data.db") == before

    async def test_a_file_that_may_not_even_be_read(self, readable: Path) -> None:
        await make_store(readable / "data.db")
        (readable / "data.db").chmod(0o000)
        readable.chmod(0o777)
        assert open_as_nobody(readable / "data.db").startswith("store.read_only False\n")


class TestUseAtTheWrongTime:
    async def test_before_opening_and_after_closing(self, path: Path) -> None:
        store = SqliteStore(str(path))
        harness = Harness(lambda _: store)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="is not open") as raised:
                await store.get("run_1")
            assert raised.value.code == "store.closed"
            with pytest.raises(StoreUnavailable, match="is not open"):
                store.heartbeat("wrk_1", lease_seconds=30)
            await store.open()
            await harness.submit(store)
            await store.close()

    async def test_opening_and_closing_twice_is_fine(self, path: Path) -> None:
        store = SqliteStore(str(path))
        threads = threading.active_count()
        await asyncio.gather(store.open(), store.open())
        await store.open()
        assert threading.active_count() == threads + 1
        await asyncio.gather(store.close(), store.close())
        await store.close()
        assert threading.active_count() == threads

    async def test_a_file_that_was_deleted_under_the_store(
        self, store: SqliteStore, harness: Harness, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await harness.submit(store)
        monkeypatch.setattr("stepwell.stores.sqlite.transactions._STILL_THERE_EVERY", -1.0)
        path.unlink()
        with pytest.raises(StoreUnusable, match="deleted or replaced") as raised:
            await harness.submit(store)
        assert raised.value.code == "store.moved"

    async def test_a_file_that_was_replaced_under_the_store(
        self, store: SqliteStore, harness: Harness, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stepwell.stores.sqlite.transactions._STILL_THERE_EVERY", -1.0)
        path.with_name("copy.db").write_bytes(path.read_bytes())
        os.replace(path.with_name("copy.db"), path)
        with pytest.raises(StoreUnusable, match="deleted or replaced"):
            await harness.submit(store)

    async def test_a_forked_child_is_told_not_to_use_the_store(self, store: SqliteStore, harness: Harness) -> None:
        worker = await harness.worker(store)
        run = await harness.submit(store)
        outcome = _in_a_forked_child(store)
        assert outcome == ["store.forked", "store.forked", "no proof held"]
        assert (await store.get(run.id)).id == run.id
        assert [info.id for info in await store.workers()] == [worker]


def _in_a_forked_child(store: SqliteStore) -> list[str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, "\n".join(_what_a_child_sees(store)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        seen = pipe.read().split("\n")
    assert os.waitpid(child, 0)[1] == 0
    return seen


def _what_a_child_sees(store: SqliteStore) -> list[str]:
    seen = []
    try:
        store.stats()
    except StoreError as error:
        seen.append(error.code)
    again = SqliteStore(store.path)
    try:
        again.open().send(None)
    except StoreError as error:
        seen.append(error.code)
    held = [name for name in os.listdir("/proc/self/fd") if _target(name).endswith(".lock")]
    return [*seen, "no proof held" if not held else str(held)]


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


async def test_a_worker_that_finds_no_room_for_its_lock_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(str(tmp_path / "full.db"))
    await store.open()

    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", no_room)
    with pytest.raises(StoreFull):
        await store.open_worker(WorkerInfo("wrk_1", "host", 1, 1, 0), lease_seconds=30)
    monkeypatch.undo()
    await store.close()


async def test_a_migration_that_this_code_does_not_know_yet_is_a_newer_schema(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    store = SqliteStore(str(path))
    await store.open()
    await store.close()
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO migration (version, name, checksum, applied_at) VALUES (99, 'future', 'x', 0)")
    connection.close()
    with pytest.raises(StoreUnusable) as refused:
        await SqliteStore(str(path)).open()
    assert refused.value.code == "store.newer_schema"
