"""Options of a sparse encoder's training, checked before any data is read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from alula.encoders import Metric
from alula.errors import UsageError
from alula_exporters.choices import Activation, FlopsLoss, Regulariser
from alula_exporters.flops.cost import flops_floor
from alula_exporters.losses import check_margin

_NNZ = 32
_SPARE = 4  # how much longer than the mean a row may be where training sets the mean: few rows reach it
_MARGIN = 1.12  # over the floor: the cheapest that costs no recall worth mentioning


@dataclass(frozen=True)
class FlopsConfig:
    """Options of a sparse encoder's training.

    The ``activation`` sets the number of non-zeros. ``top-k`` keeps ``nnz`` in every row, and the regulariser
    only spreads them. With ``relu`` and ``soft-threshold`` (the paper's) the regulariser alone makes rows sparse, so
    their length varies: its weight follows from one of ``flops``, ``nnz`` (the mean) and ``weight``.

    Args:
        metric: COSINE, IP or L2.
        activation: ``top-k``, ``relu`` or ``soft-threshold``; see `alula_exporters.flops.model.SparseEncoder`.
        regulariser: ``flops``, ``l1`` (the paper's baseline) or ``none``.
        dim: Outputs D of the linear head. More make search cheaper at the same recall, and encoding slower. They are
            the sparse dimensions, but ``soft-threshold`` has twice as many.
        nnz: ``top-k``: most non-zeros in a row, k (None: 32). Otherwise the mean number of non-zeros to train for.
        most_nnz: ``relu`` and ``soft-threshold``: most non-zeros in a row, the heaviest; None for 4 times the expected
            mean.
        flops: Requested F = sum_j p_j^2, multiplications for a pair of rows. None, where no ``nnz`` or ``weight``
            stands in for it: 1.12 k^2 / D with k = ``nnz`` for ``top-k``, 32 otherwise.
        weight: lambda of the regulariser in the place of a budget: it grows as the paper's quadratic ramp to this.
        ramp: Steps that lambda grows for; None for half of them. Only with ``weight``.
        steps: Optimiser steps.
        anchors: Rows per step that are compared with ``batch`` others.
        batch: Other rows per step.
        temperature: Of the teacher's softmax.
        learning_rate: Adam's.
        warm_up: Steps of linear warm-up, before a cosine decay.
        clip: Largest norm of the gradient.
        bias: ``top-k``: the first bias, how similar to a dimension's prototype a row must be to use it. The others
            start with the bias that gives rows of the expected length.
        seed: Seed of everything random.
        loss: ``distillation`` keeps near what is near in the vectors and needs no labels; ``contrastive``,
            ``triplet``, ``arcface`` and ``adaptive-margin`` bring rows of one label near each other.
        frozen: Leave a backbone as it is; without labels it always is.
        backbone_learning_rate: Adam's, for a backbone that is trained with the head.
        patience: Measurements (40 in a run, from its middle on) without a better validation recall until training
            ends and the best weights come back; None for never.
        margin: Of the triplet loss: how much farther, in squared distance, a row of another label must be. None for
            FaceNet's 0.2; the paper takes 0.1 for CIFAR-100.

    Raises:
        UsageError: If the options do not fit each other; the message says what would.
    """

    metric: Metric = "COSINE"
    dim: int = 4_096
    nnz: int | None = None
    flops: float | None = None
    steps: int = 800
    anchors: int = 64
    batch: int = 764
    temperature: float = 0.05
    learning_rate: float = 2e-3
    warm_up: int = 50
    clip: float = 5.0
    bias: float = -0.2
    seed: int = 0
    activation: Activation = "top-k"
    regulariser: Regulariser = "flops"
    most_nnz: int | None = None
    weight: float | None = None
    ramp: int | None = None
    loss: FlopsLoss = "distillation"
    frozen: bool = False
    backbone_learning_rate: float = 2e-4
    patience: int | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in (
            ("activation", get_args(Activation)),
            ("regulariser", get_args(Regulariser)),
            ("loss", get_args(FlopsLoss)),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}.")
        for name in ("dim", "nnz", "most_nnz", "ramp", "steps", "anchors", "batch", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        check_margin(self.margin, self.loss)
        self._check_weight()
        if self.activation == "top-k" and self.most_nnz is not None:
            raise UsageError("A top-k encoder keeps nnz non-zeros in a row, so most_nnz does nothing; give nnz.")
        if self.row_limit > self.sparse_dims:
            name = "nnz" if self.activation == "top-k" else "most_nnz"
            raise UsageError(
                f"A row cannot have {self.row_limit} non-zeros in {self.sparse_dims} dimensions; lower {name} or "
                "raise dim."
            )
        if self.budget is not None:
            self._check_budget(self.budget)

    def _check_weight(self) -> None:
        """Allow one option to set the regulariser's weight, and only with a regulariser."""
        budgets = ("flops",) if self.activation == "top-k" else ("flops", "nnz")
        given = [name for name in (*budgets, "weight") if getattr(self, name) is not None]
        if self.regulariser == "none" and (given or self.ramp is not None):
            raise UsageError(
                f"Without a regulariser nothing can bring training to {given[0] if given else 'ramp'}; leave it out, "
                "or choose the regulariser flops or l1."
            )
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(given)} were given, but with the activation {self.activation} each of them sets the "
                "regulariser's weight; give one of them."
            )
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise UsageError(f"weight is {self.weight:g}; it must be a positive number.")
        if self.ramp is not None and self.weight is None:
            raise UsageError("A ramp grows to a given weight of the regulariser; give weight too, or leave ramp out.")
        if self.ramp is not None and self.ramp > self.steps:
            raise UsageError(
                f"A ramp of {self.ramp} steps does not end in {self.steps} steps of training; lower ramp or raise "
                "steps."
            )

    def _check_budget(self, budget: float) -> None:
        unit = "FLOPs" if self.budget_unit == "flops" else "Mean non-zeros"
        if not budget >= self.floor:
            if self.activation == "top-k":
                why = (
                    f"{self.row_limit} of {self.dim} dimensions cost at least {self.row_limit}^2 / {self.dim} = "
                    f"{self.floor:g}, even when all are used alike. Ask for {_MARGIN * self.floor:.3g} or more, or "
                    "lower nnz, or raise dim"
                )
            elif self.budget_unit == "flops":
                why = (
                    f"every row of a {self.activation} encoder keeps at least one non-zero, and one of "
                    f"{self.sparse_dims} dimensions costs 1 / {self.sparse_dims} = {self.floor:.3g}. Ask for more, or "
                    "raise dim"
                )
            else:
                why = f"every row of a {self.activation} encoder keeps at least one non-zero. Ask for 1 or more"
            raise UsageError(f"{unit} of {budget:g} are out of reach: {why}.")
        if budget > self.row_limit:
            raise UsageError(
                f"{unit} of {budget:g} are more than rows of {self.row_limit} non-zeros can cost; ask for less."
            )

    @property
    def trains_backbone(self) -> bool:
        """True if a backbone is trained with the head, which needs labels."""
        return self.loss != "distillation" and not self.frozen

    @property
    def sparse_dims(self) -> int:
        """Dimensions of a sparse row: D, or 2 D for soft-threshold."""
        return 2 * self.dim if self.activation == "soft-threshold" else self.dim

    @property
    def row_limit(self) -> int:
        """Most non-zeros in a row, which the encoder file promises."""
        if self.activation == "top-k":
            return _NNZ if self.nnz is None else self.nnz
        if self.most_nnz is not None:
            return self.most_nnz
        return max(1, min(self.sparse_dims, math.ceil(_SPARE * self.expected_nnz)))

    @property
    def expected_nnz(self) -> float:
        """Approximate mean non-zeros of a row with a regulariser; training starts there."""
        if self.budget is None:
            mean = float(_NNZ)
        elif self.budget_unit == "nnz":
            mean = self.budget
        else:  # a mean of m non-zeros costs at least m^2 / D
            mean = math.sqrt(max(0.0, min(self.budget, self.sparse_dims)) * self.sparse_dims)
        return min(mean, self.sparse_dims / 2)

    @property
    def budget_unit(self) -> Literal["flops", "nnz"]:
        """Unit of the budget: F, or mean non-zeros."""
        return "nnz" if self.activation != "top-k" and self.nnz is not None else "flops"

    @property
    def budget(self) -> float | None:
        """Target F or mean non-zeros; None with ``weight`` or without a regulariser."""
        if self.weight is not None or self.regulariser == "none":
            return None
        if self.budget_unit == "nnz":
            return self.nnz
        if self.flops is not None:
            return self.flops
        return _MARGIN * flops_floor(self.dim, self.row_limit if self.activation == "top-k" else min(_NNZ, self.dim))

    @property
    def floor(self) -> float:
        """The least possible budget: k^2 / D for top-k, else that of one-non-zero rows."""
        if self.budget_unit == "nnz":
            return 1.0
        return flops_floor(self.sparse_dims, self.row_limit if self.activation == "top-k" else 1)

    @property
    def ramp_steps(self) -> int:
        """Steps that lambda grows for, T."""
        return max(1, self.steps // 2) if self.ramp is None else self.ramp

    def recipe(self) -> dict[str, Any]:
        """The effective options for the encoder file, without unused ones."""
        effective = {
            **asdict(self),
            "nnz": self.row_limit if self.activation == "top-k" else self.nnz,
            "most_nnz": self.row_limit,
            "flops": self.budget if self.budget_unit == "flops" else None,
            "ramp": self.ramp_steps if self.weight is not None else None,
        }
        return {name: value for name, value in effective.items() if value is not None}
