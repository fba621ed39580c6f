"""The model card: what an encoder is, how to use it, how it was made, how good it is and where its limits are.

A Markdown file and a folder of pictures, from what the encoder file says of itself and nothing else. So every sentence
is either a figure of the file, or follows from one.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from alula.encoders import Encoder, EncoderInfo, load_encoder
from alula.errors import UsageError
from alula_exporters.config_file import to_toml
from alula_exporters.output_file import atomic_file, check_out_path
from alula_exporters.pictures import can_draw, draw, is_number, pictures_of

_INDEX_TYPES = {"flops": "FLOPS_SPARSE", "drq": "DRQ"}
_MANY_ROWS = 10_000
_FAR_OFF = 0.1
_SAMPLED = 0.8  # less than this share is a sample: a tenth is held out of every data set
_SHOWN_BITS = (32, 64, 128)
_NO_MATPLOTLIB = (
    "The pictures are left out, because matplotlib is not installed. For a card with pictures: "
    "`pip install 'alula[train]'`, then `alula card --force` with this file."
)
# entries of the training summary that a section of their own shows
_ELSEWHERE = frozenset(
    ("rows", "total_rows", "fingerprint", "recipe", "seed", "quality", "curves", "command", "distortion", "variance")
)
_MEANINGS = {
    "loss": "loss at the end of training",
    "regulariser_weight": "weight (lambda) of the regulariser at the last step",
    "flops_requested": "FLOPs asked for",
    "flops_achieved": "FLOPs: multiplications for a pair of rows, on average",
    "nnz_requested": "non-zeros asked for, mean of a row",
    "nnz_mean": "non-zeros in a row, mean",
    "r_sub": "evenness: FLOPs by the least possible for so many non-zeros; 1 is perfect",
    "dead_dims": "dimensions that no counted row uses",
    "rows_at_most_nnz": "share of rows cut at the most non-zeros",
    "length_power": "power of a row's length that its weights are multiplied by",
    "parameters": "trained parameters",
}


def write_card(file: Path, folder: Path | None = None, *, force: bool = False) -> Path:
    """Write the model card of an encoder file: ``NAME.md`` and pictures in ``NAME/`` for ``NAME.onnx``.

    Without matplotlib the card has no pictures and says how to get them.

    Args:
        file: The encoder file.
        folder: Where the card goes; None for the encoder's own folder.
        force: Replace an existing card and its pictures.

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
    """Where the card of an encoder file and its pictures go; refused early if they cannot.

    Args:
        file: The encoder file; it need not exist yet.
        folder: Where the card goes; None for the encoder's own folder.
        force: Whether an existing card may be replaced.

    Raises:
        UsageError: If there is a card already, or something else in its place.
    """
    home = file.parent if folder is None else folder
    card, pictures = home / f"{file.stem}.md", home / file.stem
    if file in (card, pictures):
        raise UsageError(f"The card of {file} would replace it; let the encoder's name end in .onnx, or use --no-card.")
    if pictures.exists() and not pictures.is_dir():
        raise UsageError(f"The card's pictures go into a folder {pictures}, but that is a file; move or rename it.")
    if card.exists() and not force:
        raise UsageError(f"The model card {card} exists already; --force replaces it.")
    if not force and any(pictures.glob("*.png")):
        raise UsageError(f"The folder {pictures} of the card's pictures has some already; --force replaces them.")
    check_out_path(card, force=force)
    return card, pictures


