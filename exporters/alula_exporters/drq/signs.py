"""Learn the sign bits of vectors: PCA and ITQ, then the order of near rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from alula.encoders import Metric
from alula.progress import Progress, silent
from alula_exporters.inputs import TINY, unit_rows
from alula_exporters.quality import NEIGHBOURS, share_found

_START_ROWS = 20_000
_START_ITERATIONS = 30
_SAMPLE = 50_000  # rows that neighbours are found among
_ANCHORS = 4_000
_NEAREST = 100  # neighbours of an anchor
_STEPS = 600  # more fit the anchors of the sample only
_STACKED_STEPS = 2_000  # of several rotations, which start further from the best
_ROWS_PER_STEP = 100  # few rows are learned by heart in few steps
_JUDGED = 300  # rows that are not learned from and decide whether learning helped
_STEP_ANCHORS = 32
_STEP_NEAREST = 48  # of each anchor
_STEP_ROWS = 1_024  # beside them
_TEMPERATURE = 0.17  # of similarities, in units of the mean one among an anchor's neighbours
_BITS_TEMPERATURE = 0.07  # of products of sign bits, at first
_STEEPNESS = 2.0  # of the tanh whose slope stands for that of the sign
_RATE, _LARGEST_RATE = 0.12, 3e-3  # divided by d: the longer the vectors, the smaller the entries of a projection


class SignBits(nn.Module):
    """sign(P (x - m) + o): the bits that a binary index compares by Hamming distance.

    They are bits of the vector itself, not of its reconstruction by the code, which finds fewer neighbours. The vector
    is taken as it is for L2, and as its direction for COSINE and IP.

    A query is not cut to bits to rank rows: with s the signs of a row, ``c <s, P (q - m) + o>`` estimates
    ``<q - m, x - m>``, as in RaBitQ (Gao and Long, SIGMOD 2024) but with one factor c for all rows.

    Args:
        input_dim: Length d of a vector.
        bits: Number of sign bits S.
        metric: COSINE, IP or L2.

    Attributes:
        mean: float32 (d,), m.
        projection: float32 (S, d), P.
        offset: float32 (S,), o.
        gain: float32 (), c.
    """

    mean: Tensor
    projection: Tensor
    offset: Tensor
    gain: Tensor

    def __init__(self, input_dim: int, bits: int, metric: Metric) -> None:
        super().__init__()
        self.directions = metric != "L2"
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("projection", torch.zeros(bits, input_dim))
        self.register_buffer("offset", torch.zeros(bits))
        self.register_buffer("gain", torch.ones(()))

    def forward(self, prepared: Tensor) -> Tensor:
        """P (x - m) + o, float32 (n, S), of prepared rows or queries, float32 (n, d)."""
        projected: Tensor = self.centred(prepared) @ self.projection.T
        return projected + self.offset

    def centred(self, prepared: Tensor) -> Tensor:
        """X - m, float32 (n, d)."""
        return self.seen(prepared) - self.mean

    def seen(self, prepared: Tensor) -> Tensor:
        """The vectors that the bits are of, float32 (n, d): directions but for L2."""
        return unit_rows(prepared)[0] if self.directions else prepared

    def lengths(self, prepared: Tensor) -> Tensor:
        """Lengths of rows for their estimates, float32 (n,): |x - m| for L2, else 1."""
        centred = self.centred(prepared)
        return torch.ones(len(centred)) if self.directions else centred.norm(dim=1)

    def weights(self, prepared: Tensor) -> Tensor:
        """The weights of the signs in the estimates of queries, float32 (n, S)."""
        weights: Tensor = self.gain * self(prepared)
        return weights

    def bias(self, prepared: Tensor) -> Tensor:
        """The part of a query's estimates that all rows share, float32 (n,).

        It is <q, m>, or |q - m|^2 for L2.
        """
        if self.directions:
            products: Tensor = self.seen(prepared) @ self.mean
            return products
        return self.centred(prepared).square().sum(1)


@torch.no_grad()
def start_signs(signs: SignBits, prepared: Tensor, generator: torch.Generator) -> None:
    """Set the projection by PCA and iterative quantisation (ITQ).

    Gong and Lazebnik, Iterative Quantization, CVPR 2011.

    More bits than dimensions come from several rotations, each found from another random start.

    Args:
        signs: Changed in place.
        prepared: float32 (n, d).
        generator: Source of randomness.
    """
    signs.mean.zero_()
    signs.mean.copy_(signs.centred(prepared).mean(0))
    bits, dim = signs.projection.shape
    rows = signs.centred(prepared[torch.randperm(len(prepared), generator=generator)[:_START_ROWS]])
    # ascending eigenvalues: the last eigenvectors are the principal axes
    axes = torch.linalg.eigh(rows.T @ rows)[1].flip(1)
    parts = []
    for first in range(0, bits, dim):
        used = axes[:, : min(dim, bits - first)]
        parts.append((used @ _rotation(rows @ used, generator)).T)
    signs.projection.copy_(torch.cat(parts))
    signs.offset.zero_()


def _rotation(rows: Tensor, generator: torch.Generator) -> Tensor:
    """ITQ: the rotation, (r, r), that brings rows (n, r) near corners of a cube."""
    size = rows.shape[1]
    turn: Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
    for _ in range(_START_ITERATIONS):
        left, _, right = torch.linalg.svd(rows.T @ torch.sign(rows @ turn))
        turn = left @ right
    return turn


def learn_signs(signs: SignBits, prepared: Tensor, generator: torch.Generator, *, progress: Progress = silent) -> None:
    """Learn a projection whose Hamming distances order near rows as vectors do.

    The loss is the cross-entropy between two distributions over rows, seen from an anchor: the softmax of minus half
    the squared distance, in units of that of its neighbours, and the softmax of the product of sign bits, with a
    learned temperature. Each step's rows are near neighbours of some anchors, and random ones. The gradient of a sign
    is that of tanh (straight-through). If rows that were not learned from find fewer of their neighbours in the end,
    the start is kept.

    Args:
        signs: Changed in place.
        prepared: float32 (n, d).
        generator: Source of randomness.
        progress: Called after every step.
    """
    start_signs(signs, prepared, generator)
    bits, dim = signs.projection.shape
    rows = signs.centred(prepared[torch.randperm(len(prepared), generator=generator)[:_SAMPLE]])
    size = rows.square().sum(1).mean().sqrt().clamp_min(TINY)
    judged, rows = (rows / size).tensor_split([min(_JUDGED, len(rows) // 10)])
    anchors = min(_ANCHORS, len(rows))
    nearest, scales = _nearest(rows, anchors)
    scales = scales.mul(_TEMPERATURE).clamp_min(TINY)
    spread = (rows[:anchors] @ signs.projection.T).square().mean().sqrt().clamp_min(TINY)
    projection = nn.Parameter(signs.projection / spread)
    offset, sharpness = nn.Parameter(torch.zeros(bits)), nn.Parameter(torch.zeros(()))
    rate = min(_RATE / dim, _LARGEST_RATE) / float(spread)
    optimizer = torch.optim.Adam([{"params": [projection, offset]}, {"params": [sharpness]}], lr=rate)
    steps = min(_STEPS if bits <= dim else _STACKED_STEPS, math.ceil(len(prepared) / _ROWS_PER_STEP))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [rate, 1e-2], total_steps=steps + 1)
    for step in range(steps):
        picked = torch.randint(anchors, (min(_STEP_ANCHORS, anchors),), generator=generator)
        some = torch.randperm(nearest.shape[1], generator=generator)[:_STEP_NEAREST]
        others = torch.randint(len(rows), (_STEP_ROWS,), generator=generator)
        seen = torch.unique(torch.cat([nearest[picked][:, some].flatten(), others]))
        itself = seen == picked[:, None]
        wanted = _similarity(rows[picked], rows[seen]) / scales[picked, None]
        wanted = wanted.masked_fill(itself, -torch.inf).softmax(1)
        found, given = (_soft_signs(part @ projection.T + offset) for part in (rows[seen], rows[picked]))
        logits = (given @ found.T) * (sharpness.exp() / (bits * _BITS_TEMPERATURE))
        # not minus infinity, which times a weight of 0 is not a number
        loss = -(wanted * logits.masked_fill(itself, -1e4).log_softmax(1)).sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress("sign bits", step + 1, steps, {})
    learned = projection.detach()
    if _share_found(learned, offset.detach(), judged, rows) > _share_found(
        signs.projection, signs.offset, judged, rows
    ):
        signs.projection.copy_(learned / size)
        signs.offset.copy_(offset.detach())
    _fit_gain(signs, rows * size, nearest)


@torch.no_grad()
def _fit_gain(signs: SignBits, centred: Tensor, nearest: Tensor) -> None:
    """Set the factor c by least squares over anchors and their near rows.

    Args:
        signs: Changed in place.
        centred: float32 (n, d): x - m.
        nearest: int64 (anchors, k): rows near each of the first rows.
    """
    products = estimates = torch.zeros((), dtype=torch.float64)
    for first in range(0, len(nearest), 256):
        anchors = centred[first : min(first + 256, len(nearest))]
        near = centred[nearest[first : first + 256]]
        given = anchors @ signs.projection.T + signs.offset
        found = hard_signs(near @ signs.projection.T + signs.offset)
        estimate = (found @ given[:, :, None])[:, :, 0].double()
        product = (near @ anchors[:, :, None])[:, :, 0].double()
        products = products + (estimate * product).sum()
        estimates = estimates + estimate.square().sum()
    if products > 0:
        signs.gain.copy_(products / estimates)


@torch.no_grad()
def _share_found(projection: Tensor, offset: Tensor, queries: Tensor, rows: Tensor) -> float:
    """Share of the nearest rows that are among the 100 of the fewest different bits."""
    nearest = _similarity(queries, rows).topk(NEIGHBOURS, dim=1).indices
    given, found = (hard_signs(part @ projection.T + offset) for part in (queries, rows))
    return share_found(nearest, given @ found.T, 100)


def hard_signs(projections: Tensor) -> Tensor:
    """Signs of projections as numbers, -1 or 1: float32 of the same shape."""
    return torch.where(projections > 0, 1.0, -1.0)


def _soft_signs(projections: Tensor) -> Tensor:
    """Signs, float32, with the gradient of a tanh."""
    soft: Tensor = (_STEEPNESS * projections).tanh()
    return soft + (hard_signs(projections) - soft).detach()


def _similarity(anchors: Tensor, rows: Tensor) -> Tensor:
    """Minus half the squared distance, float32 (m, n)."""
    halves: Tensor = 0.5 * (anchors.square().sum(1)[:, None] + rows.square().sum(1))
    return anchors @ rows.T - halves


def _nearest(rows: Tensor, anchors: int) -> tuple[Tensor, Tensor]:
    """The rows nearest to each of the first rows, and their mean distance.

    Returns:
        int64 (anchors, k), and half the mean squared distance, float32 (anchors,).
    """
    numbers, halves = [], []
    for first in range(0, anchors, 500):
        similarity = _similarity(rows[first : min(first + 500, anchors)], rows)
        similarity[torch.arange(len(similarity)), torch.arange(first, first + len(similarity))] = -torch.inf
        values, found = similarity.topk(min(_NEAREST, len(rows) - 1), dim=1)
        numbers.append(found)
        halves.append(-values.mean(1))
    return torch.cat(numbers), torch.cat(halves)
