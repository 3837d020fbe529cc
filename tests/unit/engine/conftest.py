"""Every test starts with an outside world in which nothing has happened, and leaves no crash point armed."""

from collections.abc import Iterator

import pytest

from stepwell.ports import crash_point
from tests.unit.engine.samples import executed


@pytest.fixture(autouse=True)
def outside_world() -> Iterator[None]:
    executed.clear()
    yield
    crash_point.install(None)
