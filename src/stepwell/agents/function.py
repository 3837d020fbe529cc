"""Function agents: an async function as a `Runnable`. It starts from the top on every attempt; its types decide how
values are read.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from stepwell.app import FunctionAgent, Limit
from stepwell.codec import Codec, codec_for, encode_input
from stepwell.domain.errors import InvalidDefinition, InvalidInput, InvalidValue
from stepwell.domain.retry import Retry
from stepwell.domain.submission import AGENT_LANE, GLOBAL_LANE, KEY_LANE, SESSION_LANE, Lane
from stepwell.domain.values import check
from stepwell.ports.context import Context
from stepwell.ports.runnable import SessionMode, WhenBusy

_LONGEST_KEY: Final = 500


class FunctionRunnable:
    """A declared function agent, with its annotations looked up when first needed."""

    def __init__(self, agent: FunctionAgent[..., Any, Any]) -> None:
        self._agent = agent
        self.name: str = agent.name
        self.version: str = agent.version
        self.retry: Retry | None = agent.retry
        self.timeout: int = agent.timeout
        self.session_mode: SessionMode = agent.session
        self.busy: WhenBusy = agent.busy
        self.max_children: int = agent.children

    @property
    def hooked(self) -> bool:
        """Whether a clean-up for cancels was declared."""
        return self._agent.cancel_hook is not None

    @property
    def summary(self) -> str:
        """The first line of the function's documentation, or nothing."""
        return (inspect.getdoc(self._agent.fn) or "").partition("\n")[0]

    @cached_property
    def takes_input(self) -> bool:
        """Whether the function has a second parameter."""
        return len(inspect.signature(self._agent.fn).parameters) == 2

    @cached_property
    def input_annotation(self) -> Any:
        """The type of the input; `None` for an agent that takes none."""
        if not self.takes_input:
            return None
        parameter = list(inspect.signature(self._agent.fn).parameters)[1]
        return self._annotations.get(parameter, Any)

    @cached_property
    def output_annotation(self) -> Any:
        """The type of what the agent returns."""
        return self._annotations.get("return", inspect.Parameter.empty)

    @cached_property
    def _output(self) -> Codec[Any]:
        return codec_for(self.output_annotation)

    @cached_property
    def _annotations(self) -> Mapping[str, Any]:
        fn = self._agent.fn
        try:
            return typing.get_type_hints(fn, localns=dict(self._agent.local_names), include_extras=True)
        except (NameError, AttributeError, TypeError) as error:
            raise InvalidDefinition(
                f"the annotations of agent {self.name!r} cannot be resolved: {error}",
                code="definition.annotation",
                hint=f"see {fn.__code__.co_filename}:{fn.__code__.co_firstlineno}",
            ) from error

    def lanes(self, input_text: str, session: str) -> tuple[Lane, ...]:
        limit, app = self._agent.concurrency, self._agent.app
        found = [Lane(SESSION_LANE, session, 1)] if self.session_mode == "synchronized" else []
        if limit is not None and limit.key is not None:
            found.append(Lane(KEY_LANE, f"{self.name} {self._key(limit, input_text)}", limit.n))
        elif limit is not None:
            found.append(Lane(AGENT_LANE, self.name, limit.n))
        if app is not None and app.limit is not None:
            found.append(Lane(GLOBAL_LANE, app.name, app.limit))
        return tuple(found)

    def _key(self, limit: Limit, input_text: str) -> str:
        """What the limit counts this input under."""
        assert limit.key is not None
        try:
            key = limit.key(self.decode_input(input_text))
        except Exception as error:  # a user's function may raise anything; the input is what it does not fit
            raise _no_key(self.name, f"raised {type(error).__name__}: {error}") from error
        if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY:
            raise _no_key(self.name, f"gave {key!r:.80}")
        try:
            check(key, what="key")
        except InvalidValue as error:
            raise _no_key(self.name, f"gave {key!r:.80}: {error.message}") from None
        return key

    def encode_input(self, value: Any) -> str:
        if not self.takes_input and value is not None:
            raise InvalidInput(
                f"agent {self.name!r} takes no input, and was given {value!r:.80}", code="input.unexpected"
            )
        return encode_input(self.input_annotation, value)

    def decode_input(self, text: str) -> Any:
        return codec_for(self.input_annotation).decode(text, "input")

    def encode_output(self, value: Any) -> str:
        return self._output.remember(value, "output")[0]

    def decode_output(self, text: str) -> Any:
        return self._output.decode(text, "output")

    async def run(self, ctx: Context[Any], value: Any) -> Any:
        fn: Any = self._agent.fn
        return await (fn(ctx, value) if self.takes_input else fn(ctx))

    async def on_cancel(self, ctx: Context[Any]) -> None:
        hook = self._agent.cancel_hook
        assert hook is not None
        await hook(ctx)


def _no_key(agent: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"the key of agent {agent!r}'s limit {what} for this input",
        code="input.limit_key",
        path="input",
        hint=f"give a text of 1 to {_LONGEST_KEY} characters for every input: Limit(n, key=lambda input: ...)",
    )
