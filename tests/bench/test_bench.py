"""The bench works: each workload is measured beside its ceiling. That it is fast is for `make bench` to say, on a
quiet machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("workload", ["w1", "w2@50", "w2@1", "w3"])
def test_a_workload_is_measured_beside_its_ceiling(workload: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--json", "--where", str(tmp_path), workload]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["name"] == workload
    assert row["value"] > 0
    assert row["raw"] > 0
    assert row["ratio"] == pytest.approx(row["value"] / row["raw"])


def test_an_unknown_workload_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "w9"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "w9" in done.stderr
