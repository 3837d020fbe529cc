"""The verbs that keep something: events and files of the agent's own, and its saved state."""

from __future__ import annotations

import json
from typing import Any

from stepwell.codec import Codec, codec_for
from stepwell.domain import event, values
from stepwell.domain.blob import blob_name
from stepwell.domain.errors import InvalidDefinition, InvalidValue, Misuse
from stepwell.domain.event import Draft
from stepwell.domain.ids import NAME
from stepwell.engine.attempt import Attempt
from stepwell.engine.calls import Calls
from stepwell.engine.checks import artifact_bytes, check_text, media_type_of
from stepwell.engine.replay import Call
from stepwell.ports.crash_point import CrashPoint

_checkpointed = CrashPoint("checkpoint.after_record")
_artifact_kept = CrashPoint("artifact.after_blob")


class StateVerbs(Calls):
    """`ctx.emit`, `ctx.artifact`, `ctx.checkpoint` and `ctx.restore`."""

    def __init__(self, attempt: Attempt) -> None:
        Calls.__init__(self, attempt)
        self._state: Codec[Any] | None = None

    # ------------------------------------------------------------ facts of the agent's own

    async def emit(self, name: str, data: Any = None, /) -> None:
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            raise InvalidDefinition(f"{name!r:.80} cannot name an event", code="definition.name")
        text = codec_for(Any).encode(data if isinstance(data, dict) else {"value": data}, f"emit {name}")
        values.check_size(text, 256 * 1024, f"emit {name}")
        await self._open()
        kind = event.CUSTOM + name
        place = self._scope("emit").next_place()
        if self._attempt.recall(Call(kind, place, name, values.digest(values.loads(text)))) is None:
            await self._whole("emit", self._attempt.commit(Draft(kind, text, place)))

    async def artifact(self, name: str, content: str | bytes, /, *, media_type: str | None = None) -> None:
        check_text(name, "the artifact's name")
        raw = artifact_bytes(name, content)
        if media_type is None:
            media_type = media_type_of(name, content)
        check_text(media_type, f"the media type of artifact {name}")
        ref = blob_name(raw)
        await self._open()
        place = self._scope("artifact").next_place()
        if self._attempt.recall(Call(event.ARTIFACT_SAVED, place, name, ref)) is not None:
            return
        facts = {"artifact": ref, "name": name, "media_type": media_type, "size": len(raw)}
        await self._whole("artifact", self._keep(raw, Draft(event.ARTIFACT_SAVED, values.dumps(facts), place)))
        self._attempt.saw_artifact(facts)

    async def _keep(self, raw: bytes, draft: Draft) -> None:
        await self._attempt.keep(raw)
        _artifact_kept()
        await self._attempt.commit(draft)

    # ------------------------------------------------------------ saved state

    async def checkpoint(self, state: Any, /) -> None:
        await self._open()
        scope = self._scope("checkpoint")
        if "." in scope.path:
            raise Misuse(
                "ctx.checkpoint was called in a branch; only the agent itself can begin a new numbering",
                code="checkpoint.in_branch",
                hint="call it before or after ctx.gather and ctx.map",
            )
        if self._state is None:
            raise Misuse(
                "ctx.checkpoint was called by an agent that does not begin with ctx.restore: it would start over",
                code="checkpoint.not_restored",
                hint="make `state = await ctx.restore(Type)` the agent's first call, and go on from what it gives",
            )
        scope.end_stream()
        text = self._state.encode(state, "state")
        values.check_size(text, 1024 * 1024, "state")
        self._attempt.expect_done()
        await self._whole("checkpoint", self._save(text))
        self._attempt.replay.generation += 1
        scope.path, scope.position, scope.random, scope.uuids = str(self._attempt.replay.generation), 0, None, 0

    async def _save(self, text: str) -> None:
        payload = await self._attempt.payload(text)
        version = self._attempt.replay.generation + 1
        await self._attempt.commit(Draft(event.CHECKPOINT_SAVED, f'{{"version":{version},{payload.field("state")}}}'))
        _checkpointed()

    async def restore(self, type: Any, /) -> Any:
        await self._open()
        scope = self._scope("restore")
        if self._attempt.touched or self._attempt.restored:
            raise Misuse("ctx.restore must be the agent's first call through the context", code="checkpoint.late")
        self._attempt.restored = True
        self._state = codec_for(type)
        entry = self._attempt.replay.checkpoint
        if entry is None:
            return None
        place = f"{scope.path}/0"
        text = await self._whole("restore", self._attempt.read_payload(json.loads(entry.data), "state", place))
        try:
            return self._state.decode(text, "the saved state")
        except InvalidValue as error:
            raise self._attempt.undecodable(place, error) from None
