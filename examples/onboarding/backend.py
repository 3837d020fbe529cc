"""Stands for a shop's own services: mail that is only shown, and a register in which nobody has ever logged in."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


class ConsoleMail:
    """Shows on stderr what it would send."""

    async def send(self, to: str, template: str) -> None:
        print(f"mail to {to}: {template}", file=sys.stderr)


class EmptyCrm:
    """Knows nobody."""

    async def has_logged_in(self, customer_id: str) -> bool:
        return False


@dataclass
class Backend:
    """Both services."""

    mail: ConsoleMail = field(default_factory=ConsoleMail)
    crm: EmptyCrm = field(default_factory=EmptyCrm)


@asynccontextmanager
async def services() -> AsyncGenerator[Backend]:
    """The services, for as long as the process works."""
    yield Backend()