def card_text(encoder: Encoder, pictures: Mapping[str, str]) -> str:
    """The Markdown text of a card.

    Args:
        encoder: The loaded encoder file.
        pictures: Titles of those that were drawn, by their path from the card.
    """
    info = encoder.info
    sections = {
        "Use": _use(encoder),
        "Data": _data(info),
        "Recipe": _recipe(info),
        "Training": _training(info, pictures),
        "Measured quality": _quality(info),
        "Limits": _limits(info),
    }
    lines = [*_summary(encoder)]
    for title, body in sections.items():
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _summary(encoder: Encoder) -> Iterator[str]:
    info, file = encoder.info, encoder.path
    height, width, channels = info.image_shape or (0, 0, 0)
    one, taken = {
        "vectors": (f"a vector of {info.input_dim:,} numbers", f"vectors of {info.input_dim:,} float32"),
        "images": (
            f"an image of {height} x {width} pixels",
            f"images, uint8 ({height}, {width}, {channels}), embedded in {info.input_dim:,} numbers inside",
        ),
        "text": (
            "a text",
            f"text of at most {info.max_tokens:,} tokens, embedded in {info.input_dim:,} numbers inside",
        ),
    }[info.input]
    does = {
        "flops": f"A sparse encoder for Milvus: it turns {one} into at most "
        f"{info.max_nnz:,} non-zeros in {info.dim:,} dimensions, which are searched with an inverted index.",
        "drq": f"A quantiser for Milvus: it turns {one} into a code of "
        f"{info.max_bits:,} bits and {info.sign_bits:,} sign bits. The sign bits find candidates, the code ranks them, "
        "and each whole number of the code's first bytes is a shorter code.",
    }[info.kind]
    size = {
        "flops": ("row", f"at most {info.max_nnz:,} non-zeros in {info.dim:,} dimensions"),
        "drq": ("row", f"code of {info.max_bits:,} bits ({info.levels} levels of 8), {info.sign_bits:,} sign bits"),
    }[info.kind]
    scaled = "scaled to unit length inside" if info.normalized else "used with their lengths"
    yield from (f"# {_text(file.stem)}", "", does, "")
    yield from _table(
        ("", ""),
        (
            ("file", f"{_text(file.name)}, {file.stat().st_size / 1e6:.2f} MB"),
            ("fingerprint (sha256)", f"`{encoder.sha256}`"),
            ("kind", f"{info.kind}, for the index type {_INDEX_TYPES[info.kind]}"),
            ("input", f"{taken}, {scaled}"),
            ("metric", info.metric),
            size,
            *(
                [("made with", ", ".join(f"{_text(k)} {_text(v)}" for k, v in info.versions.items()))]
                * bool(info.versions)
            ),
        ),
    )


class _Names(NamedTuple):
    """How a card speaks of what goes into an encoder."""

    rows: str
    file: str
    queries: str
    search: str


_NAMES = {
    "vectors": _Names(
        "vectors",
        "vectors.npy",
        "With `queries.npy` for your queries, rows of {info.input_dim:,} numbers from the same model as the vectors:",
        "--vectors queries.npy",
    ),
    "images": _Names(
        "images", "images.npy", "With `queries.npy` for your queries, images of the same shape:", "--images queries.npy"
    ),
    "text": _Names("texts", "texts.parquet", "With any text as the query:", "--text 'what I look for'"),
}


def _use(encoder: Encoder) -> Iterator[str]:
    info, name = encoder.info, re.sub(r"\W", "_", encoder.path.stem, flags=re.ASCII)
    name = name if name[0].isalpha() else f"c_{name}"  # Milvus's names start with a letter
    command = _command(info) or {}
    vectors = _printable(str(command.get("data", _NAMES[info.input].file)))
    option = "--text-column" if info.input == "text" else "--vector-column"
    column = f" {option} {shlex.quote(_printable(str(command['field'])))}" if "field" in command else ""
    like = "" if vectors.endswith(".npy") else f" --like {shlex.quote(vectors)}{column}"
    rest = f"--encoder {shlex.quote(_printable(encoder.path.name))} --uri http://localhost:19530"
    more = {
        "flops": "`--candidates` sets how many rows the inverted index hands on for exact scoring: more find more, and "
        "cost more time.",
        "drq": "`--bits` ranks by a shorter prefix of the code, `--candidates` sets how many rows are ranked.",
    }[info.kind]
    yield from (
        _NAMES[info.input].queries.format(info=info),
        "",
        "```sh",
        f"alula create {name} --index-type {_INDEX_TYPES[info.kind]}{like} {rest}",
        f"alula load {name} {shlex.quote(vectors)}{column} {rest}",
        f"alula search {name} {_NAMES[info.input].search} {rest}",
        "```",
        "",
        f"{more} `--uri ./{name}.db` is an embedded Milvus Lite in the place of a server.",
    )


def _data(info: EncoderInfo) -> Iterator[str]:
    rows, total = _count(info.training, "rows"), _count(info.training, "total_rows")
    if rows is None:
        yield "The file does not say what it was trained on."
        return
    given = f" of {total:,}" if total is not None else ""
    what = _NAMES[info.input].rows
    yield f"Learned from {rows:,}{given} {what}{_source(info)}. The rows that judge it were held out."
    if "fingerprint" in info.training:
        what = "vectors (shape, then float32 values)" if info.input == "vectors" else "rows"
        yield f"The sha256 of all {what} is `{_text(info.training['fingerprint'])}`."


