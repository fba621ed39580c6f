"""What every training command takes, and how it runs: read, train where a killed run was left, export, report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alula.errors import UsageError
from alula_exporters.config_file import option_key, read_config
from alula_exporters.output_file import atomic_file, check_out_path
from alula_exporters.records import Recorder, tensorboard, together
from alula_exporters.summary import Lines, show_summary

if TYPE_CHECKING:
    from alula.encoders import EncoderInfo, Input, Metric
    from alula_exporters.backbones import Backbone
    from alula_exporters.checkpoint import Checkpoint
    from alula_exporters.data import TrainingData
    from alula_exporters.training import Progress as ProgressCallback
    from alula_exporters.training import Trained

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_IMAGE_BACKBONES = ("cnn", "resnet")
_BACKBONE_EPOCHS = 20
_TEXT_RATE = 2e-5  # a trained transformer forgets what it knows when it is changed faster


@dataclass(frozen=True)
class Job:
    """What all training commands take.

    Args:
        data: The file of vectors, images or texts.
        out: The ``.onnx`` file to write.
        field: The column that holds the rows.
        labels: The file of labels.
        label_column: The column that holds the labels.
        label_vectors: The file of label vectors.
        backbone: ``cnn``, ``resnet`` or the folder of a text model.
        backbone_epochs: Passes that the backbone learns before the encoder; None for its kind's default.
        backbone_rate: Its highest learning rate; None for its kind's default.
        frozen: Leave the backbone as it is while the encoder learns.
        apart: Write backbone and encoder to files of their own.
        patience: Measurements without improvement until training stops; None for never.
        restart: Remove a checkpoint first.
        metric: COSINE, IP or L2.
        force: Replace an existing file.
        seed: Seed of everything random.
        max_rows: Most rows to learn from.
        opset: Version of the ONNX operators; None for the newest, or the backbone's.
        card: Write the model card.
        tensorboard: Folder for TensorBoard's files; None for none.
    """

    data: Path
    out: Path
    field: str | None
    labels: Path | None
    label_column: str | None
    label_vectors: Path | None
    backbone: str | None
    backbone_epochs: int | None
    backbone_rate: float | None
    frozen: bool
    apart: bool
    patience: int | None
    restart: bool
    metric: Metric
    force: bool
    seed: int
    max_rows: int
    opset: int | None
    card: bool
    tensorboard: Path | None

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.labels is not None or self.label_column is not None

    @property
    def input(self) -> Input:
        """What the rows are, which follows from the backbone."""
        return "vectors" if self.backbone is None else "images" if self.backbone in _IMAGE_BACKBONES else "text"

    @property
    def backbone_path(self) -> Path:
        """The file of a backbone that is exported apart."""
        return self.out.with_name(f"{self.out.stem}-backbone.onnx")

    @property
    def rate(self) -> float | None:
        """The backbone's learning rate; None for the default of what trains it."""
        return _TEXT_RATE if self.backbone_rate is None and self.input == "text" else self.backbone_rate

    @property
    def shared_options(self) -> dict[str, Any]:
        """The options that both kinds' configurations have in common."""
        chosen = {} if self.rate is None else {"backbone_learning_rate": self.rate}
        return {
            "metric": self.metric,
            "seed": self.seed,
            "frozen": self.frozen,
            "patience": self.patience,
            **chosen,
        }

    def loss(self, chosen: str | None, without_labels: str) -> str:
        """The loss to train with: the chosen one, or the one that fits the data.

        Raises:
            UsageError: If the chosen one needs labels that are not there.
        """
        if chosen not in (None, without_labels) and not self.labelled:
            raise UsageError(f"--loss {chosen} learns from labels; give --labels or --label-column too.")
        return chosen or ("contrastive" if self.labelled else without_labels)


