"""Commits and submissions: what they say of themselves."""

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Payload, Succeeded
from stepwell.domain.run import Lifecycle, RunRecord
from stepwell.domain.session import SessionMessage, SessionWrite
from stepwell.domain.submission import Lane, Submission, facts
from stepwell.domain.wait import Wait

VALUE = Payload("1")
SUBMISSION = Submission(
    id="run_1",
    agent="support",
    version="2",
    session="ses_1",
    input=VALUE,
    input_digest="digest",
    available_at=10,
    created_at=20,
    timeout=30,
    tenant="acme",
    trigger="nightly",
    priority=4,
    deadline=50,
    idempotency_key="key",
    metadata='{"a":1}',
    causal_depth=6,
    queue_bound=7,
    start_on="wrk_1",
    parent="run_p",
    parent_step="0/1",
    root="run_r",
    depth=8,
    detached=1,
    hooked=1,
    retry_of="run_o",
    origin="run_oo",
    inherited=(Draft("step.completed"),),
    lanes=(Lane("key", "k", 1),),
    busy="reject",
)


def test_a_commit_that_tells_facts_and_perhaps_an_end_is_plain() -> None:
    assert Commit(1).plain
    assert Commit(1, (Draft("custom.a"),), Succeeded(VALUE), 9).plain


@pytest.mark.parametrize(
    "commit",
    [
        Commit(1, opens=(Wait("0/1", "signal", "go", "0/1"),)),
        Commit(1, expires=("0/1",)),
        Commit(1, submits=(SUBMISSION,)),
        Commit(1, writes=(SessionWrite("ses_1", "key", VALUE, "0/1"),)),
        Commit(1, messages=(SessionMessage("ses_1", "user", VALUE, "0/1"),)),
    ],
    ids=["opens", "expires", "submits", "writes", "messages"],
)
def test_a_commit_that_does_something_beside_its_run_is_not_plain(commit: Commit) -> None:
    assert not commit.plain


def test_a_run_has_the_facts_of_its_submission() -> None:
    run = RunRecord._make((*facts(SUBMISSION), Lifecycle("queued", 10, 20)))
    shared = set(RunRecord._fields) & set(Submission._fields)
    assert {name: getattr(run, name) for name in shared} == {name: getattr(SUBMISSION, name) for name in shared}
    assert set(RunRecord._fields) - shared == {"life", "forked_from"}
    assert run.forked_from is None
