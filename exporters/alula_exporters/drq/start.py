"""Initialise a quantiser: k-means on the residuals of all levels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alula.progress import Progress, silent
from alula_exporters.drq.model import CODEWORDS, Quantizer, RecurrentQuantizer, nearest, safe_scale
from alula_exporters.drq.variants import SeparateQuantizer, SharedQuantizer
from alula_exporters.inputs import TINY

_ROWS = 32_768
_ITERATIONS = 8
_ROUNDS = 4
_SCALE_ROUNDS = 3


@torch.no_grad()
def start_from_data(
    model: Quantizer, prepared: Tensor, generator: torch.Generator, *, progress: Progress = silent
) -> None:
    """Set a quantiser's parameters from the data.

    A plain residual quantiser gives the residuals that each level will see, and so a separate codebook for each. A
    shared codebook is k-means on the residuals of its levels pooled, each level's divided by their root mean square
    (and turned back from the level's random rotation, where it has one). Its scales are fitted by least squares.

    Args:
        model: The quantiser; changed in place.
        prepared: float32 (n, d), n >= 256.
        generator: Source of randomness.
        progress: Called after every step.
    """
    rows = prepared[torch.randperm(len(prepared), generator=generator)[:_ROWS]]
    if isinstance(model, RecurrentQuantizer):
        model.offset.copy_(prepared.mean(0))
        _start_recurrent(model, rows, generator, progress)
    elif isinstance(model, SharedQuantizer):
        _start_shared(model, rows, generator, progress)
    elif isinstance(model, SeparateQuantizer):
        _start_separate(model, rows, generator, progress)


def _start_recurrent(model: RecurrentQuantizer, rows: Tensor, generator: torch.Generator, progress: Progress) -> None:
    """Axes, scales, random turns and codebooks."""
    if model.axes is not None:
        centred = rows - model.offset
        # ascending eigenvalues: the last eigenvectors are the principal axes, like beside like
        model.axes.copy_(torch.linalg.eigh(centred.T @ centred)[1].T[-len(model.axes) :])
    books = len(model.codebooks)
    pools: list[list[Tensor]] = [[] for _ in range(books)]
    inner = model.inner(rows)
    for level, (residual, _) in enumerate(_residual_quantizer(inner, model.levels, generator)):
        parts = residual / safe_scale(residual)
        if level < books:
            pools[level].append(parts)
        else:
            turn = model.turns[level - books]
            for block in turn:
                block.copy_(random_orthogonal(len(block), generator))
            blocks = parts.view(len(rows), *turn.shape[:2]).transpose(0, 1)
            pools[model.books[level]].append((blocks @ turn.mT).transpose(0, 1).flatten(1))
        progress("starting", level + 1, model.levels + books, {})
    for number, pool in enumerate(pools):
        model.codebooks[number] = _shared_codebook(pool, generator)
        progress("starting", model.levels + number + 1, model.levels + books, {})
    _fit_scales(model, inner)


def _fit_scales(model: RecurrentQuantizer, residual: Tensor) -> None:
    """Set every level's scales by least squares on what the levels before leave.

    The residuals of the plain quantiser are no measure of them: it learns the rows by heart after some levels, and its
    scales come near 0.

    Args:
        model: With codebooks and turns; changed in place.
        residual: float32 (n, r): the rows in its inner space.
    """
    model.log_scales.zero_()
    blocks = model.log_scales.shape[1]
    for level, words in enumerate(model.inner_codewords()):
        parts, given = words.view(CODEWORDS, blocks, -1), residual.view(len(residual), blocks, -1)
        equal = safe_scale(residual) / safe_scale(words)  # of like size
        scales = equal.expand(blocks)
        for _ in range(_SCALE_ROUNDS):
            chosen = parts[nearest(residual, (parts * scales[:, None]).flatten(1))]
            # s minimises the sum of |r - s c|^2 over rows
            scales = (chosen * given).sum((0, 2)) / chosen.square().sum((0, 2)).clamp_min(TINY)
            # chosen codewords near 0, where nothing is left to code, fit with any scale
            scales = torch.minimum(scales, 2 * equal).clamp_min(TINY)
        scaled = (parts * scales[:, None]).flatten(1)
        residual = residual - scaled[nearest(residual, scaled)]
        model.log_scales[level] = scales.log()


def _start_shared(model: SharedQuantizer, rows: Tensor, generator: torch.Generator, progress: Progress) -> None:
    """Codebook and scales, in the same axes at every level and without a mean."""
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
    for level, (residual, words) in enumerate(_residual_quantizer(rows, model.levels, generator)):
        scale = safe_scale(residual)
        model.codebooks[level] = words / scale
        model.log_scales[level] = scale.log()
        progress("starting", level + 1, model.levels, {})


def _residual_quantizer(rows: Tensor, levels: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """For each level its residuals, float32 (n, d), and k-means of them, (256, d)."""
    residual = rows
    for _ in range(levels):
        words = k_means(residual, generator)
        yield residual, words
        residual = residual - words[nearest(residual, words)]


def _shared_codebook(pool: list[Tensor], generator: torch.Generator) -> Tensor:
    """k-means, float32 (256, d), of all levels' residuals, scaled to unit size."""
    pooled = torch.cat(pool)
    return k_means(pooled[torch.randperm(len(pooled), generator=generator)[: 2 * _ROWS]], generator)


def k_means(points: Tensor, generator: torch.Generator) -> Tensor:
    """Lloyd's k-means, float32 (256, d) of (n, d); an empty centre moves to a point."""
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
