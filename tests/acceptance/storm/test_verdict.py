"""The judgement of a storm finds what is planted in the evidence of one that went well."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import apsw
import pytest

from tests.acceptance.storm.figures import LATE, figures_of, keep_figures
from tests.acceptance.storm.storm import PR, Storm
from tests.acceptance.storm.tenures import Causes, Tenure, histories_of
from tests.acceptance.storm.verdict import Evidence, Gap, evidence_of, judge
from tests.acceptance.storm.weather import Fault, Forecast, joined, overlap, within

SMALL: Final = PR.calm()._replace(runs=12, steps=3, work=0.0, window=4)
LONG: Final = 10_000_000
RUN: Final = "(select max(n) from run)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """What a small storm without faults leaves behind."""
    with Storm(tmp_path_factory.mktemp("storm"), SMALL, seed=1) as storm:
        storm.begin()
        storm.rage()
        storm.calm()
        return evidence_of(storm)


@pytest.fixture
def evidence(whole: Evidence, tmp_path: Path) -> Evidence:
    """A copy of it."""
    for path in whole.database.parent.glob(f"{whole.database.name}-wal"):
        shutil.copy(path, tmp_path)
    copies = [Path(shutil.copy(path, tmp_path)) for path in (whole.database, whole.effects, *whole.logs)]
    return whole._replace(database=copies[0], effects=copies[1], logs=copies[2:])


def change(evidence: Evidence, sql: str) -> None:
    db = apsw.Connection(str(evidence.database))
    db.execute(sql)
    db.close()


def add(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def drop_an_effect(evidence: Evidence) -> None:
    lines = evidence.effects.read_text(encoding="utf-8").splitlines(keepends=True)
    evidence.effects.write_text("".join(lines[:-1]), encoding="utf-8")


SEQ: Final = f"(select min(seq) from journal where run = {RUN} and kind = 'step.completed')"
EXPIRED: Final = ("run.resumed",)
DEAD: Final = ("run.lost", "run.started")
END: Final = (
    "insert into journal (run, seq, at, kind, data)"
    f" select {RUN}, max(seq) + 1, max(at) + 1, 'run.succeeded', json_object('output', json_object('fence', 0))"
    f" from journal where run = {RUN}"
)
"""An end with a fence that was never given; `written` by nobody's attempt."""


def take(evidence: Evidence, kinds: tuple[str, ...]) -> None:
    """Let another worker have the last run after its first step, with these facts, and write all that follows."""
    quietly = "drop trigger storm_audit_update"
    moved = f"update journal set seq = seq {{}} where run = {RUN} and seq > {{}}"
    change(evidence, f"{quietly}; {moved.format('+ 1000', SEQ)}; {moved.format(f'- 1000 + {len(kinds)}', 1000)}")
    for more, kind in enumerate(kinds, 1):
        told = "json_object('fence', 2, 'worker', 'wrk_other', 'cause', 'lease_expired')"
        facts = (
            f"select run, seq + {more}, at + {more}, '{kind}', {told} from journal where run = {RUN} and seq = {SEQ}"
        )
        change(evidence, f"insert into journal (run, seq, at, kind, data) {facts}")
    id = f"(select id from run where n = {RUN})"
    change(evidence, f"update run set seq = seq + {len(kinds)} where n = {RUN}")
    change(evidence, f"update storm_audit set written = 2, granted = 2 where run = {id} and number > 0")
    change(evidence, f"update storm_ends set written = 2, granted = 2 where run = {id}")


def take_and_repeat(evidence: Evidence) -> None:
    """The same, and the step in which it was taken has its effect twice."""
    take(evidence, EXPIRED)
    rows: list[Any] = rows_of(evidence, f"select id from run where n = {RUN}")
    told = [line.split() for log in evidence.logs for line in log.read_text(encoding="utf-8").splitlines()]
    job = next(words[1] for words in told if words[0] == "accepted" and words[2] == rows[0][0])
    effects = evidence.effects.read_text(encoding="utf-8").splitlines()
    add(evidence.effects, next(line for line in effects if line.split()[:2] == [job, "1"]))


def rows_of(evidence: Evidence, sql: str) -> list[Any]:
    db = apsw.Connection(str(evidence.database))
    rows: list[Any] = db.execute(sql).fetchall()
    db.close()
    return rows


