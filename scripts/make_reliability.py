"""Writes RELIABILITY.md from the figures that the tests kept. With --check it only tells whether it is out of date.

    python -m scripts.make_reliability [--check]

The words stand here; every figure comes from a file in docs/reliability/figures, which a run wrote.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from scripts.figures import FOLDER, ROOT, Count, Figures, Measure, read

PAGE: Final = ROOT / "RELIABILITY.md"
PROLOGUE: Final = (
    "<!-- Written by scripts/make_reliability.py from docs/reliability/figures: change those, then run it again. -->"
)

PROMISE: Final = """# Reliability

What Stepwell promises when processes die, stop, come late or lose their disk; how each promise is tested; and what the
last long runs of those tests have found. The tests are part of the checkout: [run them yourself](#run-it-yourself).

## What is promised

- A run whose submission was acknowledged is never lost, and comes to an end.
- The result of a step is recorded at most once. A step that is recorded is not executed again for its run.
- A worker that has lost its run changes nothing any more, whatever it still believes.
- An effect outside the store happens at least once, and at most once more for each fault that hits that very step. What
  is in doubt is settled as the step declares: it runs again, it is looked up, a person is asked, or the run is held.
- The events of a run are numbered without gap or duplicate, and its status changes together with its events.
- A run that a crash interrupts goes on with another worker at once; where a worker merely stopped answering, after its
  lease. A run that loses three workers in a row without progress, or twenty leases in all, is given up as dead, and
  says so.

The README has them all, [with their numbers](README.md#what-it-promises). No run is ever promised to be executed only
once: the code between steps runs again after every interruption.

## How it is tested

Each layer looks for what the others cannot reach. What checks is checked too: bugs planted in the product, or
violations in the evidence, must be found, as tests of the suite. A [register](tests/protocol/mutants.py) names twelve
ways to break the protocol of leases, and for each the test that finds it.
"""

LAYERS: Final = (
    (
        "Conformance",
        "the contract of a store, test by test, on every store; and dozens of stores with one bug each",
        "tests/conformance",
    ),
    (
        "Every state of the protocol",
        "the transitions that the stores really call, with expiry, kill, cancel, pause and arrival at any moment; and"
        " dozens of protocols with one bug each",
        "tests/protocol",
    ),
    (
        "Simulation",
        "engine and store in one seeded world: crashes at any point, pauses, jumps of the clock, failing writes; a seed"
        " that fails can be run again",
        "tests/simulation",
    ),
    (
        "Kills at every boundary",
        "a process is killed, stopped, slowed down or failed at each named point that engine and store pass",
        "tests/acceptance/crashes",
    ),
    (
        "Power loss and failing disks",
        "every write and sync of a workload is the last one, is torn, or fails",
        "tests/integration/sqlite/power",
    ),
    (
        "Crash storms",
        "worker processes over one file are killed, stopped and locked out while clients submit; then everything is"
        " counted",
        "tests/acceptance/storm",
    ),
    (
        "Poison",
        "runs that end their process, among hundreds that do not: the former are given up, none of the latter",
        "tests/acceptance/poison",
    ),
    (
        "Zombies",
        "workers that are stopped until others have their runs, and then go on",
        "tests/acceptance/zombies",
    ),
    (
        "Clocks",
        "the wall clock jumps while leases and timers run, in a process of its own whose clock is faked",
        "tests/acceptance/clock",
    ),
    (
        "Histories",
        "what concurrent clients saw, with answers that got lost, is checked for an order in which it makes sense",
        "tests/acceptance/histories",
    ),
)

FAULTS: Final = """
The [list of faults](docs/reliability/faults.md) goes the other way: what can go wrong, what Stepwell does then, and the
test that shows it.

### A storm

A few worker processes, each executing one run at a time, share one file. Two clients submit runs, each with an
idempotency key, and again on any error. Every step of a run leaves a line in a file outside the store, works for a
moment, and is recorded. A fault comes every quarter of a second, by a seed: 65 of 100 kill a worker, which is replaced;
25 stop one for a lease and a half, some of them in the middle of a write; 10 have a stranger hold the store's write
lock for a quarter of a lease. Triggers in the database keep every step and every end that the store accepts, with the
fence that it was written with, in tables of their own, and note every fact that is changed or removed afterwards. Then
every promise is held against the file, the lines and what the clients were told.

The journal's word for it that a lease had run out, or that a worker had died, excuses nothing. Whenever a run was taken
from its holder, that very worker must have been killed before, or stopped within the last lease; or for at least half
of that lease nobody could write, or the machine came late. An effect may be repeated only in a step in which a run was
lost in that way, or given back for such a reason.

Two things are not the product's and are taken out of the times: those in which a process that wants nothing but a short
sleep and a few bytes on the disk came late, because the machine was busy; and those in which a stopped worker held the
file's write lock, which blocks every writer until it goes on or is killed. The first has a bound, since the product
makes load too. When more than a quarter of the storm was late, or of the times in which runs made no progress, no time
is judged, and the figures say so: a long storm fails then, as every storm does when more than half was late. What must
not happen is always judged.

The storm spares two kinds of workers: one lives through all of it, to show what a long life costs; and none is killed
with a run that has just lost two workers in a row, since losing the third is what ends a run by rule. A kill or a stop
waits until as many workers are at work as there should be.
"""

FOUND: Final = """## Figures

Every figure below was written by a run of the tests. Nothing found in n trials does not mean that there is nothing: it
means, with 95 % confidence, that the rate is below 3/n (the rule of three). That is the last column.
"""

NOTHING_YET: Final = "No figures were kept yet."

REST: Final = """## Run it yourself

Any Linux machine with Python 3.11 and make will do; two cores are enough.

```console no-run
$ make test                      # every layer, short: five storms, a build without the fence, and all the rest
$ make proof TIMES=20            # these layers alone, short, twenty times in a row
$ make storm                     # every layer that has a long form, among them storm-night
$ make storm STORM=release       # a storm until 3,000 faults have happened
$ FIGURES=docs/reliability/figures make storm      # the same, and keep the figures
$ python -m scripts.make_reliability               # write this page again from them
```

A storm prints what it did and found. A storm that fails says which promise is broken, and by which runs.

## What is not shown

- All of this is about one machine and one file, with SQLite as the store. There is no second machine, no network and no
  other database yet, and so no figure about them.
- Killing a process does not test the disk: what was written is still in the memory of the system. Power loss is
  simulated, with a disk that forgets what was not synced and tears sectors. No real power supply was cut, and a disk
  that lies about having synced is beyond the reach of any database.
- A stopped process that holds the write lock of the file blocks all other writers, for as long as it is stopped. They
  wait for 30 s and are then refused with `store.busy`, which may be tried again; leases run out meanwhile, and runs go
  on when the process does or is killed. Nothing is lost, but nothing moves either, and no bound of time above covers
  it: whoever stops processes, with a debugger or a frozen container, should end them instead.
- The bounds of time hold on a machine that has time: see above for what is not counted, and when none is judged. With a
  lease of one second, as in the short storms, an overloaded machine loses leases; the default is 30 seconds.
- Storms, simulations and histories draw from what chance brings. They bound the rate of what they look for under their
  own faults and workloads, and say nothing about others. The check of every state covers worlds of a few runs and
  workers completely, and no larger ones.
- Nothing here says how often a fault happens where you run it.
"""


def page(figures: Iterable[Figures]) -> str:
    """The whole page."""
    parts = [PROLOGUE, PROMISE, layers(), FAULTS, FOUND, *(told(each) for each in figures), REST]
    if len(parts) == 6:
        parts.insert(5, NOTHING_YET)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def layers() -> str:
    """What tests what, and where it stands."""
    rows = [(f"[{name}]({where})", what) for name, what, where in LAYERS]
    return table(("Layer", "What it does"), rows)


def told(figures: Figures) -> str:
    """The figures of one run."""
    parts = [f"### {figures.name}", f"{figures.size}.\n\n{figures.on}; {figures.machine}. Run by `{figures.command}`."]
    if figures.counts:
        parts.append(table(("What must not happen", "Found", "In", "Below, with 95 %"), map(count_row, figures.counts)))
    if figures.measures:
        parts.append(table(("Measured", "Value", "Promised at most"), map(measure_row, figures.measures)))
    return "\n\n".join(parts)


def count_row(count: Count) -> tuple[str, ...]:
    """A count, and what finding nothing tells about the rate."""
    bound = "" if count.at_most is None else f"{100 * count.at_most:.2g} %"
    return count.what, f"**{count.found:,}**", f"{count.n:,} {count.of}", bound


def measure_row(measure: Measure) -> tuple[str, ...]:
    """A measured value, and its bound."""
    bound = "" if measure.bound is None else quantity(measure.bound, measure.unit)
    return measure.what, quantity(measure.value, measure.unit), bound


def quantity(value: float, unit: str) -> str:
    """A value with its unit."""
    text = f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{text} {unit}".strip()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def main(arguments: Sequence[str], *, folder: Path = FOLDER, to: Path = PAGE) -> int:
    """Write the page, or compare it. 1 when it is out of date."""
    text = page(read(folder))
    if "--check" not in arguments:
        to.write_text(text, encoding="utf-8")
    elif not to.exists() or to.read_text(encoding="utf-8") != text:
        print(f"{to.name} is out of date; write it again with: python -m scripts.make_reliability", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
