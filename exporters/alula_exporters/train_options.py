"""Options common to ``alula train flops`` and ``alula train drq``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alula.errors import UsageError
from alula_exporters.config_file import option_key, read_config
from alula_exporters.output_file import check_out_path

if TYPE_CHECKING:
    from alula.encoders import Input, Metric

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_IMAGE_BACKBONES = ("cnn", "resnet")
_IMAGE_BACKBONE_EPOCHS = 20
_TEXT_RATE = 2e-5  # a higher rate makes a pre-trained transformer forget


@dataclass(frozen=True)
class TrainOptions:
    """Options common to all training commands.

    Args:
        data: The file of vectors, images or texts.
        out: The ``.onnx`` file to write.
        field: The column that contains the rows.
        labels: The file of labels.
        label_column: The column that contains the labels.
        label_vectors: The file of label vectors.
        backbone: ``cnn``, ``resnet`` or the folder of a text model.
        backbone_epochs: Epochs of the backbone before the encoder; None for the default of its input.
        backbone_rate: Its highest learning rate; None for the default of its input.
        frozen: Keep the backbone's weights fixed while the encoder trains.
        separate_backbone: Write backbone and encoder to separate files.
        patience: Measurements without improvement until training stops; None to never stop early.
        restart: Remove a checkpoint first.
        metric: COSINE, IP or L2.
        force: Replace an existing file.
        seed: Seed of all random numbers.
        max_rows: Most rows to learn from.
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
    separate_backbone: bool
    patience: int | None
    restart: bool
    metric: Metric
    force: bool
    seed: int
    max_rows: int
    card: bool
    tensorboard: Path | None

    @property
    def labelled(self) -> bool:
        """True if labels are given."""
        return self.labels is not None or self.label_column is not None

    @property
    def input(self) -> Input:
        """Type of a row, which follows from the backbone."""
        return "vectors" if self.backbone is None else "images" if self.backbone in _IMAGE_BACKBONES else "text"

    @property
    def epochs(self) -> int:
        """Epochs of the backbone before the encoder; by default 0 if pre-trained."""
        if self.backbone_epochs is not None:
            return self.backbone_epochs
        return _IMAGE_BACKBONE_EPOCHS if self.input == "images" else 0

    @property
    def rate(self) -> float | None:
        """The backbone's learning rate; None for the default of its trainer."""
        return _TEXT_RATE if self.backbone_rate is None and self.input == "text" else self.backbone_rate

    @property
    def backbone_path(self) -> Path:
        """The file of a backbone that is exported separately."""
        return self.out.with_name(f"{self.out.stem}-backbone.onnx")

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that `FlopsConfig` and `DrqConfig` have in common."""
        chosen = {} if self.rate is None else {"backbone_learning_rate": self.rate}
        return {
            "metric": self.metric,
            "seed": self.seed,
            "frozen": self.frozen,
            "patience": self.patience,
            **chosen,
        }

    def loss(self, chosen: str | None, without_labels: str, with_labels: str = "contrastive") -> str:
        """The loss to train with: the chosen one, or the default for the data.

        Args:
            chosen: None for the default.
            without_labels: The default without labels.
            with_labels: The default with labels.

        Raises:
            UsageError: If the chosen one needs labels and none are given.
        """
        if chosen not in (None, without_labels) and not self.labelled:
            raise UsageError(f"--loss {chosen} learns from labels; give --labels or --label-column too.")
        return chosen or (with_labels if self.labelled else without_labels)

    def check(self) -> None:
        """Reject options that do not fit each other, before any data is read.

        Raises:
            UsageError: If they do not; the message names the options.
        """
        from alula_exporters.card import check_card_paths  # noqa: PLC0415 (heavy, only when needed)

        check_out_path(self.out, force=self.force)
        if self.card:
            check_card_paths(self.out, force=self.force)
        if self.labels is not None and self.label_column is not None:
            raise UsageError("Give --labels or --label-column, not both.")
        if self.label_vectors is not None and not self.labelled:
            raise UsageError("--label-vectors describe labels; give --labels or --label-column too.")
        self._check_backbone()
        if self.separate_backbone:
            check_out_path(self.backbone_path, force=self.force)

    def _check_backbone(self) -> None:
        if self.backbone is None:
            for name in ("backbone_epochs", "backbone_rate", "frozen", "separate_backbone"):
                if getattr(self, name):
                    raise UsageError(f"--{name.replace('_', '-')} needs a backbone; give --backbone too.")
        elif self.input == "images" and not self.labelled:
            raise UsageError(
                f"The backbone {self.backbone} is untrained and learns from labels only; give --labels or "
                "--label-column."
            )
        elif self.input == "text" and not Path(self.backbone).is_dir():
            raise UsageError(
                f"There is no backbone {self.backbone!r}; it is {' or '.join(_IMAGE_BACKBONES)}, or the folder of a "
                "sentence-transformers model."
            )
        elif self.epochs and not self.labelled:
            raise UsageError(
                "A backbone learns from labels; give --labels or --label-column, or leave out --backbone-epochs."
            )


_COMMON_OPTIONS = (
    click.argument("data", type=click.Path(path_type=Path, exists=True, dir_okay=False)),
    click.option("--out", required=True, type=click.Path(path_type=Path), help="The .onnx file to write."),
    click.option(
        "--field",
        "--vector-column",
        "--text-column",
        "field",
        help="Column that contains the vectors or texts, for files with columns (Parquet, JSON lines).",
    ),
    click.option(
        "--labels",
        type=FILE,
        help="Labels to learn from: a .npy array or a text file, one per row. Training pulls rows of one label "
        "together; the two texts of a pair share a unique label. Rows may have several: an array of rows and labels "
        "of 0 and 1, or a column of lists. Without labels training preserves the vectors' neighbours.",
    ),
    click.option("--label-column", metavar="NAME", help="The same: the column that contains the labels."),
    click.option(
        "--label-vectors",
        type=FILE,
        show_default="the means of their rows, where these are vectors",
        help="For --loss adaptive-margin: a .npy array with one row per label, in sorted order, such as word "
        "vectors of their names.",
    ),
    click.option(
        "--backbone",
        metavar="[cnn|resnet|DIR]",
        help="The network that embeds the rows, part of the encoder file: cnn or resnet for images (uint8 "
        ".npy of rows, height, width, channels), or the folder of a sentence-transformers model for texts.",
    ),
    click.option(
        "--backbone-epochs",
        type=click.IntRange(min=0),
        show_default="20 for cnn and resnet, 0 for a trained model",
        help="Epochs that train the backbone on the labels alone, before the encoder.",
    ),
    click.option(
        "--backbone-rate",
        type=click.FloatRange(min=0, min_open=True),
        show_default="2e-5 for texts; for images it depends on the stage",
        help="The backbone's highest learning rate.",
    ),
    click.option("--frozen", is_flag=True, help="Keep the backbone's weights fixed while the encoder trains."),
    click.option(
        "--separate-backbone",
        is_flag=True,
        help="Write two files: NAME-backbone.onnx embeds the rows, and NAME.onnx takes its vectors.",
    ),
    click.option("--apart", is_flag=True, hidden=True, help="Old name of --separate-backbone."),
    click.option(
        "--patience",
        type=click.IntRange(min=1),
        show_default="never stop early",
        help="Stop after this many measurements of validation recall without improvement, and restore the best "
        "weights.",
    ),
    click.option(
        "--restart",
        is_flag=True,
        help="Discard the checkpoint of a killed run; by default training resumes from it.",
    ),
    click.option(
        "--metric",
        type=click.Choice(["COSINE", "IP", "L2"], case_sensitive=False),
        metavar="[COSINE|IP|L2]",
        default="COSINE",
        show_default=True,
        help="The metric you search with. Collections that use the file have this metric.",
    ),
    click.option("--force", is_flag=True, help="Replace the file if it exists."),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="The same seed, data and machine give the same file.",
    ),
    click.option(
        "--max-rows",
        default=500_000,
        show_default=True,
        help="Most rows to learn from, sampled at random. 100,000 are usually enough.",
    ),
    # recorded in earlier files, whose options may be read again
    click.option("--opset", type=int, hidden=True, expose_value=False, help="Without effect."),
    click.option(
        "--card/--no-card",
        default=True,
        show_default=True,
        help="Write a model card beside the file: description, training, measured quality and limits.",
    ),
    click.option(
        "--tensorboard",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Also write the training figures for TensorBoard, into DIR/NAME for NAME.onnx.",
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
# options that do not change the bytes of the encoder file
_NOT_RECORDED = ("out", "force", "card", "tensorboard", "restart", "separate_backbone", "apart")


def train_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `TrainOptions`, and pass them to the command as one object."""

    @wraps(command)
    def run(*, apart: bool, **options: Any) -> None:
        options["separate_backbone"] |= apart
        command(TrainOptions(**{field.name: options.pop(field.name) for field in fields(TrainOptions)}), **options)

    for option in reversed(_COMMON_OPTIONS):
        run = option(run)
    return run


def command_name() -> str:
    """The name of the running command: the encoder kind that it trains."""
    return str(click.get_current_context().command.name)


def command_table() -> dict[str, Any]:
    """The running command as a table of a ``--config`` file."""
    ctx = click.get_current_context()
    given = {
        option_key(option): ctx.params[option.name]
        for option in ctx.command.params
        if option.name in ctx.params and option.name not in _NOT_RECORDED
    }
    # only the name of a path: the folders are private
    return {key: value.name if isinstance(value, Path) else value for key, value in given.items() if value is not None}
