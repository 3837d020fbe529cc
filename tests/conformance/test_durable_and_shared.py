"""What only stores promise that outlive a process or serve several of them."""

import pytest

from stepwell.testing import conformance
from tests.conformance.stores import SHARED

every_shared_store = pytest.mark.parametrize("harness", SHARED, indirect=True)


@every_shared_store
class TestDurability(conformance.DurabilityContract): ...


@every_shared_store
class TestDurableWait(conformance.DurableWaitContract): ...


@every_shared_store
class TestSharing(conformance.SharingContract): ...
