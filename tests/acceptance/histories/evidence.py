"""What the clients of a recorded history wrote down, brought before the checkers, and counted."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stepwell.domain.run import MAX_CONSECUTIVE_LOSSES
from tests.acceptance.histories.recorder import GIVEN_UP
from tests.histories.appends import AppendsBroken, Hearing, Telling, check_session
from tests.histories.history import FAIL, OK, UNKNOWN, Operation, Violation, by_object, told_by
from tests.histories.linearizability import linearize
from tests.histories.run_model import ENDS, NOTHING_HAPPENED, RunModel
from tests.histories.streams import Visit, check_streams

NAMELESS: Final = "nameless-"
"""Begins the labels of runs whose makers never learned their ids."""
RETRY: Final = "retry-"
"""Begins the labels of runs that retry others."""
NEVER_TOLD: Final = "never told"
"""Why an outcome is unknown that the log does not tell: its client was killed, or waits for ever."""
WAITED: Final = frozenset({GIVEN_UP, "wait.timeout"})
"""Why an outcome is unknown of which the client itself is the reason: it did not want to wait."""
AT_ONCE: Final = 4
"""How many calls a process of clients has under way at most."""
MOST_UNKNOWN: Final = 1 / 5
"""Of all operations: with more of them a history could be explained by what nobody knows."""
NO_SESSION: Final = "session.unknown"
SESSION_VERBS: Final = frozenset({"tell", "hear", "count", "open"})


@dataclass
class Evidence:
    """Everything that was written down, by what it is about."""

    runs: dict[str, list[Operation]] = field(default_factory=dict)
    sessions: dict[str, list[Operation]] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    """Why the outcomes of operations are unknown: the client gave up, an error's code, or `NEVER_TOLD`."""

    @property
    def operations(self) -> list[Operation]:
        return [each for part in (self.runs, self.sessions) for operations in part.values() for each in operations]

    def ids(self) -> dict[str, str]:
        """The run of each label, as its starts told."""
        told = [each for operations in self.runs.values() for each in operations]
        return {each.on: each.value["run"] for each in told if each.verb == "start" and each.outcome == OK}

    def plans(self, label: str) -> list[str]:
        """The inputs with which a key was used."""
        return list(dict.fromkeys(each.given["plan"] for each in self.runs[label] if each.verb == "start"))

    def figures(self) -> dict[str, int]:
        """How much evidence there is."""
        operations = self.operations
        return {
            "histories": len(self.runs)
            + len(self.sessions)
            + len({(visit.reader, visit.run) for visit in self.visits}),
            "operations": len(operations),
            "refused": sum(each.outcome == FAIL for each in operations),
            "unknown": sum(each.outcome == UNKNOWN for each in operations),
            "visits": len(self.visits),
            "events": sum(len(visit.events) for visit in self.visits),
        }


def from_logs(folder: Path) -> Evidence:
    """What lies in a folder's logs; those of one slot in the order of their processes."""
    logs = sorted(folder.glob("*.log"), key=_place)
    return from_lines(json.loads(line) for log in logs for line in log.read_text().splitlines())


def _place(log: Path) -> tuple[bool, str, int]:
    slot, _, generation = log.stem.rpartition("-")
    return slot == "last", slot, int(generation)


def from_lines(lines: Iterable[Mapping[str, Any]]) -> Evidence:
    """What lines tell: of operations, and of visits."""
    calls: list[Mapping[str, Any]] = []
    visits: dict[tuple[str, int, str, int], Visit] = {}
    open_visit: dict[tuple[str, int], tuple[str, int, str, int]] = {}
    for line in lines:
        if "client" in line:
            calls.append(line)
            continue
        who = line["reader"], line["n"]
        if "visits" in line:
            open_visit[who] = (*who, line["visits"], len(visits))
            visits[open_visit[who]] = Visit(line["reader"], line["visits"], line["after"], ())
        elif "event" in line:
            visit = visits[open_visit[who]]
            visits[open_visit[who]] = visit._replace(events=(*visit.events, tuple(line["event"])))
        else:
            visits[open_visit[who]] = visits[open_visit[who]]._replace(ended=True)
    operations = told_by(calls)
    about_runs = [each for each in operations if each.verb not in SESSION_VERBS]
    about_sessions = [each for each in operations if each.verb in SESSION_VERBS]
    return Evidence(
        by_object([*about_runs, *_retries(about_runs)]), by_object(about_sessions), list(visits.values()), why(calls)
    )


