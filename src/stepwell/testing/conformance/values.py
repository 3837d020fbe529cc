"""What a store must do with texts: nothing. What goes in comes out, byte for byte."""

from __future__ import annotations

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Payload, Succeeded
from stepwell.domain.values import dumps
from stepwell.ports.store import RunQuery
from stepwell.testing.conformance.harness import Harness, events

_SURROGATES = range(0xD800, 0xE000)
_AWKWARD = {
    "unsorted keys": '{"z":1,"a":2,"m":{"y":1,"b":2}}',
    "numbers": '{"n":[1.0,1,1e5,-0.0,0.1,1e-320,9007199254740991,-9007199254740991]}',
    "escapes": '{"t":"\\u0041\\/ \\" \\\\ \\n"}',
    "empty parts": '{"e":{},"l":[],"s":"","0":null}',
    "quotes and marks": '{"q":"Robert\'); DROP TABLE run;-- %s ? :x $1 {}"}',
    "odd line ends": '{"lines":"\u2028\u2029\u0085\ufeff\u200f\U0010ffff"}',
    "spaces": '{ "spaced" : [ 1 , 2 ] }',
}


class ValueContract:
    """Texts survive."""

    async def test_every_character_survives(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        characters = [chr(code) for code in range(1, 0x110000) if code not in _SURROGATES]
        texts = [dumps({"text": "".join(characters[n : n + 50_000])}) for n in range(0, len(characters), 50_000)]
        await one.commit(lease, Commit(1, tuple(Draft("custom.text", text) for text in texts)))
        assert [entry.data for entry in (await events(other, lease.run_id))[2:]] == texts

    @pytest.mark.parametrize("text", _AWKWARD.values(), ids=_AWKWARD)
    async def test_a_text_is_not_reformatted(self, harness: Harness, text: str) -> None:
        one, other = await harness.views()
        submission = harness.submission(input=Payload(text), metadata=text, start_on=await harness.worker(one))
        submitted = await one.submit(submission)
        assert submitted.lease is not None
        draft = Draft("custom.text", text, step=text, node=text)
        await one.commit(submitted.lease, Commit(1, (draft,), Succeeded(Payload(text))))
        queued, _, custom, succeeded = await events(other, submission.id)
        assert f'"input":{text}' in queued.data
        assert (custom.data, custom.step, custom.node) == (text, text, text)
        assert succeeded.data == f'{{"output":{text}}}'
        assert (await other.get(submission.id)).metadata == text

    async def test_a_large_text_survives(self, harness: Harness) -> None:
        one, other = await harness.views()
        text = dumps("ä€😀" * 110_000)
        assert len(text.encode()) > 900_000
        submission = harness.submission(input=Payload(text), start_on=await harness.worker(one))
        submitted = await one.submit(submission)
        assert submitted.lease is not None
        await one.commit(submitted.lease, Commit(1, (Draft("custom.text", text),), Succeeded(Payload(text))))
        queued, _, custom, succeeded = await events(other, submission.id)
        assert text in queued.data
        assert custom.data == text
        assert succeeded.data == f'{{"output":{text}}}'

    async def test_names_are_kept_apart_exactly(self, harness: Harness) -> None:
        store = await harness.make()
        names = ["a", "A", "a ", "ä", "a\u0308", "a%", "a_", "a'"]
        for name in names:
            await harness.submit(store, session=name, idempotency_key=name, tenant=name)
        for name in names:
            [run] = await store.find(RunQuery(tenant=name, session=name))
            assert (run.session, run.idempotency_key, run.tenant) == (name, name, name)
