"""Declaring apps and agents: what cannot work is refused where it is declared."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import App, Context, InvalidDefinition, Limit


async def agent(ctx: Context) -> None: ...


async def greet(ctx: Context, name: str) -> str:
    return name


def refusal(**options: Any) -> InvalidDefinition:
    with pytest.raises(InvalidDefinition) as refused:
        App("app").agent(**options)(agent)
    return refused.value


@pytest.mark.parametrize("retry", [3, "three", True])
def test_a_retry_that_is_no_retry_is_refused_with_what_to_write(retry: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"agent 'agent': retry=.* is not a Retry") as refused:
        App("app").agent(retry=retry)(agent)
    assert refused.value.code == "definition.retry"
    assert refused.value.hint is not None


class TestLimits:
    def test_there_are_none_unless_they_are_declared(self) -> None:
        app = App("app")
        made = app.agent(agent)
        assert (app.limit, made.concurrency, made.session, made.busy, made.children) == (
            None,
            None,
            "shared",
            "queue",
            100,
        )

    def test_a_number_is_a_limit_without_a_key(self) -> None:
        assert App("app").agent(concurrency=3)(agent).concurrency == Limit(3)

    def test_a_limit_is_kept_as_it_is(self) -> None:
        limit = Limit(2, key=str)
        assert App("app", limit=7).limit == 7
        assert App("app").agent(concurrency=limit, children=5)(greet).concurrency is limit

    @pytest.mark.parametrize("count", [0, -1, True, 1.5, "3", 1_000_001])
    def test_a_count_that_makes_no_sense_is_refused_wherever_it_stands(self, count: Any) -> None:
        for declare in (
            lambda: Limit(count),
            lambda: App("app", limit=count),
            lambda: App("app").agent(concurrency=count)(agent),
            lambda: App("app").agent(children=count)(agent),
        ):
            with pytest.raises(InvalidDefinition, match="is not a whole number from 1 to 1,000,000") as refused:
                declare()
            assert refused.value.code == "definition.limit"

    def test_a_count_that_is_refused_says_whose_it_is(self) -> None:
        assert refusal(children=0).message.startswith("agent 'agent': children 0 ")
        assert refusal(concurrency=0).message.startswith("agent 'agent': concurrency 0 ")
        with pytest.raises(InvalidDefinition, match=r"^app 'app': limit 0 "):
            App("app", limit=0)

    @pytest.mark.parametrize("key", ["customer", agent], ids=["text", "an async function"])
    def test_a_key_is_a_plain_function(self, key: Any) -> None:
        with pytest.raises(InvalidDefinition, match=r"key=.* of a limit is not a plain function") as refused:
            Limit(1, key=key)
        assert refused.value.hint == "write key=lambda input: input.customer"

    def test_a_key_needs_an_input_to_count_by(self) -> None:
        error = refusal(concurrency=Limit(1, key=str))
        assert (error.code, error.hint) == ("definition.limit", "leave the key out")


class TestSessions:
    @pytest.mark.parametrize("busy", ["queue", "reject", "interrupt", "answer"])
    def test_a_synchronized_session_may_say_what_happens_when_it_is_busy(self, busy: Any) -> None:
        made = App("app").agent(session="synchronized", busy=busy)(agent)
        assert (made.session, made.busy) == ("synchronized", busy)

    @pytest.mark.parametrize("session", ["shared", "isolated"])
    @pytest.mark.parametrize("busy", ["reject", "interrupt", "answer"])
    def test_other_sessions_are_never_busy(self, session: Any, busy: Any) -> None:
        error = refusal(session=session, busy=busy)
        assert error.code == "definition.session"
        assert error.hint == 'write session="synchronized", or leave busy out'

    def test_words_that_are_unknown_are_refused_with_those_that_are_known(self) -> None:
        assert refusal(session="exclusive").message == (
            "agent 'agent': session='exclusive' is none of shared, synchronized, isolated"
        )
        assert refusal(session="synchronized", busy="wait").message == (
            "agent 'agent': busy='wait' is none of queue, reject, interrupt, answer"
        )


class TestCleanUps:
    def test_it_is_kept_and_given_back(self) -> None:
        made = App("app").agent(agent)
        assert made.cancel_hook is None

        @made.on_cancel
        async def clean_up(ctx: Context[Any]) -> None: ...

        assert made.cancel_hook is clean_up

    def test_it_is_an_async_function_of_the_context_alone(self) -> None:
        def plain(ctx: Context[Any]) -> None: ...
        async def nothing() -> None: ...
        async def two(ctx: Context[Any], why: str) -> None: ...
        async def keyword(*, ctx: Context[Any]) -> None: ...

        for fn in (plain, nothing, two, keyword, None, 5):
            wrong: Any = fn
            with pytest.raises(InvalidDefinition) as refused:
                App("app").agent(agent).on_cancel(wrong)
            assert refused.value.code == "definition.on_cancel"

    def test_there_is_one(self) -> None:
        made = App("app").agent(agent)
        made.on_cancel(agent)
        with pytest.raises(InvalidDefinition) as refused:
            made.on_cancel(agent)
        assert refused.value.code == "definition.duplicate"
