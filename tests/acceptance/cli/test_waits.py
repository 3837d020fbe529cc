"""Runs that wait, ask, have children and limits, as a person meets them at the command line."""

import asyncio
import json
import re
import signal
from typing import Any

import pytest

from stepwell import App, Runtime
from tests.acceptance.cli.conftest import Done, Project

DESK = """
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from stepwell import App, Context, Fail, Limit, Retry

app = App("desk", limit=50)


class Verdict(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True)
class Terms:
    price: int


def work(name: str) -> str:
    with open("effects.txt", "a") as file:
        file.write(name + "\\n")
    return name


@app.agent
async def judge(ctx: Context, what: str) -> str:
    details = {"what": what, "size": 3}
    return (await ctx.ask(f"Allow {what}?", Verdict, details=details, assignee="ada", timeout=timedelta(days=2))).value


@app.agent
async def bargain(ctx: Context) -> int:
    return (await ctx.ask("Which terms?", Terms)).price


@app.agent
async def approve(ctx: Context) -> str:
    first = await ctx.ask("Are you there?", bool)
    name = await ctx.ask("What is your name?", str)
    return f"{name}: {first}"


@app.agent
async def many(ctx: Context, count: int) -> list[bool]:
    return list(await ctx.gather(*(ctx.ask(f"Number {n}?", bool, default=False, timeout=3600) for n in range(count))))


@app.agent
async def parent(ctx: Context, what: str) -> str:
    return await ctx.call(judge, what)


@app.agent
async def patient(ctx: Context, name: str) -> str:
    await ctx.step(work, name)
    got = await ctx.wait_for("go")
    return f"{name} {got}"


@app.agent
async def sleeper(ctx: Context) -> None:
    await ctx.sleep(timedelta(hours=5))


@app.agent
async def nap(ctx: Context) -> str:
    await ctx.sleep(1.5)
    return "rested"


@app.agent(concurrency=Limit(1, key=lambda name: name[0]))
async def narrow(ctx: Context, name: str) -> str:
    return await ctx.wait_for("go")


@app.agent(session="synchronized")
async def chat(ctx: Context, text: str) -> int:
    await ctx.session.add("user", text)
    await ctx.session.state.set("last", text)
    return len(await ctx.session.messages())


@app.agent
async def talk(ctx: Context) -> str:
    await ctx.stream_text("one line\\nand another")
    await ctx.step(work, "talked")
    return "done"


def fragile() -> str:
    with open("effects.txt", "a") as file:
        file.write("fragile\\n")
    if not __import__("pathlib").Path("mended").exists():
        raise ValueError("broken")
    return "fine"


@app.agent
async def unsure(ctx: Context) -> str:
    return await ctx.step(fragile, in_doubt="ask")


@app.agent(retry=Retry(1))
async def failing(ctx: Context) -> str:
    await ctx.step(work, "kept")
    return await ctx.step(fragile)
"""


@pytest.fixture
def desk(project: Project) -> Project:
    project.write("app.py", DESK)
    project.write("pyproject.toml", '[tool.stepwell]\napp = "app.py"\n')
    return project


def detached(desk: Project, *words: str) -> str:
    """The id of a run that was only submitted."""
    done = desk.stepwell("run", words[0], *words[1:], "--detach")
    assert done.code == 0, done.err
    return done.out.strip()


def parked(desk: Project, *words: str) -> str:
    """The id of a run that was executed until it waits for somebody."""
    run_id = detached(desk, *words)
    worker = desk.start("worker")
    worker.reaches(lambda: status(desk, run_id) == "waiting")
    worker.signal(signal.SIGTERM)
    assert worker.ends().code == 0
    return run_id


