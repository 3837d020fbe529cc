"""Where the disks of these tests are: in memory where the machine offers that, as nothing here waits for a device."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_IN_MEMORY = "/dev/shm"


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that costs no wait for a device."""
    place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="stepwell-", dir=place) as name:
        yield Path(name)


# What needs another program is left to `make storm`, which fails without it: in `make test` nothing is skipped.
collect_ignore = [] if "STORM_SCALE" in os.environ else ["test_system_calls.py"]
