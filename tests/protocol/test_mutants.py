"""Twelve ways to break the protocol, each caught by a layer that is named."""

from pathlib import Path

import pytest

from stepwell.domain.errors import StepwellError
from stepwell.testing.conformance import Harness
from tests.checkout import ROOT
from tests.conformance.stores import maker
from tests.protocol.bugs import BUGS
from tests.protocol.mutants import MUTANTS, Check

PLANTED = [(name, store) for name, mutant in MUTANTS.items() if mutant.check for store in mutant.check.stores]


def test_every_mutant_has_a_layer_that_catches_it() -> None:
    assert len(MUTANTS) == 12
    for mutant in MUTANTS.values():
        assert mutant.check or mutant.bug or mutant.elsewhere
        assert mutant.bug is None or mutant.bug in BUGS  # the checker has a test for each of its bugs


@pytest.mark.parametrize(("name", "store"), PLANTED)
async def test_a_store_with_the_mutant_fails_where_the_real_one_passes(
    name: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant = MUTANTS[name]
    assert mutant.plant is not None
    check = mutant.check
    assert isinstance(check, Check)
    await check.run(harness_in(store, tmp_path / "real"))
    mutant.plant(monkeypatch)
    with pytest.raises((AssertionError, StepwellError, pytest.fail.Exception)):
        await check.run(harness_in(store, tmp_path / "mutant"))


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.elsewhere])
def test_a_mutant_that_another_layer_plants_is_planted_there(name: str) -> None:
    elsewhere = MUTANTS[name].elsewhere
    assert elsewhere is not None
    file, test = elsewhere
    assert f"def {test}(" in (ROOT / file).read_text()


def harness_in(store: str, folder: Path) -> Harness:
    """A harness over a store of its own."""
    folder.mkdir()
    return Harness(maker(store, folder))
