"""Welcome a new customer, look again after three days, and ask sales before giving up.

    stepwell run examples/onboarding/app.py id=c1 email=ada@example.org

sends a mail and sleeps. Press Ctrl-C: the run goes on sleeping in the store, where it costs one row and no process. A
worker takes it up when the three days are over:

    stepwell worker examples/onboarding/app.py

If the customer has not logged in by then, sales has two days to say whether they call:

    stepwell inbox --assignee sales
    stepwell answer last yes

Nobody waits for days to see whether that is right. `tests/acceptance/test_onboarding.py` lives through all of it, a
crash included, in less than a second.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from pydantic import BaseModel

from stepwell import App, Context


class Customer(BaseModel):
    id: str
    email: str


class Mail(Protocol):
    async def send(self, to: str, template: str) -> None: ...


class Crm(Protocol):
    async def has_logged_in(self, customer_id: str) -> bool: ...


@dataclass
class Services:
    mail: Mail
    crm: Crm


@asynccontextmanager
async def connect() -> AsyncGenerator[Services]:
    from onboarding.backend import services  # the real ones: pools are opened here and closed on shutdown

    async with services() as real:
        yield Services(mail=real.mail, crm=real.crm)


agents = App("onboarding", lifespan=connect)


@agents.agent
async def onboard(ctx: Context[Services], customer: Customer) -> str:
    """Welcome a customer; ask sales about one who stays away."""
    await ctx.step(ctx.deps.mail.send, customer.email, "welcome")
    await ctx.sleep(timedelta(days=3))
    if await ctx.step(ctx.deps.crm.has_logged_in, customer.id):
        return "active"
    call = await ctx.ask(
        f"{customer.email} never logged in. Call them?",
        bool,
        assignee="sales",
        timeout=timedelta(days=2),
        default=False,
    )
    if not call:
        await ctx.step(ctx.deps.mail.send, customer.email, "we-miss-you")
    return "called" if call else "reminded"
