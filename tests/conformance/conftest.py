"""A harness for every store, and failures of the shipped suite that show their values."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("stepwell.testing.conformance")

from stepwell.testing.conformance import Harness  # noqa: E402  (the rewriting must come first)
from tests.conformance.stores import URLS, maker  # noqa: E402


@pytest.fixture(params=URLS)
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    """A harness over each store in turn."""
    harness = Harness(maker(request.param, tmp_path))
    yield harness
    await harness.close()