def _source(info: EncoderInfo) -> str:
    vectors = (_command(info) or {}).get("data")
    return f" in {_text(vectors)}" if vectors else ""


def _recipe(info: EncoderInfo) -> Iterator[str]:
    recipe = info.training.get("recipe")
    if not isinstance(recipe, Mapping):
        yield "The file does not say how it was trained."
        return
    yield from _table(("option", "value"), sorted({**recipe, "seed": info.training.get("seed")}.items()))
    command = _command(info)
    if command:
        yield from (
            "",
            "To train it again, save this as `train.toml` beside the vectors and run "
            f"`alula train {info.kind} --config train.toml --out again.onnx`. With the same vectors, versions and "
            "machine the file is the same to the byte.",
            "",
            "```toml",
            to_toml({info.kind: dict(sorted(command.items(), key=lambda item: item[0] != "data"))}).rstrip(),
            "```",
        )


def _training(info: EncoderInfo, pictures: Mapping[str, str]) -> Iterator[str]:
    drawable = pictures_of(info)
    if not drawable:
        yield "The file holds no curves of its training."
    elif not pictures:
        yield _NO_MATPLOTLIB
    for path, title in pictures.items():
        yield from (f"![{_text(title)}]({quote(path)})", "")
    figures = {name: value for name, value in _flat(info.training) if name.split(".")[0] not in _ELSEWHERE}
    ordered = [*(name for name in _MEANINGS if name in figures), *(name for name in figures if name not in _MEANINGS)]
    yield from _table(("figure", "value"), ((_MEANINGS.get(name, name), figures[name]) for name in ordered))


def _quality(info: EncoderInfo) -> Iterator[str]:
    quality = info.training.get("quality")
    queries, rows = (_count(quality, name) for name in ("queries", "rows"))
    if isinstance(quality, Mapping) and queries and rows:
        yield from (
            f"On {queries:,} held-out queries among {rows:,} of the rows it learned from, against the exact neighbours "
            f"by {info.metric}, with the trained model itself and without Milvus:",
            "",
        )
        found = sorted((pair for pair in quality.items() if pair[0] not in ("queries", "rows")), key=_numbers_in_order)
        yield from _table(("figure", "value", "meaning"), [(*pair, _meaning(pair[0])) for pair in found])
    else:
        yield "The file holds no figures of quality."
    kept = _variance_kept(info)
    if kept:
        yield from ("", "What the codes keep of the rows' variance:", "")
        yield from _table(("bits", "variance kept"), ((bits, f"{share:.1%}") for bits, share in kept.items()))
    if info.parity:
        yield from ("", "The ONNX file against the trained model, measured when it was written:", "")
        yield from _table(("figure", "value"), ((name.replace("_", " "), value) for name, value in _flat(info.parity)))


def _numbers_in_order(pair: tuple[str, Any]) -> list[str]:
    """Sorts 32-bit before 128-bit."""
    return [part.zfill(12) for part in re.split(r"(\d+)", pair[0])]


def _meaning(figure: str) -> str:
    """What a figure named ``recall@K in top N``, ``recall@K by B-bit codes`` or ``... by label`` is."""
    if figure.startswith("recall@1 by label"):
        return "share of queries whose best row has their label; without re-ranking"
    if figure.startswith("mAP by label"):
        return "mean average precision when rows of the query's label are right; without re-ranking"
    wanted = re.match(r"recall@(\d+) (?:in top (\d+)|by (\d+)-bit codes)$", figure)
    if not wanted:
        return ""
    near, candidates, bits = wanted.groups()
    if candidates:
        return f"share of the {near} nearest rows among the best {candidates}: what exact re-ranking of these finds"
    return f"share of the {near} nearest rows among the best {near} by {bits}-bit codes alone, without re-ranking"


