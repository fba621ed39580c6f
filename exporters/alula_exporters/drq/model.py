"""Quantisers: codes, prefixes and look-up tables; the recurrent quantiser."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from alula.encoders import Metric
from alula_exporters.drq.signs import SignBits
from alula_exporters.inputs import TINY, unit_rows

CODEWORDS = 256  # one byte per level
WHOLE = 64  # longest vectors that are quantised along all axes and turned as a whole
AXES_PER_LEVEL = (12, 24)  # fewest and most principal axes of longer vectors
BLOCK = 32  # most of these axes that a turn mixes
_CHUNK = 1_024  # rows whose prefixes stay in the cache


class Quantizer(nn.Module, ABC):
    """x_hat_t = sum_{s <= t} c_s[b_s]: sums a codeword per level.

    So every prefix of a code is a code.

    Args:
        input_dim: Length d of a vector.
        sign_bits: Number of sign bits S.
        metric: COSINE, IP or L2.
        scale: Root mean square norm of the training rows (1 for COSINE).

    Attributes:
        signs: The sign bits of the vectors themselves.
        offset: float32 (d,): subtracted from rows before codes are searched; None where codes are of rows as they are.
    """

    offset: Tensor | None

    def __init__(self, input_dim: int, sign_bits: int, metric: Metric, scale: float) -> None:
        super().__init__()
        self.metric = metric
        self.scale = scale
        self.signs = SignBits(input_dim, sign_bits, metric)
        self.register_buffer("offset", None)

    @property
    @abstractmethod
    def levels(self) -> int:
        """Number of levels M."""

    @abstractmethod
    def codewords(self) -> Tensor:
        """Every level's codewords as they are added up, float32 (M, 256, d)."""

    def inner(self, prepared: Tensor) -> Tensor:
        """Rows, float32 (n, r) of (n, d), in the space of `inner_codewords`."""
        return prepared

    def inner_codewords(self) -> Tensor:
        """Codewords for the search, float32 (M, 256, r); same order of codes by distance."""
        return self.codewords()

    def constrain(self) -> None:
        """Go back, after an update, to what the parameters must be."""

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def prepare(self, vectors: Tensor) -> Tensor:
        """Rows to quantise, float32 (n, d): directions for COSINE, else x / scale."""
        return unit_rows(vectors)[0] if self.metric == "COSINE" else vectors / self.scale

    def encode(self, prepared: Tensor, beam: int) -> Tensor:
        """Codes, int64 (n, M), of prepared rows float32 (n, d); see `find_codes`."""
        return find_codes(self.inner(prepared), self.inner_codewords(), beam)

    def forward(self, codes: Tensor) -> Tensor:
        """The reconstruction by every prefix, float32 (n, M, d), of codes int64 (n, M)."""
        return reconstruct(codes, self.codewords())

    def tables(self, prepared: Tensor) -> Tensor:
        """Inner products of prepared queries with the codewords, float32 (n, M, 256)."""
        return torch.einsum("nd,mkd->nmk", prepared, self.codewords())


