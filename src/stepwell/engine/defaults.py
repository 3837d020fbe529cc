"""How long things take unless somebody says otherwise, in seconds. Apart from what uses them, so that whoever only
needs to know does not load that.
"""

from __future__ import annotations

from typing import Final

LEASE_SECONDS: Final = 30.0
DRAIN: Final = 30.0
