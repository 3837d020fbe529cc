"""Function agents: an async function as a `Runnable`. It starts from the top on every attempt; its types decide how
values are read.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from stepwell.app import FunctionAgent
from stepwell.codec import Codec, codec_for, encode_input
from stepwell.domain.errors import InvalidDefinition, InvalidInput
from stepwell.domain.retry import Retry
from stepwell.ports.context import Context


class FunctionRunnable:
    """A declared function agent, with its annotations looked up when first needed."""

    def __init__(self, agent: FunctionAgent[..., Any, Any]) -> None:
        self._agent = agent
        self.name: str = agent.name
        self.version: str = agent.version
        self.retry: Retry | None = agent.retry
        self.timeout: int = agent.timeout

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
