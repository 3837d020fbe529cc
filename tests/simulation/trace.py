"""What happened in a simulation, line by line: for people to read, and as a hash that is the same for the same seed.

Lines are made when they are asked for: most simulations are never looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from tests.simulation.audit import Audit, Request

_QUIET: Final = frozenset(("controls", "journal", "get", "find", "questions", "last_entry"))


class Trace:
    """All that was told, with its moment and the process that did it."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._told: list[tuple[float, str, tuple[Any, ...]]] = []

    def tell(self, at: float, process: str, *what: Any) -> None:
        """Something happened: a text, or "does" with a request and what came of it."""
        self._told.append((at, process, what))

    def lines(self) -> Iterator[str]:
        """What matters of it."""
        for at, process, what in self._told:
            if what[0] != "does":
                yield f"{at:9.4f} {process:12} {what[0]}"
            elif what[1].verb not in _QUIET and not (what[1].verb == "claim" and what[2] and not what[2].taken):
                yield f"{at:9.4f} {process:12} {self._request(what[1])} -> {_outcome(*what[2:])}"

    def digest(self, turns: int) -> str:
        """A hash of all of it, and of how many callbacks were executed."""
        digest = hashlib.blake2b(str(turns).encode(), digest_size=12)
        for at, process, what in self._told:
            told = what[0] if what[0] != "does" else f"{self._request(what[1])} -> {_outcome(*what[2:])}"
            digest.update(f"{at!r} {process} {told}\n".encode())
        return digest.hexdigest()

    def _request(self, request: Request) -> str:
        name = self._audit.name
        match request.verb, request.args:
            case "commit", (lease, write, *_):
                told = [draft.kind for draft in write.drafts] + [f"opens {wait.type}" for wait in write.opens]
                told += [f"submits {one.agent}" for one in write.submits] + [f"sets {one.key}" for one in write.writes]
                if write.outcome is not None:
                    told.append(type(write.outcome).__name__)
                return f"commit {name(lease.run_id)} fence {lease.fence} no {write.number}: {', '.join(told)}"
            case "claim", (asked, *_):
                return f"claim up to {asked.limit}, suspects {asked.suspects}"
            case "submit", (submission, *_):
                return f"submit {submission.agent} for {submission.start_on or 'anybody'}"
            case "signal", (run_id, signal):
                return f"signal {name(run_id)} {signal.name} {signal.id}"
            case verb, (str(run_id), *_):
                return f"{verb} {name(run_id)}"
            case verb, _:
                return verb


def _outcome(answer: Any, error: BaseException | None) -> str:
    if error is not None:
        return f"{type(error).__name__}: {getattr(error, 'message', error)}"
    if hasattr(answer, "taken"):
        return f"{len(answer.taken)} taken, next due {answer.next_due_at}"
    if hasattr(answer, "control"):
        return f"seq {answer.seq} {'cancelling ' * answer.control.cancelling}{'pausing' * answer.control.pausing}"
    return "nothing" if answer is None else "done" if not isinstance(answer, (str, bool)) else str(answer)
