"""Write a model card from the metadata of an encoder file, and from nothing else.

The text is in ``template.md``, the parts that depend on the encoder kind in ``flops.md`` and ``drq.md``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alula.encoders import Encoder, EncoderInfo, load_encoder
from alula.errors import UsageError
from alula.index_types import key_cost
from alula_exporters.card.pictures import can_draw, draw, pictures_of
from alula_exporters.card.row_cost import cost_rows
from alula_exporters.extras import needs_extra
from alula_exporters.figures import is_number, missed_costs
from alula_exporters.output_file import atomic_file, check_out_path

with needs_extra("A model card", "train"):
    import jinja2
    import tomli_w

_REPORTED_BITS = (32, 64, 128)
# entries of the training summary that other sections show
_SHOWN_ELSEWHERE = frozenset(
    ("rows", "total_rows", "fingerprint", "recipe", "seed", "quality", "curves", "command", "distortion", "variance")
)
_MEANINGS = {
    "loss": "loss at the end of training",
    "regulariser_weight": "weight (lambda) of the regulariser at the last step",
    "flops_requested": "FLOPs asked for",
    "flops_achieved": "FLOPs: multiplications for a pair of rows, on average",
    "nnz_requested": "non-zeros asked for, mean of a row",
    "nnz_mean": "non-zeros in a row, mean",
    "r_sub": "evenness: FLOPs by the least possible for this many non-zeros; 1 is perfect",
    "dead_dims": "dimensions that no counted row uses",
    "rows_at_most_nnz": "share of rows cut at the most non-zeros",
    "length_power": "power of a row's length that its weights are multiplied by",
    "parameters": "trained parameters",
}


def write_card(file: Path, folder: Path | None = None, *, force: bool = False) -> Path:
    """Write the model card of an encoder file: ``NAME.md``, and plots in ``NAME/``.

    Without matplotlib the card has no plots and says how to get them.

    Args:
        file: The encoder file, ``NAME.onnx``.
        folder: Folder for the card; None for the encoder's own folder.
        force: Replace an existing card and its plots.

    Returns:
        The Markdown file.

    Raises:
        EncoderError: If the file is no encoder.
        UsageError: If the card exists and ``force`` is not set, or cannot be written there.
    """
    encoder = load_encoder(file)
    card, picture_folder = check_card_paths(file, folder, force=force)
    pictures = {}
    if can_draw():
        for picture in pictures_of(encoder.info):
            picture_folder.mkdir(exist_ok=True)
            draw(picture, picture_folder / f"{picture.name}.png")
            pictures[f"{picture_folder.name}/{picture.name}.png"] = picture.title
    with atomic_file(card) as temporary:
        temporary.write_text(card_text(encoder, pictures), encoding="utf-8", errors="backslashreplace")
    return card


def check_card_paths(file: Path, folder: Path | None = None, *, force: bool) -> tuple[Path, Path]:
    """The paths of an encoder file's card and plot folder, if they can be written.

    Args:
        file: The encoder file; it need not exist yet.
        folder: Folder for the card; None for the encoder's own folder.
        force: True to accept an existing card.

    Raises:
        UsageError: If there is a card already, or something else in its place.
    """
    home = file.parent if folder is None else folder
    card, pictures = home / f"{file.stem}.md", home / file.stem
    if file in (card, pictures):
        raise UsageError(
            f"The card of {file} would replace it; let the encoder's name end in .onnx, or use card=False."
        )
    if pictures.exists() and not pictures.is_dir():
        raise UsageError(f"The card's plots go into a folder {pictures}, but that is a file; move or rename it.")
    if card.exists() and not force:
        raise UsageError(f"The model card {card} exists already; force=True replaces it.")
    if not force and any(pictures.glob("*.png")):
        raise UsageError(f"The folder {pictures} of the card's plots has some already; force=True replaces them.")
    check_out_path(card, force=force, ending=".md")
    return card, pictures


def card_text(encoder: Encoder, pictures: Mapping[str, str]) -> str:
    """The Markdown text of a card.

    Args:
        encoder: The loaded encoder file.
        pictures: Titles of the plots, by their paths relative to the card.
    """
    info, training = encoder.info, encoder.info.training
    command, recipe, quality = _command(info), training.get("recipe"), training.get("quality")
    return (
        _environment()
        .get_template("template.md")
        .render(
            info=info,
            file=encoder.path,
            megabytes=encoder.path.stat().st_size / 1e6,
            sha256=encoder.sha256,
            collection=_collection_name(encoder.path.stem),
            command=command or {},
            toml=_toml(info.kind, command) if command else "",
            rows=_count(training, "rows"),
            total_rows=_count(training, "total_rows"),
            recipe={**recipe, "seed": training.get("seed")} if isinstance(recipe, Mapping) else None,
            pictures=pictures,
            has_curves=bool(pictures_of(info)),
            figures=_figures(training),
            missed=list(missed_costs(training)),
            queries=_count(quality, "queries"),
            judged_rows=_count(quality, "rows"),
            quality=_quality(quality) if isinstance(quality, Mapping) else [],
            by_label=isinstance(quality, Mapping) and any("label" in name for name in quality),
            variance_kept=_variance_kept(info),
            costs=cost_rows(encoder),
            key_bytes=round(key_cost("INT64").memory_bytes),
            parity=[(name.replace("_", " "), value) for name, value in _flat(info.parity)],
        )
    )


def _environment() -> jinja2.Environment:
    # no autoescape: Markdown is no HTML, and each value passes a filter below
    environment = jinja2.Environment(  # noqa: S701
        loader=jinja2.PackageLoader("alula_exporters.card", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": _cell,
        "count": lambda number: f"{number:,}",
        "markdown": _markdown,
        "percent": lambda share, digits=0: f"{share:.{digits}%}",
        "shell": lambda text: shlex.quote(_printable(str(text))),
        "url": quote,
    }
    environment.tests["figure"] = is_number
    return environment


def _collection_name(stem: str) -> str:
    name = re.sub(r"\W", "_", stem, flags=re.ASCII)
    return name if name[0].isalpha() else f"c_{name}"  # Milvus's names start with a letter


def _command(info: EncoderInfo) -> Mapping[str, Any] | None:
    """Options of the command that trained the file; None if missing or malformed."""
    command = info.training.get("command")
    table = command.get(info.kind) if isinstance(command, Mapping) else None
    if not isinstance(table, Mapping) or not all(re.fullmatch(r"[\w-]+", key, re.ASCII) for key in table):
        return None
    return table if all(isinstance(value, str | int | float | bool) for value in table.values()) else None


def _toml(kind: str, command: Mapping[str, Any]) -> str:
    data_first = dict(sorted(command.items(), key=lambda item: item[0] != "data"))
    text = tomli_w.dumps({kind: data_first}).rstrip()
    # TOML allows control characters beyond ASCII, which could hide text in the card
    return "".join(char if char.isprintable() or char == "\n" else rf"\U{ord(char):08x}" for char in text)


def _figures(training: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Figures of the training summary with their meanings, known ones first."""
    values = {name: value for name, value in _flat(training) if name.split(".")[0] not in _SHOWN_ELSEWHERE}
    ordered = [*(name for name in _MEANINGS if name in values), *(name for name in values if name not in _MEANINGS)]
    return [(_MEANINGS.get(name, name), values[name]) for name in ordered]


