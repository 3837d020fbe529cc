"""Children as their parent sees them: what can be called, a run that goes on beside it, and how it ended."""

from __future__ import annotations

from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from stepwell.domain.errors import RunFailed
from stepwell.domain.outcome import ErrorInfo
from stepwell.domain.run import SUCCEEDED

I_contra = TypeVar("I_contra", contravariant=True, default=Any)
O_co = TypeVar("O_co", covariant=True, default=Any)


class Callee(Generic[I_contra, O_co]):
    """An agent as another one calls it: by its name, with the types of its input and output."""

    name: str
    version: str


class ChildResult(Generic[O_co]):
    """How a child ended. `status` is its status, `ok` whether it succeeded, `error` why it failed, where it did."""

    __slots__ = ("_output", "error", "ok", "run_id", "status")

    def __init__(self, run_id: str, status: str, output: Any, error: ErrorInfo | None) -> None:
        self.run_id = run_id
        self.status = status
        self.ok = status == SUCCEEDED
        self.error = error
        self._output = output

    @property
    def output(self) -> O_co:
        """What the child returned. Raises `RunFailed` unless it succeeded."""
        if not self.ok:
            code = self.error.code if self.error else f"run.{self.status}"
            why = f": {self.error.message}" if self.error else ""
            raise RunFailed(
                f"child {self.run_id} did not succeed, it is {self.status}{why}",
                run_id=self.run_id,
                status=self.status,
                code=code,
                hint=f"see: stepwell runs show {self.run_id[-6:]}",
                retryable=bool(self.error and self.error.retryable),
            )
        output: O_co = self._output
        return output

    def __repr__(self) -> str:
        return f"<result of {self.run_id}: {self.status}>"


class ChildRun(Protocol[O_co]):
    """A child that goes on beside its parent, as `ctx.spawn` gives it."""

    @property
    def id(self) -> str:
        """The child's run id."""
        ...

    async def result(self) -> ChildResult[O_co]:
        """Wait for the child's end, holding no slot; never raises because the child failed. A positioned call."""
        ...
