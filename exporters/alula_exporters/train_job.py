"""One training run of the command line: read, train or resume, export, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from alula.progress import progress_bar
from alula_exporters.choices import IMAGE_DIM, Dim, LabelLoss
from alula_exporters.output_file import atomic_file
from alula_exporters.records import Recorder, tensorboard, together
from alula_exporters.summary import show_summary
from alula_exporters.train_options import TrainOptions, command_name, command_table

if TYPE_CHECKING:
    from alula.encoders import EncoderInfo
    from alula.progress import Progress as ProgressCallback
    from alula_exporters.backbones import Backbone
    from alula_exporters.checkpoint import Checkpoint
    from alula_exporters.data import TrainingData
    from alula_exporters.training import Trained


@dataclass(frozen=True)
class Trainer:
    """Functions that train and export one kind of encoder.

    Args:
        train: Takes data, and as keywords ``backbone``, ``progress`` and ``checkpoint``.
        export: Takes the result of ``train`` and a path, and as a keyword ``force``.
        loss: The loss that ``train`` minimises.
        margin: Of the triplet loss; None for its default.
        dim: Of a new image backbone; see `alula_exporters.backbones.image_backbone`.
    """

    train: Callable[..., Trained[Any]]
    export: Callable[..., EncoderInfo]
    loss: str
    margin: float | None = None
    dim: Dim = IMAGE_DIM


def run_training(options: TrainOptions, trainer: Trainer) -> None:
    """Read, train, export and report; a killed run resumes from its checkpoint."""
    from alula_exporters.card import write_card  # noqa: PLC0415 (heavy, only when needed)

    options.check()
    data = _read(options)
    backbone = _backbone(options, data, trainer.dim)
    if backbone is not None:
        backbone.front()  # fails now, not after training, if it cannot be exported
    recorder = Recorder()
    table = command_table()
    started = time.perf_counter()
    checkpoint = _checkpoint(options, data, table, recorder)
    try:
        with _progress(options, recorder) as progress:
            if backbone is not None and options.epochs:
                _train_backbone(options, trainer, backbone, data, progress=progress, checkpoint=checkpoint)
            trained = trainer.train(data, backbone=backbone, progress=progress, checkpoint=checkpoint)
    except KeyboardInterrupt:
        if checkpoint.begun:
            click.echo(f"Stopped; run the same command to resume from {checkpoint.path}.", err=True)
        raise
    seconds = time.perf_counter() - started
    trained = recorder.add_to(trained)
    trained = replace(trained, training={**trained.training, "command": {command_name(): table}})
    if options.separate_backbone:
        _write_backbone(options, trained)
        trained = trained.head()
    info = trainer.export(trained, options.out, force=options.force)
    checkpoint.remove()
    show_summary(options.out, info, seconds)
    if options.separate_backbone:
        click.echo(f"Backbone: {options.backbone_path}")
    if options.card:
        click.echo(f"Model card: {write_card(options.out, force=options.force)}")
    click.echo(f"Next: alula inspect {options.out}")


def _read(options: TrainOptions) -> TrainingData:
    from alula_exporters.data import load_training_data  # noqa: PLC0415 (heavy, only when needed)

    data = load_training_data(
        options.data,
        field=options.field,
        input=options.input,
        labels=options.labels,
        label_column=options.label_column,
        label_vectors=options.label_vectors,
        max_rows=options.max_rows,
        seed=options.seed,
    )
    shape = " x ".join(map(str, data.train.shape[1:]))
    rows = {"vectors": f"rows of {shape} numbers", "images": f"images of {shape}", "text": "texts"}[options.input]
    labels = f" with {len(data.classes):,} labels" if data.classes else ""
    click.echo(
        f"{data.total_rows:,} {rows}{labels}; learning from {len(data.train):,}, "
        f"judging with {len(data.held_out):,} others.",
        err=True,
    )
    return data


def _backbone(options: TrainOptions, data: TrainingData, dim: Dim) -> Backbone | None:
    """The backbone with its initial weights, the same for the same seed."""
    if options.backbone is None:
        return None
    if options.input == "text":
        from alula_exporters.backbones.text import load_text_backbone  # noqa: PLC0415 (an optional package)

        return load_text_backbone(Path(options.backbone))
    import torch  # noqa: PLC0415 (slow)

    from alula_exporters.backbones import image_backbone  # noqa: PLC0415

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return image_backbone(options.backbone, data.train, dim)


def _train_backbone(
    options: TrainOptions,
    trainer: Trainer,
    backbone: Backbone,
    data: TrainingData,
    *,
    progress: ProgressCallback,
    checkpoint: Checkpoint | None,
) -> None:
    from alula_exporters.dense import BackboneConfig, train_backbone  # noqa: PLC0415 (torch)

    chosen: dict[str, Any] = {}
    if trainer.loss in get_args(LabelLoss):
        chosen = {"loss": trainer.loss, "margin": trainer.margin}
    if options.rate is not None:
        chosen["learning_rate"] = options.rate
    config = BackboneConfig(epochs=options.epochs, patience=options.patience, seed=options.seed, **chosen)
    train_backbone(backbone, data, config, progress=progress, checkpoint=checkpoint)


def _write_backbone(options: TrainOptions, trained: Trained[Any]) -> None:
    front = trained.front()
    assert front is not None  # noqa: S101 (for the type checker)
    with atomic_file(options.backbone_path) as temporary:
        temporary.write_bytes(front.model.SerializeToString(deterministic=True))


def _checkpoint(options: TrainOptions, data: TrainingData, table: Mapping[str, Any], recorder: Recorder) -> Checkpoint:
    import torch  # noqa: PLC0415 (slow)

    from alula_exporters.checkpoint import Checkpoint  # noqa: PLC0415

    path = options.out.with_suffix(".checkpoint")
    if options.restart:
        path.unlink(missing_ok=True)
    identity = {**table, "data": data.fingerprint, "torch": str(torch.__version__)}
    checkpoint = Checkpoint(path, identity, beside={"curves": recorder})
    if checkpoint.begun:
        click.echo(f"Resuming from {path}; --restart trains from the start.", err=True)
    return checkpoint


@contextmanager
def _progress(options: TrainOptions, recorder: Recorder) -> Iterator[ProgressCallback]:
    """One callback for the recorder, the bar and TensorBoard."""
    with ExitStack() as stack:
        callbacks: list[ProgressCallback] = [recorder, stack.enter_context(progress_bar())]
        if options.tensorboard is not None:
            callbacks.append(stack.enter_context(tensorboard(options.tensorboard / options.out.stem)))
        yield together(*callbacks)
