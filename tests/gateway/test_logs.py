"""The log as a machine and as a person read it."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from alula.gateway import logs


@pytest.fixture(autouse=True)
def loggers():
    """Leaves logging as it was."""
    names = (None, "pymilvus", "alula.gateway")
    root = logging.getLogger()
    handlers, levels = root.handlers, [logging.getLogger(name).level for name in names]
    yield
    root.handlers = handlers
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


def test_a_line_of_json_has_its_fields(capsys):
    logs.configure("json", "info")
    logs.request("Search", "refused", 0.0123456789, code="1100", reason="no", collection="words", request_id="r-7")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "logger": "alula.gateway",
        "message": "Search was refused: no",
        "method": "Search",
        "outcome": "refused",
        "code": "1100",
        "seconds": 0.012346,
        "collection": "words",
        "request_id": "r-7",
    }


def test_a_line_of_text_has_them_too(capsys):
    logs.configure("text", "info")
    logs.request("Search", "failed", 1.5, code="UNAVAILABLE", reason="gone", collection="words")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.endswith("WARNING Search failed: gone [collection=words code=UNAVAILABLE seconds=1.5]\n")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_clients_send_cannot_make_lines_of_its_own(capsys, log_format):
    logs.configure(log_format, "info")
    nasty = 'a\nWARNING forged\r\x1b[31m"}' + "x" * 10_000
    logs.request(nasty, "failed", 0, code="INTERNAL", reason=nasty, collection=nasty, request_id=nasty)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "\r" not in line
    assert len(line) < 3000


def test_levels(capsys):
    logs.configure("json", "warning")
    logs.request("Search", "refused", 0, code="1")
    assert capsys.readouterr().err == ""
    logs.request("Search", "failed", 0, code="INTERNAL")
    assert json.loads(capsys.readouterr().err)["level"] == "WARNING"
    logging.getLogger("pymilvus.decorators").error("a traceback")
    assert capsys.readouterr().err == ""


def test_auto_is_json_where_nobody_watches(capsys, monkeypatch):
    logs.configure("auto", "info")
    logs.LOGGER.info("hello")
    assert json.loads(capsys.readouterr().err)["message"] == "hello"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    logs.configure("auto", "info")
    logs.LOGGER.info("hello")
    assert capsys.readouterr().err.endswith("INFO    hello\n")
