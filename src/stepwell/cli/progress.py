"""Progress of a run, for people, on stderr: a line for each step that is done, remembered, failed or tried again.

What an agent logs stands between them, unless its module has set up logging. What this process executes is told at
once by the runtime's step reports; what another process does, by the run's events. Both name the step, so nothing is
told twice. With rich and a terminal the steps that are under way are shown below, and vanish when they end.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import click

from stepwell.cli.terminal import (
    DONE,
    FAILED,
    NOTE,
    REMEMBERED,
    RETRYING,
    TEXT,
    WAITS,
    dim,
    duration,
    mark,
    one_line,
    say,
    short,
    size,
)
from stepwell.cli.waits import wait_text
from stepwell.domain import event
from stepwell.domain.run import SUCCEEDED
from stepwell.domain.wait import ANSWERED, QUESTION, TIME, TIMED_OUT
from stepwell.runtime import TextJoin

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from stepwell.domain.event import Event
    from stepwell.runtime import StepReport

_logger: Final = logging.getLogger("stepwell")
_NARROWEST: Final = 9
_WIDEST: Final = 40
_SHOWN_RUNNING: Final = 6
_MOMENT: Final = 1_000_000
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """Lines of progress; none when `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._log: logging.Handler | None = None
        self._width = _NARROWEST
        self._told: set[tuple[str, str]] = set()
        self._kept_back: list[StepReport] | None = None
        self._kept_lines: list[str] | None = None
        self._text = TextJoin()
        self._unfinished = ""

    def __enter__(self) -> Self:
        if not self._quiet and not _has_handlers():
            self._log = _LogLines(self)
            _logger.addHandler(self._log)
            _logger.setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim_told()
        self._end_text()
        if self._log is not None:
            _logger.removeHandler(self._log)
            _logger.setLevel(logging.NOTSET)

    def await_claim(self) -> None:
        """Keep step reports back until the journal has told how the run came to this process: they would be ahead of
        it.
        """
        self._kept_back = []

    def _claim_told(self) -> None:
        kept, self._kept_back = self._kept_back or (), None
        for report in kept:
            self._tell_step(report)

    def on_step(self, report: StepReport) -> None:
        """What a step does in this process."""
        if self._kept_back is not None:
            self._kept_back.append(report)
        else:
            self._tell_step(report)

    def _tell_step(self, report: StepReport) -> None:
        label = _label(report.name, report.step)
        match report.status:
            case "done":
                self._once(report.step, DONE, label, duration(report.ms or 0))
            case "remembered":
                self._once(report.step, REMEMBERED, label, dim("remembered"))
            case "failed":
                self._once(report.step, FAILED, label, one_line(report.error or "", 160))
            case "retrying":
                self._line(RETRYING, label, _retrying(report.retry_in, report.error or ""))

    def on_event(self, told: Event, *, is_past: bool = False) -> None:
        """What the run's journal says: the steps of other processes, and what no step report tells. What is past was
        done before, and is remembered.
        """
        data = told.data
        match told.kind:
            case event.STEP_COMPLETED if is_past:
                self._once(told.step or "", REMEMBERED, _label(data["name"], told.step), dim("remembered"))
            case event.STEP_COMPLETED:
                self._once(told.step or "", DONE, _label(data["name"], told.step), duration(data.get("ms", 0)))
            case event.STEP_FAILED if "retry_at" not in data:
                self._once(told.step or "", FAILED, _label(data["name"], told.step), _message(data))
            case event.RUN_RETRYING:
                self._told = {(step, kind) for step, kind in self._told if kind != FAILED}
                delay = (data["available_at"] - event.to_micros(told.at)) / 1_000_000
                self._line(RETRYING, f"attempt {data['attempt']}", _retrying(delay, _message(data)))
            case event.RUN_STARTED | event.RUN_RESUMED:
                self._claim_told()
            case event.RUN_LOST:
                self._write(f"  {mark(NOTE)} the process that executed it died")
            case event.WAIT_OPENED | event.WAIT_CLOSED | event.SIGNAL_RECEIVED if not is_past:
                self._tell_wait(told)
            case event.CHILD_STARTED if not is_past:
                self._line(NOTE, data["agent"], f"started as run {short(data['child'])}")
            case event.CHILD_ENDED if not is_past:
                kind = DONE if data["status"] == SUCCEEDED else FAILED
                self._line(kind, f"run {short(data['child'])}", str(data["status"]))
            case event.TEXT_DELTA if not is_past:
                for part in self._text.feed(data["stream"], data["text"], data["attempt"]):
                    self._stream(part)
            case event.TEXT_COMPLETED:
                self._end_text()
            case event.ARTIFACT_SAVED:
                self._line(NOTE, data["name"], dim(f"artifact, {size(data['size'])}"))
            case kind if kind.startswith(event.CUSTOM):
                self._line(NOTE, kind.removeprefix(event.CUSTOM), dim(_data(data)))

    def _tell_wait(self, told: Event) -> None:
        """What the run waits for, once the wait is more than a moment; and what came of it."""
        data = told.data
        match told.kind:
            case event.SIGNAL_RECEIVED:
                self._line(NOTE, "signal", data["name"])
            case event.WAIT_OPENED if data["type"] == TIME:
                if data["until"] - event.to_micros(told.at) >= _MOMENT:
                    self._line(WAITS, "waits", wait_text(data))
            case event.WAIT_OPENED if data["type"] != QUESTION:  # a question is asked by whoever follows the run
                self._line(WAITS, "waits", wait_text(data))
            case event.WAIT_CLOSED if data["outcome"] == ANSWERED:
                self._line(DONE, "answered", f"by {data['by']}")
            case event.WAIT_CLOSED if data["outcome"] == TIMED_OUT:
                self._line(NOTE, "waited", "nothing came in time")

    def tell(self, kind: str, lines: Sequence[str]) -> None:
        """Some lines between the others: a mark before the first, the rest indented."""
        for number, line in enumerate(lines):
            self._write(f"    {line}" if number else f"  {mark(kind)} {line}")

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Keep every line back meanwhile: a person is typing."""
        self._end_text()
        self._kept_lines = []
        try:
            yield
        finally:
            kept, self._kept_lines = self._kept_lines, None
            for line in kept:
                self._write(line)

    def _stream(self, part: str) -> None:
        """Streamed text: whole lines as they come, the rest when it is complete."""
        *lines, self._unfinished = (self._unfinished + part).split("\n")
        for line in lines:
            self._write(f"  {mark(TEXT)} {line}")

    def _end_text(self) -> None:
        rest, self._unfinished = self._unfinished, ""
        if rest:
            self._write(f"  {mark(TEXT)} {rest}")

    def on_log(self, record: logging.LogRecord) -> None:
        """What the agent logs, or the engine."""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        cause = record.exc_info[1] if record.exc_info else None
        more = "" if cause is None else f" ({type(cause).__name__}: {cause})"
        self._write(f"  {mark(NOTE)} {level}{record.getMessage()}{more}")

    def _once(self, step: str, kind: str, label: str, detail: str) -> None:
        group = FAILED if kind == FAILED else DONE
        if (step, group) in self._told:
            return
        self._told.add((step, group))
        self._line(kind, label, detail)

    def _line(self, kind: str, label: str, detail: str) -> None:
        self._width = min(_WIDEST, max(self._width, len(label)))
        self._write(f"  {mark(kind)} {label.ljust(self._width)} {detail}".rstrip())

    def _write(self, line: str) -> None:
        if self._kept_lines is not None:
            self._kept_lines.append(line)
        elif not self._quiet:
            self._print(line)

    def _print(self, line: str) -> None:
        say(line)


class LiveProgress(Progress):
    """The same lines, and below them the steps that are under way."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self._running: dict[str, tuple[str, float]] = {}
        self._console = Console(stderr=True, highlight=False)
        self._live: Live = Live(
            console=self._console,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._picture,
        )

    def __enter__(self) -> Self:
        self._live.start()
        self._console.show_cursor(True)  # a process that is killed could not bring it back
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._live.stop()

    def on_step(self, report: StepReport) -> None:
        """What a step does in this process."""
        if report.status == "started":
            self._running[report.step] = (_label(report.name, report.step), time.monotonic())
        else:
            self._running.pop(report.step, None)
        super().on_step(report)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Keep every line back, and draw nothing."""
        with super().quietly():
            self._live.stop()
            try:
                yield
            finally:
                self._live.start()
                self._console.show_cursor(True)

    def _print(self, line: str) -> None:
        from rich.text import Text

        self._live.refresh()  # so that a step that has ended is not drawn once more below its line
        self._console.print(Text.from_ansi(line), soft_wrap=True)

    def _picture(self) -> RenderableType:
        from rich.text import Text

        now = time.monotonic()
        frame = _SPINNER[int(now * 8) % len(_SPINNER)]
        running = list(self._running.values())
        lines = [
            f"  {frame} {label.ljust(self._width)} {duration((now - began) * 1000)}"
            for label, began in running[:_SHOWN_RUNNING]
        ]
        if len(running) > _SHOWN_RUNNING:
            lines.append(f"    and {len(running) - _SHOWN_RUNNING} more")
        return Text("\n".join(lines), style="dim")


class _LogLines(logging.Handler):
    """Writes what is logged between the lines of progress."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.on_log(record)


def _has_handlers() -> bool:
    """Whether the user's code has set up logging: then it is left alone."""
    return _logger.hasHandlers()


def make_progress() -> Progress:
    """The liveliest progress that stderr can show."""
    if sys.stderr is not None and sys.stderr.isatty():  # none where the process was started without it
        with suppress(ImportError):  # rich comes with the extra `cli`
            return LiveProgress()
    return Progress()


def _label(name: str, step: str | None) -> str:
    """The step's name, and its key where it has one."""
    key = (step or "").partition(":")[2]
    return one_line(f"{name} {key}" if key and key != name else name, _WIDEST)


def _retrying(delay: float | None, message: str) -> str:
    when = "retrying" if delay is None or delay < 0.05 else f"retrying in {duration(delay * 1000)}"
    return f"{click.style(when, fg='yellow')}: {one_line(message, 160)}"


def _message(data: Any) -> str:
    error = data["error"]
    kind = f"{error['type']}: " if error.get("type") else ""
    return one_line(f"{kind}{error['message']}", 160)


def _data(data: Any) -> str:
    return "" if not data else one_line(json.dumps(data, ensure_ascii=False), 80)
