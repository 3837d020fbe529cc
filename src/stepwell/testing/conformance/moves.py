"""What the machine may do: the values that its rules are given. Unlikely ones are rare, so that runs get somewhere."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from hypothesis import strategies as st

from stepwell.domain.event import Draft
from stepwell.domain.outcome import (
    NEVER,
    Cancelled,
    ErrorInfo,
    Exhausted,
    Failed,
    HandedBack,
    Held,
    Outcome,
    Parked,
    Payload,
    Retrying,
    Succeeded,
    TimedOut,
)
from stepwell.domain.transitions import PAUSED_ON_REQUEST
from stepwell.testing.conformance.harness import SECOND, note

Facts: TypeAlias = tuple[Draft, ...]

AGENTS: Final = ("audit", "report")

picks = st.integers(0, 999)
agent_sets = st.sampled_from([AGENTS, AGENTS[:1], AGENTS[1:]])
fact_lists: st.SearchStrategy[Facts] = st.integers(0, 3).map(lambda n: tuple(note(str(k)) for k in range(n)))
leased_times = st.sampled_from([0, 0, 6 * SECOND])
mostly, rarely = st.sampled_from([True, True, True, False]), st.sampled_from([False, False, False, True])


def outcomes(now: int) -> dict[str, Outcome]:
    """Every way in which an attempt stops."""
    error = ErrorInfo("agent.error", "no luck")
    return {
        "returned": Succeeded(Payload("1")),
        "failed": Failed(error),
        "dead": Failed(error, dead=True),
        "retrying": Retrying(error, now + 3 * SECOND),
        "retrying at once": Retrying(error, now),
        "parked": Parked(now + 3 * SECOND, "[]"),
        "parked for arrivals": Parked(NEVER, "[]"),
        "handed back": HandedBack(),
        "paused on request": PAUSED_ON_REQUEST,
        "diverged": Held("diverged", by="replay"),
        "in doubt": Held("in_doubt", by="step"),
        "timed out": TimedOut("timeout"),
        "exhausted": Exhausted("steps"),
        "cancelled": Cancelled(by="ann"),
    }


endings = st.sampled_from(list(outcomes(0)))
any_writes = st.tuples(picks, mostly, fact_lists, st.sampled_from([None, None, "handed back"]))
"""Which lease, whether a valid one if there is any, what is appended, and how the attempt stops."""


class Plan(NamedTuple):
    """What somebody asks for."""

    agent: str
    pick: int
    priority: int = 0
    delay: int = 0
    deadline: int | None = None
    timeout: int = 3600 * SECOND
    key: str | None = None
    digest: str = "one"
    start: bool = False


plans = st.builds(
    Plan,
    agent=st.sampled_from(AGENTS),
    pick=picks,
    priority=st.integers(-1, 1),
    delay=st.sampled_from([0, 0, 0, 1, 10]),
    deadline=st.sampled_from([*[None] * 8, 0, 20]),
    timeout=st.sampled_from([10 * SECOND, *[3600 * SECOND] * 3]),
    key=st.sampled_from([None, None, None, "k-1", "k-2"]),
    digest=st.sampled_from(["one", "one", "other"]),
    start=st.booleans(),
)


SIGNALS: Final = ("a", "b")
some_names: st.SearchStrategy[list[str]] = st.lists(st.sampled_from(SIGNALS), min_size=1, max_size=3)
Parking: TypeAlias = Literal["at once", "later", "not", "ends"]
parkings: st.SearchStrategy[Parking] = st.sampled_from(["at once", "later", "later", "not", "ends"])
WaitPlan: TypeAlias = tuple[str, str | None, int]
"""What kind of wait, what it is joined with, and which name or child it is for."""

wait_plans: st.SearchStrategy[WaitPlan] = st.tuples(
    st.sampled_from(["signal", "signal", "question", "child"]), st.sampled_from([None, None, "j-1"]), picks
)

Request: TypeAlias = Literal["cancel", "pause", "discard"]
requests: st.SearchStrategy[Request] = st.sampled_from(["cancel", "pause", "pause", "discard"])
