"""The gateway's log: one line of JSON or text per call that failed or was slow.

A line contains only the fields below: no metadata, which carry logins, no addresses of clients, and no message bodies.
Answers and errors can quote filters and values, so they are logged for debugging only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from logging.handlers import QueueHandler
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

from alula.gateway.status import Outcome

LOGGER = logging.getLogger("alula.gateway")
LogFormat = Literal["auto", "json", "text"]
QUEUED_LINES = 10_000
STDERR = 2
FLUSH_SECONDS = 2.0  # for the last lines
MAX_TEXT = 300  # characters of a name or a reason from outside
UNAVAILABLE = "UNAVAILABLE"  # Milvus was not reached, so the reason quotes no request


def configure(log_format: LogFormat, level: str) -> Callable[[], None]:
    """Write the gateway's log to standard error, in a separate thread.

    Args:
        log_format: ``json``, ``text``, or ``auto``: text on a terminal, JSON otherwise.
        level: ``debug``, ``info``, ``warning`` or ``error``.

    Returns:
        A function that writes the queued lines and ends the thread.
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
    lines: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUED_LINES)
    writer = threading.Thread(target=_write, args=(lines, formatter), name="alula-log", daemon=True)
    writer.start()
    # the root logger stays quiet, and so does pymilvus, which logs a traceback for every error that it raises
    logging.getLogger().handlers = [_DroppingHandler(lines)]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    LOGGER.setLevel(level.upper())

    def end() -> None:
        with contextlib.suppress(queue.Full):
            lines.put(None, timeout=FLUSH_SECONDS)
        writer.join(FLUSH_SECONDS)

    return end


def _write(lines: queue.Queue[logging.LogRecord | None], formatter: logging.Formatter) -> None:
    # not by sys.stderr, whose lock blocks the exit of Python
    while (line := lines.get()) is not None:
        with contextlib.suppress(OSError):
            os.write(STDERR, f"{formatter.format(line)}\n".encode(errors="replace"))


class _DroppingHandler(QueueHandler):
    """Drops lines when the queue is full: a stalled reader must not stall the gateway."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)


class _TextFormatter(logging.Formatter):
    """Appends the fields of a JSON line to the text."""

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
    """Log a call of a client that failed, was rejected, or was slow.

    Args:
        method: Name of the method.
        outcome: Outcome of the call; a failure is logged as a warning, others as information.
        seconds: Duration.
        code: Milvus's code, or the name of the gRPC code.
        reason: Error message that the client received; logged if Milvus was not reached, and for debugging.
        collection: Collection that the call named.
        request_id: The client's identifier of the call (metadata ``client-request-id``).
    """
    level = logging.WARNING if outcome == "failed" else logging.INFO
    if not LOGGER.isEnabledFor(level):
        return
    shown = printable(reason) if code == UNAVAILABLE or LOGGER.isEnabledFor(logging.DEBUG) else ""
    words = {"ok": "was slow", "refused": "was refused", "failed": "failed"}[outcome]
    LOGGER.log(
        level,
        f"{printable(method)} {words}" + (f": {shown}" if shown else ""),
        extra={
            "method": printable(method),
            "outcome": outcome,
            "code": code,
            "seconds": round(seconds, 6),
            "collection": printable(collection),
            "request_id": printable(request_id),
        },
    )


def unexpected(method: str, error: Exception) -> None:
    """Log a fault of the gateway: its class and place, for debugging its message."""
    lines = traceback.format_tb(error.__traceback__)
    if LOGGER.isEnabledFor(logging.DEBUG):
        lines = traceback.format_exception(error)[1:]
    LOGGER.error(
        f"{printable(method)} failed unexpectedly ({type(error).__name__})\n"
        f"Traceback (most recent call last):\n{''.join(lines).rstrip()}"
    )


def printable(text: str) -> str:
    """A text from outside without control characters, cut to `MAX_TEXT` characters."""
    line = "".join(char if char.isprintable() else " " for char in text[: MAX_TEXT + 1])
    return line if len(line) <= MAX_TEXT else f"{line[:MAX_TEXT]}..."
