"""Writes docs/reference/ from docstrings, help texts and the source. With --check it only tells what is out of date.

    python scripts/make_reference.py [--check]

What stands there is said once, in the code. The only words of its own are the meanings of event kinds and settings.
"""

import ast
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

import stepwell
from stepwell import config
from stepwell.app import DEFAULT_CHILDREN, DEFAULT_TIMEOUT, DEFAULT_VERSION
from stepwell.cli.root import stepwell as program
from stepwell.domain import errors, event, run, wait
from stepwell.domain.retry import Retry
from stepwell.engine import attempt, checks, children, heartbeat, waits
from stepwell.engine.defaults import DRAIN, LEASE_SECONDS
from stepwell.engine.report import StepReport
from stepwell.runtime import Agents, Questions, Queues, Runs, Sessions, Workers
from stepwell.runtime.composition import CAPACITY

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "reference"
PACKAGE: Final = ROOT / "src" / "stepwell"
WIDTH: Final = 96

PROLOGUE: Final = "<!-- Written by scripts/make_reference.py: change what it is made from, then run `make docs`. -->"


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or compare them. 1 when a page is out of date."""
    pages = {
        "python.md": python_page(),
        "cli.md": cli_page(),
        "errors.md": errors_page(),
        "events.md": events_page(),
        "settings.md": settings_page(),
    }
    if "--check" in arguments:
        stale = [name for name, text in pages.items() if read(FOLDER / name) != text]
        for name in stale:
            print(f"docs/reference/{name} is out of date; write it again with: make docs", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


def read(path: Path) -> str:
    """The text of a page; nothing when there is none yet."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def page(title: str, introduction: str, *parts: str) -> str:
    """A page under its title."""
    return "\n\n".join([PROLOGUE, f"# {title}", introduction, *parts]).rstrip() + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)])


# ---------------------------------------------------------------- the Python surface

GROUPS: Final = {
    "Declaring agents": "App Agent Limit",
    "Inside a run": "Context StepContext RunInfo Session SessionState Message ChildRun ChildResult",
    "Running them": "Runtime Runs StepReport run_sync Run RunResult Artifact Event RunStatus ErrorInfo TextPart",
    "Questions": "Question Questions",
    "Looking at a store": ("Sessions StoredSession StoredState Agents AgentInfo Workers WorkerInfo Queues LaneInfo"),
    "Policies": "Retry Fail NotExecuted",
    "Errors": "",
}
MADE_BY_USERS: Final = ("App", "Limit", "Runtime", "Retry", "Fail")
# Not for importing: what `runtime.runs` and its like are, and what `on_step` is given.
REACHED: Final = {
    "Runs": Runs,
    "Questions": Questions,
    "Sessions": Sessions,
    "Agents": Agents,
    "Workers": Workers,
    "Queues": Queues,
    "StepReport": StepReport,
}


def python_page() -> str:
    """Every public name with its signatures and what its docstring says."""
    grouped = {title: names.split() for title, names in GROUPS.items()}
    placed = {name for names in grouped.values() for name in names}
    grouped["Errors"] = sorted((name for name in stepwell.__all__ if name not in placed), key=_place_in_errors)
    parts = []
    for title, names in grouped.items():
        parts.append(f"## {title}")
        for name in names:
            parts += entries(name, REACHED.get(name) or getattr(stepwell, name))
    introduction = (
        "Everything that `from stepwell import …` offers. Durations are seconds or `timedelta`; times are aware UTC. "
        "[Errors by code](errors.md) has a page of its own."
    )
    return page("Python", introduction, *parts)


def _place_in_errors(name: str) -> int:
    return list(vars(errors)).index(name)


def entries(name: str, value: Any) -> Iterator[str]:
    """A heading, signatures and text for a public name, and the same for its public members."""
    yield f"### {name}"
    if inspect.isclass(value):
        yield from _class_entries(name, value)
    elif inspect.isfunction(value):
        yield signatures(value.__name__, value)
        yield text_of(value)
    else:
        yield f"One of {', '.join(f'`{status}`' for status in typing.get_args(value))}."


