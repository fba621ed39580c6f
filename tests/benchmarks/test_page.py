"""The page is written from full runs' figures, and from quick ones only when told."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.groups import GROUPS
from benchmarks.page import main


@pytest.fixture
def quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the figures of one quick run of table 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUICK", "1")
    (tmp_path / "docs").mkdir()
    report = GROUPS["papers"].report("1", [0])
    report.row("Words", method="a", recall=0.5)
    report.at_least("recall", 0.5, 0.4)
    report.at_least("gain", 0.1, 0.2)
    report.picture("words", "Words", "cost", "recall", {"a": [(1.0, 0.5), (2.0, 0.6)]}, log="x")
    assert report.finish() == 1
    return tmp_path


def test_a_quick_run_makes_no_page(quick_run: Path) -> None:
    result = CliRunner().invoke(main)
    assert result.exit_code != 0
    assert "make bench-papers" in str(result.output) + str(result.exception)
    assert not (quick_run / "docs/benchmarks.md").exists()


def test_a_quick_run_makes_a_page_that_says_so_when_told(quick_run: Path) -> None:
    result = CliRunner().invoke(main, ["--quick"])
    assert result.exit_code == 0, result.output
    page = (quick_run / "docs/benchmarks.md").read_text()
    for text in ("A QUICK run", "| a | 0.5000 |", "| 0.5000 | >= 0.4 | met |", "| 0.1000 | >= 0.2 | **missed** |"):
        assert text in page
    assert (quick_run / "docs/benchmarks/words.png").read_bytes().startswith(b"\x89PNG")
    assert "benchmarks/words.png" in page


def test_a_part_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match="no part 99"):
        GROUPS["papers"].parts(["99"])


def test_a_loading_part_comes_after_the_tables(quick_run: Path) -> None:
    report = GROUPS["loading"].report("memory", [7])
    report.row("Memory", file="a.npy", peak=0.25)
    assert report.finish() == 0
    assert CliRunner().invoke(main, ["--quick"]).exit_code == 0
    page = (quick_run / "docs/benchmarks.md").read_text()
    tables, loading = page.split("## Loading: ")
    assert "| a | 0.5000 |" in tables
    assert "| a.npy | 0.2500 |" in loading
    assert '`QUICK=1 make bench-load PARTS="memory"`' in loading
    assert "Seed 7." in loading
