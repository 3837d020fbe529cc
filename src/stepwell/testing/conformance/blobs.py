"""What a store must do with bytes that lie beside the journal."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from stepwell.domain.errors import NotFound
from stepwell.testing.conformance.harness import Harness

_SIZES = [0, 1, 65_536, 300_000, 5_000_000]


class BlobContract:
    """Bytes are kept."""

    @pytest.mark.parametrize("size", _SIZES)
    async def test_bytes_come_back_as_they_went_in(self, harness: Harness, size: int) -> None:
        one, other = await harness.views()
        content = Random(size).randbytes(size)
        assert await other.get_blob(await one.put_blob(content)) == content

    async def test_every_byte_may_occur(self, harness: Harness) -> None:
        store = await harness.make()
        content = bytes(range(256)) * 3
        assert await store.get_blob(await store.put_blob(content)) == content

    async def test_the_name_depends_on_nothing_but_the_content(self, harness: Harness) -> None:
        one, other = await harness.views()
        contents = [b"", b"\x00", b"\x00\x00", b"a", b"A", b"a" * 300_000, b"a" * 300_001]
        names = [await one.put_blob(content) for content in contents]
        assert len(set(names)) == len(contents)
        assert [await other.put_blob(content) for content in contents] == names

    async def test_the_same_bytes_may_arrive_many_times_at_once(self, harness: Harness) -> None:
        views = await harness.views()
        content = Random(7).randbytes(200_000)
        names = await asyncio.gather(*(views[n % 2].put_blob(content) for n in range(8)))
        assert len(set(names)) == 1
        assert await views[0].get_blob(names[0]) == content

    async def test_an_unknown_name_is_not_found(self, harness: Harness) -> None:
        store = await harness.make()
        ref = await store.put_blob(b"known")
        for unknown in (ref[:-1], ref + "0", "", "%", "../" + ref):
            with pytest.raises(NotFound) as missing:
                await store.get_blob(unknown)
            assert missing.value.code == "blob.unknown"
