"""Where a recurrent quantiser starts: k-means on the pooled residuals of all levels, then a few closed-form rounds."""

from __future__ import annotations

import torch
from torch import Tensor

from alula_exporters.drq.model import CODEWORDS, RecurrentQuantizer, nearest, safe_scale
from alula_exporters.training import Progress, silent

_ROWS = 32_768
_ITERATIONS = 8
_ROUNDS = 8


@torch.no_grad()
def start_from_data(
    model: RecurrentQuantizer,
    prepared: Tensor,
    generator: torch.Generator,
    *,
    progress: Progress = silent,
) -> None:
    """Set codebook, scales and rotations from the data.

    First a plain residual quantiser gives the residuals that each level will see. These, divided by their root mean
    square and turned by each level's random rotation, are pooled, and k-means on the pool gives the shared codebook.
    Rounds of least squares follow: rotation and scale of a level by orthogonal Procrustes, the codebook by means.

    Args:
        model: The quantiser; changed in place.
        prepared: float32 (n, d), n >= 256.
        generator: Source of randomness.
        progress: Told about every step.
    """
    rows = prepared[torch.randperm(len(prepared), generator=generator)[:_ROWS]]
    levels, dim = model.rotations.shape[:2]
    total = levels + _ROUNDS + 1
    model.offset.copy_(prepared.mean(0))
    # the first level keeps its axes; the others are turned at random
    for level in range(1, levels):
        model.rotations[level] = random_orthogonal(dim, generator)
    pool, residual = [], rows - model.offset
    for level in range(levels):
        size = safe_scale(residual)
        model.log_scales[level] = size.log()
        pool.append(residual / size @ model.rotations[level].T)
        words = k_means(residual, generator)
        residual = residual - words[nearest(residual, words)]
        progress("starting", level + 1, total, {})
    pooled = torch.cat(pool)
    model.codebook.copy_(k_means(pooled[torch.randperm(len(pooled), generator=generator)[: 2 * _ROWS]], generator))
    progress("starting", levels + 1, total, {})
    for number in range(_ROUNDS):
        _least_squares_round(model, rows)
        progress("starting", levels + 2 + number, total, {})


def _least_squares_round(model: RecurrentQuantizer, rows: Tensor) -> None:
    residual = rows - model.offset
    sums, counts = torch.zeros_like(model.codebook), torch.zeros(CODEWORDS)
    for level in range(model.levels):
        words = model.codebook @ model.rotations[level] * model.log_scales[level].exp()
        codes = nearest(residual, words)
        chosen = model.codebook[codes]
        # orthogonal Procrustes: the turn and the stretch of the chosen codewords that come nearest to the residuals
        left, values, right = torch.linalg.svd(chosen.T @ residual)
        rotation, scale = left @ right, values.sum() / chosen.square().sum().clamp_min(1e-12)
        model.rotations[level] = rotation
        model.log_scales[level] = scale.clamp_min(1e-12).log()
        sums.index_add_(0, codes, residual @ rotation.T / scale.clamp_min(1e-12))
        counts.index_add_(0, codes, torch.ones(len(codes)))
        residual = residual - chosen @ rotation * scale
    used = counts > 0
    model.codebook[used] = sums[used] / counts[used, None]


def k_means(points: Tensor, generator: torch.Generator) -> Tensor:
    """Lloyd's k-means: 256 centres, float32 (256, d), of points float32 (n, d); an empty centre moves to a point."""
    centres = points[torch.randperm(len(points), generator=generator)[:CODEWORDS]].clone()
    for _ in range(_ITERATIONS):
        codes = nearest(points, centres)
        counts = torch.bincount(codes, minlength=CODEWORDS)
        centres.zero_().index_add_(0, codes, points).div_(counts.clamp_min(1)[:, None])
        empty = counts == 0
        if empty.any():
            centres[empty] = points[torch.randint(len(points), (int(empty.sum()),), generator=generator)]
    return centres


def random_orthogonal(dim: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix, float32 (dim, dim), uniformly distributed."""
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
    turned: Tensor = q * r.diagonal().sign()
    return turned