def show(desk: Project, run_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(desk.stepwell("runs", "show", run_id, "--json").out)
    return shown


def status(desk: Project, run_id: str) -> str:
    """Read here, because it is asked again and again."""

    async def read() -> str:
        url = f"sqlite:///{desk.folder}/.stepwell/stepwell.db"
        async with Runtime(App("reader"), store=url, worker=False) as runtime:
            return (await runtime.runs.get(run_id)).status

    return asyncio.run(read())


def finished(desk: Project, agent: str) -> Done:
    return desk.stepwell("run", agent, "--continue")


# ---------------------------------------------------------------- questions


class TestInbox:
    def test_what_runs_ask_is_listed_and_answered(self, desk: Project) -> None:
        run_id = parked(desk, "judge", "pens")
        listed = desk.stepwell("inbox")
        assert listed.code == 0
        assert re.search(r"judge +…\w{6} +\d+ s ago +ada +1 d 23 h left +Allow pens\?  \[allow/deny\]", listed.out)
        [question] = json.loads(desk.stepwell("inbox", "--json").out)
        assert (question["run_id"], question["assignee"], question["details"]) == (
            run_id,
            "ada",
            {"what": "pens", "size": 3},
        )
        assert f"answer one with: stepwell answer {question['id'][-6:]} allow" in listed.err

        done = desk.stepwell("answer", question["id"][-6:], "Deny", "--by", "bob")
        assert (done.code, done.out) == (0, "")
        assert f"answered …{question['id'][-6:]}" in done.err
        assert "start a worker, or: stepwell run TARGET --continue" in done.err
        assert (finished(desk, "judge").out, desk.stepwell("inbox").err) == ("deny\n", "no open questions\n")
        assert "by bob" in desk.stepwell("runs", "show", run_id).out

    def test_only_those_of_an_assignee_are_listed(self, desk: Project) -> None:
        parked(desk, "judge", "pens")
        assert "Allow pens?" in desk.stepwell("inbox", "--assignee", "ada").out
        nobody = desk.stepwell("inbox", "--assignee", "bob")
        assert (nobody.out, nobody.err) == ("", "no open questions for bob\n")

    def test_no_more_are_listed_than_were_asked_for(self, desk: Project) -> None:
        parked(desk, "judge", "pens")
        parked(desk, "judge", "ink")
        assert len(json.loads(desk.stepwell("inbox", "--json").out)) == 2
        assert len(json.loads(desk.stepwell("inbox", "--json", "--limit", "1").out)) == 1

    def test_a_wrong_answer_is_refused_with_what_is_asked_for(self, desk: Project) -> None:
        parked(desk, "judge", "pens")
        wrong = desk.stepwell("answer", "last", "maybe")
        assert (wrong.code, wrong.out) == (2, "")
        assert wrong.err == (
            "error[answer.invalid]: answer: should be 'allow' or 'deny' (got 'maybe')\n  it asks for: allow/deny\n"
        )
        missing = desk.stepwell("answer", "last")
        assert missing.code == 2
        assert "VALUE is missing: Allow pens?" in missing.err

    def test_the_second_answer_is_told_that_it_is_late(self, desk: Project) -> None:
        parked(desk, "judge", "pens")
        question = json.loads(desk.stepwell("inbox", "--json").out)[0]["id"]
        assert desk.stepwell("answer", question, "allow").code == 0
        late = desk.stepwell("answer", question, "deny")
        assert late.code == 2
        assert "error[question.answered]" in late.err

    def test_a_run_in_place_of_a_question_says_so(self, desk: Project) -> None:
        run_id = parked(desk, "judge", "pens")
        told = desk.stepwell("answer", run_id[-6:], "allow")
        assert told.code == 4
        assert "is a run, not a question" in told.err
        assert "the run asks: q_" in told.err

    def test_an_object_is_given_as_json(self, desk: Project) -> None:
        parked(desk, "bargain")
        wrong = desk.stepwell("answer", "last", "5")
        assert "it asks for: JSON (price=integer)" in wrong.err
        assert desk.stepwell("answer", "last", '{"price": 5}').code == 0
        assert finished(desk, "bargain").out == "5\n"


class TestAskingInPlace:
    def test_a_run_on_a_terminal_asks_until_the_answer_fits(self, desk: Project) -> None:
        terminal = desk.terminal("run", "judge", "pens")
        terminal.shows("? Allow pens?")
        terminal.shows("what: pens")
        terminal.shows("size: 3")
        terminal.shows("[allow/deny]")
        terminal.types("perhaps\n")
        terminal.shows("should be 'allow' or 'deny' (got 'perhaps')")
        terminal.shows("[allow/deny]")
        terminal.types("\n")
        terminal.shows("[allow/deny]")
        terminal.types("allow\n")
        done = terminal.ends()
        assert (done.code, done.out) == (0, "allow\n")

    def test_one_question_follows_the_other(self, desk: Project) -> None:
        terminal = desk.terminal("run", "approve")
        terminal.shows("[yes/no]")
        terminal.types("y\n")
        terminal.shows("What is your name?")
        terminal.shows("[text]")
        terminal.types("Ada Lovelace\n")
        assert terminal.ends().out == "Ada Lovelace: True\n"

    def test_what_children_ask_is_asked_too(self, desk: Project) -> None:
        terminal = desk.terminal("run", "parent", "pens")
        terminal.shows("? Allow pens?")
        terminal.shows("[allow/deny]")
        terminal.types("deny\n")
        assert terminal.ends().out == "deny\n"

    def test_ctrl_c_hands_back_and_says_how_to_go_on_and_how_to_answer(self, desk: Project) -> None:
        terminal = desk.terminal("run", "judge", "pens")
        terminal.shows("[allow/deny]")
        terminal.signal(signal.SIGINT)
        done = terminal.ends()
        assert (done.code, done.out) == (130, "")
        assert "continue it with: stepwell run judge --continue" in done.err
        question = json.loads(desk.stepwell("inbox", "--json").out)[0]["id"]
        assert f"answer it with: stepwell answer {question[-6:]} allow" in done.err

    def test_it_hears_that_somebody_answered_elsewhere(self, desk: Project) -> None:
        terminal = desk.terminal("run", "approve")
        terminal.shows("[yes/no]")
        assert desk.stepwell("answer", "last", "no").code == 0
        terminal.shows("it was settled elsewhere")
        terminal.shows("What is your name?")
        terminal.types("Ada\n")
        assert terminal.ends().out == "Ada: False\n"

    def test_the_end_of_what_is_typed_leaves_the_question_to_others(self, desk: Project) -> None:
        terminal = desk.terminal("run", "judge", "pens")
        terminal.shows("[allow/deny]")
        terminal.types("\x04")
        terminal.shows("answer it with: stepwell answer")
        assert desk.stepwell("answer", "last", "deny").code == 0
        assert terminal.ends().out == "deny\n"

    def test_a_run_that_is_continued_asks_what_is_still_open(self, desk: Project) -> None:
        parked(desk, "judge", "pens")
        terminal = desk.terminal("run", "judge", "--continue")
        terminal.shows("[allow/deny]")
        terminal.types("allow\n")
        assert terminal.ends().out == "allow\n"

    def test_a_tree_is_continued_from_its_top(self, desk: Project) -> None:
        run = desk.start("run", "parent", "pens")
        run.shows("answer it with: stepwell answer")
        run.signal(signal.SIGINT)
        assert run.ends().code == 130
        terminal = desk.terminal("run", "app.py", "--continue")
        terminal.shows("of parent, started")
        terminal.shows("[allow/deny]")
        terminal.types("allow\n")
        assert terminal.ends().out == "allow\n"

    def test_elsewhere_the_command_that_answers_is_shown(self, desk: Project) -> None:
        run = desk.start("run", "judge", "pens")
        run.shows("answer it with: stepwell answer")
        assert "? Allow pens?  [allow/deny]" in run.err
        assert desk.stepwell("answer", "last", "deny").code == 0
        done = run.ends()
        assert (done.code, done.out) == (0, "deny\n")
        assert "answered" in done.err

    def test_with_a_timeout_it_ends_with_6_and_says_what_it_waits_for(self, desk: Project) -> None:
        done = desk.stepwell("run", "judge", "pens", "--timeout", "1s")
        assert (done.code, done.out) == (6, "")
        assert "it asks: Allow pens?" in done.err
        assert "answer it with: stepwell answer" in done.err

    def test_of_many_questions_the_first_are_shown(self, desk: Project) -> None:
        run = desk.start("run", "many", "8")
        run.shows("and 3 more questions; see: stepwell inbox")
        assert run.err.count("answer it with") == 5
        run.signal(signal.SIGINT)
        told = run.ends().err
        assert told.count("it asks: Number") == 5
        assert told.count("and 3 more questions; see: stepwell inbox") == 2

    def test_events_stay_events(self, desk: Project) -> None:
        done = desk.stepwell("run", "judge", "pens", "--timeout", "1s", "--events")
        assert done.code == 6
        assert "wait.opened" in [json.loads(line)["kind"] for line in done.out.splitlines()]


class TestDoubts:
    @pytest.mark.parametrize(
        ("verdict", "output"),
        [
            (("runs", "resume", "last", "--as", "done", "it was"), "it was\n"),
            (("answer", "last", "rerun"), "fine\n"),
            (("answer", "last", '{"done": "so"}'), "so\n"),
        ],
        ids=range(3),
    )
    def test_a_step_in_doubt_is_asked_about_and_settled(
        self, desk: Project, verdict: tuple[str, ...], output: str
    ) -> None:
        run = desk.start("run", "unsure")
        run.shows("answer it with: stepwell answer")
        assert "[rerun/fail or JSON (done=any)]" in run.err
        desk.write("mended", "")
        assert desk.stepwell(*verdict).code == 0
        assert run.ends().out == output


# ---------------------------------------------------------------- waiting


class TestWaiting:
    def test_progress_tells_of_waits_children_and_text(self, desk: Project) -> None:
        nap = desk.stepwell("run", "nap")
        assert re.search(r"… waits +until \d\d:\d\d:\d\d", nap.err)
        assert nap.out == "rested\n"
        talk = desk.stepwell("run", "talk")
        assert "  │ one line\n  │ and another\n" in talk.err
        assert talk.out == "done\n"
        parent = desk.start("run", "parent", "pens")
        parent.shows("? Allow pens?")
        assert re.search(r"• judge +started as run …\w{6}", parent.err)

    def test_a_waiting_run_says_for_what_and_until_when(self, desk: Project) -> None:
        sleeper, patient = parked(desk, "sleeper"), parked(desk, "patient", "x")
        assert re.search(r"\nwaits    until \d\d:\d\d:\d\d\n", desk.stepwell("runs", "show", sleeper).out)
        shown = desk.stepwell("runs", "show", patient).out
        assert "\nwaits    for signal go\n" in shown
        [wait] = show(desk, patient)["waits"]
        assert (wait["type"], wait["name"]) == ("signal", "go")

    def test_a_run_shows_what_it_asks_its_children_and_its_parent(self, desk: Project) -> None:
        run_id = detached(desk, "parent", "pens")
        worker = desk.start("worker")
        worker.reaches(lambda: json.loads(desk.stepwell("inbox", "--json").out) != [])
        [child] = show(desk, run_id)["children"]
        shown = desk.stepwell("runs", "show", run_id).out
        assert f"\nchildren\n  …{child['id'][-6:]} judge, " in shown
        told = desk.stepwell("runs", "show", child["id"]).out
        assert f"\nparent   {run_id}\n" in told
        assert "\nasks\n  ? Allow pens?  [allow/deny] for ada" in told
        assert "    answer it with: stepwell answer" in told
        assert show(desk, child["id"])["questions"][0]["text"] == "Allow pens?"

    def test_a_queued_run_says_that_it_waits_for_a_worker_or_its_time(self, desk: Project) -> None:
        shown = desk.stepwell("runs", "show", detached(desk, "nap")).out
        assert "\nwaits    for a worker that serves nap to take it up\n" in shown

    def test_a_run_in_line_says_for_what(self, desk: Project) -> None:
        first, second = detached(desk, "narrow", "ada"), detached(desk, "narrow", "alan")
        listed = desk.stepwell("queues", "list")
        assert re.search(r"key narrow a +1 of 1 +1\n", listed.out)
        assert re.search(r"app desk +1 of 50 +0\n", listed.out)
        lanes = {lane["name"]: lane for lane in json.loads(desk.stepwell("queues", "list", "--json").out)}
        assert lanes["narrow a"] == {"kind": "key", "name": "narrow a", "capacity": 1, "taken": 1, "waiting": 1}
        shown = desk.stepwell("runs", "show", second).out
        assert "\nwaits    in line for key narrow a (1 of 1 taken, 1 in line)\n" in shown
        assert "in line   1 run for key narrow a, 1 of 1 taken\n" in desk.stepwell("doctor").out
        desk.stepwell("runs", "cancel", first)
        desk.stepwell("runs", "cancel", second)
        assert desk.stepwell("queues", "list").err == "no limit is in use\n"


# ---------------------------------------------------------------- control


class TestControl:
    def test_a_run_is_cancelled(self, desk: Project) -> None:
        run_id = parked(desk, "patient", "x")
        done = desk.stepwell("runs", "cancel", run_id[-6:], "--reason", "not needed")
        assert (done.code, done.out) == (0, "")
        assert f"run …{run_id[-6:]} of patient is cancelled" in done.err
        shown = show(desk, run_id)
        assert (shown["status"], shown["reason"]) == ("cancelled", "not needed")
        again = desk.stepwell("runs", "cancel", run_id)
        assert (again.code, "has ended already (cancelled)" in again.err) == (0, True)

    def test_whoever_follows_a_cancelled_run_is_told(self, desk: Project) -> None:
        run = desk.start("run", "patient", "x")
        run.shows("for signal go")
        assert desk.stepwell("runs", "cancel", "last").code == 0
        done = run.ends()
        assert done.code == 1
        assert "was cancelled" in done.err

    def test_a_run_is_paused_and_resumed(self, desk: Project) -> None:
        run_id = parked(desk, "patient", "x")
        done = desk.stepwell("runs", "pause", run_id)
        assert "is paused" in done.err
        assert "stepwell runs resume RUN" in done.err
        shown = desk.stepwell("runs", "show", run_id).out
        assert "\nwaits    for somebody to resume it: paused\n         for signal go\n" in shown
        assert "held[paused]" in shown
        assert desk.stepwell("runs", "resume", run_id).code == 0
        assert status(desk, run_id) == "waiting"

    def test_a_signal_is_sent_and_taken(self, desk: Project) -> None:
        run_id = parked(desk, "patient", "x")
        sent = desk.stepwell("runs", "signal", run_id, "go", '{"a": 1}', "--id", "one")
        assert f"run …{run_id[-6:]} of patient received go" in sent.err
        again = desk.stepwell("runs", "signal", run_id, "go", '{"a": 1}', "--id", "one")
        assert (again.code, "had received one before" in again.err) == (0, True)
        assert finished(desk, "patient").out == "x {'a': 1}\n"
        late = desk.stepwell("runs", "signal", run_id, "go")
        assert (late.code, "error[run.ended]" in late.err) == (2, True)

    def test_words_that_are_no_json_are_sent_as_text(self, desk: Project) -> None:
        run_id = parked(desk, "patient", "x")
        desk.stepwell("runs", "signal", run_id, "go", "plain words")
        assert finished(desk, "patient").out == "x plain words\n"

    def test_many_are_changed_only_when_that_is_said(self, desk: Project) -> None:
        runs = [detached(desk, "patient", name) for name in "ab"]
        other = detached(desk, "nap")
        refused = desk.stepwell("runs", "cancel", "--agent", "patient")
        assert refused.code == 2
        assert "error[runs.many]: 2 runs match; nothing was changed" in refused.err
        assert "to cancel them all: add --yes" in refused.err
        assert [status(desk, run_id) for run_id in runs] == ["queued"] * 2
        done = desk.stepwell("runs", "cancel", "--agent", "patient", "--status", "queued", "--yes")
        assert done.code == 0
        assert [status(desk, run_id) for run_id in [*runs, other]] == ["cancelled", "cancelled", "queued"]
        assert desk.stepwell("runs", "cancel", "--status", "waiting").err == "no run matches that one can cancel\n"

    def test_only_those_of_a_status_are_changed(self, desk: Project) -> None:
        waiting, queued = parked(desk, "patient", "a"), detached(desk, "patient", "b")
        assert desk.stepwell("runs", "cancel", "--status", "queued").code == 0
        assert [status(desk, run_id) for run_id in (waiting, queued)] == ["waiting", "cancelled"]

    def test_one_that_matches_needs_no_yes(self, desk: Project) -> None:
        run_id = detached(desk, "patient", "a")
        assert desk.stepwell("runs", "pause", "--agent", "patient").code == 0
        assert status(desk, run_id) == "paused"

    def test_a_signal_goes_to_all_that_match(self, desk: Project) -> None:
        runs = [detached(desk, "patient", name) for name in "ab"]
        done = desk.stepwell("runs", "signal", "go", "5", "--agent", "patient", "--yes")
        assert done.err.count("received go") == 2
        for run_id in runs:
            assert "signal.received" in desk.stepwell("runs", "events", run_id).out

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("cancel",), "RUN is missing"),
            (("cancel", "last", "--agent", "x"), "RUN and filters are two ways to choose"),
            (("signal", "last"), "NAME is missing"),
            (("signal", "last", "go", "1", "2"), "'2' is one word too many"),
        ],
        ids=range(4),
    )
    def test_what_cannot_be_meant_is_a_usage_error(self, desk: Project, words: tuple[str, ...], told: str) -> None:
        detached(desk, "nap")
        done = desk.stepwell("runs", *words)
        assert (done.code, told in done.err) == (2, True), done.err


