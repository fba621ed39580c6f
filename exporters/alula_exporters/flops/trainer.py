"""Train a sparse encoder to a requested search cost, by distilling the exact similarities of random rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alula.encoders import Metric
from alula.errors import UsageError
from alula_exporters.data import TrainingData, check_distinct, input_scale
from alula_exporters.flops.losses import (
    FlopsController,
    count_dims,
    distillation_loss,
    expected_flops,
    flops_floor,
    flops_regulariser,
)
from alula_exporters.flops.model import LONGEST, SparseEncoder
from alula_exporters.quality import QUERIES, ROWS, exact_neighbours, share_found, similarity
from alula_exporters.training import Progress, Trained, fit, reproducible, silent

_CHUNK = 2_048
_COUNTED_ROWS = 50_000
_CANDIDATES = (100, 500)
_POWERS = {"IP": (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0), "L2": (0.0, -0.5, -1.0, -1.5, -2.0, -2.5, -3.0)}
_CHOSEN_BY = 50  # candidates among ROWS rows: as selective as 1,000 among 400,000


@dataclass(frozen=True)
class FlopsConfig:
    """How a sparse encoder is trained.

    Args:
        metric: COSINE, IP or L2.
        dim: Sparse dimensions D. More make search cheaper at the same recall, and encoding slower.
        nnz: Most non-zeros in a row, k. More find more and cost more.
        flops: Requested F = sum_j p_j^2, multiplications for a pair of rows; None for 1.12 times the floor k^2 / D,
            the cheapest that costs no recall worth mentioning.
        steps: Optimiser steps.
        anchors: Rows per step that are compared ...
        batch: ... with so many other rows.
        temperature: Of the teacher's softmax.
        learning_rate: Adam's.
        warm_up: Steps of linear warm-up, before a cosine decay.
        clip: Largest norm of the gradient.
        bias: The first bias: how similar to a dimension's prototype a row must be to use it.
        seed: Seed of everything random.

    Raises:
        UsageError: If the numbers do not fit each other; the message says what would.
    """

    metric: Metric = "COSINE"
    dim: int = 4_096
    nnz: int = 32
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

    def __post_init__(self) -> None:
        for name in ("dim", "nnz", "steps", "anchors", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.nnz > self.dim:
            raise UsageError(
                f"A row cannot have {self.nnz} non-zeros in {self.dim} dimensions; lower nnz or raise dim."
            )
        floor = flops_floor(self.dim, self.nnz)
        if self.budget < floor:
            raise UsageError(
                f"FLOPs of {self.budget:g} are out of reach: {self.nnz} of {self.dim} dimensions cost at least "
                f"{self.nnz}^2 / {self.dim} = {floor:g}, even when all are used alike. Ask for {1.12 * floor:.3g} or "
                "more, or lower nnz, or raise dim."
            )
        if self.budget > self.nnz:
            raise UsageError(
                f"FLOPs of {self.budget:g} are more than rows of {self.nnz} non-zeros can cost; ask for less."
            )

    @property
    def budget(self) -> float:
        """The F that training aims at."""
        return 1.12 * flops_floor(self.dim, self.nnz) if self.flops is None else self.flops


def train_flops(data: TrainingData, config: FlopsConfig, *, progress: Progress = silent) -> Trained[SparseEncoder]:
    """Train a sparse encoder (Paria et al., ICLR 2020, equation 6, with distillation in the place of labels).

    Args:
        data: The rows.
        config: How.
        progress: Told about every step.

    Returns:
        The encoder, its training summary (requested and achieved F, dead dimensions, recall on held-out queries) and
        the held-out rows.

    Raises:
        DataError: If the rows cannot be learned from (all alike, no length).
        AlulaError: If training diverges.
    """
    scale = input_scale(data.train, config.metric)
    with reproducible(config.seed) as generator:
        model = SparseEncoder(data.dim, config.dim, config.nnz, config.metric, scale)
        rows = torch.from_numpy(data.train)
        _start_from_data(model, rows, config, generator)
        figures = _optimise(model, rows, config, generator, progress)
        model.requires_grad_(False).eval()
        if config.metric != "COSINE":
            _choose_length_power(model, rows, generator)
        summary = {
            "rows": len(data.train),
            "total_rows": data.total_rows,
            "fingerprint": data.fingerprint,
            "recipe": asdict(config),
            "seed": config.seed,
            **figures,
            **_judge(model, rows, torch.from_numpy(data.held_out), config, generator),
        }
    return Trained(model, summary, data.held_out)


@torch.no_grad()
def _start_from_data(model: SparseEncoder, rows: Tensor, config: FlopsConfig, generator: torch.Generator) -> None:
    """Every dimension starts as the prototype of a random row, relative to the mean."""
    prepared = model.prepare(rows)[0]
    check_distinct(prepared.numpy(), 2)
    if len(rows) >= config.dim:
        chosen = prepared[torch.randperm(len(rows), generator=generator)[: config.dim]]
    else:  # repeated rows get a little noise, so that their dimensions can part
        chosen = prepared[torch.randint(len(rows), (config.dim,), generator=generator)]
        chosen = chosen + 0.1 * prepared.std() * torch.randn(chosen.shape, generator=generator)
    model.weight.copy_(chosen - prepared.mean(0))
    model.bias.fill_(config.bias)
    if config.metric == "L2":
        # then W x + b falls with |x - prototype|^2 / 2; the 1 keeps the bias's meaning for unit vectors
        model.bias.sub_((chosen.square().sum(1) - 1) / 2)


def _optimise(
    model: SparseEncoder, rows: Tensor, config: FlopsConfig, generator: torch.Generator, progress: Progress
) -> dict[str, float]:
    log_scale = nn.Parameter(torch.tensor(2.5))  # of the student's similarities; learned
    optimizer = torch.optim.Adam([*model.parameters(), log_scale], lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, config))
    controller = FlopsController(config.budget, config.steps)
    anchors = min(config.anchors, len(rows) // 4)
    last: dict[str, float] = {}

    def step(_: int) -> tuple[Tensor, Mapping[str, float]]:
        picked = torch.randint(len(rows), (anchors + min(config.batch, len(rows) - anchors),), generator=generator)
        vectors = rows[picked]
        prepared, lengths = model.prepare(vectors)
        weights, dims = model.activations(prepared)
        unit = model.dense(weights, dims)
        # an anchor is a query: for IP its length scales all its similarities alike, in the teacher and in the student
        queries = unit[:anchors] * lengths[:anchors] if config.metric == "IP" else unit[:anchors]
        others = unit[anchors:] * model.multipliers(lengths[anchors:])
        teacher = similarity(vectors[:anchors] / model.scale, vectors[anchors:] / model.scale, config.metric)
        loss = distillation_loss(log_scale.exp() * (queries @ others.T), teacher, config.temperature)
        flops = expected_flops(count_dims(weights.detach(), dims, model.dim), len(unit))
        regulariser = controller.weight(flops)
        last.update(loss=float(loss.detach()), regulariser_weight=regulariser)
        return loss + regulariser * flops_regulariser(unit), {"loss": last["loss"], "FLOPs": controller.mean}

    fit(optimizer, schedule, step, steps=config.steps, clip=config.clip, progress=progress)
    return last


def _learning_rate(step: int, config: FlopsConfig) -> float:
    warm_up = min(1.0, (step + 1) / config.warm_up) if config.warm_up else 1.0
    return warm_up * 0.5 * (1 + float(np.cos(np.pi * step / config.steps)))


@torch.no_grad()
def _choose_length_power(model: SparseEncoder, rows: Tensor, generator: torch.Generator) -> None:
    """Set p to what finds most true neighbours of training rows; distillation on random rows hardly sees it."""
    picked = rows[torch.randperm(len(rows), generator=generator)[: QUERIES + ROWS]]
    queries, others = picked[:QUERIES], picked[QUERIES:]
    truth = exact_neighbours(queries, others, model.metric)
    model.length_power.fill_(0)  # scores of unit rows, which each p then weighs
    scores, lengths = _scores(model, queries, others), model.prepare(others)[1].T
    powers, lengths = _POWERS[model.metric], lengths.clamp(model.shortest, LONGEST)
    found = [share_found(truth, scores * lengths**power, _CHOSEN_BY) for power in powers]
    model.length_power.fill_(powers[found.index(max(found))])


def _scores(model: SparseEncoder, queries: Tensor, rows: Tensor) -> Tensor:
    """Inner products of sparse rows, float32 (m, n), of queries (m, d) and rows (n, d)."""
    sparse = model.dense(*model(queries))
    return torch.cat([sparse @ model.dense(*model(chunk)).T for chunk in torch.split(rows, _CHUNK)], dim=1)


@torch.no_grad()
def _judge(
    model: SparseEncoder, rows: Tensor, held_out: Tensor, config: FlopsConfig, generator: torch.Generator
) -> dict[str, Any]:
    """The figures that the file carries: F and its spread over the dimensions, and recall on held-out queries."""
    sample = rows[torch.randperm(len(rows), generator=generator)[:_COUNTED_ROWS]]
    counts = torch.zeros(model.dim, dtype=torch.int64)
    for chunk in torch.split(sample, _CHUNK):
        weights, dims = model(chunk)
        counts += count_dims(weights, dims, model.dim)
    queries = held_out[:QUERIES]
    ranked = _scores(model, queries, sample[:ROWS])
    truth = exact_neighbours(queries, sample[:ROWS], config.metric)
    flops = expected_flops(counts, len(sample))
    mean_nnz = float(counts.sum()) / len(sample)
    return {
        "flops_requested": config.budget,
        "flops_achieved": flops,
        "nnz_mean": mean_nnz,
        "r_sub": flops * model.dim / mean_nnz**2,
        "dead_dims": int((counts == 0).sum()),
        **({"length_power": float(model.length_power)} if config.metric != "COSINE" else {}),
        "quality": {
            "queries": len(queries),
            "rows": ranked.shape[1],
            **{f"recall@10 in top {count}": share_found(truth, ranked, count) for count in _CANDIDATES},
        },
    }
