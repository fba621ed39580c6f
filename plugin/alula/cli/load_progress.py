"""Progress of a load: a bar for people, lines of JSON for machines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from alula.ingest.monitor import Status

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
        with _bar() as show:
            yield show


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


@contextmanager
def _bar() -> Iterator[Show]:
    screen = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[rates]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[notes]}"),
        console=screen,
        disable=not screen.is_terminal,
    )
    tasks: dict[str, tuple[Any, float]] = {}
    with bar:

        def show(status: Status) -> None:
            counts = status.stage in COUNTED
            total = status.total if counts else None
            if status.stage not in tasks:
                empty: Any = {"count": "", "rates": "", "notes": ""}
                tasks[status.stage] = bar.add_task(status.stage, total=total, **empty), time.monotonic()
            task, began = tasks[status.stage]
            if not counts:
                return
            figures = _figures(status, max(time.monotonic() - began, 1e-3))
            rates = f"{figures['rows_per_second']:,.0f} rows/s"
            done = status.read if status.stage == "checking" else status.imported
            notes = [f"[red]{status.bad:,} bad[/red]"] if status.bad else []
            if status.stage == "loading":
                rates += f", {figures['mb_per_second']:.1f} MB/s"
                done = max(0, status.read - status.encoded) + status.written
                notes.append(f"{status.encoded:,} encoded")
            if status.slowed or status.trouble:
                notes.append(f"[yellow]slowed: {escape(status.trouble[:60]) or 'the server asks for less'}[/yellow]")
            count = f"{done:,}/{total:,}" if total else f"{done:,}"
            bar.update(task, completed=done, total=total, count=count, rates=rates, notes=", ".join(notes))

        yield show