def _class_entries(name: str, kind: type[Any]) -> Iterator[str]:
    if shown := _constructor(name, kind):
        yield shown
    yield text_of(kind)
    if facts := _properties(kind):
        yield facts
    for member, value in vars(kind).items():
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if not member.startswith("_") and inspect.isfunction(function):
            yield f"#### {name}.{member}"
            yield signatures(member, function)
            yield text_of(function)


def _constructor(name: str, kind: type[Any]) -> str:
    return signatures(name, vars(kind)["__init__"], constructor=True) if name in MADE_BY_USERS else ""


def _properties(kind: type[Any]) -> str:
    lines = []
    for name, value in vars(kind).items():
        if not name.startswith("_") and isinstance(value, property) and value.fget is not None:
            told = " ".join(inspect.cleandoc(value.__doc__ or "").split())
            kind_of = _annotation(inspect.signature(value.fget).return_annotation)
            lines.append(f"- `{name}: {kind_of}` - {told}")
    is_record = is_dataclass(kind) or issubclass(kind, tuple)
    if not lines and kind.__name__ not in MADE_BY_USERS:
        for name, annotation in kind.__annotations__.items() if is_record else ():
            if not name.startswith("_"):
                lines.append(f"- `{name}: {_annotation(annotation)}`")
    return "\n".join(lines)


def text_of(value: Any) -> str:
    """The docstring as it stands."""
    return inspect.cleandoc(value.__doc__ or "").strip()


def signatures(name: str, function: Callable[..., Any], *, constructor: bool = False) -> str:
    """The signature, or each of its overloads, as code."""
    found = typing.get_overloads(function) or [function]
    shown = [_signature(name, overload, constructor) for overload in found]
    return "```py\n" + "\n".join(dict.fromkeys(shown)) + "\n```"


def _signature(name: str, function: Callable[..., Any], constructor: bool) -> str:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    words = list(_parameter_words(parameters))
    head = "class" if constructor else "async def" if inspect.iscoroutinefunction(function) else "def"
    tail = "" if constructor else f" -> {_annotation(signature.return_annotation)}"
    line = f"{head} {name}({', '.join(words)}){tail}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{head} {name}(", *(f"    {word}," for word in words), f"){tail}"])


def _parameter_words(parameters: Sequence[inspect.Parameter]) -> Iterator[str]:
    before: inspect.Parameter | None = None
    for parameter in parameters:
        if before is not None and before.kind is before.POSITIONAL_ONLY and parameter.kind is not before.kind:
            yield "/"
        starts_keywords = parameter.kind is parameter.KEYWORD_ONLY
        if starts_keywords and (before is None or before.kind not in (before.KEYWORD_ONLY, before.VAR_POSITIONAL)):
            yield "*"
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        default = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
        annotated = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
        yield f"{stars}{parameter.name}{annotated}{default}"
        before = parameter
    if before is not None and before.kind is before.POSITIONAL_ONLY:
        yield "/"


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty or annotation is None:
        return "None"
    if isinstance(annotation, type):
        return annotation.__name__
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    return str(annotation).replace("typing.", "")


def _default(default: Any) -> str:
    if default is Ellipsis or type(default).__name__.startswith("_"):
        return "..."
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", repr(default))


# ---------------------------------------------------------------- the commands


def cli_page() -> str:
    """The help text of every command."""
    parts = [f"## {path}\n\n```text\n{text}\n```" for path, text in commands(program, "stepwell", None)]
    return page("Commands", "What `--help` says of each command.", *parts)


