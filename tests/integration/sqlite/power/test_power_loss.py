"""The power fails at any moment of a workload: whatever the disk did with what was not synced, no promise is broken.

`POWER_SCALE` multiplies the number of workloads (`make power`).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random

import apsw
import pytest

from stepwell.stores.sqlite import connection, opening
from tests.integration.sqlite.power.scenario import states, survive, tell

SCALE = int(os.environ.get("POWER_SCALE", "1"))
CUTS = 40


@pytest.fixture(autouse=True)
def _small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints, and a log that begins anew, many times in a short workload."""
    monkeypatch.setattr("stepwell.stores.sqlite.connection.CHECKPOINT_PAGES", 60)
    monkeypatch.setattr("stepwell.stores.sqlite.connection.LARGEST_IDLE_WAL", 100_000)


@pytest.mark.parametrize("seed", range(2 * SCALE))
async def test_nothing_that_was_acknowledged_is_lost_and_nothing_is_half_done(folder: Path, seed: int) -> None:
    story = await tell(folder / "before" / "data.db", seed)
    assert not story.refusals
    found = states(story, folder / "between")
    verdicts = await survive(story, folder / "after", Random(seed), CUTS, found)
    assert len(verdicts) > CUTS
    assert [verdict for verdict in verdicts if not verdict.fine] == []


@pytest.mark.parametrize("seed", range(SCALE))
@pytest.mark.parametrize("has_links", [True, False], ids=["links", "no-links"])
async def test_a_store_that_was_being_made_can_be_opened(
    folder: Path, seed: int, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", _no_links)
    story = await tell(folder / "before" / "data.db", seed)
    made = min(promise.at for promise in story.promises)
    story = story._replace(log=story.log[:made], promises=[each for each in story.promises if each.at == made])
    verdicts = await survive(story, folder / "after", Random(seed), CUTS // 2, None)
    assert [verdict for verdict in verdicts if not verdict.fine] == []


def _no_links(source: str, target: str) -> None:
    raise OSError(errno.EPERM, "this file system knows no second names")


@pytest.mark.parametrize("seed", range(SCALE))
async def test_nothing_is_lost_when_a_sync_has_failed_before(folder: Path, seed: int) -> None:
    random = Random(seed)
    codes: set[str] = set()
    for nth in range(3):
        story = await tell(folder / f"before-{nth}" / "data.db", seed, fail_sync=random.randint(10, 40))
        codes |= {refusal.code for refusal in story.refusals}  # none when it was a sync of a checkpoint: it comes again
        verdicts = await survive(story, folder / "after", random, CUTS // 3, None)
        assert [verdict for verdict in verdicts if not verdict.fine] == []
    assert codes == {"store.io_error"}


@pytest.mark.parametrize("seed", range(SCALE))
async def test_a_store_that_does_not_wait_for_the_disk_is_caught(
    folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carelessly(opened: apsw.Connection, path: str, *, synchronous: str) -> connection.Checkpoints:
        return connection.settle(opened, path, synchronous="normal")

    monkeypatch.setattr(opening, "settle", carelessly)
    story = await tell(folder / "before" / "data.db", seed)
    verdicts = await survive(story, folder / "after", Random(seed), CUTS, None)
    assert sum(bool(verdict.lost) for verdict in verdicts) > CUTS / 10
    assert [verdict for verdict in verdicts if verdict.damage] == []
