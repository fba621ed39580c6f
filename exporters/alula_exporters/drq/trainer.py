"""Train a quantiser: one run gives every code length from 8 bits to 8 M."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from alula.encoders import Metric, default_sign_bits
from alula.errors import UsageError
from alula.progress import Progress, silent
from alula_exporters.backbones.base import Backbone, compute_device
from alula_exporters.checkpoint import Checkpoint, GeneratorState, Stateful
from alula_exporters.data import TrainingData, check_distinct, input_scale
from alula_exporters.drq.config import DrqConfig
from alula_exporters.drq.losses import prefix_distortions
from alula_exporters.drq.model import CODEWORDS, Quantizer, find_codes, level_parts
from alula_exporters.drq.paper import PaperStages
from alula_exporters.drq.signs import hard_signs, learn_signs
from alula_exporters.drq.start import start_from_data
from alula_exporters.drq.variants import QUANTIZERS
from alula_exporters.inputs import TINY, unit_rows
from alula_exporters.losses import check_labels, label_loss
from alula_exporters.quality import ROWS, exact_neighbours, share_found
from alula_exporters.sampling import BalancedBatches, ShuffledBatches
from alula_exporters.source import Source
from alula_exporters.training import EarlyStopping, Figures, Trained, TrainingStage, fit, reproducible

_STAGE = "training"
_REPORTED_BITS = (32, 64, 128)
_BATCH_NUMBERS = 1 << 25
_STEPS = 1_500  # fewer leave the codewords of long vectors unfinished: few rows are taken in small batches
_SIGN_CANDIDATES = 100  # rows by Hamming distance that neighbours are looked for among
_LABELLED_BATCH = 256  # rows of a step that the labels teach: more would leave few steps


def train_drq(
    data: TrainingData,
    config: DrqConfig,
    *,
    backbone: Backbone | None = None,
    progress: Progress = silent,
    checkpoint: Checkpoint | None = None,
) -> Trained[Quantizer]:
    """Train a quantiser on the distortion of all prefixes (Song et al., IJCAI 2019).

    Args:
        data: The rows: vectors, or what the backbone takes; with labels for a loss that needs them.
        config: Options of the training.
        backbone: The network under the quantiser, with weights to start from; None where vectors are given. It is
            trained with the quantiser, in place, when the loss uses labels and ``config.frozen`` is not set.
        progress: Called after every step.
        checkpoint: Checkpoint to resume from and to write to.

    Returns:
        The quantiser, its training summary (distortion of each prefix, recall by code distance on held-out queries)
        and the held-out rows.

    Raises:
        DataError: If the rows cannot be learned from (fewer than 256 differ, no labels for a loss that needs them).
        UsageError: If the loss uses labels and no backbone can learn from them.
        AlulaError: If training diverges.
    """
    if config.loss != "distortion" and (backbone is None or config.frozen):
        raise UsageError(
            f"The loss {config.loss} trains a backbone, and there is no trainable one. Give a backbone that is not "
            "frozen, or leave out the loss."
        )
    check_labels(config.loss, data)
    with reproducible(config.seed) as generator:
        source = Source(data, backbone, trainable=config.trains_backbone)
        vectors = source.all_rows()
        scale = input_scale(vectors.cpu().numpy(), config.metric)
        dim = vectors.shape[1]
        sign_bits = config.sign_bits or default_sign_bits(dim)
        config = replace(config, sign_bits=sign_bits, epochs=config.passes(len(data.train)))
        model = QUANTIZERS[config.mode](dim, config.levels, sign_bits, config.metric, scale)
        if checkpoint is None or not checkpoint.step(_STAGE):
            rows = model.prepare(vectors)
            check_distinct(rows.cpu().numpy(), CODEWORDS)
            start_from_data(model, rows, generator, progress=progress)
        figures = _optimise(model, source, config, generator, progress=progress, checkpoint=checkpoint)
        model.requires_grad_(False).eval()
        vectors = source.all_rows()
        learn_signs(model.signs, model.prepare(vectors), generator, progress=progress)
        summary = {
            "rows": len(vectors),
            "total_rows": data.total_rows,
            "fingerprint": data.fingerprint,
            "recipe": config.recipe(),
            "seed": config.seed,
            **figures,
            "parameters": model.parameter_count,
            **_judge(model, source, vectors, config, generator),
        }
    return Trained(model.cpu(), summary, data.held_out, backbone if backbone is None else backbone.cpu())


def _optimise(
    model: Quantizer,
    source: Source,
    config: DrqConfig,
    generator: torch.Generator,
    *,
    progress: Progress,
    checkpoint: Checkpoint | None,
) -> Figures:
    count = len(source.data.train)
    labels = None if source.trainable is None else torch.from_numpy(source.data.labels).to(compute_device())
    batches, size = _batches(model, config, count, labels, generator)
    modules, trained, rates = _trained_modules(model, source, config)
    per_epoch = math.ceil(count / size)
    steps = config.passes(count) * per_epoch
    optimizer = torch.optim.Adam(trained, lr=config.rate)
    figures = Figures()
    state: dict[str, Stateful] = {"modules": modules, "generator": GeneratorState(generator), "figures": figures}
    if isinstance(batches, ShuffledBatches):
        state["batches"] = batches
    stage = TrainingStage(
        name=_STAGE,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps + 1),
        steps=steps,
        clip=config.clip,
        state=state,
        after_step=model.constrain,
        stopping=_early_stopping(modules, model, source, config, per_epoch),
    )
    paper = PaperStages(steps) if config.mode == "paper" else None

    def step(number: int) -> tuple[Tensor, Mapping[str, float]]:
        picked = batches.draw()
        vectors = source.batch(picked)
        # a backbone learns from labels alone: rows that also move to their codewords lose their neighbours
        batch, codewords = model.inner(model.prepare(vectors.detach())), model.inner_codewords()
        if paper is not None:
            loss, distortion = paper.loss(batch, codewords, number)
        else:
            # rows are encoded by beam search in the end; greedy codes are near enough while the codewords still move
            codes = find_codes(batch, codewords.detach(), config.beam if 5 * number >= 4 * steps else 1)
            distortions = prefix_distortions(batch, level_parts(codes, codewords))
            loss, distortion = distortions.sum(), distortions[-1]
        if labels is not None:
            loss = loss + modules["loss"](unit_rows(vectors)[0], labels[picked])
        figures.average("loss", float(loss.detach()))
        return loss, {**figures, f"distortion at {8 * model.levels} bits": float(distortion.detach())}

    taken = fit(stage, step, progress=progress, checkpoint=checkpoint)
    if config.patience is not None:
        figures["steps_taken"] = taken
    return figures


def _batches(
    model: Quantizer, config: DrqConfig, count: int, labels: Tensor | None, generator: torch.Generator
) -> tuple[BalancedBatches | ShuffledBatches, int]:
    """The batches of a number of rows, and the size of a batch."""
    # long vectors and many levels take fewer rows at once: the residuals of all levels must fit in memory
    dim = model.signs.projection.shape[1]
    width = max(dim, CODEWORDS) if config.mode == "paper" else dim  # soft: a weight per codeword
    fits, enough = _BATCH_NUMBERS // (model.levels * width), config.passes(count) * count // _STEPS
    size = min(config.batch, max(CODEWORDS, min(fits, enough)))
    if labels is None:
        return ShuffledBatches(count, size, generator), size
    size = min(size, _LABELLED_BATCH)
    return BalancedBatches(labels, size, generator), size


def _trained_modules(
    model: Quantizer, source: Source, config: DrqConfig
) -> tuple[nn.ModuleDict, list[dict[str, Any]], list[float]]:
    """The modules of a training, their groups of parameters and the rates of these."""
    modules = nn.ModuleDict({"model": model})
    trained = [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    rates = [config.rate]
    if source.trainable is not None:
        dim = model.signs.projection.shape[1]
        modules["loss"] = label_loss(config.loss, source.data, dim)  # type: ignore[arg-type]
        modules["backbone"] = source.trainable
        trained += [{"params": list(modules[name].parameters())} for name in ("loss", "backbone")]
        rates += [config.backbone_learning_rate] * 2
    return modules, trained, rates


def _early_stopping(
    modules: nn.Module, model: Quantizer, source: Source, config: DrqConfig, every: int
) -> EarlyStopping | None:
    """Stop on validation recall by code distance, measured after every epoch."""
    if config.patience is None:
        return None

    @torch.no_grad()
    def measure() -> float:
        return source.validate(lambda queries, rows: _scores(model, queries, rows, config), config.metric)

    measure()  # what it needs may be missing: said now and not in the middle
    return EarlyStopping(modules, measure, patience=config.patience, every=every)


def _scores(model: Quantizer, queries: Tensor, rows: Tensor, config: DrqConfig) -> Tensor:
    """Similarities by code distance, float32 (m, n); larger is nearer."""
    codes = model.encode(model.prepare(rows), config.beam)
    x_hat = sum(level_parts(codes, model.codewords()), torch.zeros(()))
    return _similarity(model.prepare(queries), x_hat, config.metric)


def _similarity(prepared: Tensor, x_hat: Tensor, metric: Metric) -> Tensor:
    """Scores as searches rank: cosine, product, or minus half the squared distance."""
    products: Tensor = prepared @ x_hat.T
    if metric == "IP":
        return products
    norms = x_hat.square().sum(1)
    return products / norms.sqrt().clamp_min(TINY) if metric == "COSINE" else products - 0.5 * norms


def _hamming(model: Quantizer, queries: Tensor, rows: Tensor) -> Tensor:
    """Products of sign bits, float32 (m, n): the larger, the fewer bits differ."""
    given, found = (hard_signs(model.signs(part)) for part in (queries, rows))
    return given @ found.T


@torch.no_grad()
def _judge(
    model: Quantizer, source: Source, vectors: Tensor, config: DrqConfig, generator: torch.Generator
) -> dict[str, Any]:
    """Figures for the file: distortion of each prefix, recall by code distance."""
    picked = torch.randperm(len(vectors), generator=generator)[:ROWS]
    sample, held_out = vectors[picked], source.held_out_rows()
    prepared, queries = model.prepare(sample), model.prepare(held_out)
    codes = model.encode(prepared, config.beam)
    truth = exact_neighbours(held_out, sample, config.metric)
    x_hat = torch.zeros_like(prepared)
    bits = len(model.signs.offset)
    found = share_found(truth, _hamming(model, queries, prepared), _SIGN_CANDIDATES)
    distortion, quality = [], {f"recall@10 among the nearest {_SIGN_CANDIDATES} by {bits} sign bits": found}
    for level, part in enumerate(level_parts(codes, model.codewords())):
        x_hat += part
        distortion.append(float((prepared - x_hat).square().sum(1).mean()))
        bits = 8 * (level + 1)
        if bits in _REPORTED_BITS or level + 1 == model.levels:
            scores = _similarity(queries, x_hat, config.metric)
            quality[f"recall@10 by {bits}-bit codes"] = share_found(truth, scores, truth.shape[1])
            by_label = source.label_figures(scores, picked)
            quality |= {f"{name} and {bits}-bit codes": value for name, value in by_label.items()}
    mean = prepared.mean(0)
    return {
        "variance": float((prepared - mean).square().sum(1).mean()),
        "distortion": distortion,
        "quality": {"queries": len(queries), "rows": len(sample), **quality},
    }
