"""The gateway's log: a line of JSON, or of text for a terminal, for each call that failed or was slow.

A line holds what is named here and nothing else of a call: no metadata, which carry logins, and no bodies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from logging.handlers import QueueHandler
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

from alula.gateway.status import Outcome

LOGGER = logging.getLogger("alula.gateway")
LogFormat = Literal["auto", "json", "text"]
WAITING = 10_000  # lines
STDERR = 2
END_SECONDS = 2.0  # for the last of them
LONGEST = 300  # characters of a name or a reason that clients and servers may put into a line


def configure(log_format: LogFormat, level: str) -> Callable[[], None]:
    """Write the gateway's log to standard error, from a thread of its own.

    Args:
        log_format: ``json``, ``text``, or ``auto``: text where a person watches, JSON elsewhere.
        level: ``debug``, ``info``, ``warning`` or ``error``.

    Returns:
        What writes the rest, if that is read, and ends it.
    """
    if log_format == "json" or (log_format == "auto" and not sys.stderr.isatty()):
        formatter: logging.Formatter = JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
            json_ensure_ascii=False,
        )
    else:
        formatter = _TextFormatter("%(asctime)s %(levelname)-7s %(message)s")
    lines: queue.Queue[logging.LogRecord | None] = queue.Queue(WAITING)
    writer = threading.Thread(target=_write, args=(lines, formatter), name="alula-log", daemon=True)
    writer.start()
    # the root stays quiet, and pymilvus with it: it logs a traceback for every error that it also raises
    logging.getLogger().handlers = [_NeverWaits(lines)]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    LOGGER.setLevel(level.upper())

    def end() -> None:
        with contextlib.suppress(queue.Full):
            lines.put(None, timeout=END_SECONDS)
        writer.join(END_SECONDS)

    return end


def _write(lines: queue.Queue[logging.LogRecord | None], formatter: logging.Formatter) -> None:
    # not by sys.stderr, whose lock Python waits for when it ends
    while (line := lines.get()) is not None:
        with contextlib.suppress(OSError):
            os.write(STDERR, f"{formatter.format(line)}\n".encode(errors="replace"))


class _NeverWaits(QueueHandler):
    """Drops lines that do not fit: whoever reads the log and has stopped must not stop the gateway."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)


class _TextFormatter(logging.Formatter):
    """Adds what a JSON line has as fields, for a person."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = {name: getattr(record, name, None) for name in ("collection", "code", "seconds", "request_id")}
        shown = " ".join(f"{name}={value}" for name, value in fields.items() if value not in (None, ""))
        return f"{line} [{shown}]" if shown else line


def request(
    method: str,
    outcome: Outcome,
    seconds: float,
    *,
    code: str,
    reason: str = "",
    collection: str = "",
    request_id: str = "",
) -> None:
    """Write one line about a call of a client that failed, was refused, or was slow.

    Args:
        method: Name of the method.
        outcome: How it ended: a call that failed is a warning, others are information.
        seconds: How long it took.
        code: Milvus's code, or the name of the gRPC code.
        reason: What the client was told.
        collection: Collection that it named.
        request_id: The client's own name for the call (its metadata ``client-request-id``).
    """
    level = logging.WARNING if outcome == "failed" else logging.INFO
    if not LOGGER.isEnabledFor(level):
        return
    words = {"ok": "was slow", "refused": "was refused", "failed": "failed"}[outcome]
    LOGGER.log(
        level,
        f"{printable(method)} {words}" + (f": {printable(reason)}" if reason else ""),
        extra={
            "method": printable(method),
            "outcome": outcome,
            "code": code,
            "seconds": round(seconds, 6),
            "collection": printable(collection),
            "request_id": printable(request_id),
        },
    )


def printable(text: str) -> str:
    """A text from outside as a part of one line: no line breaks, no control characters, not too long."""
    line = "".join(char if char.isprintable() else " " for char in text[: LONGEST + 1])
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
