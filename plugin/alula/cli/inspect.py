"""``alula inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from alula.cli.options import EncoderFile, format_option, show_json, show_pairs
from alula.encoders import EncoderInfo, load_encoder
from alula.index_types import index_types


@click.command("inspect")
@click.argument("file", type=EncoderFile())
@format_option
def command(file: Path, output_format: str) -> None:
    """Check the encoder FILE against the contract and show its metadata.

    It is safe to inspect a file of unknown origin: an encoder contains standard ONNX operators only, and no code.
    """
    encoder = load_encoder(file)
    info = encoder.info
    if output_format == "json":
        show_json({"file": str(file), "sha256": encoder.sha256, **asdict(info)})
        return
    fits = " or ".join(name for name, kind in index_types().items() if kind.encoder_kind == info.kind)
    show_pairs(
        {
            "file": f"{file} ({file.stat().st_size / 1e6:.1f} MB)",
            "fingerprint (sha256)": encoder.sha256,
            "kind": f"{info.kind}, for index type {fits or '(none installed)'}",
            **_input(info),
            "metric": info.metric,
            **encoder.output_details,
            "weights": info.precision,
            "contract": f"format {info.format_version}, fulfilled: standard operators, one file, probes encode well",
        }
    )
    # curves are hundreds of numbers: --format json prints them, and 'alula card' draws them
    training = {name: value for name, value in info.training.items() if name != "curves"}
    for title, values in (("Training", training), ("Parity with the trained model", info.parity)):
        if values:
            click.echo()
            show_pairs(dict(_flat(values)), title)
    if info.versions:
        click.echo()
        show_pairs(info.versions, "Exported with")


def _input(info: EncoderInfo) -> dict[str, str]:
    """The inputs of the encoder, and its prompts."""
    normalized = "scaled to unit length inside" if info.normalized else "used as they are"
    vectors = f"vectors of {info.input_dim} float32, {normalized}"
    if info.input == "vectors":
        return {"input": vectors}
    if info.input == "images":
        height, width, channels = info.image_shape
        return {"input": f"images, {height} high, {width} wide, {channels} channels of uint8", "embedding": vectors}
    prompts = {"prompt of rows": info.row_prompt, "prompt of queries": info.query_prompt}
    return {
        "input": f"text, at most {info.max_tokens} tokens",
        "embedding": vectors,
        **({"queries": _own_queries(info)} if info.query_max_tokens else {}),
        **{name: repr(prompt) for name, prompt in prompts.items() if prompt},
    }


def _own_queries(info: EncoderInfo) -> str:
    return f"embedded by an output of their own, at most {info.query_max_tokens:,} tokens"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested names to ``outer.inner``, and shorten numbers."""
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            pairs.append((prefix + name, f"{value:.6g}"))
        elif isinstance(value, list) and value and all(isinstance(item, float) for item in value):
            pairs.append((prefix + name, ", ".join(f"{item:.4g}" for item in value)))
        else:
            pairs.append((prefix + name, value))
    return pairs
