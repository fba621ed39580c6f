"""Train a quantiser: one run gives every code length from 8 bits to 8 M."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from alula.encoders import Metric
from alula.errors import UsageError
from alula_exporters.data import TrainingData, check_distinct, input_scale
from alula_exporters.drq.losses import joint_central_loss, prefix_distortions
from alula_exporters.drq.model import CODEWORDS, Quantizer, find_codes, reconstruct, soft_reconstruct
from alula_exporters.drq.start import random_orthogonal, start_from_data
from alula_exporters.drq.variants import QUANTIZERS, Mode
from alula_exporters.inputs import unit_rows
from alula_exporters.quality import QUERIES, ROWS, exact_neighbours, share_found
from alula_exporters.training import Progress, Trained, fit, reproducible, silent

_REPORTED_BITS = (32, 64, 128)
_BATCH_NUMBERS = 1 << 25
_STEPS = 1_500  # fewer leave the codewords of long vectors unfinished: few rows are taken in small batches
_SOFT_WEIGHT = 0.1  # of soft distortion and joint central loss beside the hard distortion, which is what is stored


@dataclass(frozen=True)
class DrqConfig:
    """How a quantiser is trained.

    The ``mode`` says what the levels share. ``default``: one codebook, which each level but the first turns and scales;
    the first has its own. ``linear``: the same, but each level maps it by any matrix. ``paper``: one codebook and a
    scale per level, trained on hard and soft distortion with the joint central loss. ``separate``: nothing, a codebook
    per level (plain residual quantisation).

    Args:
        metric: COSINE, IP or L2.
        levels: Number of levels M; the longest code has 8 M bits.
        sign_bits: Number of sign bits S for Hamming search, a multiple of 8.
        beam: Prefixes kept while encoding a row; 1 is greedy, fast and worse.
        epochs: Passes over the training rows.
        batch: Most rows per step (fewer where rows are few, and for long vectors with many levels, to bound memory).
        learning_rate: Highest of the one-cycle schedule.
        clip: Largest norm of the gradient.
        seed: Seed of everything random.
        mode: ``default``, ``linear``, ``paper`` or ``separate``.

    Raises:
        UsageError: If the mode is not one of these, or a number is out of range.
    """

    metric: Metric = "COSINE"
    levels: int = 16
    sign_bits: int = 256
    beam: int = 5
    epochs: int = 8
    batch: int = 2_048
    learning_rate: float = 5e-3
    clip: float = 5.0
    seed: int = 0
    mode: Mode = "default"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError(f"mode is {self.mode!r}; it must be one of {', '.join(get_args(Mode))}.")
        for name, largest in (("levels", 256), ("beam", 64), ("epochs", 10_000), ("batch", 1 << 20)):
            if not 1 <= getattr(self, name) <= largest:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be between 1 and {largest:,}.")
        if self.sign_bits < 8 or self.sign_bits % 8:
            raise UsageError(f"sign_bits is {self.sign_bits}; it must be a positive multiple of 8.")


def train_drq(data: TrainingData, config: DrqConfig, *, progress: Progress = silent) -> Trained[Quantizer]:
    """Train a quantiser (Song et al., IJCAI 2019) on the distortion of all its prefixes.

    Args:
        data: The rows.
        config: How.
        progress: Told about every step.

    Returns:
        The quantiser, its training summary (distortion of each prefix, recall by code distance on held-out queries)
        and the held-out rows.

    Raises:
        DataError: If the rows cannot be learned from (fewer than 256 differ).
        AlulaError: If training diverges.
    """
    scale = input_scale(data.train, config.metric)
    with reproducible(config.seed) as generator:
        model = QUANTIZERS[config.mode](data.dim, config.levels, config.sign_bits, config.metric, scale)
        rows = model.prepare(torch.from_numpy(data.train))
        check_distinct(rows.numpy(), CODEWORDS)
        start_from_data(model, rows, generator, progress=progress)
        loss = _optimise(model, rows, config, generator, progress)
        model.requires_grad_(False).eval()
        _set_signs(model, rows, generator)
        summary = {
            "rows": len(rows),
            "total_rows": data.total_rows,
            "fingerprint": data.fingerprint,
            "recipe": asdict(config),
            "seed": config.seed,
            "loss": loss,
            "parameters": model.parameter_count,
            **_judge(model, torch.from_numpy(data.train), torch.from_numpy(data.held_out), config, generator),
        }
    return Trained(model, summary, data.held_out)


def _optimise(
    model: Quantizer, rows: Tensor, config: DrqConfig, generator: torch.Generator, progress: Progress
) -> float:
    # long vectors and many levels take fewer rows at once: the reconstructions of all prefixes must fit in memory
    width = max(rows.shape[1], CODEWORDS) if config.mode == "paper" else rows.shape[1]  # soft: a weight per codeword
    fits, enough = _BATCH_NUMBERS // (model.levels * width), config.epochs * len(rows) // _STEPS
    size = min(config.batch, max(CODEWORDS, min(fits, enough)))
    per_epoch = math.ceil(len(rows) / size)
    steps = config.epochs * per_epoch
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)
    order = torch.empty(0, dtype=torch.int64)
    loss_mean = math.nan

    def step(number: int) -> tuple[Tensor, Mapping[str, float]]:
        nonlocal order, loss_mean
        if number % per_epoch == 0:
            order = torch.randperm(len(rows), generator=generator)
        start = number % per_epoch * size
        batch = model.inner(rows[order[start : start + size]])
        codewords = model.inner_codewords()
        # rows are encoded by beam search in the end; greedy codes are near enough while the codewords still move
        codes = find_codes(batch, codewords.detach(), config.beam if 2 * number >= steps else 1)
        hard = reconstruct(codes, codewords)
        distortions = prefix_distortions(batch, hard)
        loss = distortions.sum()
        if config.mode == "paper":
            # in stages: first hard and soft codes each learn the rows, then they are pulled together
            loss = loss + _SOFT_WEIGHT * _soft_loss(batch, hard, codewords, joint=2 * number >= steps)
        value = float(loss.detach())
        loss_mean = value if math.isnan(loss_mean) else 0.95 * loss_mean + 0.05 * value
        return loss, {"loss": loss_mean, f"distortion at {8 * model.levels} bits": float(distortions[-1].detach())}

    fit(optimizer, schedule, step, steps=steps, clip=config.clip, after_step=model.constrain, progress=progress)
    return loss_mean


def _soft_loss(batch: Tensor, hard: Tensor, codewords: Tensor, *, joint: bool) -> Tensor:
    """Soft distortion of all prefixes, and when ``joint`` the joint central loss."""
    soft = soft_reconstruct(batch, hard, codewords)
    distortion = prefix_distortions(batch, soft).sum()
    return distortion + joint_central_loss(soft, hard) if joint else distortion


def _set_signs(model: Quantizer, rows: Tensor, generator: torch.Generator) -> None:
    model.direction_mean.copy_(unit_rows(rows)[0].mean(0))
    bits, dim = model.projection.shape
    blocks = [random_orthogonal(dim, generator) for _ in range(math.ceil(bits / dim))]
    model.projection.copy_(torch.cat(blocks)[:bits])


@torch.no_grad()
def _judge(
    model: Quantizer, rows: Tensor, held_out: Tensor, config: DrqConfig, generator: torch.Generator
) -> dict[str, Any]:
    """The figures that the file carries: distortion of each prefix, and recall by code distance alone."""
    sample = rows[torch.randperm(len(rows), generator=generator)[:ROWS]]
    prepared, queries = model.prepare(sample), model.prepare(held_out[:QUERIES])
    codes = model.encode(prepared, config.beam)
    truth = exact_neighbours(held_out[:QUERIES], sample, config.metric)
    codewords = model.codewords()
    x_hat = torch.zeros_like(prepared)
    distortion, quality = [], {}
    for level in range(model.levels):
        x_hat += codewords[level][codes[:, level]]
        distortion.append(float((prepared - x_hat).square().sum(1).mean()))
        bits = 8 * (level + 1)
        if bits in _REPORTED_BITS or level + 1 == model.levels:
            scores = queries @ x_hat.T
            if config.metric != "IP":  # L2 between query and reconstruction, which ranks COSINE's unit vectors too
                scores -= 0.5 * x_hat.square().sum(1)
            quality[f"recall@10 by {bits}-bit codes"] = share_found(truth, scores, truth.shape[1])
    mean = prepared.mean(0)
    return {
        "variance": float((prepared - mean).square().sum(1).mean()),
        "distortion": distortion,
        "quality": {"queries": len(queries), "rows": len(sample), **quality},
    }
