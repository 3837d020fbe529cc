"""Function agents: what may be declared, and how their types read and write values."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from stepwell.agents.function import FunctionRunnable
from stepwell.app import App, Limit
from stepwell.domain.errors import InvalidDefinition, InvalidInput, InvalidValue
from stepwell.domain.retry import Retry
from stepwell.domain.submission import Lane
from stepwell.ports.context import Context


@dataclass(frozen=True)
class Ticket:
    id: int
    text: str = ""


def declared(fn: Any, **options: Any) -> FunctionRunnable:
    return FunctionRunnable(App("test").agent(**options)(fn))


async def no_input(ctx: Context) -> None:
    """Does nothing.

    And says more about it.
    """


async def with_ticket(ctx: Context, ticket: Ticket) -> tuple[int, str]:
    return ticket.id, ticket.text


async def without_types(ctx, value):  # type: ignore[no-untyped-def]
    return value


class TestDeclaring:
    def test_name_and_version_have_defaults(self) -> None:
        runnable = declared(no_input)
        assert (runnable.name, runnable.version, runnable.retry, runnable.timeout) == (
            "no_input",
            "1",
            None,
            3_600_000_000,
        )

    def test_everything_can_be_given(self) -> None:
        runnable = declared(no_input, name="a-b.c", version="2026-11-21", retry=Retry(2), timeout=timedelta(minutes=1))
        assert (runnable.name, runnable.version, runnable.retry) == ("a-b.c", "2026-11-21", Retry(2))
        assert runnable.timeout == 60_000_000

    def test_the_decorator_works_without_parentheses(self) -> None:
        app = App("test")
        agent = app.agent(no_input)
        assert app.agents == {"no_input": agent}
        assert agent.app is app

    async def test_an_agent_can_be_called_like_its_function(self) -> None:
        app = App("test")

        @app.agent
        async def echo(ctx: Context, text: str) -> str:
            return text * 2

        context: Any = None
        assert await echo(context, "a") == "aa"
        assert echo.__name__ == "echo"

    def test_the_summary_is_the_first_line_of_the_documentation(self) -> None:
        assert declared(no_input).summary == "Does nothing."
        assert declared(with_ticket).summary == ""

    @pytest.mark.parametrize(
        ("fn", "code"),
        [
            (lambda ctx: 1, "definition.not_async"),
            (len, "definition.not_async"),
            (Ticket, "definition.not_async"),
        ],
        ids=["a lambda", "a builtin", "a class"],
    )
    def test_an_agent_is_an_async_function(self, fn: Any, code: str) -> None:
        with pytest.raises(InvalidDefinition) as refused:
            declared(fn)
        assert refused.value.code == code

    def test_a_generator_is_none(self) -> None:
        async def stream(ctx: Context) -> AsyncIterator[int]:
            yield 1

        def generate(ctx: Context) -> Any:
            yield 1

        for fn in (stream, generate):
            with pytest.raises(InvalidDefinition, match="not an async function"):
                declared(fn)

    def test_it_takes_the_context_and_at_most_one_input(self) -> None:
        async def nothing() -> None: ...
        async def three(ctx: Context, a: int, b: int) -> None: ...
        async def keyword(ctx: Context, *, a: int) -> None: ...
        async def many(ctx: Context, *a: int) -> None: ...
        async def named(ctx: Context, **a: int) -> None: ...

        for fn in (nothing, three, keyword, many, named):
            with pytest.raises(InvalidDefinition) as refused:
                declared(fn)
            assert refused.value.code == "definition.signature"

    @pytest.mark.parametrize(
        "options",
        [
            {"name": "has space"},
            {"name": ".dot"},
            {"name": "x" * 129},
            {"version": ""},
            {"version": 2},
            {"version": "a b"},
            {"timeout": -1},
            {"timeout": "5m"},
            {"timeout": float("nan")},
        ],
        ids=range(9),
    )
    def test_options_that_cannot_work_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidDefinition):
            declared(no_input, **options)

    def test_two_agents_of_an_app_have_two_names(self) -> None:
        app = App("test")
        app.agent(no_input)
        with pytest.raises(InvalidDefinition) as refused:
            app.agent(no_input)
        assert refused.value.code == "definition.duplicate"
        app.agent(name="other")(no_input)
        assert list(app.agents) == ["no_input", "other"]

    @pytest.mark.parametrize("name", ["", "a b", None, 5])
    def test_an_app_has_a_name(self, name: Any) -> None:
        with pytest.raises(InvalidDefinition):
            App(name)


class TestTypes:
    def test_an_input_is_read_by_its_annotation(self) -> None:
        runnable = declared(with_ticket)
        text = runnable.encode_input({"id": 1})
        assert runnable.decode_input(text) == Ticket(1)
        assert runnable.decode_input(runnable.encode_input(Ticket(1, "a"))) == Ticket(1, "a")

    def test_an_output_is_written_and_read_by_its_annotation(self) -> None:
        runnable = declared(with_ticket)
        assert runnable.decode_output(runnable.encode_output((1, "a"))) == (1, "a")
        with pytest.raises(InvalidValue, match="output"):
            runnable.encode_output([1, "a"])

    def test_without_annotations_values_are_plain(self) -> None:
        runnable = declared(without_types)
        assert runnable.decode_input(runnable.encode_input({"a": [1]})) == {"a": [1]}
        with pytest.raises(InvalidInput):
            runnable.encode_input((1,))
        with pytest.raises(InvalidValue):
            runnable.encode_output((1,))

    def test_an_agent_without_input_takes_none(self) -> None:
        runnable = declared(no_input)
        assert runnable.takes_input is False
        assert runnable.decode_input(runnable.encode_input(None)) is None
        with pytest.raises(InvalidInput) as refused:
            runnable.encode_input(5)
        assert refused.value.code == "input.unexpected"

    def test_types_of_an_enclosing_function_are_found(self) -> None:
        @dataclass
        class Local:
            n: int

        app = App("test")

        @app.agent
        async def agent(ctx: Context, value: "Local") -> "Local":
            return value

        runnable = FunctionRunnable(agent)
        assert runnable.decode_input(runnable.encode_input({"n": 1})) == Local(1)

    def test_a_type_that_does_not_exist_is_told(self) -> None:
        async def lost(ctx: Context, value: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

        with pytest.raises(InvalidDefinition) as refused:
            declared(lost).encode_input(1)
        assert refused.value.code == "definition.annotation"
        assert "Missing" in str(refused.value)

    async def test_it_is_called_with_what_it_takes(self) -> None:
        context: Any = object()
        assert await declared(with_ticket).run(context, Ticket(3, "x")) == (3, "x")
        assert await declared(no_input).run(context, None) is None


class TestLimits:
    def test_an_agent_without_limits_passes_through_no_lane(self) -> None:
        assert declared(no_input).lanes("null", "ses") == ()

    def test_its_own_limit_is_a_lane_of_its_name(self) -> None:
        assert declared(no_input, concurrency=2).lanes("null", "ses") == (Lane("agent", "no_input", 2),)

    def test_the_apps_limit_is_a_lane_of_the_apps_name(self) -> None:
        agent = App("shop", limit=9).agent(no_input)
        assert FunctionRunnable(agent).lanes("null", "ses") == (Lane("global", "shop", 9),)

    def test_a_key_counts_by_what_it_says_of_the_decoded_input(self) -> None:
        runnable = declared(with_ticket, concurrency=Limit(1, key=lambda ticket: f"t{ticket.id}"))
        assert runnable.lanes(runnable.encode_input({"id": 7}), "ses") == (Lane("key", "with_ticket t7", 1),)

    def test_a_synchronized_session_is_a_lane_with_room_for_one(self) -> None:
        assert declared(no_input, session="synchronized").lanes("null", "cust-42") == (Lane("session", "cust-42", 1),)
        assert declared(no_input, session="isolated").lanes("null", "cust-42") == ()

    def test_lanes_go_from_the_narrow_to_the_wide(self) -> None:
        agent = App("shop", limit=9).agent(session="synchronized", concurrency=Limit(2, key=str))(without_types)
        kinds = [lane.kind for lane in FunctionRunnable(agent).lanes('"a"', "ses")]
        assert kinds == ["session", "key", "global"]

    @pytest.mark.parametrize(
        ("key", "why"),
        [
            (lambda ticket: 1 / 0, "raised ZeroDivisionError: division by zero"),
            (lambda ticket: ticket.id, "gave 7"),
            (lambda ticket: "", "gave ''"),
            (lambda ticket: "x" * 501, "gave 'xxx"),
            (lambda ticket: "a\0", "holds a NUL character"),
        ],
    )
    def test_a_key_that_gives_no_text_refuses_the_input(self, key: Any, why: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            declared(with_ticket, concurrency=Limit(1, key=key)).lanes('{"id":7}', "ses")
        assert refused.value.code == "input.limit_key"
        assert why in refused.value.message

    def test_the_engine_sees_what_was_declared(self) -> None:
        runnable = declared(no_input, session="synchronized", busy="reject", children=3)
        assert (runnable.session_mode, runnable.busy, runnable.max_children) == ("synchronized", "reject", 3)


class TestCancelling:
    async def test_a_clean_up_is_run_with_the_context(self) -> None:
        seen: list[Any] = []
        agent = App("test").agent(no_input)
        runnable = FunctionRunnable(agent)
        before = runnable.hooked

        @agent.on_cancel
        async def clean_up(ctx: Context[Any]) -> None:
            seen.append(ctx)

        assert (before, runnable.hooked) == (False, True)
        context: Any = object()
        await runnable.on_cancel(context)
        assert seen == [context]