def test_nothing_is_found_where_nothing_is_wrong(evidence: Evidence) -> None:
    verdict = judge(evidence)
    assert verdict.broken() == {}
    assert verdict.accepted >= SMALL.runs
    assert verdict.commits == verdict.effects > SMALL.runs
    assert verdict.ends == verdict.accepted


PLANTED: Final[dict[str, tuple[Callable[[Evidence], object], set[str]]]] = {
    "an accepted run is not there": (lambda e: add(e.logs[0], "accepted 999 run_gone"), {"lost runs"}),
    "an accepted run has failed": (
        lambda e: change(e, f"update run set status = 'failed' where n = {RUN}"),
        {"lost runs", "order"},
    ),
    "a key has made two runs": (
        lambda e: add(e.logs[0], "accepted 998 run_one\naccepted 998 run_other"),
        {"two runs for one key", "lost runs"},
    ),
    "a step was committed twice": (
        lambda e: change(e, "insert into storm_audit select * from storm_audit limit 1"),
        {"double commits", "order"},
    ),
    "a write came with an old fence": (
        lambda e: change(e, "update storm_audit set written = granted - 1 where rowid = 3"),
        {"zombie writes"},
    ),
    "a write came after the end": (lambda e: change(e, "update storm_audit set ended = 1"), {"zombie writes"}),
    "steps were committed in another order": (
        lambda e: change(e, "update storm_audit set number = 2 - number where number <> 1"),
        {"order"},
    ),
    "an event is missing": (
        lambda e: change(e, f"delete from journal where run = {RUN} and seq = 3"),
        {"order", "rewritten facts"},
    ),
    "an effect is missing": (drop_an_effect, {"missing effects"}),
    "an effect was repeated for nothing": (
        lambda e: add(e.effects, e.effects.read_text(encoding="utf-8").splitlines()[-1]),
        {"duplicate effects", "duplicate effects without a cause"},
    ),
    "a run was taken from its holder and nobody was hit": (
        lambda e: take(e, EXPIRED),
        {"robbed holders"},
    ),
    "a holder was taken for dead and nobody was hit": (lambda e: take(e, DEAD), {"robbed holders"}),
    "an effect was repeated by one who took the run for nothing": (
        take_and_repeat,
        {"robbed holders", "duplicate effects without a cause", "duplicate effects"},
    ),
    "a committed result was changed": (
        lambda e: change(e, f"update journal set data = '{{}}' where run = {RUN} and kind = 'step.completed'"),
        {"rewritten facts"},
    ),
    "an end came with an old fence": (
        lambda e: change(e, f"delete from journal where run = {RUN} and kind = 'run.succeeded'; {END}"),
        {"zombie writes", "rewritten facts"},
    ),
    "a run has ended twice": (
        lambda e: change(e, f"{END}; update run set seq = seq + 1 where n = {RUN}"),
        {"zombie writes", "order"},
    ),
    "an innocent run was given up": (
        lambda e: change(e, f"update run set dead = 1 where n = {RUN}"),
        {"wrong dead letters"},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(evidence: Evidence, name: str) -> None:
    plant, found = PLANTED[name]
    plant(evidence)
    broken = judge(evidence).broken()
    assert found <= broken.keys() <= found | {"order", "missing effects", "duplicate effects without a cause"}


def test_files_tasks_and_memory_that_are_not_given_back_are_found(evidence: Evidence) -> None:
    before = evidence.before
    after = before._replace(files=before.files + 5, tasks=before.tasks + 1, memory=before.memory * 13 // 10)
    broken = judge(evidence._replace(after=after)).broken()
    assert broken.keys() == {"leaks"}
    assert [line.split(":")[0] for line in judge(evidence._replace(after=after))._leaks()] == [
        "files",
        "tasks",
        "memory",
    ]


def test_a_storm_that_takes_too_long_to_drain_is_found(evidence: Evidence) -> None:
    slow = evidence._replace(over=evidence.over + LONG)
    assert judge(slow).broken().keys() == {"drain"}
    nearly = slow._replace(profile=SMALL._replace(lease=4.0))  # eight seconds are allowed
    assert judge(nearly).broken().keys() == {"drain"}
    excused = nearly._replace(late=[(evidence.over, evidence.over + LONG // 4)])
    assert judge(excused).broken() == {}


class TestTakings:
    """A run that another worker has taken from its holder."""

    def taken(self, evidence: Evidence) -> tuple[Evidence, Tenure]:
        take(evidence, EXPIRED)
        (tenure,) = [each for run in histories_of(evidence.database).values() for each in run.tenures if each.taken]
        return evidence, tenure

    @pytest.mark.parametrize(
        ("kind", "since", "until", "explains"),
        [
            ("kill", -5.0, -5.0, True),
            ("kill", 0.5, 0.5, False),  # it was taken before
            ("stop", -1.5, 0.1, True),
            ("stop", -2.0, -0.5, True),  # it came back half a lease ago
            ("stop", -5.0, -3.5, False),  # that was long over
            ("stop", 0.5, 2.0, False),
        ],
    )
    def test_are_explained_by_a_fault_of_the_holder_that_came_before(
        self, evidence: Evidence, kind: Literal["kill", "stop"], since: float, until: float, explains: bool
    ) -> None:
        taken, tenure = self.taken(evidence)
        began, ended = (round(tenure.until + seconds * 1e6) for seconds in (since, until))
        fault = Fault(kind, began, began, ended, tenure.worker)
        causes = Causes(SMALL.lease, [fault], [])
        assert causes.explain(tenure) is explains
        assert not Causes(SMALL.lease, [fault._replace(worker="wrk_other")], []).explain(tenure)
        assert ("robbed holders" in judge(taken._replace(faults=[fault])).broken()) is not explains

    @pytest.mark.parametrize(("seconds", "explains"), [(0.75, True), (0.25, False)])
    def test_are_explained_when_nobody_could_write_or_run_for_most_of_a_lease(
        self, evidence: Evidence, seconds: float, explains: bool
    ) -> None:
        _, tenure = self.taken(evidence)
        at = round(tenure.until)
        span = at - round(seconds * 1e6), at
        lock = Fault("lock", span[0], *span)
        stop = Fault("stop", span[0], *span, "another", blocks=True)
        assert Causes(1.0, [], [span]).explain(tenure) is explains
        assert Causes(1.0, [lock], []).explain(tenure) is explains
        assert Causes(1.0, [stop], []).explain(tenure) is explains
        assert not Causes(1.0, [stop._replace(blocks=False)], []).explain(tenure)

    def test_that_wait_for_the_lock_are_judged_when_they_have_it(self, evidence: Evidence) -> None:
        """What took the run was stopped in the middle of that very write, and looked at the leases afterwards."""
        _, tenure = self.taken(evidence)
        at = round(tenure.until) + 1000
        stop = Fault("stop", at, at, at + 1_500_000, "wrk_other", blocks=True)
        assert Causes(1.0, [stop], []).explain(tenure)
        assert not Causes(1.0, [stop._replace(at=at + LONG, until=at + 2 * LONG)], []).explain(tenure)


class TestLateness:
    """A machine that came late."""

    def test_for_most_of_the_storm_fails_it(self, evidence: Evidence) -> None:
        late = evidence._replace(over=evidence.over + LONG, late=[(evidence.over, evidence.over + LONG)])
        assert judge(late).broken().keys() == {"lateness"}

    def test_for_a_third_of_the_storm_leaves_the_times_unjudged_and_the_figures_say_so(
        self, evidence: Evidence
    ) -> None:
        slow = evidence._replace(over=evidence.over + LONG)
        since = evidence.over
        late = slow._replace(late=[(since, since + round((since + LONG - slow.began) * 0.35))])
        verdict = judge(late)
        assert verdict.broken() == {}
        assert not verdict.times_are_judged
        told = figures_of(verdict, None, seed=1)
        assert "The machine was late for 35% of it: no bound of time was judged" in told.size
        assert {each.bound for each in told.measures if each.unit == "s"} == {None}
        with pytest.warns(UserWarning, match=f"{LATE} for 35% of storm-pr: no time was judged"):
            keep_figures(verdict, None, seed=1)
        judged = figures_of(judge(slow), None, seed=1)
        assert "no bound of time was judged" not in judged.size
        assert None not in {each.bound for each in judged.measures if "without progress of a run" in each.what}

    def test_excuses_no_other_promise(self, evidence: Evidence) -> None:
        add(evidence.logs[0], "accepted 999 run_gone")
        late = evidence._replace(late=[(evidence.began, evidence.over)])
        assert {"lost runs", "lateness"} <= judge(late).broken().keys()

    def test_hides_few_recoveries_at_most(self, evidence: Evidence) -> None:
        verdict = judge(evidence)
        fault = Fault("kill", 0, 0, 0, "wrk_one")
        hidden, seen = Gap(fault, "run_one", 10.0, 8.0, 2.0), Gap(fault, "run_two", 1.0, 0.0, 1.0)
        verdict.gaps = [hidden] * 3 + [seen] * 200
        assert verdict.broken() == {}
        assert verdict.unjudged == [hidden] * 3
        verdict.gaps = [hidden] * 4 + [seen] * 30
        assert verdict.broken().keys() == {"lateness"}
        verdict.gaps = [hidden._replace(late=4.0, own=6.0), *[seen] * 200]
        assert verdict.broken().keys() == {"recovery"}


class TestRecovery:
    """A run of which nothing is heard for ten seconds after a fault."""

    def hit(self, evidence: Evidence) -> tuple[Evidence, Fault]:
        """Let the worker of the last run be hit after its first step, and all that follows be late."""
        db = apsw.Connection(str(evidence.database))
        rows: list[Any] = db.execute(
            "select (select data ->> '$.worker' from journal where run = one.run and kind = 'run.started'), at"
            f" from journal as one where run = {RUN} and kind = 'step.completed' order by seq limit 1"
        ).fetchall()
        worker, at = rows[0]
        db.execute("drop trigger storm_audit_update")
        db.execute(f"update journal set at = at + {LONG} where run = {RUN} and at > {at}")
        db.close()
        fault = Fault("kill", at, at, at, worker)
        over = evidence.over + LONG
        return evidence._replace(faults=[fault], over=over, nearly_over=over), fault

    def test_that_takes_too_long_is_found(self, evidence: Evidence) -> None:
        hit, _ = self.hit(evidence)
        broken = judge(hit).broken()
        assert broken.keys() == {"recovery"}

    def test_is_not_blamed_for_a_machine_that_came_late(self, evidence: Evidence) -> None:
        hit, fault = self.hit(evidence)
        nearly = hit._replace(profile=SMALL._replace(lease=7.0))  # eight seconds are allowed
        assert judge(nearly).broken().keys() == {"recovery"}
        assert judge(nearly._replace(late=[(fault.at, fault.at + LONG // 4)])).broken() == {}
        assert judge(nearly._replace(late=[(fault.at, fault.at + LONG // 10)])).broken().keys() == {"recovery"}

    def test_is_not_blamed_for_the_time_in_which_a_stopped_worker_held_the_write_lock(self, evidence: Evidence) -> None:
        hit, fault = self.hit(evidence)
        stop = Fault("stop", fault.at, fault.at, fault.at + LONG, "another", blocks=True)
        assert judge(hit._replace(faults=[fault, stop])).broken() == {}
        harmless = stop._replace(blocks=False)
        assert judge(hit._replace(faults=[fault, harmless])).broken().keys() == {"recovery"}

    def test_after_a_stop_may_take_as_much_longer_as_the_stop(self, evidence: Evidence) -> None:
        hit, fault = self.hit(evidence)
        (gap,) = judge(hit).gaps
        patient = SMALL._replace(lease=(gap.own - 1) / 2)
        assert judge(hit._replace(profile=patient)).broken().keys() == {"recovery"}
        stopped = fault._replace(kind="stop")
        assert judge(hit._replace(profile=patient, faults=[stopped])).broken() == {}


def test_the_same_seed_gives_the_same_faults_in_the_shares_that_were_asked_for() -> None:
    one, same, other = ([forecast.kind() for _ in range(20)] for forecast in map(Forecast, (1, 1, 2)))
    assert one == same
    assert one != other
    assert [one.count(kind) for kind in ("kill", "stop", "lock")] == [13, 5, 2]


def test_time_is_not_counted_twice() -> None:
    assert joined([(5, 9), (1, 3), (2, 4), (9, 10)]) == [(1, 4), (5, 10)]
    assert overlap([(0, 2_000_000), (1_000_000, 3_000_000)], 500_000, 2_500_000) == 2.0
    assert list(within([(0, 1), (2, 4), (6, 8), (9, 10)], 3, 7)) == [(2, 4), (6, 8)]
