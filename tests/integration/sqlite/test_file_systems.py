"""A store on a file system that is shared with other machines is refused before anything is made there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stepwell.domain.errors import StoreUnusable
from stepwell.stores.sqlite import files
from stepwell.stores.sqlite.store import SqliteStore
from tests.integration.sqlite.files import listing, make_store, refusal


def mounted(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system say that the folder is on such a file system."""
    device = os.stat(folder).st_dev
    table = folder.parent / "mountinfo"
    table.write_text(
        f"21 1 0:999 / /proc rw,relatime shared:1 - proc proc rw\n"
        f"30 1 {os.major(device)}:{os.minor(device)} / {folder} rw,noatime shared:2 - {kind} somewhere rw\n"
    )
    monkeypatch.setattr(files, "_MOUNTS", str(table))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "fuse.glusterfs"])
@pytest.mark.parametrize("name", ["data.db", "missing/folder/data.db"])
async def test_a_share_is_refused(place: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(place, kind, monkeypatch)
    error = await refusal(place / name)
    assert isinstance(error, StoreUnusable)
    assert error.code == "store.network"
    assert f"network file system ({kind})" in str(error)
    assert listing(place) == set()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse.lxcfs", "zfs"])
async def test_a_local_one_is_not(place: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(place, kind, monkeypatch)
    await make_store(place / "data.db")


async def test_where_the_system_does_not_say_the_store_is_opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOUNTS", str(place / "there is none"))
    await make_store(place / "data.db")


async def test_this_system_says_where_the_folder_is(place: Path) -> None:
    store = SqliteStore(str(place / "data.db"))
    await store.open()
    await store.close()
    if os.path.exists(files._MOUNTS):
        assert files._file_system(str(place)) != "proc"
