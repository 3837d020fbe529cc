"""What runs ask people: questions, one by one and as a group."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Generic

from typing_extensions import TypeVar

from stepwell.domain.errors import Conflict, InvalidInput, InvalidValue, NotFound, RunEnded
from stepwell.domain.event import to_datetime
from stepwell.domain.ids import QUESTION, RUN, is_id
from stepwell.domain.run import RunRecord
from stepwell.domain.values import check_size
from stepwell.domain.wait import VERDICT, WaitRecord
from stepwell.engine.inputs import MAX_INPUT, payload
from stepwell.ports.store import QuestionQuery, RunQuery, Store
from stepwell.runtime.access import POLL, Access, checked_by

T = TypeVar("T", default=Any)

_SHORTEST_ENDING: Final = 4
_ALL: Final = 1_000_000


class Question(Generic[T]):
    """What a run asks a person, as last read. `answer` is the verb."""

    def __init__(self, record: WaitRecord, access: Access) -> None:
        self._record = record
        self._access = access
        self._facts: Mapping[str, Any] = json.loads(record.wait.data)

    @property
    def id(self) -> str:
        """The question's id: `q_` and 26 characters."""
        return self._record.wait.id

    @property
    def text(self) -> str:
        """What is asked."""
        return self._record.wait.name

    @property
    def details(self) -> Any:
        """What the agent gives to decide by: JSON data, or `None`."""
        return self._facts.get("details")

    @property
    def assignee(self) -> str | None:
        """Who is meant to answer; `None` for anybody."""
        assignee: str | None = self._facts.get("assignee")
        return assignee

    @property
    def run_id(self) -> str:
        """The run that asks."""
        return self._record.run_id

    @property
    def agent(self) -> str:
        """The agent of that run."""
        return self._record.agent

    @property
    def schema(self) -> Mapping[str, Any]:
        """What an answer must look like, as a JSON Schema."""
        schema: Mapping[str, Any] = self._facts["schema"]
        return schema

    @property
    def about_doubt(self) -> bool:
        """Whether it asks what became of a step that may have had its effect without a record: it ran (`{"done":
        RESULT}`), it did not (`"rerun"`), or it shall count as failed (`"fail"`).
        """
        return self.schema == VERDICT

    @property
    def asked_at(self) -> datetime:
        """When it was asked, aware UTC."""
        return to_datetime(self._record.opened_at)

    @property
    def until(self) -> datetime | None:
        """When the run stops waiting for the answer; `None`: never."""
        until = self._record.wait.until
        return None if until is None else to_datetime(until)

    @property
    def outcome(self) -> str | None:
        """What became of it: "answered", "timed_out", "run_ended", or `None` while it is open."""
        return self._record.outcome

    @property
    def answered_by(self) -> str | None:
        """Who answered, if anybody did."""
        return self._record.by if self._record.outcome == "answered" else None

    def __repr__(self) -> str:
        return f"<question {self.id} of {self.agent}: {self.text!r:.60}>"

    async def answer(self, value: T, *, by: str | None = None) -> None:
        """Answer it; the run goes on. The first answer counts.

        `value` is what the agent asks for: a value of that type, or the plain data of one. `by` (default "api") is kept
        for the record. Raises `InvalidInput` (`answer.invalid`) naming the place that does not fit, `AlreadyAnswered`,
        and `Conflict` (`question.closed`) when its time is over or its run has ended.
        """
        from stepwell.codec.answers import encode_answer  # at the first answer: most programs give none

        text = encode_answer(self.schema, value)
        try:
            check_size(text, MAX_INPUT, "answer")
        except InvalidValue as error:
            raise InvalidInput(error.message, code=error.code, path=error.path, hint=error.hint) from None
        store = self._access.store
        self._record = await store.answer(
            self.id, await payload(store, text), by=checked_by(by), tenant=self._record.tenant
        )


class Questions:
    """`runtime.questions`."""

    def __init__(self, access: Callable[[], Access]) -> None:
        self._access = access

    async def list(
        self, *, assignee: str | None = None, run: str | None = None, limit: int = 1000
    ) -> builtins.list[Question[Any]]:
        """The open questions, oldest first, at most `limit`: all, or those of an assignee, of a run (its id)."""
        access = self._access()
        query = QuestionQuery(assignee=assignee, run_id=run, limit=limit)
        return [Question(record, access) for record in await access.store.questions(query)]

    async def get(self, question_id: str, /) -> Question[Any]:
        """The question of that id, open or not. Raises `NotFound` (`question.unknown`)."""
        access = self._access()
        return Question(await access.store.question(question_id), access)

    async def answer(self, question_id: str, value: Any, /, *, by: str | None = None) -> None:
        """Answer the question of that id; raises what `get` and `Question.answer` raise."""
        await (await self.get(question_id)).answer(value, by=by)

    async def find(self, text: str, /) -> Question[Any]:
        """The question that a person means: an id, the unique ending of an open one of at least 4 characters, or `last`
        for the newest open one.

        Raises `NotFound` (`question.unknown`; it says so when a run is meant) and `Conflict` (`question.ambiguous`).
        """
        if is_id(QUESTION, text):
            return await self.get(text)
        access = self._access()
        if text == "last":
            found = (await access.store.questions(QuestionQuery(limit=_ALL)))[-1:]
        elif len(text) < _SHORTEST_ENDING:
            raise NotFound(
                f"{text!r} is too short to name a question",
                code="question.unknown",
                hint=f"give at least {_SHORTEST_ENDING} characters of the id's ending, or `last`",
            )
        else:
            found = await access.store.questions(QuestionQuery(ending=text.lower(), limit=2))
        if not found:
            raise await _no_question(text, access.store)
        if len(found) > 1:
            raise Conflict(
                f"more than one open question ends in {text!r}",
                code="question.ambiguous",
                hint="give more characters of the id",
            )
        return Question(found[0], access)


async def oldest_open(run: RunRecord, access: Access) -> Question[Any]:
    """The oldest open question of a run, as soon as there is one. Raises `RunEnded`."""
    store = access.store
    with store.notifier.listen(run.id) as hints:
        while True:
            found = await store.questions(QuestionQuery(tenant=run.tenant, run_id=run.id, limit=1))
            if found:
                return Question(found[0], access)
            life = (await store.get(run.id, tenant=run.tenant)).life
            if life.ended:
                raise RunEnded(
                    f"run {run.id} has ended ({life.status}) and asks nothing any more",
                    hint=f"see: stepwell runs show {run.id[-6:]}",
                )
            access.check_alive()
            await hints.wait(POLL)


async def _no_question(text: str, store: Store) -> NotFound:
    """There is none; when it is a run that was named, say what that run asks."""
    if text == "last":
        return NotFound("no question is open", code="question.unknown", hint="see: stepwell inbox")
    runs = await store.find(RunQuery(ending=text.lower(), limit=2))
    if len(runs) != 1:
        return NotFound(f"no open question ends in {text!r}", code="question.unknown", hint="see: stepwell inbox")
    asked = await store.questions(QuestionQuery(run_id=runs[0].id, limit=1))
    hint = f"the run asks: {asked[0].wait.id} {asked[0].wait.name!r:.80}" if asked else "the run asks nothing now"
    shown = text if is_id(RUN, text) else f"{text!r}"
    return NotFound(f"{shown} is a run, not a question", code="question.unknown", hint=hint)
