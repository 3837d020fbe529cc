"""Domain and engine read no clock, draw no number and wait for no time by themselves, or no seed could decide it."""

import ast
from collections.abc import Iterator

import pytest

from tests.checkout import Source, package_sources

CORE = ("src/stepwell/domain/", "src/stepwell/engine/", "src/stepwell/stores/memory/")
PARTS = {
    "time": {
        "time",
        "time_ns",
        "monotonic",
        "monotonic_ns",
        "perf_counter",
        "perf_counter_ns",
        "clock_gettime",
        "sleep",
    },
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "random": {"random", "randint", "randrange", "choice", "choices", "sample", "shuffle", "uniform", "SystemRandom"},
    "uuid": {"uuid1", "uuid4", "uuid7"},
    "os": {"urandom", "getrandom"},
    "secrets": {"token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice"},
    "asyncio": {"sleep"},
}
"""What may not be used, by the module or class that has it."""


def taken_from_outside(source: Source) -> Iterator[str]:
    """Where a module takes time or randomness past its ports. `asyncio.sleep(0)` only lets others go first."""
    yields = {
        node.func
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and [getattr(arg, "value", None) for arg in node.args] == [0]
    }
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if node.attr in PARTS.get(of, ()) and not (of == "asyncio" and node in yields):
                yield f"{source.name}:{node.lineno}: {of}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if alias.name in PARTS.get(node.module or "", ())]
            yield from (f"{source.name}:{node.lineno}: {node.module}.{name}" for name in names)


def test_the_core_takes_time_and_randomness_through_its_ports() -> None:
    core = [source for source in package_sources() if source.name.startswith(CORE)]
    assert len(core) > 50
    assert [where for source in core for where in taken_from_outside(source)] == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("began = time.perf_counter()", True),
        ("from time import monotonic", True),
        ("at = datetime.now(UTC)", True),
        ("at = datetime.datetime.now()", True),
        ("x = random.random()", True),
        ("x = uuid.uuid4()", True),
        ("x = os.urandom(8)", True),
        ("async def f():\n    await asyncio.sleep(n)", True),
        ("async def f():\n    await asyncio.sleep(delay)", True),
        ("async def f():\n    await asyncio.sleep(0)", False),
        ("x = Random(seed).random()", False),
        ("x = clock.now()", False),
        ("from random import Random", False),
    ],
)
def test_what_is_taken_past_the_ports_is_recognised(line: str, is_found: bool) -> None:
    source = Source(package_sources()[0].path, line.splitlines(), ast.parse(line))
    assert bool(list(taken_from_outside(source))) is is_found
