"""The page about reliability is what the kept figures say, and one that says something else is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import make_reliability
from scripts.figures import FOLDER, Count, Figures, Measure, keep, read, write
from tests.checkout import ROOT

MADE_UP = Figures(
    name="made-up",
    command="make made-up",
    size="3 runs",
    counts=(Count("runs lost", 0, 3000, "faults"), Count("runs found", 2, 3, "runs")),
    measures=(Measure("longest gap", 1.25, "s", 3.0), Measure("steps per second", 1234)),
    on="2026-01-02",
    machine="2 cores",
)


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert (make_reliability.main(["--check"]), capsys.readouterr().err) == (0, "")


def test_a_page_that_says_something_else_is_noticed_and_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "RELIABILITY.md"
    write(MADE_UP, tmp_path / "figures")
    assert make_reliability.main(["--check"], folder=tmp_path / "figures", to=page) == 1
    assert make_reliability.main([], folder=tmp_path / "figures", to=page) == 0
    assert make_reliability.main(["--check"], folder=tmp_path / "figures", to=page) == 0
    page.write_text(page.read_text(encoding="utf-8").replace("| **2** | 3 runs |", "| **0** | 3 runs |"))
    assert make_reliability.main(["--check"], folder=tmp_path / "figures", to=page) == 1
    assert "RELIABILITY.md is out of date; write it again with: python -m" in capsys.readouterr().err


def test_nothing_found_in_n_is_told_as_a_bound_and_something_found_is_not() -> None:
    told = make_reliability.told(MADE_UP)
    assert "| runs lost | **0** | 3,000 faults | 0.1 % |" in told
    assert "| runs found | **2** | 3 runs |  |" in told
    assert "| longest gap | 1.25 s | 3 s |" in told
    assert "| steps per second | 1,234 |  |" in told


def test_without_figures_the_page_says_so(tmp_path: Path) -> None:
    assert make_reliability.NOTHING_YET in make_reliability.page(read(tmp_path))


def test_figures_are_kept_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIGURES", raising=False)
    keep(MADE_UP)
    monkeypatch.setenv("FIGURES", str(tmp_path / "kept"))
    keep(MADE_UP)
    assert list(read(tmp_path / "kept")) == [MADE_UP]
    assert {path.name for path in tmp_path.rglob("*.json")} == {"made-up.json"}


def test_a_file_with_something_unknown_in_it_is_refused(tmp_path: Path) -> None:
    write(MADE_UP, tmp_path)
    file = tmp_path / "made-up.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"size"', '"extent"'), encoding="utf-8")
    with pytest.raises(TypeError, match="extent"):
        list(read(tmp_path))


def test_every_layer_that_the_page_names_has_tests() -> None:
    empty = [where for _, _, where in make_reliability.LAYERS if not list((ROOT / where).glob("test_*.py"))]
    assert empty == []


def test_the_kept_figures_found_nothing_and_are_within_their_bounds() -> None:
    kept = list(read(FOLDER))
    assert [f"{each.name}: {count.what}" for each in kept for count in each.counts if count.found] == []
    measures = [(each.name, measure) for each in kept for measure in each.measures if measure.bound is not None]
    assert [(name, measure) for name, measure in measures if measure.value > (measure.bound or 0)] == []