def commands(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """The path and the help of a command and of those below it."""
    widths: dict[str, Any] = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    made = command.make_context(name, [], parent, resilient_parsing=True, **widths)
    yield made.command_path, "\n".join(line.rstrip() for line in command.get_help(made).splitlines())
    if isinstance(command, click.Group):
        for below in command.list_commands(made):
            found = command.get_command(made, below)
            if found is not None and not found.hidden:
                yield from commands(found, below, made)


# ---------------------------------------------------------------- errors


# What the source does not say in one sentence.
MEANINGS: Final = {
    "agent.error": "the agent raised an exception; its type, its message and your frames stand in the run's error",
    "step.error": "the step raised an exception; its type, its message and your frames stand in the error",
    "step.timeout": "a try of the step took longer than its `timeout`",
    "step.argument": "an argument of a step is not data",
    "definition.type": "a type in an annotation cannot be stored",
}


class Told(NamedTuple):
    """An error as the source raises it."""

    code: str
    kind: str
    message: str
    hint: str


def errors_page() -> str:
    """Every code, with the class that carries it, what it says and what it advises."""
    found: dict[str, list[Told]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if "testing" not in path.parts:
            for told in told_in(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(told.code, []).append(told)
    rows = [_error_row(code, tellings) for code, tellings in sorted(found.items())]
    tree = re.search(r"^ {4}StepwellError\n(?: {4}.*\n)+", errors.__doc__ or "", re.MULTILINE)
    assert tree is not None
    introduction = (
        "An error has a `code`, which never changes its meaning, `retryable`, and a `hint`. "
        "Where a message has `…`, the real one names the thing."
    )
    shape = f"```text\n{inspect.cleandoc(tree.group())}\n```"
    return page("Errors", introduction, shape, table(("code", "class", "says", "advises"), rows))


def _error_row(code: str, tellings: Sequence[Told]) -> tuple[str, str, str, str]:
    kinds = dict.fromkeys(f"`{told.kind}`" for told in tellings if told.kind)
    messages = dict.fromkeys(told.message for told in tellings if told.message)
    hints = dict.fromkeys(told.hint for told in tellings if told.hint)
    return f"`{code}`", ", ".join(kinds), "; or: ".join(messages), "; or: ".join(hints)


def told_in(tree: ast.Module) -> Iterator[Told]:
    """The errors that a module makes: calls that are given a literal code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for code in _codes(keywords.get("code")):
                message = MEANINGS.get(code) or (_words(node.args[0]) if node.args else "")
                yield Told(code, _public(name), message, _words(keywords.get("hint")))
            if name == "ErrorInfo" and len(node.args) >= 2 and isinstance(node.args[0], ast.Constant):
                yield Told(str(node.args[0].value), "ErrorInfo", _words(node.args[1]), "")
        elif isinstance(node, ast.ClassDef):
            yield from _default_code(node)


def _codes(node: ast.expr | None) -> Iterator[str]:
    """The dotted codes that an argument may be."""
    if isinstance(node, ast.IfExp):
        yield from (*_codes(node.body), *_codes(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
        yield node.value


def _default_code(node: ast.ClassDef) -> Iterator[Told]:
    for line in node.body:
        if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "default_code":
            code, text = ast.literal_eval(line.value), ast.get_docstring(node) or ""
            yield Told(code, node.name, text.split("\n\n")[0].replace("\n", " "), "")


def _public(name: str) -> str:
    return name if name in stepwell.__all__ else "ErrorInfo" if name == "describe_error" else ""


def _words(node: ast.expr | None) -> str:
    """A text as the source has it, with … for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return " ".join(node.value.split())
    if isinstance(node, ast.JoinedStr):
        parts = [_words(part) if isinstance(part, ast.Constant) else "…" for part in node.values]
        return re.sub(r"\s+", " ", "".join(_spaced(node, parts))).strip()
    if isinstance(node, ast.BinOp):
        return f"{_words(node.left)}{_words(node.right)}"
    return ""


def _spaced(node: ast.JoinedStr, parts: Sequence[str]) -> Iterator[str]:
    """The parts with the blanks that `_words` took from their ends."""
    for part, word in zip(node.values, parts, strict=True):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        else:
            yield word


# ---------------------------------------------------------------- events

KINDS: Final = {
    event.RUN_QUEUED: (
        "submitted; the journal begins, in a retry with what it takes over",
        "agent, version, input, priority, available_at, parent, retry_of",
    ),
    event.RUN_STARTED: ("a worker claimed it, and a new attempt begins", "attempt, fence, worker"),
    event.RUN_RESUMED: ("a worker claimed it, and the attempt goes on", "fence, worker, cause"),
    event.RUN_LOST: ("its worker is proven dead", "attempt, worker, losses"),
    event.RUN_HANDED_BACK: ("its worker gave it back unfinished", "worker"),
    event.RUN_RETRYING: ("the attempt ended in an error, another follows", "attempt, error, available_at"),
    event.RUN_WAITING: ("parked: every branch waits, and nothing is held meanwhile", "waits"),
    event.RUN_HELD: ("set aside until somebody resumes it", "why, by, and what a person needs to know"),
    event.RUN_RELEASED: ("somebody lifted the hold", "by, verdict"),
    event.RUN_CANCELLING: ("somebody asked for its end, and it is about to", "by, reason"),
    event.RUN_SUCCEEDED: ("the agent returned", "output"),
    event.RUN_FAILED: ("the agent raised, or the run was given up", "error, dead"),
    event.RUN_CANCELLED: ("it was ended on request", "by, reason"),
    event.RUN_DISCARDED: ("somebody took it off the list of the dead", "by"),
    event.RUN_TIMED_OUT: ("a limit of time has passed", "limit"),
    event.STEP_INTENDED: ("a step under a policy that must know is about to run", "name, digest, function, in_doubt"),
    event.STEP_COMPLETED: ("a step is done and is never executed again", "name, digest, function, ms, result"),
    event.STEP_FAILED: ("a try failed; with retry_at another follows", "name, digest, function, error, try, retry_at"),
    event.WAIT_OPENED: (
        "the agent waits: for a time, a signal, an answer or a child",
        "wait, type, name, until, lasts; of a question: schema, details, assignee, digest",
    ),
    event.WAIT_CLOSED: (
        "what was waited for has come, or its time is over",
        "wait, outcome; by whom and value, or the signal",
    ),
    event.SIGNAL_RECEIVED: ("somebody sent the run a message", "signal, name, by, value"),
    event.CHILD_STARTED: ("the agent started another run", "child, agent, mode, digest"),
    event.CHILD_ENDED: ("that run has ended", "child, status, output or error"),
    event.TEXT_DELTA: ("a piece of streamed text", "stream, text, attempt: which showing of the stream it belongs to"),
    event.TEXT_COMPLETED: ("a stream of text is complete", "stream, length"),
    event.SESSION_CHANGED: ("the agent wrote to its session", "key, version"),
    event.SESSION_READ: ("the agent read from its session", "key, version, value"),
    event.ARTIFACT_SAVED: ("a file is kept with the run", "artifact, name, media_type, size"),
    event.CHECKPOINT_SAVED: ("the agent saved its state", "version, state"),
    event.PATCH_MARKED: ("the agent passed `ctx.patched`", "id, active"),
    event.TIME_READ: ("the agent read the time", "value"),
    f"{event.CUSTOM}<name>": ("the agent called `ctx.emit`", "what it gave"),
}
RESERVED: Final = (event.RUN_EXHAUSTED,)


def events_page() -> str:
    """Every kind of event, what it says and what its data holds."""
    described = {kind for kind in KINDS if not kind.startswith(event.CUSTOM)} | set(RESERVED)
    assert described == event.KINDS, f"describe these kinds: {sorted(described ^ event.KINDS)}"
    rows = [(f"`{kind}`", meaning, data) for kind, (meaning, data) in KINDS.items()]
    introduction = text_of(event.Event) + (
        "\n\nA value larger than 256 KiB lies beside the journal: its event has `ref` in the value's place. "
        f"Reserved, and not written by this version: {', '.join(f'`{kind}`' for kind in RESERVED)}."
    )
    return page("Events", introduction, table(("kind", "says that", "data"), rows))


# ---------------------------------------------------------------- settings


def settings_page() -> str:
    """Where app and store come from, and the values that hold without any setting."""
    default_store = f"{config.DEFAULT_FOLDER}/{config.DEFAULT_FILE}"
    found = [
        (
            f"`{config.STORE_VARIABLE}`",
            "`store`",
            "`--store`, `store=`",
            f"`{default_store}`",
        ),
        (f"`{config.APP_VARIABLE}`", "`app`", "TARGET", f"`{config.DEFAULT_APP}`"),
    ]
    parts = [
        "## Settings",
        "An argument wins over the environment, the environment over the project file, and that over the default. "
        "The project file is the nearest `stepwell.yaml`, or `pyproject.toml` with a table `[tool.stepwell]`, from the "
        "current folder upwards. Default files lie beside it, or in the current folder when there is none. "
        "`stepwell doctor` prints each setting with its source.",
        table(("environment", "project file", "argument", "default"), found),
        "A store is `sqlite:///path/to/file.db` (absolute: four slashes) or `memory://`, which ends with the process.",
        "## Defaults",
        table(("what", "value"), defaults()),
        "## Limits",
        table(("what", "value"), limits()),
    ]
    return page("Settings and defaults", "All of them; there are no hidden ones.", *parts)


def defaults() -> Sequence[tuple[str, str]]:
    """What holds without an argument."""
    retry = Retry()
    return [
        ("an agent's `version`", f"`{DEFAULT_VERSION!r}`"),
        ("an agent's `timeout`: time that workers spend on one run, over all attempts", _duration(DEFAULT_TIMEOUT)),
        ("an agent's and a step's `retry`", "none: an exception ends the run, or fails the step"),
        (
            "`Retry()`",
            f"{retry.max_attempts} attempts, {retry.first_delay} s doubling to {retry.max_delay} s, full jitter",
        ),
        ("a step's `timeout`", "none"),
        ('a step\'s `in_doubt`, `run_in`', '`"rerun"`, `"thread"`'),
        ("an app's `limit`, an agent's `concurrency`", "none: as many runs as the workers have room for"),
        ('an agent\'s `session`, `busy`', '`"shared"`, `"queue"`'),
        ("an agent's `children`: live children of one run", str(DEFAULT_CHILDREN)),
        ("`timeout` of `ctx.ask` and `ctx.wait_for`", "none: the run waits, and holds nothing"),
        ("runs that a `Runtime` executes at once", str(CAPACITY)),
        ("a run whose branches all wait is parked after", f"{waits.PARK_AFTER * 1000:g} ms"),
        ("a lease; it is extended", f"{LEASE_SECONDS:g} s; {heartbeat.BEATS_PER_LEASE} times in that time"),
        ("a worker stops acting when its lease was not confirmed for", f"{heartbeat.SELF_STOP:g} of a lease"),
        ("time for running attempts when a worker stops", _duration(DRAIN)),
        ("a run is given up after", f"{run.MAX_CONSECUTIVE_LOSSES} proven losses without progress, "
                                    f"or {run.MAX_LOSSES_AND_EXPIRIES} losses and expired leases in all"),
    ]  # fmt: skip


def limits() -> Sequence[tuple[str, str]]:
    """What is refused beyond."""
    return [
        ("input, and state of a checkpoint", "1 MiB"),
        ("artifact", _size(checks.MAX_ARTIFACT)),
        ("data of `ctx.emit`", "256 KiB"),
        ("a value that is kept inside its event", f"{_size(attempt.INLINE_BYTES)}; larger ones lie beside the journal"),
        ("nesting of a value; whole numbers", "64 levels; below 2^53"),
        ("an answer, the payload of a signal", "1 MiB"),
        ("a value of a session", "256 KiB"),
        ("signals that a run keeps until it waits for them", f"{wait.MAX_SIGNALS:,}"),
        ("children of children", f"{children.MAX_DEPTH} levels"),
        ("a step's name; names and ids of signals", "200 characters"),
        ("names of agents, apps, sessions and events", "a letter or digit, then up to 127 of `A-Za-z0-9_.:@-`"),
        ("priority", f"-{run.PRIORITY_RANGE} to {run.PRIORITY_RANGE}; a point is a place 30 s earlier in the queue"),
    ]


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"


def _size(count: int) -> str:
    return f"{count // 1024**2} MiB" if count >= 1024**2 else f"{count // 1024} KiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