class TestDeadLetters:
    @pytest.fixture
    def dead(self, desk: Project) -> str:
        assert desk.stepwell("run", "failing").code == 1
        [run] = json.loads(desk.stepwell("runs", "list", "--dead", "--json").out)
        run_id: str = run["id"]
        return run_id

    def test_the_dead_are_mentioned_and_listed(self, desk: Project, dead: str) -> None:
        assert "dead      1 run; see: stepwell runs list --dead\n" in desk.stepwell("doctor").out
        assert "failed (dead)" in desk.stepwell("runs", "list", "--dead").out

    def test_a_retry_goes_on_where_the_run_failed(self, desk: Project, dead: str) -> None:
        desk.write("mended", "")
        done = desk.stepwell("runs", "retry", dead)
        assert done.code == 0, done.err
        assert f"run …{dead[-6:]} of failing is retried by run" in done.err
        assert "stepwell run TARGET --continue" in done.err
        assert finished(desk, "failing").out == "fine\n"
        assert desk.read("effects.txt").split() == ["kept", "fragile", "fragile"]
        [newest, _] = json.loads(desk.stepwell("runs", "list", "--json").out)
        assert (newest["retry_of"], newest["status"]) == (dead, "succeeded")
        shown = desk.stepwell("runs", "show", newest["id"]).out
        assert f"\nretries  {dead} (1 step taken over)\n" in shown
        assert shown.count("kept") == 0
        assert desk.stepwell("runs", "list", "--dead").err == "no runs match\n"

    def test_the_app_may_be_named(self, desk: Project, dead: str) -> None:
        desk.write("pyproject.toml", "")
        (desk.folder / "app.py").rename(desk.folder / "shop.py")
        assert desk.stepwell("runs", "retry", dead).code == 4
        done = desk.stepwell("runs", "retry", dead, "--app", "shop.py")
        assert done.code == 0
        assert "stepwell run shop.py --continue" in done.err

    def test_the_dead_are_discarded(self, desk: Project, dead: str) -> None:
        done = desk.stepwell("runs", "discard", "--dead")
        assert f"run …{dead[-6:]} of failing is off the list of the dead" in done.err
        assert desk.stepwell("runs", "list", "--dead").err == "no runs match\n"
        assert status(desk, dead) == "failed"
        again = desk.stepwell("runs", "discard", dead)
        assert (again.code, "error[run.not_dead]" in again.err) == (2, True)


