"""The command ``alula train splade``: fine-tune a SPLADE model on texts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from alula.progress import progress_bar
from alula_exporters.extras import needs_extra
from alula_exporters.figures import compared
from alula_exporters.output_file import check_out_path
from alula_exporters.summary import parity_line, show_trained


@click.command()
@click.argument("folder", metavar="MODEL_DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("pairs", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .onnx file to write.")
@click.option(
    "--flops",
    type=float,
    show_default="the model's before training",
    help="The search cost to train for: how many dimensions a query and a random row have in common, on average. A "
    "query against a million rows then costs a million times this many multiplications.",
)
@click.option(
    "--query-weight",
    default=3.0,
    show_default=True,
    help="Weight of the regulariser of queries; that of rows is 1. More gives shorter queries and longer rows. A table "
    "of token weights has none.",
)
@click.option(
    "--max-nnz",
    type=click.IntRange(min=1),
    show_default="the model's own limit, or 256",
    help="Most non-zeros in a row or a query; the heaviest are kept.",
)
@click.option("--steps", default=1000, show_default=True, help="Training steps.")
@click.option("--batch", default=32, show_default=True, help="Queries per step; each document is a negative of others.")
@click.option("--learning-rate", default=2e-5, show_default=True, help="The highest learning rate.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything random.")
@click.option("--restart", is_flag=True, help="Discard the checkpoint of a killed run.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def splade(folder: Path, pairs: Path, out: Path, *, restart: bool, force: bool, **options: Any) -> None:
    """Fine-tune a SPLADE text model on PAIRS of texts.

    MODEL_DIR is what sentence-transformers' SparseEncoder saved; its queries may be a table of token weights. PAIRS is
    a file of rows with a query and a document, {"query": ..., "document": ...} in JSON lines. A row's "score", by a
    cross-encoder or a dense model, teaches which of a query's documents is better. The file takes texts for rows and
    queries, and costs the FLOPs that you ask for.

    \b
    alula train splade ./my-splade pairs.jsonl --flops 1.5 --out docs-splade.onnx
    """
    with needs_extra("Training on texts", "sentence-transformers"):
        from alula_exporters.checkpoint import Checkpoint  # noqa: PLC0415 (torch)
        from alula_exporters.sparse_checkpoints import export_sparse_model, open_sparse_model  # noqa: PLC0415
        from alula_exporters.splade import SpladeConfig, read_pairs, train_splade  # noqa: PLC0415

        check_out_path(out, force=force)
        config = SpladeConfig(**options)
        read = read_pairs(pairs, seed=config.seed)
        click.echo(
            f"{read.total:,} pairs; learning from {len(read.train):,} queries, judging with {len(read.held_out):,} "
            "others.",
            err=True,
        )
        model = open_sparse_model(folder)
        path = out.with_suffix(".checkpoint")
        if restart:
            path.unlink(missing_ok=True)
        checkpoint = Checkpoint(path, {**config.recipe(), "model": folder.name, "data": read.fingerprint})
        if checkpoint.begun:
            click.echo(f"Resuming from {path}; --restart trains from the start.", err=True)
        started = time.perf_counter()
        with progress_bar() as progress:
            training = train_splade(model, read, config, progress=progress, checkpoint=checkpoint)
        seconds = time.perf_counter() - started
        info = export_sparse_model(model, out, max_nnz=config.max_nnz, training=training, force=force)
    checkpoint.remove()
    table = [*_figures(training), ("ONNX against torch", parity_line(info))]
    show_trained(out, info, table, seconds)
    click.echo(f"Next: alula inspect {out}")


def _figures(training: dict[str, Any]) -> list[tuple[str, str]]:
    before, quality = training["before"], training["quality"]
    reached = training["flops_achieved"]
    asked = compared(reached, training["flops_requested"])
    return [
        ("FLOPs", f"{reached:.3g} ({asked}; before {before['flops']:.3g})"),
        ("non-zeros, rows", f"{training['nnz_mean']:.1f} on average (before {before['nnz']:.1f})"),
        ("non-zeros, queries", f"{training['query_nnz_mean']:.1f} on average (before {before['query nnz']:.1f})"),
        ("MRR@10", f"{quality['MRR@10']:.3f} (before {quality['MRR@10 before']:.3f})"),
        ("judged with", f"{quality['queries']} held-out queries, {quality['rows']:,} rows"),
    ]
