"""What an agent is, and what is wrong with it."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from stepwell.app import App
from stepwell.domain.errors import InvalidDefinition
from stepwell.domain.retry import Retry
from stepwell.plugins import check, describe
from stepwell.ports.context import Context


@dataclass
class Ticket:
    id: int


class Connection:
    pass


app = App("desk")


@app.agent(version="2", retry=Retry(5), timeout=timedelta(minutes=2))
async def support(ctx: Context, ticket: Ticket) -> list[str]:
    """Answer a ticket.

    Slowly.
    """
    return [str(ticket.id)]


@app.agent
async def ping(ctx: Context) -> None:
    pass


def test_a_description_says_what_was_declared() -> None:
    described = describe(support)
    assert (described.name, described.version, described.summary) == ("support", "2", "Answer a ticket.")
    assert described.takes_input
    assert described.input is Ticket
    assert described.input_schema["properties"]["id"]["type"] == "integer"
    assert described.output_schema == {"items": {"type": "string"}, "type": "array"}
    assert described.retry == Retry(5)
    assert described.timeout == 120
    assert described.place.endswith(f"test_descriptions.py:{support.fn.__code__.co_firstlineno}")


def test_an_agent_without_input() -> None:
    described = describe(ping)
    assert not described.takes_input
    assert described.input_schema == {"type": "null"}
    assert described.summary == ""


def test_nothing_is_wrong_with_a_good_app() -> None:
    assert check(app) == []


def test_every_problem_of_every_agent_is_told_at_once() -> None:
    broken = App("broken")

    @broken.agent
    async def first(ctx: Context, thing: "Missing") -> str:  # type: ignore[name-defined]  # noqa: F821
        return ""

    @broken.agent
    async def second(ctx: Context, connection: Connection) -> Connection:
        return connection

    problems = check(broken)
    assert [problem.error.code for problem in problems] == [
        "definition.annotation",
        "definition.type",
        "definition.type",
    ]
    assert all("test_descriptions.py:" in problem.place for problem in problems)
    with pytest.raises(InvalidDefinition):
        describe(first)