class TestSessions:
    @pytest.fixture
    def talked(self, desk: Project) -> str:
        """The session of a run that said something."""
        assert desk.stepwell("run", "chat", "hello").out == "1\n"
        [run] = json.loads(desk.stepwell("runs", "list", "--json").out)
        session: str = run["session_id"]
        return session

    def test_a_session_is_listed_shown_and_forgotten(self, desk: Project, talked: str) -> None:
        assert re.search(rf"{talked} +\d+ s ago +1 +last\n", desk.stepwell("sessions", "list").out)
        [listed] = json.loads(desk.stepwell("sessions", "list", "--json").out)
        assert (listed["id"], listed["message_count"], listed["keys"]) == (talked, 1, ["last"])
        shown = desk.stepwell("sessions", "show", talked)
        assert "\nmessages\n  user  hello\n" in shown.out
        assert '\nvalues\n  last  "hello"\n' in shown.out
        assert "\nruns\n" in shown.out
        whole = json.loads(desk.stepwell("sessions", "show", talked, "--json").out)
        assert (whole["messages"], whole["values"]) == ([{"role": "user", "text": "hello"}], {"last": "hello"})
        assert [run["agent"] for run in whole["runs"]] == ["chat"]
        assert desk.stepwell("sessions", "delete", talked).code == 0
        assert json.loads(desk.stepwell("sessions", "show", talked, "--json").out)["messages"] == []

    def test_no_more_is_shown_than_was_asked_for(self, desk: Project, talked: str) -> None:
        assert desk.stepwell("run", "chat", "again").code == 0
        assert len(json.loads(desk.stepwell("sessions", "list", "--json").out)) == 2
        assert len(json.loads(desk.stepwell("sessions", "list", "--json", "--limit", "1").out)) == 1

    def test_runs_of_a_session_are_listed(self, desk: Project, talked: str) -> None:
        detached(desk, "nap")
        assert len(json.loads(desk.stepwell("runs", "list", "--json").out)) == 2
        [run] = json.loads(desk.stepwell("runs", "list", "--session", talked, "--json").out)
        assert run["agent"] == "chat"

    def test_a_session_that_never_was_is_not_found(self, desk: Project, talked: str) -> None:
        for verb in ("show", "delete"):
            missing = desk.stepwell("sessions", verb, "nobody")
            assert (missing.code, "error[session.unknown]" in missing.err) == (4, True)


@pytest.mark.parametrize(
    "words",
    [
        ("inbox",),
        ("answer", "last", "yes"),
        ("runs", "cancel", "last"),
        ("runs", "pause", "last"),
        ("runs", "signal", "last", "go"),
        ("runs", "retry", "last"),
        ("runs", "discard", "last"),
        ("sessions", "list"),
        ("sessions", "show", "s"),
        ("sessions", "delete", "s"),
        ("queues", "list"),
    ],
    ids=" ".join,
)
def test_each_command_looks_at_the_store_that_it_is_told(desk: Project, words: tuple[str, ...]) -> None:
    done = desk.stepwell(*words, "--store", "sqlite:///elsewhere.db")
    assert (done.code, "there is no store at" in done.err, "elsewhere.db" in done.err) == (4, True, True)
