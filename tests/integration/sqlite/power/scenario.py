"""Power cuts in the middle of a workload: what happened until then, what may be found, and what must be."""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple
from unittest import mock

from stepwell.domain.errors import StoreError
from stepwell.stores.sqlite import doubt
from tests.integration.sqlite.power.judgement import Verdict, digest_of_all, judge
from tests.integration.sqlite.power.power_cut import Surface
from tests.integration.sqlite.power.recording_disk import Change, RecordingDisk
from tests.integration.sqlite.power.workload import Acknowledged, Workload

MOVES: Final = 60
_INDEX_SIZES: Final = (None, 0, 32_768, 65_536)


class Story(NamedTuple):
    """A workload that ran to its end, and closed its store. `path` is where that was."""

    path: Path
    log: Sequence[Change]
    promises: Sequence[Acknowledged]
    refusals: Sequence[StoreError]


class State(NamedTuple):
    """What the database held (`digest_of_all`) when a commit was to be synced at this position of the log."""

    position: int
    digest: str


async def tell(path: Path, seed: int, *, fail_sync: int = 0) -> Story:
    """Run the workload of that seed on a recording disk, with a store at the path."""
    disk = RecordingDisk(fail_sync)
    workload = Workload(lambda clock: disk.store(str(path), clock=clock), seed, position=lambda: disk.position)
    path.parent.mkdir()

    def sync_folder(folder: str) -> None:
        disk.log.append(Change("sync_folder", 0, folder))

    with mock.patch.object(doubt, "sync_folder", sync_folder):  # the one sync after the beginning that is not SQLite's
        await workload.run(MOVES)
        await workload.close()
    return Story(path, disk.log, workload.acknowledged, workload.refusals)


def states(story: Story, folder: Path) -> list[State]:
    """What each commit left, with all that came before it: the only things that may ever be found."""
    surface = Surface(story.log)
    found: list[State] = []
    for position, change in enumerate(story.log):
        is_commit = change.kind == "sync" and change.path == f"{story.path}-wal"
        if is_commit or (change.kind == "name" and change.path == str(story.path)):
            surface.advance(position if is_commit else position + 1)
            lay_out(surface.kept(), story.path, folder)
            found.append(State(position, digest_of_all(folder / story.path.name)))
    return found


def possible(found: Sequence[State], promises: Sequence[Acknowledged], position: int) -> set[str]:
    """What may be found after a cut: the last promised state, a later one, or the commit that was on its way."""
    promised = max((promise.at for promise in promises if promise.at <= position), default=0)
    first = max(bisect_left(found, (promised,)) - 1, 0)
    last = bisect_left(found, (position,))
    return {state.digest for state in found[first : last + 1]}


def cuts(story: Story, random: Random, number: int) -> list[int]:
    """Positions for power cuts, in order: anywhere, right after promises, and around changes of the main file."""
    told = [promise.at for promise in story.promises]
    beside = [n for n, change in enumerate(story.log) if not (change.kind == "write" and change.path.endswith("-wal"))]
    chosen = []
    for _ in range(number):
        match random.randrange(4):
            case 0:
                chosen.append(random.choice(told))
            case 1:
                chosen.append(random.choice(beside) + random.randint(0, 1))
            case _:
                chosen.append(random.randint(0, len(story.log)))
    return sorted(chosen)


async def survive(
    story: Story, folder: Path, random: Random, number: int, found: Sequence[State] | None
) -> list[Verdict]:
    """Cut the power that often and judge what is left; every tenth time it fails again while that is being used.

    Without `found` only promises and integrity are judged.
    """
    surface = Surface(story.log)
    verdicts = []
    for nth, position in enumerate(cuts(story, random, number)):
        surface.advance(position)
        lay_out(surface.left(random), story.path, folder, random)
        promises = [promise for promise in story.promises if promise.at <= position]
        legitimate = None if found is None else possible(found, story.promises, position)
        again = RecordingDisk()
        again.find(str(file) for file in folder.iterdir() if not file.name.endswith("-shm"))
        beginning = again.position
        path = folder / story.path.name
        verdict = await judge(path, promises, vfs=again.name, legitimate=legitimate)
        verdicts.append(verdict)
        if nth % 10 == 0 and verdict.fine:
            second = Surface(again.log)
            second.advance(random.randint(beginning, again.position))
            lay_out(second.left(random), path, folder, random)
            verdicts.append(await judge(path, promises, day=2))
    return verdicts


def lay_out(files: Mapping[str, bytes], path: Path, folder: Path, random: Random | None = None) -> None:
    """Put the files into an empty folder, under the names that they had beside `path`.

    The log's index is never synced: with `random` it is missing, or there and full of anything.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / Path(name).name).write_bytes(content)
    size = random.choice(_INDEX_SIZES) if random is not None else None
    if size is not None and random is not None and str(path) in files:
        (folder / f"{path.name}-shm").write_bytes(random.randbytes(size))
