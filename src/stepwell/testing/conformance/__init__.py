"""The conformance suite: what every store must do, as tests to run against an adapter of your own.

    import pytest
    from stepwell.testing import conformance

    @pytest.fixture
    async def harness(tmp_path):
        harness = conformance.Harness(lambda clock: MyStore(tmp_path / "data", clock=clock))
        yield harness
        await harness.close()

    class TestSubmission(conformance.SubmissionContract): ...

and so on with each name below. `DurabilityContract` and `DurableWaitContract` are for stores whose capabilities say
`durable`, `SharingContract` for those that say `shared`. For failures that show values, call
`pytest.register_assert_rewrite("stepwell.testing.conformance")` in your `conftest.py` before the import. The tests are
coroutines: pytest-asyncio in auto mode runs them. `machine.machine_for` gives a test case that drives a store at random
beside a pure model; it needs hypothesis. `schedules.play` and `lane_schedules.play_lanes` play a schedule of bytes,
drawn by whatever you draw them with, and check that no arrival is lost and no lane is overcrowded.

Needs pytest, which nothing else in the package imports.
"""

from stepwell.testing.conformance.blobs import BlobContract
from stepwell.testing.conformance.cancelling import CancelContract, ControlContract, DiscardContract
from stepwell.testing.conformance.children import CascadeContract, ChildContract, ChildEndContract, FanInContract
from stepwell.testing.conformance.claims import ClaimContract, DueContract
from stepwell.testing.conformance.commits import BatchContract, CommitContract, FenceContract
from stepwell.testing.conformance.durability import DurabilityContract, DurableWaitContract
from stepwell.testing.conformance.harness import Harness
from stepwell.testing.conformance.hints import HintContract
from stepwell.testing.conformance.lanes import (
    LaneCapacityContract,
    LaneContract,
    LaneOrderContract,
    LaneReleaseContract,
)
from stepwell.testing.conformance.limits import LimitContract
from stepwell.testing.conformance.losses import ChargingContract, LossContract
from stepwell.testing.conformance.parking import JoinContract, ParkingContract, WaitContract
from stepwell.testing.conformance.pausing import PauseContract, PauseTreeContract
from stepwell.testing.conformance.questions import InboxContract, QuestionContract
from stepwell.testing.conformance.reading import ListingContract, ReadingContract
from stepwell.testing.conformance.resuming import ResumeContract
from stepwell.testing.conformance.session_lanes import BusyContract, SessionLaneContract
from stepwell.testing.conformance.sessions import (
    MessageContract,
    SessionListContract,
    SessionPrivacyContract,
    SessionValueContract,
)
from stepwell.testing.conformance.set_back import SetBackContract
from stepwell.testing.conformance.sharing import SharingContract
from stepwell.testing.conformance.signals import (
    ArrivalContract,
    DuplicateSignalContract,
    KeptSignalContract,
    SignalContract,
)
from stepwell.testing.conformance.storms import StormContract
from stepwell.testing.conformance.submission import (
    FastPathContract,
    IdempotencyContract,
    QueueBoundContract,
    SubmissionContract,
)
from stepwell.testing.conformance.suspects import SuspectContract
from stepwell.testing.conformance.turns import (
    GivenUpTurnContract,
    LostTurnContract,
    NewcomerContract,
    TurnContract,
)
from stepwell.testing.conformance.values import ValueContract
from stepwell.testing.conformance.workers import WorkerContract

__all__ = [
    "ArrivalContract",
    "BatchContract",
    "BlobContract",
    "BusyContract",
    "CancelContract",
    "CascadeContract",
    "ChargingContract",
    "ChildContract",
    "ChildEndContract",
    "ClaimContract",
    "CommitContract",
    "ControlContract",
    "DiscardContract",
    "DueContract",
    "DuplicateSignalContract",
    "DurabilityContract",
    "DurableWaitContract",
    "FanInContract",
    "FastPathContract",
    "FenceContract",
    "GivenUpTurnContract",
    "Harness",
    "HintContract",
    "IdempotencyContract",
    "InboxContract",
    "JoinContract",
    "KeptSignalContract",
    "LaneCapacityContract",
    "LaneContract",
    "LaneOrderContract",
    "LaneReleaseContract",
    "LimitContract",
    "ListingContract",
    "LossContract",
    "LostTurnContract",
    "MessageContract",
    "NewcomerContract",
    "ParkingContract",
    "PauseContract",
    "PauseTreeContract",
    "QuestionContract",
    "QueueBoundContract",
    "ReadingContract",
    "ResumeContract",
    "SessionLaneContract",
    "SessionListContract",
    "SessionPrivacyContract",
    "SessionValueContract",
    "SetBackContract",
    "SharingContract",
    "SignalContract",
    "StormContract",
    "SubmissionContract",
    "SuspectContract",
    "TurnContract",
    "ValueContract",
    "WaitContract",
    "WorkerContract",
]