def _variance_kept(info: EncoderInfo) -> dict[int, float]:
    """Share of the rows' variance that codes of some lengths keep, by bits."""
    distortion, variance = info.training.get("distortion"), info.training.get("variance")
    if not isinstance(distortion, list) or len(distortion) != info.levels or not is_number(variance) or variance <= 0:
        return {}
    bits = [bits for bits in _SHOWN_BITS if bits < info.max_bits] + [info.max_bits]
    kept = {length: distortion[length // 8 - 1] for length in bits}
    return {length: 1 - value / variance for length, value in kept.items() if is_number(value)}


def _limits(info: EncoderInfo) -> Iterator[str]:
    """What follows from the figures, and nothing else."""
    metric = f"{info.metric} only: Alula refuses to build a collection of another metric with this file."
    if info.metric == "COSINE":
        metric += " Vectors that differ in length alone become the same row."
    yield f"- {metric}"
    kind = {
        "vectors": f"Vectors of {info.input_dim:,} numbers only, and of the embedding model that made the training "
        "vectors. Others of this length",
        "images": "Images like those of the training only, of the same size. Others",
        "text": "Texts like those of the training only, in their language. Others",
    }[info.input]
    yield f"- {kind} are encoded without complaint, but nothing is known of how well."
    if isinstance(quality := info.training.get("quality"), Mapping) and any("label" in name for name in quality):
        yield "- The figures by label were measured among rows that it learned from, whose labels it has seen."
    yield from (f"- {line}" for line in (*_sample_limits(info), *_KIND_LIMITS[info.kind](info)))
    yield "- Not measured for this card: speed, memory and recall in Milvus, and how results vary from seed to seed."


def _sample_limits(info: EncoderInfo) -> Iterator[str]:
    rows, total = _count(info.training, "rows"), _count(info.training, "total_rows")
    if rows is not None and rows < _MANY_ROWS:
        yield f"It learned from {rows:,} rows only; tens of thousands make a good encoder."
    if rows and total and rows < _SAMPLED * total:
        yield f"It learned from a sample, {rows / total:.0%} of the vectors."
    quality = info.training.get("quality")
    queries, judged = (_count(quality, name) for name in ("queries", "rows"))
    if queries and judged:
        yield (
            f"The recall is a mean over {queries:,} queries, so its standard error is at most "
            f"{0.5 / math.sqrt(queries):.2g}. It was measured among {judged:,} rows; among more, the same number of "
            "candidates finds fewer of the neighbours."
        )


def _sparse_limits(info: EncoderInfo) -> Iterator[str]:
    yield "Exact scores need the vectors kept in Milvus; without them scores are estimates from the sparse rows."
    for unit, name, made in (("flops", "FLOPs", "flops_achieved"), ("nnz", "Mean non-zeros", "nnz_mean")):
        asked, reached = info.training.get(f"{unit}_requested"), info.training.get(made)
        if is_number(asked) and is_number(reached) and asked and abs(reached / asked - 1) > _FAR_OFF:
            yield f"{name} are {reached:.3g}, {reached / asked - 1:+.0%} off the {asked:.3g} that were asked for."
    dead, cut = info.training.get("dead_dims"), info.training.get("rows_at_most_nnz")
    if is_number(dead) and dead > _FAR_OFF * info.dim:
        yield f"{dead:,} of {info.dim:,} dimensions are never used, so search costs more than it would need to."
    if is_number(cut) and cut > _FAR_OFF:
        yield f"{cut:.0%} of the rows are cut at {info.max_nnz} non-zeros."


def _code_limits(info: EncoderInfo) -> Iterator[str]:
    lost = ", ".join(f"{1 - kept:.1%} at {bits} bits" for bits, kept in _variance_kept(info).items())
    what = f" (lost of the rows' variance: {lost})" if lost else ""
    yield f"Scores from codes are estimates{what}; exact scores need the vectors kept in Milvus."


_KIND_LIMITS = {"flops": _sparse_limits, "drq": _code_limits}


def _command(info: EncoderInfo) -> Mapping[str, Any] | None:
    """The options of the command that made the file, if it says so in a form that can be used again."""
    command = info.training.get("command")
    table = command.get(info.kind) if isinstance(command, Mapping) else None
    if not isinstance(table, Mapping) or not all(re.fullmatch(r"[\w-]+", key, re.ASCII) for key in table):
        return None
    return table if all(isinstance(value, str | int | float | bool) for value in table.values()) else None


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


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if lines:
        yield from (f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    """A text of the file as plain Markdown: an encoder file may be a stranger's."""
    return re.sub(r"([\\|<>\[\]*])", r"\\\1", _printable(str(value)))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
