"""Train a sparse encoder to a requested search cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alula.progress import Progress, silent
from alula_exporters.backbones.base import Backbone, compute_device
from alula_exporters.checkpoint import Checkpoint, GeneratorState
from alula_exporters.choices import LabelLoss
from alula_exporters.data import TrainingData, check_distinct, input_scale
from alula_exporters.flops.config import FlopsConfig
from alula_exporters.flops.cost import Spread, count_dims, expected_flops
from alula_exporters.flops.losses import distillation_loss, flops_regulariser, l1_regulariser
from alula_exporters.flops.model import LONGEST, SparseEncoder
from alula_exporters.flops.weight import FlopsController, QuadraticRamp, RegulariserWeight
from alula_exporters.losses import check_labels, label_loss
from alula_exporters.quality import QUERIES, ROWS, exact_neighbours, share_found, similarity
from alula_exporters.sampling import BalancedBatches
from alula_exporters.source import Source
from alula_exporters.training import EarlyStopping, Figures, Trained, TrainingStage, fit, reproducible, warmed_up_cosine

_STAGE = "training"
_CHUNK = 2_048
_COUNTED_ROWS = 50_000
_CANDIDATES = (100, 500)
_POWERS = {"IP": (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0), "L2": (0.0, -0.5, -1.0, -1.5, -2.0, -2.5, -3.0)}
_CHOSEN_BY = 50  # candidates among ROWS rows: as selective as 1,000 among 400,000
_SHIFT_ROWS = 4_096
_LARGEST_SHIFT = 2.0  # of biases; the head's outputs are cosines at first, and stay near them
_BISECTIONS = 16
_DENSE_START = 0.1  # share of non-zeros that training with labels starts with
_MEASUREMENTS = 40  # of the validation metric in a whole run, where training may stop early
_REGULARISERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "flops": flops_regulariser,
    "l1": l1_regulariser,
    "none": lambda rows: rows.new_zeros(()),
}
# lambda at the first step; L1 of a unit row is some 20 times its FLOPs term, and too much of it empties rows for good
_START = {"flops": 1.0, "l1": 0.05}


def train_flops(
    data: TrainingData,
    config: FlopsConfig,
    *,
    backbone: Backbone | None = None,
    progress: Progress = silent,
    checkpoint: Checkpoint | None = None,
) -> Trained[SparseEncoder]:
    """Train a sparse encoder (Paria et al., ICLR 2020: a loss plus lambda FLOPs).

    Args:
        data: The rows: vectors, or what the backbone takes; with labels for a loss that needs them.
        config: Options of the training.
        backbone: The network under the head, with weights to start from; None where vectors are given. It is trained
            with the head, in place, when the loss uses labels and ``config.frozen`` is not set.
        progress: Called after every step.
        checkpoint: Checkpoint to resume from and to write to.

    Returns:
        The encoder, its training summary (requested and achieved F, dead dimensions, recall on held-out queries) and
        the held-out rows.

    Raises:
        DataError: If the rows cannot be learned from (all alike, no length, no labels for a loss that needs them).
        UsageError: If the backbone cannot be trained without labels.
        AlulaError: If training diverges.
    """
    check_labels(config.loss, data)
    with reproducible(config.seed) as generator:
        source = Source(data, backbone, trainable=backbone is not None and config.trains_backbone)
        rows = source.all_rows()
        model = SparseEncoder(
            rows.shape[1],
            config.dim,
            config.row_limit,
            config.metric,
            input_scale(rows.cpu().numpy(), config.metric),
            activation=config.activation,
        )
        if checkpoint is None or not checkpoint.step(_STAGE):
            _start_from_data(model, rows, config, generator)
        figures = _optimise(model, source, config, generator, progress=progress, checkpoint=checkpoint)
        rows = source.all_rows()
        if config.activation != "top-k" and config.budget is not None:
            _meet_budget(model, rows, config, config.budget, generator)
        model.requires_grad_(False).eval()
        if config.metric != "COSINE":
            _choose_length_power(model, rows, generator)
        summary = {
            "rows": len(data.train),
            "total_rows": data.total_rows,
            "fingerprint": data.fingerprint,
            "recipe": config.recipe(),
            "seed": config.seed,
            **figures,
            **_judge(model, source, rows, config, generator),
        }
    return Trained(model.cpu(), summary, data.held_out, backbone if backbone is None else backbone.cpu())


@torch.no_grad()
def _start_from_data(model: SparseEncoder, rows: Tensor, config: FlopsConfig, generator: torch.Generator) -> None:
    """Every dimension starts as the prototype of a random row, relative to the mean."""
    prepared = model.prepare(rows)[0]
    check_distinct(prepared.cpu().numpy(), 2)
    if len(rows) >= config.dim:
        chosen = prepared[torch.randperm(len(rows), generator=generator)[: config.dim]]
    else:  # repeated rows get a little noise, so that their dimensions can part
        chosen = prepared[torch.randint(len(rows), (config.dim,), generator=generator)]
        chosen = chosen + 0.1 * prepared.std() * torch.randn(chosen.shape, generator=generator)
    model.weight.copy_(chosen - prepared.mean(0))
    model.bias.fill_(config.bias)
    if model.sees_lengths:
        # then W x + b falls with |x - prototype|^2 / 2; the 1 keeps the bias's meaning for unit vectors
        model.bias.sub_((chosen.square().sum(1) - 1) / 2)
    if config.activation != "top-k":
        # start near the budget: far over the longest row, the cost would not show what the regulariser does
        scores = model.head(prepared[torch.randperm(len(rows), generator=generator)[:_CHUNK]])
        share = config.expected_nnz / model.dim
        if config.loss != "distillation":
            share = max(share, _DENSE_START)  # rows must meet in a dimension before labels can say that they should
        expected = max(1, round(share * scores.numel()))
        model.bias.sub_(scores.flatten().topk(expected, sorted=True).values[-1])


def _optimise(
    model: SparseEncoder,
    source: Source,
    config: FlopsConfig,
    generator: torch.Generator,
    *,
    progress: Progress,
    checkpoint: Checkpoint | None,
) -> Figures:
    objective = _objective(model, source, config, generator)
    modules = nn.ModuleDict({"model": model, "objective": objective})
    groups: list[dict[str, Any]] = [{"params": list(modules.parameters())}]
    if source.trainable is not None:
        groups.append({"params": list(source.trainable.parameters()), "lr": config.backbone_learning_rate})
        modules["backbone"] = source.trainable
    optimizer = torch.optim.Adam(groups, lr=config.learning_rate)
    regulariser, controller = _REGULARISERS[config.regulariser], _regulariser_weight(config)
    unit_shown = "FLOPs" if config.budget_unit == "flops" else "non-zeros"
    last, spread = Figures(), Spread(model.dim)
    stage = TrainingStage(
        name=_STAGE,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmed_up_cosine(step, config.steps, config.warm_up)
        ),
        steps=config.steps,
        clip=config.clip,
        state={
            "modules": modules,
            "controller": controller,
            "generator": GeneratorState(generator),
            "last": last,
            "spread": spread,
        },
        stopping=_early_stopping(modules, model, source, config),
    )

    def step(_: int) -> tuple[Tensor, Mapping[str, float]]:
        picked = objective.pick()
        vectors = source.batch(picked)
        prepared, lengths = model.prepare(vectors)
        weights, dims = model.activations(prepared)
        unit = model.dense(weights, dims)
        loss = objective(picked, vectors, unit, lengths)
        counts = count_dims(weights.detach(), dims, model.dim)
        weight = controller.weight(_cost(counts, len(unit), config))
        last.update(loss=float(loss.detach()), regulariser_weight=weight)
        shown = {"loss": last["loss"], unit_shown: controller.mean}
        return loss + weight * regulariser(unit), {**shown, **spread.figures(counts, len(unit))}

    steps = fit(stage, step, progress=progress, checkpoint=checkpoint)
    if config.patience is not None:
        last["steps_taken"] = steps
    return last


class _Distillation(nn.Module):
    """Distils exact similarities of random rows: queries first, then searched rows."""

    def __init__(self, model: SparseEncoder, rows: int, config: FlopsConfig, generator: torch.Generator) -> None:
        super().__init__()
        self._model, self._rows, self._generator = [model], rows, generator  # a list: its parameters are not ours
        self._anchors = min(config.anchors, rows // 4)
        self._size = self._anchors + min(config.batch, rows - self._anchors)
        self._temperature = config.temperature
        self.log_scale = nn.Parameter(torch.tensor(2.5))  # of the student's similarities; learned

    def pick(self) -> Tensor:
        """Numbers of a step's rows, int64 (n,)."""
        return torch.randint(self._rows, (self._size,), generator=self._generator)

    def forward(self, _: Tensor, vectors: Tensor, unit: Tensor, lengths: Tensor) -> Tensor:
        """The loss, a scalar."""
        (model,), count = self._model, self._anchors
        # an anchor is a query: for IP its length scales all its similarities alike, in the teacher and in the student
        queries = unit[:count] * lengths[:count] if model.metric == "IP" else unit[:count]
        others = unit[count:] * model.multipliers(lengths[count:])
        teacher = similarity(vectors[:count] / model.scale, vectors[count:] / model.scale, model.metric)
        return distillation_loss(self.log_scale.exp() * (queries @ others.T), teacher, self._temperature)


