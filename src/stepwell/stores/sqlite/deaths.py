"""Who among the workers is gone: by record, by another boot, by proof, or by a lease that ran out.

Used by the writer thread only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from stepwell.domain.transitions import ClaimCause
from stepwell.stores.sqlite import worker_lock
from stepwell.stores.sqlite.look import Holder

_PROVE_AGAIN_AFTER: Final = 0.1
_MOST_REMEMBERED: Final = 1000


class Deaths:
    """Judges the holders of runs. A proof is looked for at most ten times a second for each worker."""

    def __init__(self, folder: str, boot_id: str) -> None:
        self.folder = folder
        self._boot_id = boot_id
        self._proven: set[str] = set()
        self._looked_at: dict[str, float] = {}

    def judge(self, holders: Iterable[Holder], elapsed: int, *, claimant: str | None) -> dict[str, ClaimCause]:
        """Why runs may be taken from holders, for those from whom they may. That the claimant lives needs no proof."""
        causes = ((holder.id, self._cause(holder, elapsed, claimant)) for holder in holders)
        return {worker_id: cause for worker_id, cause in causes if cause is not None}

    def is_dead(self, worker_id: str, boot_id: str) -> bool:
        """Whether it is proven that a registered worker's process is gone."""
        if worker_id not in self._proven and (self._is_of_another_boot(boot_id) or self._prove(worker_id)):
            self._proven.add(worker_id)
        return worker_id in self._proven

    def forget(self, worker_id: str) -> None:
        """The worker's row and file are gone."""
        self._proven.discard(worker_id)
        self._looked_at.pop(worker_id, None)

    def _cause(self, holder: Holder, elapsed: int, claimant: str | None) -> ClaimCause | None:
        if holder.boot_id is None or holder.lease_until is None or holder.lease is None:
            return "expired"
        if holder.gone is not None:
            return "lost" if holder.gone == "dead" else "expired"
        if holder.id != claimant and self.is_dead(holder.id, holder.boot_id):
            return "lost"
        # A lease that ends later than it can have begun belongs to a clock that has started again since.
        if not holder.lease_until - holder.lease <= elapsed < holder.lease_until:
            return "expired"
        return None

    def _is_of_another_boot(self, boot_id: str) -> bool:
        return bool(boot_id and self._boot_id) and boot_id != self._boot_id

    def _prove(self, worker_id: str) -> bool:
        now = time.monotonic()
        if now - self._looked_at.get(worker_id, -1.0) < _PROVE_AGAIN_AFTER:
            return False
        if len(self._looked_at) >= _MOST_REMEMBERED:
            self._looked_at.clear()
        self._looked_at[worker_id] = now
        return worker_lock.is_dead(self.folder, worker_id)
