"""The figures of the reliability tests: one JSON file for each kind of run, written by the run itself.

    docs/reliability/figures/NAME.json

`make_reliability.py` makes the page of them. A test keeps its figures with `keep`, in the folder that the environment
variable FIGURES names; without it they are kept nowhere.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import apsw

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "reliability" / "figures"


@dataclass(frozen=True)
class Count:
    """How often something that must not happen did, in how many of what could have been hit: `n` of `of`."""

    what: str
    found: int
    n: int
    of: str

    @property
    def at_most(self) -> float | None:
        """With nothing found in n trials, the rate is below this with 95 % confidence (the rule of three)."""
        return 3 / self.n if self.found == 0 and self.n > 0 else None


@dataclass(frozen=True)
class Measure:
    """A measured value, and the promised bound where there is one."""

    what: str
    value: float
    unit: str = ""
    bound: float | None = None


@dataclass(frozen=True)
class Figures:
    """What one run of a layer came to. `size` says in words how large it was, `machine` what it ran on."""

    name: str
    command: str
    size: str
    counts: tuple[Count, ...]
    measures: tuple[Measure, ...] = ()
    on: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    machine: str = field(default_factory=lambda: machine())


def machine() -> str:
    """The machine in general words, and how busy it was with all that ran on it."""
    load = os.getloadavg()[2]
    return (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()},"
        f" SQLite {apsw.sqlite_lib_version()}; load average {load:.1f} at the end"
    )


def keep(figures: Figures) -> None:
    """Write the figures where the environment says, in place of those of an earlier run of that name."""
    if folder := os.environ.get("FIGURES"):
        write(figures, Path(folder))


def write(figures: Figures, folder: Path) -> None:
    """Write a file that `read` understands."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(figures), indent=2, ensure_ascii=False)
    (folder / f"{figures.name}.json").write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Iterator[Figures]:
    """The figures of every file, by name."""
    for path in sorted(folder.glob("*.json")):
        yield parsed(json.loads(path.read_text(encoding="utf-8")))


def parsed(data: Mapping[str, Any]) -> Figures:
    """Figures from the content of their file. Raises TypeError for a member that is missing or unknown."""
    counts = tuple(Count(**count) for count in data["counts"])
    measures = tuple(Measure(**measure) for measure in data["measures"])
    return Figures(**{**data, "counts": counts, "measures": measures})
