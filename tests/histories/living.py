"""A run that lives in memory, with a worker that moves at random moments and clients whose calls take time: histories
that are linearizable by construction. The checkers must accept each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from tests.histories.history import FAIL, OK, UNKNOWN, Operation
from tests.histories.run_model import ASKS, CANCELLED, ENDS, FAILED, FAILING, PAUSED, SUCCEEDED

PLANS: Final = ("a?", "ab?", "a?b?", "??", "ba")
RUN: Final = "run-1"
Answer = tuple[str, Any]


class Living:
    """One run. Every method is one moment: the worker's move, or what a client asked for."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self.plan = ""
        self.place = ""
        self.held = self.pausing = self.cancelling = self.dead = False
        self.seq = 0
        self.known: dict[str, tuple[str, Any]] = {}
        self.kept: list[tuple[str, Any]] = []
        self.got: list[Any] = []
        self.asked = 0
        self.answers: list[tuple[Any, str]] = []

    @property
    def ended(self) -> bool:
        return self.place in ENDS

    def shown(self) -> dict[str, Any]:
        status = PAUSED if self.held else self.place
        return {"run": RUN, "status": status, "cancelling": self.cancelling, "dead": self.dead, "seq": self.seq}

    # ------------------------------------------------------------ the worker

    def work(self) -> None:
        """The worker moves, if there is anything to do."""
        if not self.place or self.ended or self.held:
            return
        if self.place == "queued" or (self.place == "waiting" and self._has_come()):
            self._write("running")
        elif self.place == "running":
            self._run()

    def _run(self) -> None:
        needs = self._needs()
        if needs in ("", FAILING) and not (self.cancelling and needs == FAILING):
            self._end(SUCCEEDED if needs == "" else FAILED)
        elif self.cancelling:
            self._end(CANCELLED)
        elif self.pausing:
            self.pausing, self.held = False, True
            self._write("waiting" if self._chance.random() < 0.5 else "queued")
        elif self._has_come():
            self._take(needs)
        elif needs == ASKS and self.asked == len(self.answers):
            self.asked += 1
            self._write("running")
        else:
            self._write("waiting")

    def _needs(self) -> str:
        if self.got and self.got[-1] == FAILING:
            return FAILING
        return self.plan[len(self.got) : len(self.got) + 1]

    def _has_come(self) -> bool:
        needs = self._needs()
        if needs == ASKS:
            return len(self.answers) > self.plan[: len(self.got)].count(ASKS)
        return not needs or any(name == needs for name, _ in self.kept)

    def _take(self, needs: str) -> None:
        if needs == ASKS:
            self.got.append(self.answers[self.plan[: len(self.got)].count(ASKS)][0])
        else:
            taken = next(each for each in self.kept if each[0] == needs)
            self.kept.remove(taken)
            self.got.append(taken[1])
        self._write("running")

    def _write(self, place: str) -> None:
        self.place = place
        self.seq += 1

    def _end(self, how: str) -> None:
        self._write(how)
        self.dead = how == FAILED
        self.held = self.pausing = self.cancelling = False

    # ------------------------------------------------------------ clients

    def ask(self, verb: str, given: dict[str, Any]) -> Answer:
        """What a client asks for happens now."""
        if verb == "start":
            return self._start(given)
        ask: Callable[[dict[str, Any]], Answer] = getattr(self, f"_{verb}")
        return ask(given)

    def _start(self, given: dict[str, Any]) -> Answer:
        if self.place and self.plan != given["plan"]:
            return FAIL, "idempotency.conflict"
        if not self.place:
            self.plan = given["plan"]
            self._write("queued")
        return OK, self.shown()

    def _get(self, _: dict[str, Any]) -> Answer:
        return OK, self.shown()

    def _result(self, _: dict[str, Any]) -> Answer:
        if not self.ended:
            return UNKNOWN, None
        return OK, {"status": self.place, "output": list(self.got) if self.place == SUCCEEDED else None}

    def _signal(self, given: dict[str, Any]) -> Answer:
        sent = given["name"], given["value"]
        if given["id"] in self.known:
            return (OK, False) if self.known[given["id"]] == sent else (FAIL, "signal.conflict")
        if self.ended:
            return FAIL, "run.ended"
        self.known[given["id"]] = sent
        self.kept.append(sent)
        self.seq += 1
        return OK, True

    def _questions(self, _: dict[str, Any]) -> Answer:
        is_open = not self.ended and self.asked > len(self.answers)
        return OK, [len(self.answers)] if is_open else []

    def _question(self, given: dict[str, Any]) -> Answer:
        if given["index"] < len(self.answers):
            return OK, {"outcome": "answered", "by": self.answers[given["index"]][1]}
        return OK, {"outcome": "run_ended" if self.ended else None, "by": None}

    def _answer(self, given: dict[str, Any]) -> Answer:
        if given["index"] < len(self.answers):
            return FAIL, "question.answered"
        if self.ended:
            return FAIL, "question.closed"
        self.answers.append((given["value"], given["by"]))
        self.seq += 1
        return OK, None

    def _cancel(self, _: dict[str, Any]) -> Answer:
        if self.ended:
            return OK, "already_ended"
        if self.place != "running":
            self._end(CANCELLED)
            return OK, "cancelled"
        self.seq += not self.cancelling
        self.cancelling, self.pausing = True, False
        return OK, "cancelling"

    def _pause(self, _: dict[str, Any]) -> Answer:
        if self.ended:
            return FAIL, "run.ended"
        if not (self.held or self.pausing or self.cancelling):
            if self.place == "running":
                self.pausing = True
            else:
                self.held = True
                self.seq += 1
        return OK, self.shown()

    def _resume(self, _: dict[str, Any]) -> Answer:
        if self.ended:
            return FAIL, "run.ended"
        if not self.held and not self.pausing:
            return FAIL, "run.not_held"
        self.seq += self.held
        self.held = self.pausing = False
        return OK, self.shown()

    def _retry(self, _: dict[str, Any]) -> Answer:
        if not self.ended or self.place == SUCCEEDED:
            return FAIL, "run.succeeded" if self.ended else "run.not_ended"
        self.seq += self.dead
        self.dead = False
        return OK, {"id": "another"}

    def _discard(self, _: dict[str, Any]) -> Answer:
        if not self.dead:
            return FAIL, "run.not_dead"
        self.dead = False
        self.seq += 1
        return OK, None


