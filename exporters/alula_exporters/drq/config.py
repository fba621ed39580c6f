"""Options of a quantiser's training, checked before any data is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

from alula.encoders import Metric
from alula.errors import UsageError
from alula_exporters.choices import DrqLoss, Mode


@dataclass(frozen=True)
class DrqConfig:
    """Options of a quantiser's training.

    The ``mode`` chooses the parameters that levels share. ``default``: codebooks, at most half as many as levels, which
    later levels rotate and scale (`alula_exporters.drq.model.RecurrentQuantizer`). ``shared``: one codebook and a scale
    per level, the structure of the paper. ``paper``: the same, trained as published
    (`alula_exporters.drq.paper.PaperStages`). ``separate``: nothing, a codebook per level (residual quantisation, RQ).

    Args:
        metric: COSINE, IP or L2.
        levels: Number of levels M; the longest code has 8 M bits.
        sign_bits: Number of sign bits S, a multiple of 8; None for `default_sign_bits`.
        beam: Prefixes kept while encoding a row; 1 is greedy, fast and worse.
        epochs: Passes over the training rows; None for those of `passes`.
        batch: Most rows per step (fewer where rows are few, and for long vectors with many levels, to bound memory).
        learning_rate: Highest of the one-cycle schedule; None for 5e-3 in mode ``paper``, 1e-2 in the others.
        clip: Largest norm of the gradient.
        seed: Seed of everything random.
        mode: ``default``, ``shared``, ``paper`` or ``separate``.
        loss: ``distortion`` stays near the vectors and needs no labels. ``contrastive``, ``triplet``, ``arcface`` and
            ``adaptive-margin`` (the paper's) beside it train a backbone to bring rows of one label near each other; the
            distortion does not reach it.
        frozen: Leave a backbone as it is; without labels it always is.
        backbone_learning_rate: Highest of the schedule, for a backbone that is trained with the quantiser.
        patience: Epochs without a better validation recall until training ends and the best weights come back; None
            for never.

    Raises:
        UsageError: If the mode or the loss is not one of these, or a number is out of range.
    """

    metric: Metric = "COSINE"
    levels: int = 16
    sign_bits: int | None = None
    beam: int = 5
    epochs: int | None = None
    batch: int = 2_048
    learning_rate: float | None = None
    clip: float = 5.0
    seed: int = 0
    mode: Mode = "default"
    loss: DrqLoss = "distortion"
    frozen: bool = False
    backbone_learning_rate: float = 5e-4
    patience: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("loss", get_args(DrqLoss)), ("mode", get_args(Mode))):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}.")
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"patience is {self.patience}; it must be at least 1.")
        for name, largest in (("levels", 256), ("beam", 64), ("epochs", 10_000), ("batch", 1 << 20)):
            if getattr(self, name) is not None and not 1 <= getattr(self, name) <= largest:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be between 1 and {largest:,}.")
        if self.sign_bits is not None and (self.sign_bits < 8 or self.sign_bits % 8):
            raise UsageError(f"sign_bits is {self.sign_bits}; it must be a positive multiple of 8.")

    def recipe(self) -> dict[str, Any]:
        """The effective options for the encoder file, without unused ones."""
        effective = {**asdict(self), "learning_rate": self.rate}
        return {name: value for name, value in effective.items() if value is not None}

    @property
    def rate(self) -> float:
        """The learning rate, where none was given the mode's own."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 5e-3 if self.mode == "paper" else 1e-2

    def passes(self, rows: int) -> int:
        """The passes over a number of training rows.

        By default 8; below 50,000 rows as many as show 400,000 rows, at most 24.
        """
        return self.epochs or min(24, max(8, -(-400_000 // rows)))

    @property
    def trains_backbone(self) -> bool:
        """True if a backbone is trained with the quantiser, which needs labels."""
        return self.loss != "distortion" and not self.frozen
