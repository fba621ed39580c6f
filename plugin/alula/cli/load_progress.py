"""Progress of a load: a bar for people, lines of JSON for machines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import click

from alula.ingest.monitor import Status
from alula.progress import Progress, progress_bar

Show = Callable[[Status], None]
LOG_SECONDS = 5.0
COUNTED = ("checking", "loading", "importing", "counting")  # the stages that count rows


def json_line(event: str, **values: Any) -> None:
    """Print an event as one line of JSON, with its time."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    click.echo(json.dumps({"time": now, "event": event, **values}, ensure_ascii=False, default=str))


@contextmanager
def load_progress(*, quiet: bool, json_logs: bool) -> Iterator[Show]:
    """A function that shows the status of a load.

    Args:
        quiet: Show nothing.
        json_logs: A line of JSON every `LOG_SECONDS` seconds, on standard output.
    """
    if quiet and not json_logs:
        yield lambda _: None
    elif json_logs:
        yield _Lines()
    else:
        with progress_bar() as progress:
            yield _Bar(progress)


class _Lines:
    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._stage = ""

    def __call__(self, status: Status) -> None:
        now = time.monotonic()
        if status.stage != self._stage:
            self._began, self._stage = now, status.stage
        elif now - self._last < LOG_SECONDS:
            return
        self._last = now
        json_line("progress", **_figures(status, now - self._began))


def _figures(status: Status, seconds: float) -> Mapping[str, Any]:
    done = {"checking": status.read, "loading": status.written}.get(status.stage, status.imported)
    rate = done / seconds if seconds > 0 else 0.0
    left = None if status.total is None else max(0, status.total - status.read + status.encoded - status.written)
    return {
        "stage": status.stage,
        "rows": status.total,
        "read": status.read,
        "encoded": status.encoded,
        "written": status.written,
        "imported": status.imported,
        "bad": status.bad,
        "rows_per_second": round(rate, 1),
        "mb_per_second": round(status.bytes / 1e6 / seconds, 2) if seconds > 0 else 0.0,
        "seconds_left": round(left / rate) if rate and left is not None else None,
        "slowed": status.slowed,
        "trouble": status.trouble or None,
    }


class _Bar:
    """Shows the status of a load on a bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began: dict[str, float] = {}

    def __call__(self, status: Status) -> None:
        began = self._began.setdefault(status.stage, time.monotonic())
        if status.stage not in COUNTED:
            self._progress(status.stage, 0, None)
            return
        figures = _figures(status, max(time.monotonic() - began, 1e-3))
        shown: dict[str, float | str] = {"rows/s": f"{figures['rows_per_second']:,.0f}"}
        done = status.read if status.stage == "checking" else status.imported
        if status.stage == "loading":
            shown["MB/s"] = f"{figures['mb_per_second']:.1f}"
            shown["encoded"] = status.encoded
            done = max(0, status.read - status.encoded) + status.written
        if status.bad:
            shown["bad"] = status.bad
        if status.slowed or status.trouble:
            shown["slowed:"] = status.trouble[:60] or "the server asks for less"
        self._progress(status.stage, done, status.total, shown)
