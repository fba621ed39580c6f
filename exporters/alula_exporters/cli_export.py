"""The command ``alula export``: encoder files from models that others trained."""

from __future__ import annotations

from pathlib import Path

import click

from alula_exporters.extras import needs_extra


@click.group()
def export() -> None:
    """Make an encoder file from a model that is trained already."""


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
    """Export a sparse text encoder (SPLADE or CSR) that sentence-transformers saved in MODEL_DIR.

    The file takes texts: tokenizer, prompts and model are inside, and a collection that is made with it needs neither
    torch nor sentence-transformers. Rows and queries are compared with the model's before the file is kept.

    \b
    alula export sentence-transformers ./my-splade --out docs-splade.onnx
    """
    with needs_extra("Exporting this model", "sentence-transformers"):
        from alula_exporters.sparse_checkpoints import export_checkpoint  # noqa: PLC0415 (torch)

        info = export_checkpoint(folder, out, max_nnz=max_nnz, force=force)
    parity = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in info.parity.items())
    pairs = [
        ("sparse rows", f"{info.max_nnz} non-zeros at most, in {info.dim:,} dimensions"),
        ("texts", f"{info.max_tokens} tokens at most"),
        ("prompts", f"{info.row_prompt!r} for rows, {info.query_prompt!r} for queries"),
        ("ONNX against torch", parity),
    ]
    width = max(len(name) for name, _ in pairs)
    click.echo(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB), metric {info.metric}.")
    for name, value in pairs:
        click.echo(f"  {name:<{width}}  {value}")
    click.echo(f"Next: alula inspect {out}")
