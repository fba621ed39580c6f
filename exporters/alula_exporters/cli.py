"""The commands ``alula train flops``, ``alula train drq`` and ``alula card``.

Torch takes seconds to import and is an extra, so nothing here imports it (or onnx) before a training command runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alula.errors import UsageError
from alula_exporters.config_file import option_key, read_config
from alula_exporters.extras import needs_extra
from alula_exporters.output_file import check_out_path
from alula_exporters.records import Recorder, tensorboard, together

if TYPE_CHECKING:
    from alula.encoders import EncoderInfo, Metric
    from alula_exporters.data import TrainingData
    from alula_exporters.training import ModelT, Trained
    from alula_exporters.training import Progress as ProgressCallback


@click.group()
def train() -> None:
    """Train an encoder from your own vectors; the result is one ONNX file.

    Training needs the vectors only: no labels, no texts, no GPU. It learns from a sample, so minutes are enough for
    any size. Which one?

    \b
    flops  sparse rows; search cost is a number you ask for. Best recall per millisecond with your vectors kept.
    drq    compact codes; one file serves every code length. Best recall per byte of memory.

    Options can be kept in a TOML file, in a table named as the command, and read with --config: dim = 4096 under
    [flops] is --dim 4096. So can VECTORS (vectors = "words.npy"); paths are relative to the file's folder. The command
    line wins over the file.
    """


@dataclass(frozen=True)
class _Job:
    """What both commands take: the vectors, the file to write and how to train.

    Args:
        vectors: The file of vectors.
        out: The ``.onnx`` file to write.
        field: The column that holds the vectors.
        metric: COSINE, IP or L2.
        force: Replace an existing file.
        seed: Seed of everything random.
        max_rows: Most rows to learn from.
        opset: Version of the ONNX operators; None for the newest.
        card: Write the model card.
        tensorboard: Folder for TensorBoard's files; None for none.
    """

    vectors: Path
    out: Path
    field: str | None
    metric: Metric
    force: bool
    seed: int
    max_rows: int
    opset: int | None
    card: bool
    tensorboard: Path | None


_COMMON_OPTIONS = (
    click.argument("vectors", type=click.Path(path_type=Path, exists=True, dir_okay=False)),
    click.option("--out", required=True, type=click.Path(path_type=Path), help="The .onnx file to write."),
    click.option(
        "--field", "--vector-column", "field", help="Column that holds the vectors, for files with columns (Parquet)."
    ),
    click.option(
        "--metric",
        type=click.Choice(["COSINE", "IP", "L2"], case_sensitive=False),
        metavar="[COSINE|IP|L2]",
        default="COSINE",
        show_default=True,
        help="The metric you search with. A collection that uses the file has this metric.",
    ),
    click.option("--force", is_flag=True, help="Replace the file if it exists."),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Same seed, data and machine: the same file.",
    ),
    click.option(
        "--max-rows",
        default=500_000,
        show_default=True,
        help="Most rows to learn from; more are sampled at random. 100,000 are usually enough.",
    ),
    click.option(
        "--opset",
        type=int,
        show_default="the newest",
        help="Version of the ONNX operators; a lower one for an older onnxruntime (21 for 1.20).",
    ),
    click.option(
        "--card/--no-card",
        default=True,
        show_default=True,
        help="Write a model card beside the file: what the encoder is, how it was trained, how good it is.",
    ),
    click.option(
        "--tensorboard",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Write the training's figures for TensorBoard too, into DIR/NAME for NAME.onnx.",
    ),
    click.option(
        "--config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=read_config,
        help="Read options from a TOML file; see 'alula train --help'.",
    ),
)
# options that leave the encoder file as it is
_NOT_RECORDED = ("out", "force", "card", "tensorboard")


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and options of `_Job`, and hand them to the command as one."""

    @wraps(command)
    def run(**options: Any) -> None:
        command(_Job(**{field.name: options.pop(field.name) for field in fields(_Job)}), **options)

    for option in reversed(_COMMON_OPTIONS):
        run = option(run)
    return run