def why(calls: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """For what reasons outcomes are unknown, and how many for each."""
    reasons: dict[tuple[str, int], str] = {}
    for line in calls:
        number = line["client"], line["n"]
        if "verb" in line:
            reasons[number] = NEVER_TOLD
        elif line["outcome"] == UNKNOWN:
            reasons[number] = line["value"]
        else:
            del reasons[number]
    return Counter(reasons.values())


def _retries(operations: Iterable[Operation]) -> list[Operation]:
    """The runs that retries made begin their histories with that retry."""
    made = (each for each in operations if each.verb == "retry" and each.outcome == OK)
    return [each._replace(verb="start", on=f"{RETRY}{each.value['run']}", given={"plan": ""}) for each in made]


def check(evidence: Evidence, *, given_up: Set[str] = frozenset()) -> None:
    """Bring everything before its checker. Raises `Violation`, or `GaveUp`. `given_up` are the runs that may have
    failed because their workers died, as faults explain it: that a run itself says so explains nothing.
    """
    for label, operations in evidence.runs.items():
        lost = not given_up.isdisjoint(ids_of(operations))
        model = RunModel(lost=lost, nameless=label.startswith(NAMELESS), hooked=has_clean_up(operations))
        linearize(model, worth_checking(operations))
    for operations in evidence.sessions.values():
        refuse_refusals(operations)
        check_session(tellings(operations), hearings(operations))
    check_streams(evidence.visits)


def ids_of(operations: Iterable[Operation]) -> Set[str]:
    """The runs that operations were about."""
    return {each.value["run"] for each in operations if each.verb in ("start", "get") and each.outcome == OK}


def refuse_refusals(operations: Iterable[Operation]) -> None:
    """Raise when somebody was refused a look into a session, which may not be there yet and no more."""
    for each in operations:
        absent = each.verb == "open" and each.value == NO_SESSION
        if each.outcome == FAIL and each.verb != "tell" and each.value not in NOTHING_HAPPENED and not absent:
            raise AppendsBroken(f"a session that cannot be looked into: {each}")


def given_up_by_faults(facts: Iterable[tuple[str, int, str]], hits: Sequence[tuple[int, int]]) -> Set[str]:
    """The runs that may have been given up: each of their last losses, as many as it takes, has a fault of its own
    that hit some worker before it, while the run had a holder. `facts` are (run, when, kind) in the order of each run,
    `hits` from when to when workers were hit, in microseconds.
    """
    since: dict[str, int] = {}
    losses: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for run, at, kind in facts:
        if kind in ("run.started", "run.resumed"):
            since[run] = at
        elif kind == "run.lost" and run in since:
            losses[run].append((since.pop(run), at))
    most = MAX_CONSECUTIVE_LOSSES
    return {run for run, spans in losses.items() if len(spans) >= most and _have_hits(spans[-most:], hits)}


def _have_hits(spans: Sequence[tuple[int, int]], hits: Sequence[tuple[int, int]]) -> bool:
    """Whether each span touches a hit of its own."""
    left = sorted(hits)
    for since, until in spans:
        while left and left[0][1] < since:
            left.pop(0)
        if not left or left[0][0] > until:
            return False
        left.pop(0)
    return True


def check_told(evidence: Evidence, *, killed: int = 0, blocked: int = 0) -> None:
    """Raise when a client was left without an answer and nothing explains it: it gave up itself; it was one of the
    `killed`, each of which may have had some calls under way; or the store was `blocked` so many times.
    """
    unexplained = Counter({why: count for why, count in evidence.reasons.items() if why not in WAITED})
    never = unexplained.pop(NEVER_TOLD, 0)
    if never > killed * AT_ONCE or unexplained.total() > blocked:
        raise Violation(f"answers that never came: {evidence.reasons}, {killed} clients killed, {blocked} faults")
    if evidence.figures()["unknown"] > MOST_UNKNOWN * len(evidence.operations):
        raise Violation(f"too little is known: {evidence.figures()}")


def has_clean_up(operations: Iterable[Operation]) -> bool:
    """Whether the run is one of those that tidy up when they are cancelled."""
    shown = (each.value for each in operations if each.verb in ("start", "get") and each.outcome == OK)
    return any(run["agent"] == "careful" for run in shown)


READS: Final = frozenset({"get", "result", "questions", "question"})


def worth_checking(operations: Iterable[Operation]) -> list[Operation]:
    """All but the reads that told nothing."""
    return [each for each in operations if each.outcome != UNKNOWN or each.verb not in READS]


def tellings(operations: Sequence[Operation]) -> list[Telling]:
    """What runs were asked to say, from the first call to the first answer."""
    found: dict[str, Telling] = {}
    for each in operations:
        if each.verb != "tell":
            continue
        if each.outcome == FAIL:
            raise AppendsBroken(f"a run that cannot fail did: {each}")
        name = each.given["name"]
        telling = found.setdefault(name, Telling(name, each.given["size"], each.given["scope"], each.called))
        telling = telling._replace(called=min(telling.called, each.called))
        if each.returned is not None and (telling.returned is None or each.returned < telling.returned):
            told = each.value
            telling = telling._replace(returned=each.returned, read=tuple(told["read"]), counts=tuple(told["counts"]))
        found[name] = telling
    return list(found.values())


def hearings(operations: Iterable[Operation]) -> list[Hearing]:
    """What was read in a session."""
    found = []
    for each in operations:
        if each.returned is not None and each.outcome == OK:
            if each.verb == "hear":
                found.append(Hearing(each.called, each.returned, messages=tuple(each.value)))
            elif each.verb == "count":
                found.append(Hearing(each.called, each.returned, counted=each.value))
    return found


def unfinished(visits: Iterable[Visit]) -> dict[tuple[str, str], int]:
    """The readers that have not come to the end of a run, with their last numbers."""
    left: defaultdict[tuple[str, str], int] = defaultdict(int)
    done = set()
    for visit in visits:
        who = visit.reader, visit.run
        left[who] = max([left[who], *(number for number, _ in visit.events)])
        if visit.ended:
            done.add(who)
    return {who: last for who, last in left.items() if who not in done}


def ends(evidence: Evidence) -> dict[str, int]:
    """How many runs ended how, as their last reads told."""
    counted: defaultdict[str, int] = defaultdict(int)
    for operations in evidence.runs.values():
        reads = [each for each in operations if each.verb == "get" and each.outcome == OK]
        if reads:  # else nobody knows whether there is such a run
            status = max(reads, key=lambda each: each.called).value["status"]
            counted[status if status in ENDS else f"not ended, {status}"] += 1
    return dict(counted)