def _quality(quality: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Name, value and meaning of each figure of quality, in numeric order."""
    figures = (pair for pair in quality.items() if pair[0] not in ("queries", "rows"))
    in_order = sorted(figures, key=lambda pair: [part.zfill(12) for part in re.split(r"(\d+)", pair[0])])
    return [(name, value, _meaning(name)) for name, value in in_order]


def _meaning(figure: str) -> str:
    """Explain a figure: recall in a top N, recall by codes, or quality by label."""
    if figure.startswith("recall@1 by label"):
        return "share of queries whose best row has their label; without re-ranking"
    if figure.startswith("mAP by label"):
        return "mean average precision when rows of the query's label are relevant; without re-ranking"
    matched = re.match(r"recall@(\d+) (?:in top (\d+)|by (\d+)-bit codes)$", figure)
    if not matched:
        return ""
    near, candidates, bits = matched.groups()
    if candidates:
        return f"share of the {near} nearest rows among the best {candidates}: the recall of exact re-ranking"
    return f"share of the {near} nearest rows among the best {near} by {bits}-bit codes alone, without re-ranking"


def _variance_kept(info: EncoderInfo) -> dict[int, float]:
    """Share of the rows' variance that codes keep, by their length in bits."""
    distortion, variance = info.training.get("distortion"), info.training.get("variance")
    if not isinstance(distortion, list) or len(distortion) != info.levels or not is_number(variance) or variance <= 0:
        return {}
    bits = [bits for bits in _REPORTED_BITS if bits < info.max_bits] + [info.max_bits]
    kept = {length: distortion[length // 8 - 1] for length in bits}
    return {length: 1 - value / variance for length, value in kept.items() if is_number(value)}


def _count(values: Any, name: str) -> int | None:
    value = values.get(name) if isinstance(values, Mapping) else None
    return value if isinstance(value, int) else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names as ``outer.inner``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else _markdown(value)


def _markdown(value: Any) -> str:
    """Escape a string from the file for Markdown: its author may be a stranger."""
    return re.sub(r"([\\|<>\[\]*])", r"\\\1", _printable(str(value)))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
