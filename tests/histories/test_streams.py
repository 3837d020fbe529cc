"""What readers of events are given, made by hand."""

from __future__ import annotations

import pytest

from tests.histories.streams import StreamBroken, Visit, check_streams, check_whole

EVENTS = tuple((number, f"step.completed {number}") for number in range(1, 5))
END = (5, "run.succeeded x")
DISCARDED = (6, "run.discarded y")


def visit(after: int, *events: tuple[int, str], ended: bool = False, reader: str = "r") -> Visit:
    return Visit(reader, "run", after, events, ended)


RIGHT = {
    "all at once": [visit(0, *EVENTS, END, ended=True)],
    "in parts": [visit(0, *EVENTS[:2]), visit(2), visit(2, *EVENTS[2:]), visit(4, END), visit(5, ended=True)],
    "two readers": [visit(0, *EVENTS[:3]), visit(0, *EVENTS[:1], reader="s"), visit(3, EVENTS[3])],
    "told after the end": [visit(0, *EVENTS, END, DISCARDED, ended=True)],
}
WRONG = {
    "a gap": [visit(0, EVENTS[0], EVENTS[2])],
    "a gap at a reconnect": [visit(0, *EVENTS[:2]), visit(2, EVENTS[3])],
    "one twice": [visit(0, EVENTS[0], EVENTS[0])],
    "one twice at a reconnect": [visit(0, *EVENTS[:2]), visit(2, *EVENTS[1:])],
    "out of order": [visit(0, EVENTS[1], EVENTS[0])],
    "another under the same number": [visit(0, *EVENTS), visit(0, (1, "step.failed z"), reader="s")],
    "the first one missing": [visit(0, *EVENTS[1:])],
    "the end of the stream before that of the run": [visit(0, *EVENTS, ended=True)],
    "two ends": [visit(0, *EVENTS, END, (6, "run.failed x"), ended=True)],
    "life after the end": [visit(0, *EVENTS, END, (6, "step.completed x"), ended=True)],
    "a reader that lost its place": [visit(0, *EVENTS[:2]), visit(1, EVENTS[1])],
}


@pytest.mark.parametrize("visits", RIGHT.values(), ids=RIGHT)
def test_readers_get_every_event_once(visits: list[Visit]) -> None:
    check_streams(visits)


@pytest.mark.parametrize("visits", WRONG.values(), ids=WRONG)
def test_a_reader_that_does_not_is_noticed(visits: list[Visit]) -> None:
    with pytest.raises(StreamBroken):
        check_streams(visits)


def test_a_stream_that_ends_too_early_is_noticed() -> None:
    followed = [visit(0, *EVENTS, END, ended=True)]
    check_whole(followed, {"run": 5})
    check_whole(followed, {"run": 6})
    with pytest.raises(StreamBroken, match="5 of 8 events"):
        check_whole(followed, {"run": 8})
