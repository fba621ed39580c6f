"""One bar for every long job; where there is no terminal, a line now and then."""

from __future__ import annotations

import re

import pytest

import alula.progress
from alula.progress import count_text, figures_text, progress_bar, silent


@pytest.fixture
def terminal(monkeypatch, capsys):
    """What is shown on standard error, taken for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    return lambda: re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)


def test_a_terminal_shows_stage_count_and_figures(terminal):
    with progress_bar() as progress:
        progress("reading", 10, 4096)
        progress("training", 1, 3, {"loss": 0.12345, "rows/s": "1,234", "bad": 2})
    text = terminal()
    assert all(part in text for part in ("reading", "10/4,096", "training", "1/3", "loss 0.123  rows/s 1,234  bad 2"))


def test_one_line_shows_the_present_stage_alone(terminal):
    with progress_bar(one_line=True) as progress:
        progress("first", 1, 2)
        progress("second [x]", 1, None)
    last = terminal().rsplit("second [x]", 1)[1]
    assert "first" not in last


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_a_narrow_terminal_leaves_out_figures_and_cuts_nothing(terminal, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with progress_bar() as progress:
        progress("training", 1024, 400_000, {"loss": 1.23456, "flops": 0.0123, "nonzeros": 61.2, "recall@10": 0.834})
    text = terminal()
    assert "training" in text
    assert "1,024/400,000" in text
    assert "…" not in text
    assert ("recall@10 0.834" in text) == (columns == 160)
    assert "loss 1.23" in text


class Clock:
    """Stands for the module `time`; a test sets its seconds."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_without_a_terminal_a_line_comes_every_half_minute(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(alula.progress, "time", clock)
    with progress_bar() as progress:
        for step in range(1, 101):
            clock.now += 1
            progress("training", 10 * step, 2000, {"loss": 0.5})
        progress("exporting", 0, None)
    assert capsys.readouterr() == (
        "",
        "training  300/2,000  0:02:50 left  loss 0.5\n"
        "training  600/2,000  0:02:20 left  loss 0.5\n"
        "training  900/2,000  0:01:50 left  loss 0.5\n",
    )


def test_quiet(terminal, capsys):
    with progress_bar(quiet=True) as progress:
        assert progress is silent
        progress("reading", 1, 2)
    assert terminal() == ""


def test_texts():
    assert count_text(0, None) == ""
    assert count_text(1024, 4096) == "1,024/4,096"
    assert count_text(1024, None) == "1,024"
    assert count_text(1_000_000, 4_100_000, in_bytes=True) == "1.0/4.1 MB"
    assert figures_text({}) == ""