@train.command()
@_common
@click.option(
    "--dim",
    default=4096,
    show_default=True,
    help="Sparse dimensions (soft-threshold has twice as many). More make search cheaper at the same recall, and "
    "encoding slower.",
)
@click.option(
    "--nnz",
    type=int,
    show_default="32 for top-k",
    help="Most non-zeros in a row; with --activation relu or soft-threshold their mean, in the place of --flops. More "
    "find more, and cost more memory and time.",
)
@click.option(
    "--flops",
    type=float,
    help="The search cost to train for: how many dimensions two random rows have in common, on average. A "
    "query against a million rows then costs a million times this many multiplications. With top-k it cannot be lower "
    "than nnz^2 / dim.",
    show_default="1.12 x nnz^2 / dim",
)
@click.option(
    "--activation",
    type=click.Choice(["top-k", "relu", "soft-threshold"]),
    default="top-k",
    show_default=True,
    help="What makes a row sparse. top-k: every row keeps its --nnz heaviest terms, as in a keyword index of fixed "
    "length; it found most neighbours at the same cost. relu: rows as long as training makes them, as in SPLADE. "
    "soft-threshold: relu for positive and negative terms, each stored in a dimension of its own.",
)
@click.option(
    "--regulariser",
    type=click.Choice(["flops", "l1", "none"]),
    default="flops",
    show_default=True,
    help="What training pays for besides wrong similarities. flops: long posting lists, so rows spread evenly over the "
    "inverted index. l1: the sum of weights, which leaves a few lists long. none: nothing, for comparison.",
)
@click.option(
    "--most-nnz",
    type=int,
    show_default="4 x the expected mean",
    help="relu and soft-threshold: most non-zeros in a row; the heaviest are kept.",
)
@click.option(
    "--weight",
    type=float,
    help="Weight (lambda) of the regulariser, instead of a cost to reach: the cost is then what comes out.",
)
@click.option(
    "--ramp",
    type=int,
    show_default="half of --steps",
    help="Steps for which --weight grows quadratically from 0.",
)
@click.option(
    "--steps", default=800, show_default=True, help="Training steps. Fewer are faster; under 200 recall suffers."
)
def flops(job: _Job, **options: Any) -> None:
    """Train a FLOPS_SPARSE encoder on VECTORS (.npy, Parquet, ...).

    A row becomes a few dozen non-zeros in a few thousand dimensions. FLOPs is what a search costs: the number of
    multiplications that a pair of rows takes. Training spreads the rows evenly over the dimensions until the cost is
    what you asked for, and keeps near rows near.

    \b
    alula train flops words.npy --out words-flops.onnx
    alula train flops docs.parquet --field embedding --nnz 64 --flops 1.1 --out docs-flops.onnx
    """
    with needs_extra("Training", "train"):
        from alula_exporters.flops import FlopsConfig, export_flops, train_flops  # noqa: PLC0415 (torch)
    config = FlopsConfig(metric=job.metric, seed=job.seed, **options)
    with _watch(job) as (progress, recorder):
        trained = train_flops(_read(job), config, progress=progress)
    info = export_flops(_signed(job, recorder.add_to(trained)), job.out, force=job.force, opset=job.opset)
    _summarise(job, info, _flops_lines)


@train.command()
@_common
@click.option(
    "--mode",
    type=click.Choice(["default", "linear", "paper", "separate"]),
    default="default",
    show_default=True,
    help="What the levels of a code share. default: two codebooks, one for the first level, the other turned and "
    "scaled for each level after it. linear: the same, but mapped by any matrix; a little less error. paper: one "
    "codebook, scaled only, as published (Song et al., IJCAI 2019): the smallest file, more quantisation error. "
    "separate: a codebook for each level, the usual residual quantisation (RQ).",
)
@click.option("--levels", type=int, show_default="16 bytes", help="Bytes of the longest code.")
@click.option("--bits", type=int, show_default="128 bits", help="The same in bits, a multiple of 8.")
@click.option(
    "--sign-bits",
    default=256,
    show_default=True,
    help="Bits for candidates by Hamming distance, a multiple of 8. More find more, and are searched more slowly.",
)
@click.option("--epochs", default=8, show_default=True, help="Passes over the rows. 4 are nearly as good.")
@click.option(
    "--beam",
    default=5,
    show_default=True,
    help="Codes tried side by side while encoding a row; 1 is five times as fast and clearly worse.",
)
def drq(job: _Job, *, levels: int | None, bits: int | None, **options: Any) -> None:
    """Train a DRQ encoder on VECTORS (.npy, Parquet, ...).

    A row becomes a code of a byte per level (16 levels: 128 bits), and every shorter prefix is a code too: choose the
    length when you search, not when you train. 32 bits find candidates, 128 bits rank nearly as the vectors do.

    \b
    alula train drq words.npy --out words-drq.onnx
    alula train drq docs.parquet --field embedding --bits 256 --metric IP --out docs-drq.onnx
    """
    with needs_extra("Training", "train"):
        from alula_exporters.drq import DrqConfig, export_drq, train_drq  # noqa: PLC0415 (torch)
    config = DrqConfig(metric=job.metric, seed=job.seed, levels=_levels(levels, bits), **options)
    with _watch(job) as (progress, recorder):
        trained = train_drq(_read(job), config, progress=progress)
    info = export_drq(_signed(job, recorder.add_to(trained)), job.out, force=job.force, opset=job.opset)
    _summarise(job, info, _drq_lines)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Folder for the card; that of FILE by default.",
)
@click.option("--force", is_flag=True, help="Replace an existing card.")
def card(file: Path, out: Path | None, force: bool) -> None:
    """Write the model card of the encoder FILE: a Markdown file, and a folder of pictures.

    The card says what the encoder is, how to search with it, on what and how it was trained, how good it was on rows
    that training did not see, and where its limits are. All of it comes from FILE.

    \b
    alula card words-flops.onnx     writes words-flops.md and words-flops/*.png
    """
    from alula_exporters.model_card import write_card  # noqa: PLC0415 (onnxruntime)

    click.echo(f"Wrote {write_card(file, out, force=force)}.")


