"""A run as a store keeps it, with what the checker remembers beside it, reduced to what can matter later.

Numbers that only grow are put back to fixed ones after every change: the fence, the event number, the commit number.
Moments are three: now or earlier, later, never.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from stepwell.domain.outcome import NEVER
from stepwell.domain.run import RUNNING, WAITING, Lifecycle

NOW: Final = 10
LATER: Final = 20
TIMEOUT: Final = 1
"""The leased time after which a run is over: one unit, so that it is used up by the first who tells of any."""

FENCE, SEQ = 5, 100

NO_CHILD, LIVE_CHILD, ENDED_CHILD = 0, 1, 2


class Bounds(NamedTuple):
    """How large the world is. The rules are those of the code; only its two limits on losses may be lowered.

    `steps` that an agent does, `errors` that it may end in, `lost` losses and expiries in all and `in_a_row` losses,
    `zombies` whose late writes are remembered beside the newest lease, signals `kept`. `waits` are the kinds of wait
    that may be opened, `joined` opens the first two as one. `limits`: leased time is told, and deadlines pass. `holds`:
    the attempt may be set aside as diverged or in doubt. `pauses` and `cancels` may be asked for. `child`: the run may
    make one. `hooks`: whether its agent has a clean-up.
    """

    steps: int = 1
    errors: int = 1
    lost: int = 4
    in_a_row: int = 3
    zombies: int = 1
    kept: int = 0
    waits: str = ""
    joined: bool = False
    limits: bool = False
    holds: bool = False
    pauses: bool = True
    cancels: bool = True
    child: bool = False
    hooks: tuple[bool, ...] = (False, True)


class Core(NamedTuple):
    """What is stored of a run (`life`, `hooked`, open `waits` by their letters, signals `kept`, the `child`), and what
    the checker remembers: the `steps` in the journal; `fresh`, that the next attempt is a new one; `unread`, that
    something came which no attempt has read; `cleaning`, that a lease began the clean-up.
    """

    life: Lifecycle
    hooked: bool = False
    steps: int = 0
    waits: str = ""
    joined: bool = False
    kept: int = 0
    child: int = NO_CHILD
    fresh: bool = True
    unread: bool = False
    cleaning: bool = False


def canonical(core: Core) -> Core:
    """The same run, as it is told from others that may behave otherwise."""
    life = core.life
    if life.ended:
        ended = Lifecycle(life.status, NOW, 0, dead=life.dead, fence=FENCE, seq=SEQ, ended_at=0)
        return Core(ended._replace(commit_no=min(life.commit_no, 1)), child=core.child)
    at = life.available_at
    small = life._replace(
        available_at=NOW if at <= NOW else NEVER if at >= NEVER else LATER,
        updated_at=0,
        reason=None,
        fence=FENCE,
        worker=life.worker and "w",
        claimed_at=0,
        leased=min(life.leased, TIMEOUT),
        seq=SEQ,
        commit_no=min(life.commit_no, 1),
        held=min(life.held, TIMEOUT),
    )
    return core._replace(life=small, unread=core.unread and life.status in (RUNNING, WAITING))


def describe(core: Core) -> str:
    """A run in a few words."""
    life = core.life
    due = {NOW: "due", LATER: "later"}.get(life.available_at, "asleep")
    words = [life.status if life.ended or life.status == "running" else f"{life.status} {due}"]
    words += [f"held {life.hold}"] if life.hold else []
    words += [name for name in ("cancelling", "pausing", "dead", "leased", "held") if getattr(life, name)]
    words += [f"{name} {getattr(life, name)}" for name in ("attempt", "errors", "lost", "losses", "expiries")]
    words += [f"steps {core.steps}", *([f"waits {core.waits}"] if core.waits else [])]
    words += [f"kept {core.kept}"] if core.kept else []
    words += [name for name in ("hooked", "unread") if getattr(core, name)]
    words += [("", "child lives", "child ended")[core.child]] if core.child else []
    return ", ".join(words)
