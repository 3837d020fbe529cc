"""Histories: what clients asked of one system and what they were told, each with the moments of the call and the
return. The checkers read them; whoever runs clients writes them, line by line, so that a killed client leaves a call
without a return.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

Outcome: TypeAlias = Literal["ok", "fail", "unknown"]

OK: Final = "ok"
FAIL: Final = "fail"
UNKNOWN: Final = "unknown"


class Violation(AssertionError):
    """A history that no correct system can have; says what is wrong with it."""


class Operation(NamedTuple):
    """One operation of a client. `on` names the object; `value` is the answer, or the error's code when it failed.

    Moments are nanoseconds of a clock that all clients share. An operation whose outcome is unknown has no return: it
    may have taken effect at any later moment, or never.
    """

    client: str
    verb: str
    on: str
    given: Mapping[str, Any]
    called: int
    returned: int | None
    outcome: Outcome
    value: Any = None

    def __str__(self) -> str:
        given = "".join(f" {name}={value!r}" for name, value in self.given.items())
        until = "?" if self.returned is None else f"{self.returned / 1e6:.3f}"
        told = "?" if self.outcome == UNKNOWN else f"{self.outcome} {self.value!r}"
        return f"[{self.called / 1e6:.3f} .. {until}] {self.client}: {self.verb}{given} -> {told}"


def by_object(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations on each object: linearizability holds for the whole when it holds for every object."""
    found: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        found[operation.on].append(operation)
    return dict(found)


def told_by(lines: Iterable[Mapping[str, Any]]) -> list[Operation]:
    """The operations that lines tell of: `{client, n, at, verb, on, given}` and `{client, n, at, outcome, value}`."""
    calls: dict[tuple[str, int], Operation] = {}
    for line in lines:
        number = line["client"], line["n"]
        if "verb" in line:
            calls[number] = Operation(
                line["client"], line["verb"], line["on"], line["given"], line["at"], None, UNKNOWN
            )
        elif line["outcome"] != UNKNOWN:
            calls[number] = calls[number]._replace(
                returned=line["at"], outcome=line["outcome"], value=line.get("value")
            )
    return list(calls.values())
