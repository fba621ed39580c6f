"""The command ``alula export``: encoder files from models that others trained."""

from __future__ import annotations

from pathlib import Path

import click

from alula_exporters.extras import needs_extra
from alula_exporters.summary import parity_line, show_written


@click.group()
def export() -> None:
    """Convert a trained model to an encoder file, or an encoder file to 8 bits."""


@export.command("sentence-transformers")
@click.argument("folder", metavar="MODEL_DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .onnx file to write.")
@click.option(
    "--max-nnz",
    type=click.IntRange(min=1),
    show_default="the model's own limit, or 256",
    help="Most non-zeros in a row; the heaviest are kept. Fewer take less memory and time, and find less.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def sentence_transformers(folder: Path, out: Path, *, max_nnz: int | None, force: bool) -> None:
    """Export a SPLADE or CSR text encoder.

    MODEL_DIR is what sentence-transformers' SparseEncoder saved. The file takes texts: tokenizer, prompts and model are
    inside, and its collections need neither torch nor sentence-transformers. Of an inference-free model the query side
    is a table of token weights. Rows and queries are compared with the model's before the file is kept.

    \b
    alula export sentence-transformers ./my-splade --out docs-splade.onnx
    """
    with needs_extra("Exporting this model", "sentence-transformers"):
        from alula_exporters.sparse_checkpoints import export_checkpoint  # noqa: PLC0415 (torch)

        info = export_checkpoint(folder, out, max_nnz=max_nnz, force=force)
    table = [
        ("sparse rows", f"{info.max_nnz} non-zeros at most, in {info.dim:,} dimensions"),
        ("texts", f"{info.max_tokens} tokens at most"),
        *([("queries", "a table of token weights; no network runs")] if info.query_max_tokens else []),
        ("prompts", f"{info.row_prompt!r} for rows, {info.query_prompt!r} for queries"),
        ("ONNX against torch", parity_line(info)),
    ]
    show_written(out, info, table)
    click.echo(f"Next: alula inspect {out}")


@export.command()
@click.argument("encoder", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--data",
    "--vectors",
    "data",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Rows of what the encoder takes (vectors, images or texts), 1,000 or more that it was not trained on.",
)
@click.option("--field", "column", help="Column that holds them, for files with columns (Parquet).")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .onnx file to write.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def int8(encoder: Path, data: Path, *, column: str | None, out: Path, force: bool) -> None:
    """Make the weights of an ENCODER file 8-bit.

    The loss of recall is measured and written into the new file. The two files are different encoders: use one of
    them for rows and queries alike. Of an encoder of codes only the backbone is changed.

    \b
    alula export int8 docs-splade.onnx --data other-docs.txt --out docs-splade-int8.onnx
    """
    with needs_extra("Quantisation", "train"):
        from alula_exporters.int8 import export_int8  # noqa: PLC0415 (torch)

        info, recall = export_int8(encoder, data, out, column=column, force=force)
    changes = [(name, f"{before:.3f} fp32, {after:.3f} int8") for name, (before, after) in recall.items()]
    show_written(out, info, [("before", f"{encoder.stat().st_size / 1e6:.1f} MB"), *changes])
    click.echo(f"Next: alula inspect {out}")
