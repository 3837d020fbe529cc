"""Days of waiting within a second: a mail, three quiet days, a question to sales, and a crash in between."""

import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from onboarding.app import Customer, Services, agents, onboard
from stepwell import AlreadyAnswered, testing
from tests.checkout import ROOT

ADA = Customer(id="c1", email="ada@example.org")
APP = ROOT / "examples" / "onboarding" / "app.py"


class FakeMail:
    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, to: str, template: str) -> None:
        self.sent.append(template)


class FakeCrm:
    logged_in = False

    async def has_logged_in(self, customer_id: str) -> bool:
        return self.logged_in


@pytest.fixture
def mail() -> FakeMail:
    return FakeMail()


@pytest.fixture
def services(mail: FakeMail) -> Services:
    return Services(mail=mail, crm=FakeCrm())


@pytest.fixture
async def runtime(services: Services) -> AsyncIterator[testing.TestingRuntime[Services]]:
    async with testing.runtime(agents, deps=services) as runtime:  # memory store, time that jumps
        yield runtime


@pytest.fixture(autouse=True)
def _within_seconds() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 20  # days, if time were real


async def test_sales_is_asked_after_three_quiet_days(runtime: testing.TestingRuntime[Services], mail: FakeMail) -> None:
    begin = runtime.clock.now()
    run = await runtime.start(onboard, ADA)
    question = await run.question()  # nothing can happen before: the clock jumps to it
    assert runtime.clock.now() - begin == timedelta(days=3)
    assert question.assignee == "sales"

    await question.answer(True)
    assert (await run.result()).output == "called"
    assert mail.sent == ["welcome"]


async def test_silence_means_a_reminder(runtime: testing.TestingRuntime[Services], mail: FakeMail) -> None:
    begin = runtime.clock.now()
    result = await runtime.run(onboard, ADA)  # nobody answers: two more days pass at once
    assert result.output == "reminded"
    assert runtime.clock.now() - begin == timedelta(days=5)
    assert mail.sent == ["welcome", "we-miss-you"]


async def test_who_has_logged_in_is_left_alone(
    runtime: testing.TestingRuntime[Services], mail: FakeMail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeCrm, "logged_in", True)
    assert (await runtime.run(onboard, ADA)).output == "active"
    assert mail.sent == ["welcome"]


async def test_nothing_is_sent_twice_after_a_crash(runtime: testing.TestingRuntime[Services], mail: FakeMail) -> None:
    run = await runtime.start(onboard, ADA)
    question = await run.question()
    await runtime.crash()  # as kill -9: the worker is gone, the store remains
    await question.answer(True)
    with pytest.raises(AlreadyAnswered):
        await question.answer(False)
    assert (await run.result()).output == "called"
    assert mail.sent == ["welcome"]


async def test_a_crash_right_after_a_mail_sends_none_twice(
    runtime: testing.TestingRuntime[Services], mail: FakeMail
) -> None:
    runtime.crash_after("send")
    assert (await runtime.run(onboard, ADA)).output == "reminded"
    assert mail.sent == ["welcome", "we-miss-you"]
    assert runtime.executed == ["send", "has_logged_in", "send"]


def test_on_the_command_line_it_greets_and_then_sleeps_without_a_process(tmp_path: Path) -> None:
    settings = os.environ | {"STEPWELL_STORE": f"sqlite:///{tmp_path / 'onboarding.db'}", "NO_COLOR": "1"}

    def stepwell(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stepwell", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=60)

    started = stepwell("run", str(APP), "id=c1", "email=ada@example.org", "--timeout", "2s")
    assert started.returncode == 6, started.stderr
    assert "mail to ada@example.org: welcome" in started.stderr
    assert re.search(r"\bonboard\b.*\bwaiting\b", stepwell("runs", "list").stdout)