class RecurrentQuantizer(Quantizer):
    """c_t = s_t C_t E for t <= K, then s_t C_k R_t E: later levels turn a codebook.

    The paper's recurrent quantization block shares one codebook among all levels and learns one scalar for each (Song
    et al., IJCAI 2019). Three things differ here, and none costs anything at search, for look-up tables stay as they
    are. There are as many codebooks as fit in a third of the numbers that one for every level would take, but at most
    half as many as levels, and two at least: the first levels see the clusters of the rows, what is left for the others
    looks much alike. Each of the others turns a codebook of the first K levels by an orthogonal matrix of its own
    beside scaling it; a run of them has one of the second half of these codebooks. And long vectors are quantised
    without their mean m, along their first r principal axes E alone, in blocks of axes of like variance, each with its
    own turn and scale: R_t and s_t are block-diagonal. Vectors of at most 64 numbers are taken whole.

    Args:
        input_dim: Length d of a vector.
        levels: Number of levels M; a code has one byte for each.
        sign_bits: Number of sign bits S.
        metric: COSINE, IP or L2.
        scale: Root mean square norm of the training rows (1 for COSINE).

    Attributes:
        books: Numbers of the codebooks of all levels, M, counted from 0.
        codebooks: float32 (K, 256, r), C, without their scales.
        log_scales: float32 (M, g): logarithms of the scales s_t of the g blocks. Codebooks of all levels are of like
            size beside them, and so learn alike.
        turns: float32 (M - K, g, r / g, r / g): blocks of R_t, from level K + 1 on; a row vector c is turned as
            c @ R_t.
        axes: float32 (r, d), E: orthonormal rows, found before training; None where d <= 64.
        offset: float32 (d,), m.
    """

    axes: nn.Parameter | None
    offset: Tensor

    def __init__(
        self, input_dim: int, levels: int, sign_bits: int, metric: Metric = "COSINE", scale: float = 1.0
    ) -> None:
        super().__init__(input_dim, sign_bits, metric, scale)
        rank, blocks, books = sizes(input_dim, levels)
        self.books = [*range(books), *turned_books(books, levels - books)]
        # parameters, though not trained: they come from the data and count as the others do
        axes = None if input_dim <= WHOLE else nn.Parameter(torch.eye(input_dim)[:rank], requires_grad=False)
        self.register_parameter("axes", axes)
        self.codebooks = nn.Parameter(torch.zeros(books, CODEWORDS, rank))
        self.log_scales = nn.Parameter(torch.zeros(levels, blocks))
        self.turns = nn.Parameter(torch.eye(rank // blocks).repeat(levels - books, blocks, 1, 1))
        self.register_buffer("offset", torch.zeros(input_dim))

    @property
    def levels(self) -> int:
        """Number of levels M."""
        return len(self.log_scales)

    def codewords(self) -> Tensor:
        """Codewords in the vectors' axes, float32 (M, 256, d); level 1 includes the mean."""
        words = self.inner_codewords()
        words = words if self.axes is None else words @ self.axes
        return torch.cat([words[:1] + self.offset, words[1:]])

    def inner(self, prepared: Tensor) -> Tensor:
        """Rows without their mean, along the axes that are quantised, float32 (n, r)."""
        centred = prepared - self.offset
        return centred if self.axes is None else centred @ self.axes.T

    def inner_codewords(self) -> Tensor:
        """Every level's scaled and turned codewords, float32 (M, 256, r)."""
        blocks, scales = self.turns.shape[1:3], self.log_scales.exp()
        # unbind, not indexing: its gradient adds up in a fixed order
        parts = [book.view(CODEWORDS, *blocks).transpose(0, 1) for book in self.codebooks.unbind()]
        turned = [parts[book] @ turn for book, turn in zip(self.books[len(parts) :], self.turns.unbind(), strict=True)]
        return (torch.stack([*parts, *turned]) * scales[:, :, None, None]).transpose(1, 2).flatten(2)

    @torch.no_grad()
    def constrain(self) -> None:
        """Take one Newton-Schulz step towards the nearest orthogonal matrices."""
        turns = self.turns
        turns.copy_(1.5 * turns - 0.5 * turns @ turns.transpose(-1, -2) @ turns)


def sizes(dim: int, levels: int) -> tuple[int, int, int]:
    """Axes r, blocks g and codebooks K of a `RecurrentQuantizer`.

    Args:
        dim: Length d of a vector.
        levels: Number of levels M.
    """
    most = max(1, levels // 2)
    third = levels * CODEWORDS * dim // 3
    rank, blocks = dim, 1
    if dim > WHOLE:
        # numbers for each axis: itself, of the most codebooks, and of turns
        each = dim + most * CODEWORDS + (levels - most) * BLOCK
        fewest, largest = (max(WHOLE, count * levels) for count in AXES_PER_LEVEL)
        rank = min(dim, max(fewest, min(largest, third // each)))
        blocks = math.ceil(rank / BLOCK)
        rank -= rank % blocks
    turn = rank * (rank // blocks)
    room = third - (rank * dim if dim > WHOLE else 0) - levels * (blocks + turn)
    # a codebook takes 256 r numbers and saves the turn of a level
    return rank, blocks, max(min(2, levels), min(most, room // (rank * CODEWORDS - turn)))


def turned_books(books: int, levels: int) -> list[int]:
    """Numbers of the codebooks that later levels turn: of the second half, in runs."""
    serving = books - books // 2
    return [books // 2 + number * serving // levels for number in range(levels)]


def nearest(residual: Tensor, codewords: Tensor) -> Tensor:
    """Nearest codeword in L2, int64 (n,), of residuals (n, d) and codewords (256, d)."""
    return torch.addmm(codewords.square().sum(1), residual, codewords.T, alpha=-2).argmin(1)


@torch.no_grad()
def find_codes(rows: Tensor, codewords: Tensor, beam: int) -> Tensor:
    """Search codes: levels keep the ``beam`` best prefixes; the nearest code wins.

    Args:
        rows: float32 (n, d).
        codewords: float32 (M, 256, d).
        beam: Number of prefixes kept; 1 is greedy: the nearest codeword to the residual of the levels before.

    Returns:
        int64 (n, M).
    """
    search = _greedy_search if beam == 1 else _beam_search
    return torch.cat([search(chunk, codewords, beam) for chunk in torch.split(rows, _CHUNK)])


def level_parts(codes: Tensor, codewords: Tensor) -> Iterator[Tensor]:
    """Yield the codewords that each level adds, M tensors float32 (n, d).

    Args:
        codes: int64 (n, M).
        codewords: float32 (M, 256, d).
    """
    # unbind: the gradient of an index would be a tensor of all levels
    for code, level in zip(codes.unbind(1), codewords.unbind(), strict=True):
        # embedding, not indexing: its gradient adds up in a fixed order, so training can be repeated bit for bit
        yield functional.embedding(code, level)


def reconstruct(codes: Tensor, codewords: Tensor) -> Tensor:
    """Sum the codewords of every prefix.

    Args:
        codes: int64 (n, M).
        codewords: float32 (M, 256, d).

    Returns:
        float32 (n, M, d).
    """
    return torch.stack([*level_parts(codes, codewords)], dim=1).cumsum(1)


def _greedy_search(prepared: Tensor, codewords: Tensor, _: int) -> Tensor:
    residual, codes = prepared, []
    for level in codewords:
        codes.append(nearest(residual, level))
        residual = residual - level.index_select(0, codes[-1])
    return torch.stack(codes, dim=1)


def _beam_search(prepared: Tensor, codewords: Tensor, beam: int) -> Tensor:
    rows, width = len(prepared), 1
    firsts = torch.arange(rows)[:, None]
    residuals, errors, steps = prepared, torch.zeros(rows, 1), []
    for level in codewords:
        # |r - c|^2 less the part that all share; |r|^2 is carried along in errors
        costs = torch.addmm(level.square().sum(1), residuals, level.T, alpha=-2)
        costs = costs.view(rows, width, CODEWORDS).add_(errors[:, :, None]).flatten(1)
        errors, picked = costs.topk(min(beam, costs.shape[1]), dim=1, largest=False)
        parents, words = picked // CODEWORDS, picked % CODEWORDS
        steps.append((parents, words))
        # index_select, not indexing: several times as fast
        kept = residuals.index_select(0, (width * firsts + parents).flatten())
        residuals, width = kept - level.index_select(0, words.flatten()), words.shape[1]
    # from the best end back to the first level
    position, codes = torch.zeros_like(firsts), []
    for parents, words in reversed(steps):
        codes.append(words.gather(1, position))
        position = parents.gather(1, position)
    return torch.cat(codes[::-1], dim=1)


def safe_scale(values: Tensor) -> Tensor:
    """Root mean square norm of rows, never 0, as a scalar."""
    return values.square().sum(1).mean().sqrt().clamp_min(TINY)
