"""Runs many seeds, or replays one: `python -m tests.simulation --seeds 100000 --from 0`, `--replay 4711`.

A seed that fails is printed with what it breaks, the smallest plan that was found to break it too, and the trace of
that. The exit code is 1 then.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final, NamedTuple

from tests.simulation.plans import draw
from tests.simulation.shrinking import shrink
from tests.simulation.world import Result, simulate

_CHUNK: Final = 200


class Tally(NamedTuple):
    """What a number of seeds amounted to. `failed` are the seeds that broke a promise."""

    seeds: int = 0
    runs: int = 0
    faults: int = 0
    requests: int = 0
    turns: int = 0
    failed: tuple[int, ...] = ()

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.seeds + other.seeds,
            self.runs + other.runs,
            self.faults + other.faults,
            self.requests + other.requests,
            self.turns + other.turns,
            self.failed + other.failed,
        )

    def __str__(self) -> str:
        return (
            f"{self.seeds:,} seeds, {len(self.failed)} failed; {self.runs:,} runs, {self.faults:,} faults, "
            f"{self.requests:,} requests to the store, {self.turns:,} callbacks"
        )


def tally(first: int, count: int) -> Tally:
    """Simulate seeds one after the other."""
    total = Tally()
    for seed in range(first, first + count):
        result = simulate(draw(seed))
        failed = () if result.failure is None else (seed,)
        total = total.plus(Tally(1, result.runs, result.faults, result.requests, result.turns, failed))
    return total


def told(result: Result) -> str:
    """A failure for people: the seed, the promise, the smallest plan, what happened."""
    small = shrink(result)
    assert result.failure is not None
    assert small.failure is not None
    return "\n".join(
        [
            f"seed {result.plan.seed} breaks {result.failure.promise}: {result.failure.text}",
            f"again with: make simulate REPLAY={result.plan.seed}",
            "",
            f"the smallest plan that breaks it too ({len(small.plan.items)} of {len(result.plan.items)} items):",
            str(small.plan),
            "",
            *small.trace.lines(),
            f"{small.failure.promise}: {small.failure.text}",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them (default: 0)")
    parser.add_argument("--replay", type=int, help="only this one, with its whole trace")
    given = parser.parse_args()
    if given.replay is not None:
        return _replay(given.replay)
    return _many(given.first, given.seeds)


def _replay(seed: int) -> int:
    result = simulate(draw(seed))
    print(result.plan)
    print(*result.trace.lines(), sep="\n")
    print(f"{result.digest}: {result.turns} callbacks in {result.seconds:.1f} s of its own time")
    if result.failure is None:
        print("all promises were kept")
        return 0
    print(told(result))
    return 1


def _many(first: int, seeds: int) -> int:
    began, total = time.monotonic(), Tally()
    for part in _parts(first, seeds):
        total = total.plus(part)
        for seed in part.failed[:1]:
            print(told(simulate(draw(seed))))
        if total.seeds % 10_000 < part.seeds:
            print(f"{total} after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(total)
    if total.failed:
        print("failed:", *total.failed)
    return 1 if total.failed else 0


def _parts(first: int, seeds: int) -> Iterator[Tally]:
    """The seeds in parts, as many at once as there are processors."""
    starts = range(first, first + seeds, _CHUNK)
    counts = [min(_CHUNK, first + seeds - start) for start in starts]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(tally, starts, counts)


if __name__ == "__main__":
    sys.exit(main())