def _levels(levels: int | None, bits: int | None) -> int:
    if levels is not None and bits is not None:
        raise UsageError("Give --levels or --bits, not both: a level is 8 bits.")
    if bits is not None:
        if bits % 8:
            raise UsageError(f"--bits is {bits}; it must be a multiple of 8, because a level of the code is one byte.")
        return bits // 8
    return 16 if levels is None else levels


def _read(job: _Job) -> TrainingData:
    """Read the vectors; whatever can be refused is refused before minutes are spent."""
    from alula_exporters.data import load_training_data  # noqa: PLC0415 (heavy, only when needed)
    from alula_exporters.model_card import check_card_paths  # noqa: PLC0415
    from alula_exporters.onnx_export import check_opset  # noqa: PLC0415

    check_out_path(job.out, force=job.force)
    check_opset(job.opset)
    if job.card:
        check_card_paths(job.out, force=job.force)
    data = load_training_data(job.vectors, field=job.field, max_rows=job.max_rows, seed=job.seed)
    click.echo(
        f"{data.total_rows:,} rows of {data.dim} numbers; learning from {len(data.train):,}, "
        f"judging with {len(data.held_out):,} others.",
        err=True,
    )
    return data


@contextmanager
def _watch(job: _Job) -> Iterator[tuple[ProgressCallback, Recorder]]:
    """Everything that follows the training, as one `Progress`, and the recorder that is part of it."""
    recorder = Recorder()
    with ExitStack() as stack:
        watchers = [recorder, stack.enter_context(_bar())]
        if job.tensorboard is not None:
            watchers.append(stack.enter_context(tensorboard(job.tensorboard / job.out.stem)))
        yield together(*watchers), recorder


def _signed(job: _Job, trained: Trained[ModelT]) -> Trained[ModelT]:
    """The result with the command that made it, as the table of a ``--config`` file, in its training summary."""
    from alula_exporters.onnx_export import check_opset  # noqa: PLC0415 (heavy, only when needed)

    ctx = click.get_current_context()
    given = {
        option_key(option): ctx.params[option.name]
        for option in ctx.command.params
        if option.name in ctx.params and option.name not in _NOT_RECORDED
    }
    # of a path the name alone: the folders are the user's business
    table = {key: value.name if isinstance(value, Path) else value for key, value in given.items() if value is not None}
    command = {str(ctx.command.name): {**table, "opset": check_opset(job.opset)}}
    return replace(trained, training={**trained.training, "command": command})


@contextmanager
def _bar() -> Iterator[ProgressCallback]:
    """A progress bar on stderr, or nothing where stderr is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, figures="")
            shown = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
            bar.update(tasks[stage], completed=done, figures=shown)

        yield report


def _flops_lines(info: EncoderInfo) -> list[tuple[str, str]]:
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


def _drq_lines(info: EncoderInfo) -> list[tuple[str, str]]:
    distortion, variance = info.training["distortion"], info.training["variance"]
    shown = [level for level in (4, 8, 16, 32, 64) if level < info.levels] + [info.levels]
    explained = ", ".join(f"{1 - distortion[level - 1] / variance:.1%} at {8 * level} bits" for level in shown)
    return [
        ("variant", f"mode {info.training['recipe']['mode']}, {info.training['parameters']:,} trained parameters"),
        ("codes", f"{info.max_bits} bits in {info.levels} levels, {info.sign_bits} sign bits"),
        ("variance kept", explained),
    ]


def _summarise(job: _Job, info: EncoderInfo, lines: Callable[[EncoderInfo], list[tuple[str, str]]]) -> None:
    out = job.out
    quality = dict(info.training["quality"])
    sample = f"{quality.pop('queries')} held-out queries, {quality.pop('rows'):,} rows"
    found = [(name, f"{value:.3f}") for name, value in quality.items()]
    parity = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in info.parity.items())
    table = [*lines(info), *found, ("judged with", sample), ("ONNX against torch", parity)]
    width = max(len(name) for name, _ in table)
    click.echo(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB), metric {info.metric}.")
    for name, value in table:
        click.echo(f"  {name:<{width}}  {value}")
    if job.card:
        from alula_exporters.model_card import write_card  # noqa: PLC0415 (onnxruntime)

        click.echo(f"What it is and how to search with it: {write_card(out, force=job.force)}")
    click.echo(f"Next: alula inspect {out}")
