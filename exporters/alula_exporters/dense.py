"""Train a backbone on labels, before its head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from alula.errors import UsageError
from alula.progress import Progress, silent
from alula_exporters.backbones.base import Backbone, compute_device
from alula_exporters.checkpoint import Checkpoint, GeneratorState
from alula_exporters.choices import LabelLoss
from alula_exporters.data import TrainingData
from alula_exporters.inputs import unit_rows
from alula_exporters.losses import check_labels, check_margin, label_loss
from alula_exporters.quality import label_quality
from alula_exporters.sampling import BalancedBatches
from alula_exporters.training import EarlyStopping, Figures, TrainingStage, fit, reproducible

STAGE = "backbone"
_CLIP = 5.0
_WEIGHT_DECAY = 5e-4
_VALIDATED_ROWS = 1_000


@dataclass(frozen=True)
class BackboneConfig:
    """Options of a backbone's training.

    Args:
        loss: ``contrastive``, ``triplet``, ``arcface`` or ``adaptive-margin``; see `alula_exporters.losses`.
        epochs: Passes over the training rows.
        batch: Rows per step.
        learning_rate: Highest of the one-cycle schedule.
        patience: Epochs without a better validation mAP until training ends and the best weights come back; None for
            never.
        seed: Seed of everything random.
        margin: Of the triplet loss; None for its default.

    Raises:
        UsageError: If an option is out of range.
    """

    loss: LabelLoss = "contrastive"
    epochs: int = 20
    batch: int = 256
    learning_rate: float = 3e-3
    patience: int | None = None
    seed: int = 0
    margin: float | None = None

    def __post_init__(self) -> None:
        if self.loss not in get_args(LabelLoss):
            raise UsageError(f"loss is {self.loss!r}; it must be one of {', '.join(get_args(LabelLoss))}.")
        check_margin(self.margin, self.loss)
        for name, least in (("epochs", 1), ("batch", 8), ("patience", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {least}.")


def train_backbone(
    backbone: Backbone,
    data: TrainingData,
    config: BackboneConfig,
    *,
    progress: Progress = silent,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train a backbone, in place, so that rows of one label get near vectors.

    Args:
        backbone: The network.
        data: Rows that it takes, with labels.
        config: Options of the training.
        progress: Called after every step.
        checkpoint: Checkpoint to resume from and to write to.

    Raises:
        DataError: If the data has no labels.
        UsageError: If the loss takes one label, and rows have several.
        AlulaError: If training diverges.
    """
    check_labels(config.loss, data)
    with reproducible(config.seed) as generator:
        if config.patience is not None:
            data, validation = _set_apart(data, generator)
        labels = torch.from_numpy(data.labels).to(compute_device())
        batches = BalancedBatches(labels, config.batch, generator)
        objective = label_loss(config.loss, data, backbone.embed(data.train[:1]).shape[1], config.margin)
        per_epoch = math.ceil(len(labels) / config.batch)
        steps = config.epochs * per_epoch
        both = nn.ModuleDict({"backbone": backbone, "loss": objective})
        optimizer = torch.optim.AdamW(both.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY)
        stopping = None
        if config.patience is not None:
            stopping = EarlyStopping(
                both,
                lambda: _mean_average_precision(backbone, data, validation),
                patience=config.patience,
                every=per_epoch,
            )
        figures = Figures()
        stage = TrainingStage(
            name=STAGE,
            optimizer=optimizer,
            schedule=torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1),
            steps=steps,
            clip=_CLIP,
            state={"modules": both, "generator": GeneratorState(generator), "figures": figures},
            stopping=stopping,
        )

        def step(_: int) -> tuple[Tensor, Mapping[str, float]]:
            picked = batches.draw()
            vectors = backbone.compute(data.train[picked.cpu().numpy()])
            loss = objective(unit_rows(vectors)[0], labels[picked])
            figures.average("loss", float(loss.detach()))
            return loss, figures

        fit(stage, step, progress=progress, checkpoint=checkpoint)
        backbone.eval()


def _set_apart(data: TrainingData, generator: torch.Generator) -> tuple[TrainingData, TrainingData]:
    """Split training rows into training and validation; held-out rows only report."""
    order = torch.randperm(len(data.train), generator=generator).numpy()
    count = min(_VALIDATED_ROWS, len(order) // 10)
    return tuple(  # type: ignore[return-value]
        replace(data, train=data.train[part], train_labels=data.labels[part]) for part in (order[count:], order[:count])
    )


def _mean_average_precision(backbone: Backbone, data: TrainingData, validation: TrainingData) -> float:
    queries, rows = (
        functional.normalize(torch.from_numpy(backbone.embed(part.train[:_VALIDATED_ROWS])))
        for part in (validation, data)
    )
    scores = queries @ rows.T
    labels, row_labels = (torch.from_numpy(part.labels[:_VALIDATED_ROWS]) for part in (validation, data))
    return label_quality(scores, labels, row_labels)["mAP by label"]
