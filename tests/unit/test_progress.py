"""One bar for every long job; nothing of it where there is no terminal."""

from __future__ import annotations

import re

import pytest

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


def test_without_a_terminal_nothing_is_shown(capsys):
    with progress_bar() as progress:
        assert progress is silent
        progress("reading", 1, None)
    assert capsys.readouterr() == ("", "")


def test_quiet(terminal):
    with progress_bar(quiet=True) as progress:
        progress("reading", 1, 2)
    assert terminal() == ""


def test_texts():
    assert count_text(0, None) == ""
    assert count_text(1024, 4096) == "1,024/4,096"
    assert count_text(1024, None) == "1,024"
    assert count_text(1_000_000, 4_100_000, in_bytes=True) == "1.0/4.1 MB"
    assert figures_text({}) == ""
