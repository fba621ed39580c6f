"""The commands ``alula train`` and ``alula card``.

Torch takes seconds to import and is an extra, so nothing here imports it (or onnx) before a training command runs.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from alula.errors import UsageError
from alula_exporters.choices import IMAGE_DIM, PAPER_DIM, Activation, DrqLoss, FlopsLoss, Mode, Regulariser
from alula_exporters.cli_splade import splade
from alula_exporters.extras import needs_extra
from alula_exporters.train_job import Trainer, run_training
from alula_exporters.train_options import FILE, TrainOptions, train_options


@click.group()
def train() -> None:
    """Train an encoder on your vectors, images or texts; writes one ONNX file.

    Training needs the vectors only: no labels, no texts, no GPU. It learns from a sample, so minutes are enough for
    any size. With labels it can train a network for images or texts too (--backbone).

    \b
    flops   sparse rows; you set the search cost as a number. Best recall per millisecond with your vectors kept.
    drq     compact codes; one file serves every code length. Best recall per byte of memory.
    splade  sparse rows of texts: fine-tunes a SPLADE model on pairs of texts, at the search cost that you set.

    Options of flops and drq can be read from a TOML file with --config, from a table named like the command:
    dim = 4096 under [flops] is --dim 4096. DATA is a key too (data = "words.npy"); paths are relative to the file's
    folder. The command line overrides the file.
    """


train.add_command(splade)


@train.command()
@train_options
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
    type=click.Choice(get_args(Activation)),
    default="top-k",
    show_default=True,
    help="Activation that makes rows sparse. top-k: every row keeps its --nnz heaviest terms, as in a keyword index of "
    "fixed length; it found most neighbours at the same cost. relu: rows as long as training makes them, as in SPLADE. "
    "soft-threshold: relu for positive and negative terms, each stored in a dimension of its own.",
)
@click.option(
    "--regulariser",
    type=click.Choice(get_args(Regulariser)),
    default="flops",
    show_default=True,
    help="Penalty beside the loss. flops: long posting lists, so rows spread evenly over the inverted index. l1: the "
    "sum of weights, which leaves a few lists long. none: for comparison.",
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
    help="Weight (lambda) of the regulariser, instead of a target cost; the cost then follows from it.",
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
@click.option(
    "--loss",
    type=click.Choice(get_args(FlopsLoss)),
    show_default="contrastive with labels, else distillation",
    help="Training loss. distillation preserves the vectors' neighbours. The others pull rows of one label together: "
    "contrastive compares all pairs of a batch, triplet the hardest, arcface learns a direction for each label.",
)
@click.option(
    "--margin",
    type=click.FloatRange(min=0, min_open=True),
    show_default="0.2",
    help="--loss triplet: how much farther, in squared distance, a row of another label must be.",
)
def flops(common: TrainOptions, *, loss: str | None, margin: float | None, **options: Any) -> None:
    """Train a FLOPS_SPARSE encoder on DATA (.npy, Parquet, ...).

    A row becomes a few dozen non-zeros in a few thousand dimensions. FLOPs is the search cost: the number of
    multiplications for a pair of rows. Training spreads the rows evenly over the dimensions until the cost reaches
    the requested one, and keeps near rows near.

    \b
    alula train flops words.npy --out words-flops.onnx
    alula train flops docs.parquet --field embedding --nnz 64 --flops 1.1 --out docs-flops.onnx
    alula train flops images.npy --labels labels.npy --backbone cnn --nnz 8 --flops 1 --out images-flops.onnx
    """
    with needs_extra("Training", "train"):
        from alula_exporters.flops import FlopsConfig, export_flops, train_flops  # noqa: PLC0415 (torch)

        chosen: Any = common.loss(loss, "distillation")
        config = FlopsConfig(loss=chosen, margin=margin, **common.config, **options)
        run_training(common, Trainer(partial(train_flops, config=config), export_flops, chosen, margin))


@train.command()
@train_options
@click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    default="default",
    show_default=True,
    help="Parameters that the levels of a code share. default: at most half as many codebooks as levels, which later "
    "levels rotate and scale. shared: one codebook, scaled only (Song et al., IJCAI 2019): the smallest file, more "
    "quantisation error. paper: the same, with the paper's losses and stages (a new image backbone ends in the paper's "
    "two layers). separate: one codebook per level, the usual residual quantisation (RQ).",
)
@click.option("--levels", type=int, show_default="16 bytes", help="Bytes of the longest code.")
@click.option("--bits", type=int, show_default="128 bits", help="The same in bits, a multiple of 8.")
@click.option(
    "--sign-bits",
    type=int,
    show_default="two for three numbers of a vector, at least 256",
    help="Bits for candidates by Hamming distance, a multiple of 8, stored in layout hamming. More find more.",
)
@click.option(
    "--epochs",
    type=int,
    show_default="8, more below 50,000 rows, at most 24",
    help="Passes over the rows. Of 117,000 rows 4 are nearly as good; of few rows more are better.",
)
@click.option(
    "--beam",
    default=5,
    show_default=True,
    help="Beam width while encoding the code of a row; 1 is five times as fast and clearly worse.",
)
@click.option(
    "--loss",
    type=click.Choice(get_args(DrqLoss)),
    show_default="with labels contrastive (mode paper: adaptive-margin), else distortion",
    help="Training loss. distortion: the quantisation error. The others add to it a loss on labels, which trains the "
    "--backbone; adaptive-margin is the DRQ paper's.",
)
def drq(common: TrainOptions, *, levels: int | None, bits: int | None, loss: str | None, **options: Any) -> None:
    """Train a DRQ encoder on DATA (.npy, Parquet, ...).

    A row becomes a code of a byte per level (16 levels: 128 bits), and every shorter prefix is a code too: choose the
    length when you search, not when you train. Beside it a row has sign bits, which a binary index finds it by.

    \b
    alula train drq words.npy --out words-drq.onnx
    alula train drq docs.parquet --field embedding --bits 256 --metric IP --out docs-drq.onnx
    """
    with needs_extra("Training", "train"):
        from alula_exporters.drq import DrqConfig, export_drq, train_drq  # noqa: PLC0415 (torch)

        if common.labelled and common.backbone is None:
            raise UsageError(
                "Labels train a backbone, and codes of given vectors cannot use them; give --backbone too, or leave "
                "out the labels."
            )
        with_labels, dim = ("adaptive-margin", PAPER_DIM) if options["mode"] == "paper" else ("contrastive", IMAGE_DIM)
        # a frozen backbone learns from the labels before the codes are trained, if at all
        alone = common.frozen and loss is None
        chosen: Any = "distortion" if alone else common.loss(loss, "distortion", with_labels)
        config = DrqConfig(loss=chosen, levels=_levels(levels, bits), **common.config, **options)
        run_training(common, Trainer(partial(train_drq, config=config), export_drq, chosen, dim=dim))


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--out",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Folder for the card; that of FILE by default.",
)
@click.option("--force", is_flag=True, help="Replace an existing card.")
def card(file: Path, out: Path | None, force: bool) -> None:
    """Write the model card of an encoder FILE.

    It is a Markdown file and a folder of plots: description, search commands, training data and recipe, quality on
    held-out rows, and limits. All of it comes from FILE.

    \b
    alula card words-flops.onnx     writes words-flops.md and words-flops/*.png
    """
    from alula_exporters.card import write_card  # noqa: PLC0415 (onnxruntime)

    click.echo(f"Wrote {write_card(file, out, force=force)}.")


def _levels(levels: int | None, bits: int | None) -> int:
    if levels is not None and bits is not None:
        raise UsageError("Give --levels or --bits, not both: a level is 8 bits.")
    if bits is not None:
        if bits % 8:
            raise UsageError(f"--bits is {bits}; it must be a multiple of 8, because a level of the code is one byte.")
        return bits // 8
    return 16 if levels is None else levels
