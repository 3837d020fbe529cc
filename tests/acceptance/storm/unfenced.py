"""The storm's processes, built without the fence: whoever writes to a run that is executed is taken for its holder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from stepwell.domain import transitions
from tests.acceptance.storm import program
from tests.protocol import bugs

if __name__ == "__main__":
    setattr(transitions, "refusal", bugs.checks_no_fence)  # noqa: B010 - a plain assignment is refused by type checkers
    program.main()
