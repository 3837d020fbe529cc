"""What a step's function is: its name, whether it is async or wants the step context, and the type of its result."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from stepwell.codec import Codec, codec_for
from stepwell.domain.errors import InvalidDefinition, Misuse
from stepwell.domain.values import check, dumps
from stepwell.ports.context import StepContext

_MAX_NAME = 200
_described: WeakKeyDictionary[Any, StepFunction] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class StepFunction:
    """A function as a step. `name_text` and `function_text` are JSON texts of the two, made once.

    `returns_none` says whether its result may be `None`; `typed` whether its result is annotated at all.
    """

    name: str
    function: str
    is_async: bool
    wants_context: bool
    typed: bool
    returns_none: bool
    codec: Codec[Any]
    name_text: str
    function_text: str


class BoundStep(typing.NamedTuple):
    """A step's function with the arguments that it brings along."""

    fn: Callable[..., Any]
    described: StepFunction
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def describe(fn: Callable[..., Any]) -> BoundStep:
    """Look at a function, once per function.

    Partials bring their arguments; bound methods their object, which is not data.
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(fn, functools.partial):
        args, kwargs = (*fn.args, *args), {**fn.keywords, **kwargs}
        fn = fn.func
    anchor = getattr(fn, "__func__", fn)
    try:
        described = _described.get(anchor)
        if described is None:
            described = _described[anchor] = _describe(fn)
    except TypeError:  # an object that can be neither hashed nor referred to weakly: looked at anew each time
        described = _describe(fn)
    return BoundStep(fn, described, args, kwargs)


def checked_name(name: str) -> str:
    """A name given to a step by hand."""
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise InvalidDefinition(
            f"{name!r:.80} cannot name a step",
            code="definition.step_name",
            hint=f"a step's name is a text of 1 to {_MAX_NAME} characters",
        )
    check(name, what="the step's name")
    return name


def _describe(fn: Callable[..., Any]) -> StepFunction:
    if inspect.isclass(fn) or not callable(fn):
        raise _not_a_function(fn)
    body = fn if inspect.isroutine(fn) else type(fn).__call__
    if inspect.isasyncgenfunction(body) or inspect.isgeneratorfunction(body):
        raise Misuse(
            f"{_name(fn)} is a generator; a step returns one value",
            code="step.generator",
            hint="return a list, or make each item a step with ctx.map",
        )
    name, function = _name(fn), getattr(fn, "__qualname__", type(fn).__qualname__)
    annotation = _result_annotation(fn, body)
    return StepFunction(
        name=name,
        function=function,
        is_async=inspect.iscoroutinefunction(body),
        wants_context=_wants_context(fn),
        typed=annotation is not inspect.Parameter.empty and annotation is not Any,
        returns_none=annotation is None or type(None) in (annotation, *typing.get_args(annotation)),
        codec=codec_for(annotation),
        name_text=dumps(name),
        function_text=dumps(function),
    )


def _name(fn: Callable[..., Any]) -> str:
    name: str = getattr(fn, "__name__", type(fn).__name__)
    return name


def _wants_context(fn: Callable[..., Any]) -> bool:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature; they cannot want a context either
        return False
    if not parameters:
        return False
    annotation = parameters[0].annotation
    if isinstance(annotation, str):
        return annotation.split("[")[0].rpartition(".")[2] == StepContext.__name__
    return (typing.get_origin(annotation) or annotation) is StepContext


def _result_annotation(fn: Callable[..., Any], body: Callable[..., Any]) -> Any:
    target = inspect.unwrap(body)
    raw = getattr(target, "__annotations__", {}).get("return", inspect.Parameter.empty)
    if not isinstance(raw, str) and "ForwardRef" not in repr(raw):
        return raw
    try:
        return typing.get_type_hints(target, include_extras=True).get("return", inspect.Parameter.empty)
    except (NameError, AttributeError, TypeError) as error:
        raise InvalidDefinition(
            f"the return annotation {raw!r} of step {_name(fn)} cannot be resolved: {error}",
            code="definition.annotation",
            hint="define the type at the top of the module, where annotations are looked up",
        ) from error


def _not_a_function(fn: object) -> Misuse:
    return Misuse(
        f"a step needs a function, and {fn!r:.80} is not one",
        code="step.not_a_function",
        hint="write ctx.step(fn, argument), without calling fn",
    )
