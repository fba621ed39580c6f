"""Where a quantiser starts: k-means on the residuals of all levels, then a few closed-form rounds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alula_exporters.drq.model import CODEWORDS, Quantizer, RecurrentQuantizer, nearest, safe_scale
from alula_exporters.drq.variants import PaperQuantizer, SeparateQuantizer
from alula_exporters.inputs import TINY
from alula_exporters.training import Progress, silent

_ROWS = 32_768
_ITERATIONS = 8
_ROUNDS = 8
_LEAST = 1e-12  # scale of a block in which nothing is left


@torch.no_grad()
def start_from_data(
    model: Quantizer, prepared: Tensor, generator: torch.Generator, *, progress: Progress = silent
) -> None:
    """Set a quantiser's parameters from the data.

    A plain residual quantiser gives the residuals that each level will see, and so a separate codebook for each. A
    shared codebook is k-means on these residuals pooled, each level's divided by their root mean square (and turned by
    the level's random rotation, where levels have one); rounds of least squares follow.

    Args:
        model: The quantiser; changed in place.
        prepared: float32 (n, d), n >= 256.
        generator: Source of randomness.
        progress: Told about every step.
    """
    rows = prepared[torch.randperm(len(prepared), generator=generator)[:_ROWS]]
    if isinstance(model, RecurrentQuantizer):
        model.offset.copy_(prepared.mean(0))
        _start_recurrent(model, rows, generator, progress)
    elif isinstance(model, PaperQuantizer):
        _start_paper(model, rows, generator, progress)
    elif isinstance(model, SeparateQuantizer):
        _start_separate(model, rows, generator, progress)


def _start_recurrent(model: RecurrentQuantizer, rows: Tensor, generator: torch.Generator, progress: Progress) -> None:
    """Axes, codebooks, scales and rotations: the rounds set rotation and scale by orthogonal Procrustes."""
    total = model.levels + _ROUNDS + 1
    if model.axes is not None:
        centred = rows - model.offset
        # ascending eigenvalues: the last eigenvectors are the principal axes, like beside like
        model.axes.copy_(torch.linalg.eigh(centred.T @ centred)[1].T[-len(model.axes) :])
    pool: list[Tensor] = []
    for level, (residual, words) in enumerate(_residual_quantizer(model.inner(rows), model.levels, generator)):
        if level == 0:
            model.first_codebook.copy_(words)
        else:
            size = safe_scale(residual)
            model.log_scales[level - 1] = size.log()
            # the shared codebook keeps the second level's axes; the others are turned at random
            for block in model.maps[level - 1] if level > 1 else []:
                block.copy_(random_orthogonal(len(block), generator))
            parts = (residual / size).view(len(rows), *model.maps.shape[1:3]).transpose(0, 1)
            pool.append((parts @ model.maps[level - 1].mT).transpose(0, 1).flatten(1))
        progress("starting", level + 1, total, {})
    if pool:
        model.codebook.copy_(_shared_codebook(pool, generator))
    progress("starting", model.levels + 1, total, {})
    for number in range(_ROUNDS):
        _least_squares_round(model, model.inner(rows))
        progress("starting", model.levels + 2 + number, total, {})


def _least_squares_round(model: RecurrentQuantizer, rows: Tensor) -> None:
    blocks, size = model.maps.shape[1:3]
    sums, counts = torch.zeros_like(model.codebook), torch.zeros(CODEWORDS)
    residual = rows - model.first_codebook[nearest(rows, model.first_codebook)]
    for level in range(model.levels - 1):
        codes = nearest(residual, model.inner_codewords()[level + 1])
        chosen = model.codebook[codes].view(-1, blocks, size).transpose(0, 1)
        wanted = residual.view(-1, blocks, size).transpose(0, 1)
        # orthogonal Procrustes: the turn and the stretch of the chosen codewords that come nearest to the residuals
        left, values, right = torch.linalg.svd(chosen.mT @ wanted)
        rotation = left @ right
        scale = (values.sum(1) / chosen.square().sum((1, 2)).clamp_min(_LEAST)).clamp_min(_LEAST)[:, None, None]
        model.maps[level] = rotation
        model.log_scales[level] = scale.flatten().log()
        sums.index_add_(0, codes, (wanted @ rotation.mT / scale).transpose(0, 1).flatten(1))
        counts.index_add_(0, codes, torch.ones(len(codes)))
        residual = residual - (chosen @ rotation * scale).transpose(0, 1).flatten(1)
    used = counts > 0
    model.codebook[used] = sums[used] / counts[used, None]


def _start_paper(model: PaperQuantizer, rows: Tensor, generator: torch.Generator, progress: Progress) -> None:
    """Codebook and scales, as for the recurrent quantiser but in the same axes at every level and without a mean."""
    total = model.levels + _ROUNDS + 1
    pool, scales = [], torch.ones(model.levels)
    for level, (residual, _) in enumerate(_residual_quantizer(rows, model.levels, generator)):
        scales[level] = safe_scale(residual)
        pool.append(residual / scales[level])
        progress("starting", level + 1, total, {})
    model.codebook.copy_(_shared_codebook(pool, generator))
    progress("starting", model.levels + 1, total, {})
    for number in range(_ROUNDS):
        residual, sums, weights = rows, torch.zeros_like(model.codebook), torch.zeros(CODEWORDS)
        for level in range(model.levels):
            codes = nearest(residual, model.codebook * scales[level])
            chosen = model.codebook[codes]
            scale = (chosen * residual).sum() / chosen.square().sum().clamp_min(TINY)
            scales[level] = scale
            # C[k] is the mean of r / v over its rows, weighted by v^2: it minimises the sum of |r - v C[k]|^2
            sums.index_add_(0, codes, residual * scale)
            weights.index_add_(0, codes, scale.square().expand(len(codes)))
            residual = residual - chosen * scale
        used = weights > 0
        model.codebook[used] = sums[used] / weights[used, None]
        progress("starting", model.levels + 2 + number, total, {})
    # v_1 is 1: its part goes into the codebook
    model.codebook.mul_(scales[0])
    model.later_scales.copy_(scales[1:] / scales[0].clamp_min(TINY))


def _start_separate(model: SeparateQuantizer, rows: Tensor, generator: torch.Generator, progress: Progress) -> None:
    """The codebooks of the plain residual quantiser."""
    for level, (_, words) in enumerate(_residual_quantizer(rows, model.levels, generator)):
        model.codebooks[level] = words
        progress("starting", level + 1, model.levels, {})


def _residual_quantizer(rows: Tensor, levels: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """For each level what the levels before left over, float32 (n, d), and k-means of it, float32 (256, d)."""
    residual = rows
    for _ in range(levels):
        words = k_means(residual, generator)
        yield residual, words
        residual = residual - words[nearest(residual, words)]


def _shared_codebook(pool: list[Tensor], generator: torch.Generator) -> Tensor:
    """k-means, float32 (256, d), of all levels' residuals of unit scale, float32 (n, d) each."""
    pooled = torch.cat(pool)
    return k_means(pooled[torch.randperm(len(pooled), generator=generator)[: 2 * _ROWS]], generator)


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
