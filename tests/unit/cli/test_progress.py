"""Progress: a line for each step, told once, whether a step report or an event tells it first."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import click
import pytest

from stepwell.cli import progress as progress_module
from stepwell.cli.progress import LiveProgress, Progress, make_progress
from stepwell.cli.terminal import WAITS
from stepwell.domain.event import Event, to_micros
from stepwell.engine.report import StepReport

AT = datetime(2026, 11, 21, tzinfo=UTC)


def report(status: Any, step: str = "0/1", name: str = "greet", **more: Any) -> StepReport:
    return StepReport("run_x", step, name, status, **more)


def event(kind: str, step: str | None = None, **data: Any) -> Event:
    return Event(1, kind, AT, "run_x", "ses_x", "hello", None, None, step, data)


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [click.unstyle(line).rstrip() for line in captured.err.splitlines()]


def test_each_kind_of_step_report_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.on_step(report("started"))
    progress.on_step(report("done", ms=0.3))
    progress.on_step(report("remembered", "0/2", "think"))
    progress.on_step(report("retrying", "0/3", "fetch", error="refused", retry_in=2.0))
    progress.on_step(report("failed", "0/3", "fetch", error="refused"))
    assert told(capsys) == [
        "  ✓ greet     0.3 ms",
        "  ↺ think     remembered",
        "  ⟳ fetch     retrying in 2.0 s: refused",
        "  ✗ fetch     refused",
    ]


def test_events_tell_what_other_processes_do(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    error = {"code": "step.error", "message": "refused", "type": "OSError"}
    progress.on_event(event("step.completed", "0/1", name="greet", ms=12.0))
    progress.on_event(event("step.failed", "0/2", name="fetch", error=error, retry_at=1))
    progress.on_event(event("step.failed", "0/2", name="fetch", error=error))
    progress.on_event(event("run.retrying", attempt=1, error=error, available_at=to_micros(AT) + 2_000_000))
    progress.on_event(event("artifact.saved", name="report.md", size=2150))
    progress.on_event(event("custom.halfway", percent=50))
    progress.on_event(event("run.lost", attempt=1, worker="wrk_x", losses=1))
    progress.on_event(event("run.started", attempt=2, fence=2, worker="wrk_y"))
    assert told(capsys) == [
        "  ✓ greet     12 ms",
        "  ✗ fetch     OSError: refused",
        "  ⟳ attempt 1 retrying in 2.0 s: OSError: refused",
        "  • report.md artifact, 2.1 KiB",
        '  • halfway   {"percent": 50}',
        "  • the process that executed it died",
    ]


@pytest.mark.parametrize("report_first", [True, False])
def test_a_step_is_told_once(capsys: pytest.CaptureFixture[str], report_first: bool) -> None:
    progress = Progress()
    if report_first:
        progress.on_step(report("done", ms=1.0))
    progress.on_event(event("step.completed", "0/1", name="greet", ms=1.0))
    progress.on_step(report("done", ms=1.0))
    assert len(told(capsys)) == 1


def test_a_failure_is_told_again_in_the_next_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    error = {"code": "step.error", "message": "refused"}
    progress.on_step(report("failed", error="refused"))
    progress.on_event(event("step.failed", "0/1", name="greet", error=error))
    progress.on_event(event("run.retrying", attempt=1, error=error, available_at=to_micros(AT)))
    progress.on_step(report("failed", error="refused"))
    assert [line[2] for line in told(capsys)] == ["✗", "⟳", "✗"]


def test_a_step_with_a_key_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.on_step(report("done", "inspect:click", "inspect", ms=1.0))
    assert told(capsys) == ["  ✓ inspect click 1.0 ms"]


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True)
    progress.on_step(report("done", ms=1.0))
    assert told(capsys) == []


def test_what_an_agent_logs_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_has_handlers", lambda: False)
    with Progress():
        logging.getLogger("stepwell.run").info("looking at %s", "a")
        logging.getLogger("stepwell.engine").warning("lost")
        logging.getLogger("stepwell.engine").error("broke off", exc_info=ValueError("why"))
        logging.getLogger("stepwell.engine").debug("never shown")
    logging.getLogger("stepwell.run").info("after the run")
    assert told(capsys) == ["  • looking at a", "  • warning: lost", "  • error: broke off (ValueError: why)"]


def test_who_has_set_up_logging_keeps_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_has_handlers", lambda: True)
    with Progress():
        logging.getLogger("stepwell.run").info("looking")
    assert told(capsys) == []


def test_without_a_terminal_progress_is_plain() -> None:
    assert type(make_progress()) is Progress


def test_without_rich_progress_is_plain_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "rich.live", None)
    assert type(make_progress()) is Progress


def test_on_a_terminal_steps_under_way_are_shown_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    live = make_progress()
    assert isinstance(live, LiveProgress)
    for n in range(9):
        live.on_step(report("started", f"0/{n}", f"step{n}"))
    live.on_step(report("done", "0/0", "step0", ms=1.0))
    shown = str(live._picture()).splitlines()
    assert len(shown) == 7
    assert "step1" in shown[0]
    assert shown[-1].strip() == "and 2 more"


def test_steps_of_a_continued_run_are_told_behind_the_way_in_which_it_came_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress()
    progress.await_claim()
    progress.on_step(report("remembered"))
    assert told(capsys) == []
    progress.on_event(event("run.lost", attempt=1, worker="wrk_x", losses=1))
    progress.on_event(event("run.started", attempt=2, fence=2, worker="wrk_y"))
    progress.on_step(report("remembered", "0/2", "think"))
    assert told(capsys) == [
        "  • the process that executed it died",
        "  ↺ greet     remembered",
        "  ↺ think     remembered",
    ]


def test_steps_that_were_kept_back_are_told_at_the_latest_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.await_claim()
        progress.on_step(report("remembered"))
    assert told(capsys) == ["  ↺ greet     remembered"]


def test_a_step_that_was_done_before_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().on_event(event("step.completed", "0/1", name="greet", ms=1.0), is_past=True)
    assert told(capsys) == ["  ↺ greet     remembered"]


def test_a_process_without_stderr_has_plain_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    progress = make_progress()
    assert type(progress) is Progress
    progress.on_step(report("done", ms=1.0))


def test_waits_are_told_when_they_begin_and_when_something_comes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    soon, later = to_micros(AT) + 500_000, to_micros(AT) + 5_000_000
    wait = {"wait": "w_1", "name": "go"}
    progress.on_event(event("wait.opened", "0/1", wait="0/1", type="time", name="sleep", until=soon))
    progress.on_event(event("wait.opened", "0/2", **wait, type="signal"))
    progress.on_event(event("signal.received", None, signal="s", name="go", value=1))
    progress.on_event(event("wait.closed", "0/2", wait="w_1", outcome="received", signal="s"))
    progress.on_event(event("wait.opened", "0/3", wait="q_1", type="question", name="Sure?", schema={}))
    progress.on_event(event("wait.closed", "0/3", wait="q_1", outcome="answered", by="ada", value=True))
    progress.on_event(event("wait.closed", "0/4", wait="w_2", outcome="timed_out"))
    assert told(capsys) == [
        "  … waits     for signal go",
        "  • signal    go",
        "  ✓ answered  by ada",
        "  • waited    nothing came in time",
    ]
    progress.on_event(event("wait.opened", "0/1", wait="0/1", type="time", name="sleep", until=later))
    [line] = told(capsys)
    assert line.startswith("  … waits     until ")


def test_children_are_told_with_how_they_ended(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.on_event(event("child.started", "0/1", child="run_abcdefgh", agent="helper", mode="call", digest="d"))
    progress.on_event(event("child.ended", "0/1", child="run_abcdefgh", status="succeeded"))
    progress.on_event(event("child.ended", "0/2", child="run_stuvwxyz", status="failed"))
    assert told(capsys) == [
        "  • helper    started as run …cdefgh",
        "  ✓ run …cdefgh succeeded",
        "  ✗ run …uvwxyz failed",
    ]


def test_what_happened_before_is_not_waited_for_again(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.on_event(event("wait.opened", "0/2", wait="w_1", type="signal", name="go"), is_past=True)
    progress.on_event(event("child.started", "0/1", child="run_abcdefgh", agent="helper"), is_past=True)
    progress.on_event(event("text.delta", None, stream="0/1", text="a\n", attempt=1), is_past=True)
    assert told(capsys) == []


def test_streamed_text_is_told_in_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.on_event(event("text.delta", None, stream="0/1", text="Hello, ", attempt=1))
        assert told(capsys) == []
        progress.on_event(event("text.delta", None, stream="0/1", text="Ada\nand", attempt=1))
        assert told(capsys) == ["  │ Hello, Ada"]
        progress.on_event(event("text.completed", "0/1", stream="0/1", length=14))
        assert told(capsys) == ["  │ and"]
        progress.on_event(event("text.delta", None, stream="0/2", text="the rest", attempt=1))
    assert told(capsys) == ["  │ the rest"]


def test_text_that_an_attempt_shows_again_is_not_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.on_event(event("text.delta", None, stream="0/1", text="one\n", attempt=1))
    progress.on_event(event("text.delta", None, stream="0/1", text="one\ntwo\n", attempt=2))
    assert told(capsys) == ["  │ one", "  │ two"]


def test_nothing_is_written_while_a_person_types(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with progress.quietly():
        progress.on_step(report("done", ms=1.0))
        assert told(capsys) == []
    assert told(capsys) == ["  ✓ greet     1.0 ms"]


def test_on_a_terminal_nothing_is_drawn_while_a_person_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    live = make_progress()
    assert isinstance(live, LiveProgress)
    with live:
        drawn = [live._live.is_started]
        with live.quietly():
            drawn.append(live._live.is_started)
        drawn.append(live._live.is_started)
    assert drawn == [True, False, True]


def test_lines_between_the_others_are_indented_below_their_first(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().tell(WAITS, ["one", "two"])
    assert told(capsys) == ["  … one", "    two"]
