"""The names of `stepwell.testing`: reachable, documented, and loaded when they are used."""

import json
import subprocess
import sys

import pytest

from stepwell import testing


def test_every_name_resolves_and_explains_itself() -> None:
    assert [name for name in testing.__all__ if not (getattr(testing, name).__doc__ or "").strip()] == []


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'runtimes'"):
        _ = testing.runtimes


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import json, sys; from stepwell import testing; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert "stepwell.testing" in loaded
    assert [name for name in loaded if name.partition(".")[0] in ("asyncio", "pydantic", "pytest", "apsw")] == []


def test_pytest_takes_none_of_it_for_a_test() -> None:
    assert [name for name in testing.__all__ if name.startswith("Test") and getattr(testing, name).__test__] == []
