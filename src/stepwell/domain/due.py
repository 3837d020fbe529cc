"""When a run is due by a clock that may have been set back, and set right again.

The moment at which a run is due, and that at which this was decided, are read from one clock. While the clock shows an
earlier time than that of the decision, it was set back since: the run is due so much earlier. Once the clock has passed
that time again, what was decided counts.
"""

from __future__ import annotations

from stepwell.domain.outcome import NEVER
from stepwell.domain.run import QUEUED, WAITING, Lifecycle


def made_up(life: Lifecycle, now: int) -> Lifecycle | None:
    """A run that waits to be claimed, so that a clock which was set back does not put it off, and one that was set back
    for a moment does not bring it forward; nothing if it is neither.
    """
    if life.status not in (QUEUED, WAITING) or life.hold is not None or life.available_at >= NEVER:
        return None
    behind = life.timed_at - now
    if behind <= 0:
        return life._replace(available_at=life.available_at + life.made_up, made_up=0) if life.made_up else None
    if behind <= life.made_up or life.available_at <= now:
        return None
    return life._replace(available_at=life.available_at + life.made_up - behind, made_up=behind)