class _WithLabels(nn.Module):
    """A label loss on unit-length sparse rows, in balanced batches."""

    def __init__(
        self, loss: LabelLoss, dim: int, data: TrainingData, config: FlopsConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._labels = torch.from_numpy(data.labels).to(compute_device())
        self._batches = BalancedBatches(self._labels, config.anchors + config.batch, generator)
        self.loss = label_loss(loss, data, dim, config.margin)

    def pick(self) -> Tensor:
        """Numbers of a step's rows, int64 (n,)."""
        return self._batches.draw()

    def forward(self, picked: Tensor, _: Tensor, unit: Tensor, __: Tensor) -> Tensor:
        """The loss, a scalar."""
        loss: Tensor = self.loss(unit, self._labels[picked])
        return loss


def _objective(
    model: SparseEncoder, source: Source, config: FlopsConfig, generator: torch.Generator
) -> _Distillation | _WithLabels:
    if config.loss == "distillation":
        return _Distillation(model, len(source.data.train), config, generator)
    return _WithLabels(config.loss, model.dim, source.data, config, generator)


def _early_stopping(
    modules: nn.Module, model: SparseEncoder, source: Source, config: FlopsConfig
) -> EarlyStopping | None:
    """Stop on validation recall, measured once the budget's target is constant."""
    if config.patience is None:
        return None
    every = max(1, config.steps // _MEASUREMENTS)

    @torch.no_grad()
    def measure() -> float:
        return source.validate(lambda queries, rows: _scores(model, queries, rows), config.metric)

    measure()  # what it needs may be missing: said now and not in the middle
    return EarlyStopping(modules, measure, patience=config.patience, every=every, after=config.steps // 2)


def _regulariser_weight(config: FlopsConfig) -> RegulariserWeight:
    if config.budget is None:
        return QuadraticRamp(config.weight or 0.0, config.ramp_steps)
    return FlopsController(config.budget, config.steps, _START[config.regulariser])


@torch.no_grad()
def _meet_budget(
    model: SparseEncoder, rows: Tensor, config: FlopsConfig, budget: float, generator: torch.Generator
) -> None:
    """Shift all biases alike until training rows cost the budget.

    Where row lengths follow from the regulariser, the closed loop alone ended up to half off, because lambda moves
    lengths only through many steps.
    """
    sample = rows[torch.randperm(len(rows), generator=generator)[:_SHIFT_ROWS]]
    bias = -model.bias.abs() if config.activation == "soft-threshold" else model.bias.clone()
    low, high = -_LARGEST_SHIFT, _LARGEST_SHIFT
    for _ in range(_BISECTIONS):
        shift = (low + high) / 2
        # a threshold below 0 would count as its magnitude
        model.bias.copy_((bias - shift).clamp(max=0) if config.activation == "soft-threshold" else bias - shift)
        low, high = (shift, high) if _cost(_count(model, sample)[0], len(sample), config) > budget else (low, shift)


def _count(model: SparseEncoder, rows: Tensor) -> tuple[Tensor, int]:
    """Number of rows that use each dimension, int64 (dim,), and of full rows."""
    counts, full = torch.zeros(model.dim, dtype=torch.int64), 0
    for chunk in torch.split(rows, _CHUNK):
        weights, dims = model(chunk)
        counts += count_dims(weights, dims, model.dim)
        full += int((weights > 0).all(1).sum())
    return counts, full


def _cost(counts: Tensor, rows: int, config: FlopsConfig) -> float:
    return expected_flops(counts, rows) if config.budget_unit == "flops" else float(counts.sum()) / rows


@torch.no_grad()
def _choose_length_power(model: SparseEncoder, rows: Tensor, generator: torch.Generator) -> None:
    """Set p to the best recall on training rows; distillation is insensitive to p."""
    picked = rows[torch.randperm(len(rows), generator=generator)[: QUERIES + ROWS]]
    queries, others = picked[:QUERIES], picked[QUERIES:]
    truth = exact_neighbours(queries, others, model.metric)
    model.length_power.fill_(0)  # scores of unit rows, which each p then weighs
    scores, lengths = _scores(model, queries, others), model.prepare(others)[1].T
    powers, lengths = _POWERS[model.metric], lengths.clamp(model.shortest, LONGEST)
    found = [share_found(truth, scores * lengths**power, _CHOSEN_BY) for power in powers]
    model.length_power.fill_(powers[found.index(max(found))])


def _scores(model: SparseEncoder, queries: Tensor, rows: Tensor) -> Tensor:
    """Inner products of sparse rows, float32 (m, n)."""
    sparse = model.dense(*model(queries))
    return torch.cat([sparse @ model.dense(*model(chunk)).T for chunk in torch.split(rows, _CHUNK)], dim=1)


@torch.no_grad()
def _judge(
    model: SparseEncoder, source: Source, rows: Tensor, config: FlopsConfig, generator: torch.Generator
) -> dict[str, Any]:
    """Figures for the file: F, its spread, and recall on held-out queries."""
    picked = torch.randperm(len(rows), generator=generator)[:_COUNTED_ROWS]
    sample = rows[picked]
    counts, full = _count(model, sample)
    queries = source.held_out_rows()
    ranked = _scores(model, queries, sample[:ROWS])
    truth = exact_neighbours(queries, sample[:ROWS], config.metric)
    flops = expected_flops(counts, len(sample))
    mean_nnz = float(counts.sum()) / len(sample)
    return {
        **({} if config.budget is None else {f"{config.budget_unit}_requested": config.budget}),
        "flops_achieved": flops,
        "nnz_mean": mean_nnz,
        "r_sub": flops * model.dim / mean_nnz**2,
        "dead_dims": int((counts == 0).sum()),
        **({} if config.activation == "top-k" else {"rows_at_most_nnz": full / len(sample)}),
        **({"length_power": float(model.length_power)} if config.metric != "COSINE" else {}),
        "quality": {
            "queries": len(queries),
            "rows": ranked.shape[1],
            **{f"recall@10 in top {count}": share_found(truth, ranked, count) for count in _CANDIDATES},
            **source.label_figures(ranked, picked[:ROWS]),
        },
    }