_COMMON_OPTIONS = (
    click.argument("data", type=click.Path(path_type=Path, exists=True, dir_okay=False)),
    click.option("--out", required=True, type=click.Path(path_type=Path), help="The .onnx file to write."),
    click.option(
        "--field",
        "--vector-column",
        "--text-column",
        "field",
        help="Column that holds the vectors or texts, for files with columns (Parquet, JSON lines).",
    ),
    click.option(
        "--labels",
        type=_FILE,
        help="Labels to learn from: a .npy array or a text file, one for each row. Rows of one label come near each "
        "other; the two texts of a pair share a label of their own. Without labels near stays what is near in the "
        "vectors.",
    ),
    click.option("--label-column", metavar="NAME", help="The same: the column that holds the labels."),
    click.option(
        "--label-vectors",
        type=_FILE,
        help="For --loss adaptive-margin: a .npy array with a row for each label, in sorted order, such as word "
        "vectors of their names.",
    ),
    click.option(
        "--backbone",
        metavar="[cnn|resnet|DIR]",
        help="The network that makes vectors of the rows, part of the encoder file: cnn or resnet for images (uint8 "
        ".npy of rows, height, width, channels), or the folder of a sentence-transformers model for texts.",
    ),
    click.option(
        "--backbone-epochs",
        type=click.IntRange(min=0),
        show_default="20 for cnn and resnet, 0 for a trained model",
        help="Passes over the rows that the backbone learns from the labels alone, before the encoder.",
    ),
    click.option(
        "--backbone-rate",
        type=click.FloatRange(min=0, min_open=True),
        show_default="2e-5 for texts; for images what suits the stage",
        help="The backbone's highest learning rate.",
    ),
    click.option("--frozen", is_flag=True, help="Leave the backbone as it is while the encoder learns."),
    click.option(
        "--apart",
        is_flag=True,
        help="Write two files: NAME.onnx takes vectors, and NAME-backbone.onnx makes them.",
    ),
    click.option(
        "--patience",
        type=click.IntRange(min=1),
        show_default="never stop early",
        help="Stop when recall on validation rows has not improved so many times, and go back to the best.",
    ),
    click.option(
        "--restart",
        is_flag=True,
        help="Begin again where a training run was killed; by default it goes on from its checkpoint.",
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
_NOT_RECORDED = ("out", "force", "card", "tensorboard", "restart", "apart")


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and options of `Job`, and hand them to the command as one."""

    @wraps(command)
    def run(**options: Any) -> None:
        command(Job(**{field.name: options.pop(field.name) for field in fields(Job)}), **options)

    for option in reversed(_COMMON_OPTIONS):
        run = option(run)
    return run


@dataclass(frozen=True)
class Kind:
    """One kind of encoder, as `run_job` needs it.

    Args:
        train: Takes data, and as keywords ``backbone``, ``progress`` and ``checkpoint``.
        export: Takes what ``train`` gives and a path, and as keywords ``force`` and ``opset``.
        lines: What to print of it.
        loss: The loss it is trained with.
    """

    train: Callable[..., Trained[Any]]
    export: Callable[..., EncoderInfo]
    lines: Lines
    loss: str


def run_job(job: Job, kind: Kind) -> None:
    """Read the data, train, write the encoder and report; a killed run goes on from its checkpoint."""
    from alula_exporters.model_card import write_card  # noqa: PLC0415 (heavy, only when needed)

    _check(job)
    data = _read(job)
    backbone = _backbone(job, data)
    if backbone is not None:
        backbone.front()  # what cannot be exported is not worth training
    recorder = Recorder()
    table = _command_table(job)
    started = time.perf_counter()
    checkpoint = _checkpoint(job, data, table, recorder)
    try:
        with _watch(job, recorder) as progress:
            if backbone is not None and _epochs(job):
                _train_backbone(job, kind, backbone, data, progress=progress, checkpoint=checkpoint)
            trained = kind.train(data, backbone=backbone, progress=progress, checkpoint=checkpoint)
    except KeyboardInterrupt:
        if checkpoint.begun:
            click.echo(f"Stopped; the same command goes on from {checkpoint.path}.", err=True)
        raise
    seconds = time.perf_counter() - started
    trained = recorder.add_to(trained)
    trained = replace(trained, training={**trained.training, "command": {_command_name(): table}})
    if job.apart:
        _write_backbone(job, trained)
        trained = trained.head()
    info = kind.export(trained, job.out, force=job.force, opset=job.opset)
    checkpoint.remove()
    show_summary(job.out, info, kind.lines, seconds)
    if job.apart:
        click.echo(f"Its backbone: {job.backbone_path}")
    if job.card:
        click.echo(f"What it is and how to search with it: {write_card(job.out, force=job.force)}")
    click.echo(f"Next: alula inspect {job.out}")


def _check(job: Job) -> None:
    """Refuse what can be refused before anything is read."""
    from alula_exporters.model_card import check_card_paths  # noqa: PLC0415 (heavy, only when needed)
    from alula_exporters.onnx_export import check_opset  # noqa: PLC0415

    check_out_path(job.out, force=job.force)
    check_opset(job.opset)
    if job.card:
        check_card_paths(job.out, force=job.force)
    if job.labels is not None and job.label_column is not None:
        raise UsageError("Give --labels or --label-column, not both.")
    if job.label_vectors is not None and not job.labelled:
        raise UsageError("--label-vectors say what labels mean; give --labels or --label-column too.")
    if job.backbone is None:
        for name in ("backbone_epochs", "backbone_rate", "frozen", "apart"):
            if getattr(job, name):
                raise UsageError(f"--{name.replace('_', '-')} is about a backbone; give --backbone too.")
    elif job.input == "images" and not job.labelled:
        raise UsageError(
            f"The backbone {job.backbone} is untrained, and only labels can teach it; give --labels or --label-column."
        )
    elif job.input == "text" and not Path(job.backbone).is_dir():
        raise UsageError(
            f"There is no backbone {job.backbone!r}; it is {' or '.join(_IMAGE_BACKBONES)}, or the folder of a "
            "sentence-transformers model."
        )
    elif _epochs(job) and not job.labelled:
        raise UsageError("A backbone learns from labels; give --labels or --label-column, or leave --backbone-epochs.")
    if job.apart:
        check_out_path(job.backbone_path, force=job.force)


def _epochs(job: Job) -> int:
    if job.backbone_epochs is not None:
        return job.backbone_epochs
    return _BACKBONE_EPOCHS if job.input == "images" else 0


def _read(job: Job) -> TrainingData:
    from alula_exporters.data import load_training_data  # noqa: PLC0415 (heavy, only when needed)

    data = load_training_data(
        job.data,
        field=job.field,
        input=job.input,
        labels=job.labels,
        label_column=job.label_column,
        label_vectors=job.label_vectors,
        max_rows=job.max_rows,
        seed=job.seed,
    )
    shape = " x ".join(map(str, data.train.shape[1:]))
    rows = {"vectors": f"rows of {shape} numbers", "images": f"images of {shape}", "text": "texts"}[job.input]
    labels = f" with {len(data.classes):,} labels" if data.classes else ""
    click.echo(
        f"{data.total_rows:,} {rows}{labels}; learning from {len(data.train):,}, "
        f"judging with {len(data.held_out):,} others.",
        err=True,
    )
    return data


def _backbone(job: Job, data: TrainingData) -> Backbone | None:
    """The network under the encoder, with weights to start from; the same for the same seed."""
    if job.backbone is None:
        return None
    if job.input == "text":
        from alula_exporters.backbones.text import load_text_backbone  # noqa: PLC0415 (an optional package)

        return load_text_backbone(Path(job.backbone))
    import torch  # noqa: PLC0415 (slow)

    from alula_exporters.backbones import image_backbone  # noqa: PLC0415

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        return image_backbone(job.backbone, data.train)


def _train_backbone(
    job: Job, kind: Kind, backbone: Backbone, data: TrainingData, *, progress: ProgressCallback, checkpoint: Checkpoint
) -> None:
    from alula_exporters.dense import BackboneConfig, train_backbone  # noqa: PLC0415 (torch)
    from alula_exporters.losses import LabelLoss  # noqa: PLC0415

    chosen: dict[str, Any] = {"loss": kind.loss} if kind.loss in get_args(LabelLoss) else {}
    if job.rate is not None:
        chosen["learning_rate"] = job.rate
    config = BackboneConfig(epochs=_epochs(job), patience=job.patience, seed=job.seed, **chosen)
    train_backbone(backbone, data, config, progress=progress, checkpoint=checkpoint)


def _write_backbone(job: Job, trained: Trained[Any]) -> None:
    front = trained.front()
    assert front is not None  # noqa: S101 (for the type checker)
    with atomic_file(job.backbone_path) as temporary:
        temporary.write_bytes(front.model.SerializeToString(deterministic=True))


def _checkpoint(job: Job, data: TrainingData, table: Mapping[str, Any], recorder: Recorder) -> Checkpoint:
    import torch  # noqa: PLC0415 (slow)

    from alula_exporters.checkpoint import Checkpoint  # noqa: PLC0415

    path = job.out.with_suffix(".checkpoint")
    if job.restart:
        path.unlink(missing_ok=True)
    identity = {**table, "data": data.fingerprint, "torch": str(torch.__version__)}
    checkpoint = Checkpoint(path, identity, beside={"curves": recorder})
    if checkpoint.begun:
        click.echo(f"Going on from {path}; --restart begins again.", err=True)
    return checkpoint


@contextmanager
def _watch(job: Job, recorder: Recorder) -> Iterator[ProgressCallback]:
    """Everything that follows the training, as one `Progress`."""
    with ExitStack() as stack:
        watchers = [recorder, stack.enter_context(_bar())]
        if job.tensorboard is not None:
            watchers.append(stack.enter_context(tensorboard(job.tensorboard / job.out.stem)))
        yield together(*watchers)


def _command_name() -> str:
    return str(click.get_current_context().command.name)


def _command_table(job: Job) -> dict[str, Any]:
    """The command that makes the file, as a table of a ``--config`` file."""
    from alula_exporters.onnx_export import check_opset  # noqa: PLC0415 (heavy, only when needed)

    ctx = click.get_current_context()
    given = {
        option_key(option): ctx.params[option.name]
        for option in ctx.command.params
        if option.name in ctx.params and option.name not in _NOT_RECORDED
    }
    # of a path the name alone: the folders are the user's business
    table = {key: value.name if isinstance(value, Path) else value for key, value in given.items() if value is not None}
    return table if job.backbone else {**table, "opset": check_opset(job.opset)}


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
