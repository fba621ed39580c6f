"""The log as a machine and as a person read it."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager

import pytest

from alula.gateway.ops import logs


@contextmanager
def written(log_format, level):
    """Logs inside the block as a gateway does, and has all of it written at its end; leaves logging as it was."""
    names = (None, "pymilvus", "alula.gateway")
    root = logging.getLogger()
    handlers, levels = root.handlers, [logging.getLogger(name).level for name in names]
    end = logs.configure(log_format, level)
    try:
        yield
    finally:
        end()
        root.handlers = handlers
        for name, before in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(before)


def test_a_line_of_json_has_its_fields(capfd):
    with written("json", "info"):
        logs.request("Search", "refused", 0.0123456789, code="1100", reason="no", collection="words", request_id="r-7")
    line = json.loads(capfd.readouterr().err)
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "logger": "alula.gateway",
        "message": "Search was refused",
        "method": "Search",
        "outcome": "refused",
        "code": "1100",
        "seconds": 0.012346,
        "collection": "words",
        "request_id": "r-7",
    }


def test_a_line_of_text_has_them_too(capfd):
    with written("text", "info"):
        logs.request("Search", "failed", 1.5, code="UNAVAILABLE", reason="gone", collection="words")  # Milvus is away
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert line.endswith("WARNING Search failed: gone [collection=words code=UNAVAILABLE seconds=1.5]\n")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_clients_send_cannot_make_lines_of_its_own(capfd, log_format):
    nasty = 'a\nWARNING forged\r\x1b[31m"}' + "x" * 10_000
    with written(log_format, "debug"):
        logs.request(nasty, "failed", 0, code="INTERNAL", reason=nasty, collection=nasty, request_id=nasty)
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "\r" not in line
    assert len(line) < 3000


def test_levels(capfd):
    with written("json", "warning"):
        logs.request("Search", "refused", 0, code="1")
        logging.getLogger("pymilvus.decorators").error("a traceback")
        logs.request("Search", "failed", 0, code="INTERNAL")
    assert json.loads(capfd.readouterr().err)["outcome"] == "failed"


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True)])
def test_answers_which_may_quote_a_filter_are_for_debugging(capfd, level, shown):
    with written("json", level):
        logs.request("Query", "refused", 0, code="1100", reason="cannot parse name == 'Ada'")
        logs.request("Query", "failed", 0, code="INTERNAL", reason="cannot parse name == 'Ada'")
    lines = [json.loads(line)["message"] for line in capfd.readouterr().err.splitlines()]
    reason = ": cannot parse name == 'Ada'" if shown else ""
    assert lines == [f"Query was refused{reason}", f"Query failed{reason}"]


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_fault_has_its_place_in_its_line_and_its_message_for_debugging(capfd, level):
    name = "Ada"

    def convert(text):
        int(text)

    with written("json", level):
        try:
            convert(name)
        except ValueError as error:
            logs.unexpected("Search", error)
    message = json.loads(capfd.readouterr().err)["message"]
    assert message.startswith("Search failed unexpectedly (ValueError)\nTraceback (most recent call last):\n  File")
    assert "in convert\n    int(text)" in message
    assert ("Ada" in message) == (level == "debug")


def test_auto_is_json_where_nobody_watches(capfd, monkeypatch):
    with written("auto", "info"):
        logs.LOGGER.info("hello")
    assert json.loads(capfd.readouterr().err)["message"] == "hello"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with written("auto", "info"):
        logs.LOGGER.info("hello")
    assert capfd.readouterr().err.endswith("INFO    hello\n")
