"""The conformance suite: what every store must do, as tests to run against an adapter of your own.

    import pytest
    from stepwell.testing import conformance

    @pytest.fixture
    async def harness(tmp_path):
        harness = conformance.Harness(lambda clock: MyStore(tmp_path / "data", clock=clock))
        yield harness
        await harness.close()

    class TestSubmission(conformance.SubmissionContract): ...

and so on with each name below. `DurabilityContract` is for stores whose capabilities say `durable`, `SharingContract`
for those that say `shared`. For failures that show values, call
`pytest.register_assert_rewrite("stepwell.testing.conformance")` in your `conftest.py` before the import. The tests are
coroutines: pytest-asyncio in auto mode runs them. `machine.machine_for` gives a test case that drives a store at random
beside a pure model; it needs hypothesis.

Needs pytest, which nothing else in the package imports.
"""

from stepwell.testing.conformance.blobs import BlobContract
from stepwell.testing.conformance.claims import ClaimContract, DueContract
from stepwell.testing.conformance.commits import BatchContract, CommitContract, FenceContract
from stepwell.testing.conformance.durability import DurabilityContract
from stepwell.testing.conformance.harness import Harness
from stepwell.testing.conformance.hints import HintContract
from stepwell.testing.conformance.limits import LimitContract
from stepwell.testing.conformance.losses import LossContract
from stepwell.testing.conformance.reading import ListingContract, ReadingContract
from stepwell.testing.conformance.resuming import ResumeContract
from stepwell.testing.conformance.sharing import SharingContract
from stepwell.testing.conformance.submission import (
    FastPathContract,
    IdempotencyContract,
    QueueBoundContract,
    SubmissionContract,
)
from stepwell.testing.conformance.values import ValueContract
from stepwell.testing.conformance.workers import WorkerContract

__all__ = [
    "BatchContract",
    "BlobContract",
    "ClaimContract",
    "CommitContract",
    "DueContract",
    "DurabilityContract",
    "FastPathContract",
    "FenceContract",
    "Harness",
    "HintContract",
    "IdempotencyContract",
    "LimitContract",
    "ListingContract",
    "LossContract",
    "QueueBoundContract",
    "ReadingContract",
    "ResumeContract",
    "SharingContract",
    "SubmissionContract",
    "ValueContract",
    "WorkerContract",
]