VERBS: Final = (
    *("start", "get", "get", "get", "result", "signal", "signal", "signal", "questions", "question", "answer"),
    *("answer", "cancel", "pause", "resume", "resume", "retry", "discard"),
)


def history(seed: int, length: int, *, overlap: int = 30, lost: float = 0.05) -> list[Operation]:
    """What clients of one run were told, in the order of the moments at which it happened. `overlap` is how far calls
    and returns lie from these moments, which are ten apart; a share `lost` of the clients never learned the outcome.
    """
    chance = Random(seed)
    run, plan = Living(chance), chance.choice(PLANS)
    quiet = chance.random() < 0.7  # most runs are not ended by a cancel
    found: list[Operation] = []
    for number in range(length):
        for _ in range(chance.randrange(3)):
            run.work()
        verb = "start" if not found else chance.choice(VERBS)
        if (verb == "cancel" and quiet) or (verb in ("answer", "question") and run.asked <= len(run.answers) - 1):
            verb = "get"
        if verb in ("answer", "question") and not run.asked:
            verb = "questions"
        given = _given(chance, verb, run, plan)
        moment = 1000 + 10 * number
        called, returned = moment - chance.randrange(overlap + 1), moment + chance.randrange(overlap + 1)
        unknown = verb != "start" and chance.random() < lost
        outcome, value = run.ask(verb, given) if not unknown or chance.random() < 0.5 else (UNKNOWN, None)
        if unknown or outcome == UNKNOWN:
            found.append(Operation(f"c{number % 5}", verb, "it", given, called, None, UNKNOWN))
        else:
            assert outcome in (OK, FAIL)
            found.append(
                Operation(f"c{number % 5}", verb, "it", given, called, returned, OK if outcome == OK else FAIL, value)
            )
    return found


def _given(chance: Random, verb: str, run: Living, plan: str) -> dict[str, Any]:
    match verb:
        case "start":
            return {"plan": plan if chance.random() < 0.8 else chance.choice(PLANS)}
        case "signal":
            number = chance.randrange(12)
            value = number if chance.random() < 0.95 else -1
            return {"run": RUN, "id": f"s{number}", "name": "ab"[number % 2], "value": value}
        case "answer":
            word = FAILING if chance.random() < 0.2 else f"w{chance.randrange(100)}"
            return {"run": RUN, "index": chance.randrange(run.asked), "value": word, "by": f"p{chance.randrange(99)}"}
        case "question":
            return {"run": RUN, "index": chance.randrange(run.asked)}
    return {"run": RUN}
