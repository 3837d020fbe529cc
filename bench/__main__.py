"""Interleaved rounds of the workloads, medians, spread and the ratio of each round to the ceiling's."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

PLAN = {
    "w1": ("runs/s, 500 submissions in flight", "w1", 10_000, 500),
    "w2@50": ("steps/s, 50 runs at once", "w2", 1_000, 50),
    "w2@1": ("steps/s, one run at a time", "w2", 60, 1),
    "w3": ("ms from start to first line, p50", "w3", 60, 1),
}
GOALS = {"w1": 0.12, "w2@50": 0.20, "w2@1": 0.60}
W3_SLACK_MS = 1.5


def measure(contestant: str, name: str, where: Path, scale: float) -> float:
    """One measurement in a process and a folder of its own."""
    _, workload, n, concurrency = PLAN[name]
    with tempfile.TemporaryDirectory(dir=where, prefix="bench-") as folder:
        command = [sys.executable, "-m", "bench.workloads", contestant, workload, folder]
        command += [str(max(20, int(n * scale))), str(concurrency)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    result = json.loads(done.stdout.splitlines()[-1])
    return float(result["p50_ms"] if workload == "w3" else result["per_second"])


@dataclass(frozen=True)
class Row:
    """One workload in one place: medians, the spread of ours, and the median of the rounds' ratios to the ceiling."""

    name: str
    where: str
    unit: str
    value: float
    low: float
    high: float
    raw: float
    ratio: float
    rounds: int

    @property
    def verdict(self) -> str:
        """Whether the goal is met."""
        if self.name in GOALS:
            return "ok" if self.ratio >= GOALS[self.name] else f"below {GOALS[self.name]:.0%}"
        return "ok" if self.value <= self.raw + W3_SLACK_MS else f"over +{W3_SLACK_MS} ms"

    def __str__(self) -> str:
        return (
            f"{self.name:6} {self.value:10,.2f}  [{self.low:,.2f} .. {self.high:,.2f}]  ceiling {self.raw:10,.2f}  "
            f"ratio {self.ratio:6.1%}  {self.verdict:10} {self.unit}  ({self.where})"
        )


def compare(name: str, where: Path, rounds: int, scale: float) -> Row:
    """Rounds of both contestants in turn."""
    pairs = [(measure("stepwell", name, where, scale), measure("ceiling", name, where, scale)) for _ in range(rounds)]
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ratio = statistics.median(a / b for a, b in pairs)
    value, raw = statistics.median(ours), statistics.median(theirs)
    return Row(name, str(where), PLAN[name][0], value, min(ours), max(ours), raw, ratio, rounds)


def main() -> int:
    """Print a line per workload and place; exit 1 when a goal is missed and `--check` was given."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(PLAN)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, one round")
    parser.add_argument("--json", action="store_true", help="one JSON line per workload and place")
    parser.add_argument("--where", action="append", type=Path, help="folders to measure in (default: tmpfs and disk)")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    options = parser.parse_args()
    if unknown := [name for name in options.workloads if name not in PLAN]:
        parser.error(f"unknown workload {unknown[0]!r}: choose from {', '.join(PLAN)}")
    places = options.where or [place for place in (Path("/dev/shm"), Path.cwd()) if place.is_dir()]
    missed = False
    for place in places:
        for name in options.workloads or PLAN:
            row = compare(name, place, 1 if options.quick else options.rounds, 0.1 if options.quick else 1)
            missed |= row.verdict != "ok"
            print(json.dumps(asdict(row)) if options.json else row, flush=True)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
