"""Console output of the commands that write an encoder file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alula_exporters.figures import missed_costs
from alula_exporters.reports import report_of

if TYPE_CHECKING:
    from alula.encoders import EncoderInfo


def show_summary(out: Path, info: EncoderInfo, seconds: float) -> None:
    """Print the figures of a trained encoder: kind, quality, agreement with torch.

    Args:
        out: The encoder file.
        info: Its metadata.
        seconds: Duration of training; not in the file, which is the same for the same seed.
    """
    quality = dict(info.training["quality"])
    sample = f"{quality.pop('queries')} held-out queries, {quality.pop('rows'):,} rows"
    figures = [(name, f"{value:.3f}") for name, value in quality.items()]
    lines = report_of(info.kind).summary(info)
    table = [*lines, *figures, ("judged with", sample), ("ONNX against torch", parity_line(info))]
    show_trained(out, info, table, seconds)


def show_trained(out: Path, info: EncoderInfo, table: Sequence[tuple[str, str]], seconds: float) -> None:
    """Print a trained encoder's table, and on standard error which costs it missed.

    Args:
        out: The encoder file.
        info: Its metadata.
        table: Names and values.
        seconds: Duration of training.
    """
    show_written(out, info, table, note=f", trained in {seconds:.0f} s.")
    for sentence in missed_costs(info.training):
        click.echo(f"Note: {sentence}", err=True)


def show_written(out: Path, info: EncoderInfo, table: Sequence[tuple[str, str]], *, note: str = ".") -> None:
    """Print that a file was written, and a table of its figures.

    Args:
        out: The encoder file.
        info: Its metadata.
        table: Names and values.
        note: End of the first sentence.
    """
    width = max(len(name) for name, _ in table)
    click.echo(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB), metric {info.metric}{note}")
    for name, value in table:
        click.echo(f"  {name:<{width}}  {value}")


def parity_line(info: EncoderInfo) -> str:
    """The parity figures in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in info.parity.items())
