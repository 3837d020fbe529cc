"""The checker can fail: transitions with one bug each, all of which it must find in the worlds of the suite."""

import pytest

from stepwell.domain import transitions
from tests.protocol.bugs import BUGS
from tests.protocol.explorer import Violation, explore
from tests.protocol.worlds import SMALL, lowered


def story_of(bug_name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the checker says of transitions with that bug."""
    bug = BUGS[bug_name]
    world = SMALL[bug.world]
    with lowered(world.bounds):
        monkeypatch.setattr(transitions, bug.target, bug.replacement)
        with pytest.raises(Violation) as caught:
            explore(world.make(world.bounds), at_most=1_000_000)
        monkeypatch.undo()
    return str(caught.value)


@pytest.mark.parametrize("name", BUGS)
def test_the_checker_finds_the_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BUGS[name].promise in story_of(name, monkeypatch).splitlines()[0]


def test_a_lost_wake_up_is_told_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    told = story_of("a park ignores what was read", monkeypatch).splitlines()
    happened = [line[6:].partition("|")[0].strip() for line in told[2:-1]]
    assert happened[:2] == ["the start", "a claim"]
    assert "the holder decides" in happened[2]
    assert "arrive" in happened[3] or "ann" in happened[3]
    assert "running, attempt 1" in told[4]
    assert told[-1] == f"then: {told[0]}"
