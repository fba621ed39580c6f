"""Pages come from the figures of full runs; quick runs need an option, and old sections stay."""

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
    report = GROUPS["papers"].report("1", [0])
    report.row("Words", method="a", recall=0.5)
    report.at_least("recall", 0.5, 0.4)
    report.at_least("gain", 0.1, 0.2)
    report.picture("words", "Words", "cost", "recall", {"a": [(1.0, 0.5), (2.0, 0.6)]}, log="x")
    assert report.finish() == 1
    return tmp_path


def pages(root: Path, *options: str) -> Path:
    result = CliRunner().invoke(main, list(options))
    assert result.exit_code == 0, result.output
    return root / "docs/benchmarks"


def test_a_quick_run_writes_no_page(quick_run: Path) -> None:
    result = CliRunner().invoke(main)
    assert result.exit_code != 0
    assert "make bench-papers" in str(result.output) + str(result.exception)
    assert not (quick_run / "docs").exists()


def test_a_quick_page_says_so(quick_run: Path) -> None:
    folder = pages(quick_run, "--quick")
    page = (folder / "papers.md").read_text()
    for text in ("A QUICK run", "| a | 0.5000 |", "| 0.5000 | >= 0.4 | met |", "| 0.1000 | >= 0.2 | **missed** |"):
        assert text in page
    assert (folder / "words.png").read_bytes().startswith(b"\x89PNG")
    assert "](words.png)" in page


def test_the_first_page_counts_targets_and_lists_misses(quick_run: Path) -> None:
    summary = (pages(quick_run, "--quick") / "README.md").read_text()
    assert "`make bench-papers` | 1 | 1 |" in summary
    assert "| papers | gain | 0.1000 | >= 0.2 |" in summary
    assert "bench-load" not in summary


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(SystemExit, match="no part 99"):
        GROUPS["papers"].parts(["99"])


def test_sections_without_new_figures_stay(quick_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (pages(quick_run, "--quick") / "papers.md").read_text()
    # what is asked by now is not what was asked when these figures were measured
    monkeypatch.setattr("benchmarks.papers.table1.TITLE", "another table")
    monkeypatch.setattr("benchmarks.papers.table1.ANSWERS", "Another question.\n")
    (quick_run / "build/bench/papers-1-quick.json").unlink()
    report = GROUPS["loading"].report("memory", [7])
    report.row("Memory", file="a.npy", peak=0.25)
    assert report.finish() == 0
    folder = pages(quick_run, "--quick")
    assert (folder / "papers.md").read_text() == before
    loading = (folder / "loading.md").read_text()
    assert "| a.npy | 0.2500 |" in loading
    assert '`QUICK=1 make bench-load PARTS="memory"`' in loading
    assert "Seed 7." in loading
