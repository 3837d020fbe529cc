"""Names from outside that look like paths, options or nothing at all: they are values, never places of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell import App, Conflict, Context, InvalidInput, InvalidValue, NotFound, Runtime

ODD = [
    *(
        "../../etc/passwd",
        "%2e%2e%2f",
        "..",
        ".",
        "/",
        "CON",
        "-rf",
        "a b",
        "\N{PILE OF POO}",
        "\u202eabc",
        "é",
        "e\u0301",
    ),
    *("'; DROP TABLE run; --", '"', "%", "_", "*", "\r\n", "\x1b[31m", "x" * 500),
]
REFUSED = ["", "x" * 10_000, "a\x00b", "\ud800"]
app = App("odd")


@app.agent
async def keep(ctx: Context, name: str) -> str:
    await ctx.artifact("kept.txt", name)
    return name


async def test_an_odd_name_is_a_value_like_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    async with Runtime(app, store=f"sqlite:///{folder}/data.db") as runtime:
        made = []
        for name in ODD:
            run = await runtime.start(keep, name, idempotency_key=name, metadata={"name": name})
            assert (await run.result(timeout=60)).output == name
            made.append((await runtime.start(keep, name, idempotency_key=name)).id)
            with pytest.raises(Conflict):
                await runtime.start(keep, "another", idempotency_key=name)
        assert len(set(made)) == len(ODD), "two names were taken for one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["project"]
    assert [entry.name for entry in folder.iterdir() if entry.is_file()] == ["data.db"]


@pytest.mark.parametrize("name", [*ODD, *REFUSED])
async def test_an_odd_name_finds_nothing(name: str) -> None:
    async with Runtime(app, store="memory://") as runtime:
        await runtime.run(keep, "x")
        with pytest.raises(NotFound):
            await runtime.runs.get(name)
        with pytest.raises(NotFound):
            await runtime.start(name, "x")


@pytest.mark.parametrize("name", REFUSED)
async def test_a_key_that_cannot_be_kept_is_refused(name: str) -> None:
    async with Runtime(app, store="memory://") as runtime:
        with pytest.raises((InvalidInput, InvalidValue)):
            await runtime.start(keep, "x", idempotency_key=name)
        assert await runtime.runs.list() == []


@pytest.mark.parametrize("name", [*ODD, *REFUSED])
async def test_a_session_has_such_a_name_or_none(name: str, tmp_path: Path) -> None:
    async with Runtime(app, store="memory://") as runtime:
        try:
            run = await runtime.start(keep, "x", session=name)
        except (InvalidInput, InvalidValue):
            assert await runtime.runs.list() == []
        else:
            assert run.session_id == name
            assert [each.id for each in await runtime.runs.list(session=name)] == [run.id]
