"""What the commands that write an encoder file print in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from alula.encoders import EncoderInfo

Lines = Callable[["EncoderInfo"], "list[tuple[str, str]]"]


def show_summary(out: Path, info: EncoderInfo, lines: Lines, seconds: float) -> None:
    """Print what was trained: the kind's own ``lines``, quality on held-out rows, agreement with torch.

    Args:
        out: The encoder file.
        info: What it says of itself.
        lines: `flops_lines` or `drq_lines`.
        seconds: What training took; not in the file, which is the same for the same seed.
    """
    quality = dict(info.training["quality"])
    sample = f"{quality.pop('queries')} held-out queries, {quality.pop('rows'):,} rows"
    found = [(name, f"{value:.3f}") for name, value in quality.items()]
    table = [*lines(info), *found, ("judged with", sample), ("ONNX against torch", parity_line(info))]
    show_written(out, info, table, how=f", trained in {seconds:.0f} s.")


def show_written(out: Path, info: EncoderInfo, table: Sequence[tuple[str, str]], *, how: str = ".") -> None:
    """Print that a file was written, and a table of what it is.

    Args:
        out: The encoder file.
        info: What it says of itself.
        table: Names and values.
        how: How the first sentence ends.
    """
    width = max(len(name) for name, _ in table)
    click.echo(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB), metric {info.metric}{how}")
    for name, value in table:
        click.echo(f"  {name:<{width}}  {value}")


def parity_line(info: EncoderInfo) -> str:
    """The parity figures in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in info.parity.items())


def flops_lines(info: EncoderInfo) -> list[tuple[str, str]]:
    """Of a sparse encoder: its rows and what they cost."""
    training = info.training
    recipe = training["recipe"]
    costs = {"flops": training["flops_achieved"], "nnz": training["nnz_mean"]}
    shown, notes = {unit: f"{cost:.3g}" for unit, cost in costs.items()}, []
    for unit, name in (("flops", "FLOPs"), ("nnz", "Non-zeros")):
        requested = training.get(f"{unit}_requested")
        if requested is None:
            continue
        missed = costs[unit] / requested - 1
        shown[unit] += f" (asked for {requested:.3g}: {missed:+.1%})"
        if abs(missed) > 0.1:
            notes.append(("note", f"{name} are off by more than 10%; train with more --steps"))
    cut = training.get("rows_at_most_nnz", 0)
    if cut > 0.1:
        notes.append(("note", f"{cut:.0%} of rows are cut at {info.max_nnz} non-zeros; raise --most-nnz"))
    return [
        ("variant", f"activation {recipe['activation']}, regulariser {recipe['regulariser']}"),
        ("sparse rows", f"{shown['nnz']} non-zeros on average, {info.max_nnz} at most, in {info.dim:,} dimensions"),
        ("FLOPs", shown["flops"]),
        *notes,
        ("evenness", f"{training['r_sub']:.2f} (1 is perfect); {training['dead_dims']} dimensions are never used"),
    ]


def drq_lines(info: EncoderInfo) -> list[tuple[str, str]]:
    """Of a quantiser: its codes and what they keep."""
    distortion, variance = info.training["distortion"], info.training["variance"]
    shown = [level for level in (4, 8, 16, 32, 64) if level < info.levels] + [info.levels]
    explained = ", ".join(f"{1 - distortion[level - 1] / variance:.1%} at {8 * level} bits" for level in shown)
    return [
        ("variant", f"mode {info.training['recipe']['mode']}, {info.training['parameters']:,} trained parameters"),
        ("codes", f"{info.max_bits} bits in {info.levels} levels, {info.sign_bits} sign bits"),
        ("variance kept", explained),
    ]
