"""Quantisers: codes, their prefixes and look-up tables; and the recurrent one, with a turned codebook per level."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from alula.encoders import Metric
from alula_exporters.inputs import TINY, unit_rows

CODEWORDS = 256  # one byte per level
SOFTNESS = 0.05
_CHUNK = 4_096


class Quantizer(nn.Module, ABC):
    """x_hat_t = sum_{s <= t} c_s[b_s]: one codeword of every level is added up, so every prefix of a code is a code.

    Args:
        input_dim: Length d of a vector.
        sign_bits: Number of sign bits S.
        metric: COSINE, IP or L2.
        scale: Root mean square norm of the training rows (1 for COSINE).

    Attributes:
        direction_mean: float32 (d,): mean direction of the rows, which the sign bits are taken around.
        projection: float32 (S, d): stacked random orthogonal blocks, which the sign bits are taken along.
    """

    direction_mean: Tensor
    projection: Tensor

    def __init__(self, input_dim: int, sign_bits: int, metric: Metric, scale: float) -> None:
        super().__init__()
        self.metric = metric
        self.scale = scale
        self.register_buffer("direction_mean", torch.zeros(input_dim))
        self.register_buffer("projection", torch.zeros(sign_bits, input_dim))

    @property
    @abstractmethod
    def levels(self) -> int:
        """Number of levels M."""

    @abstractmethod
    def codewords(self) -> Tensor:
        """Every level's codewords as they are added up, float32 (M, 256, d)."""

    def constrain(self) -> None:
        """Go back, after an update, to what the parameters must be."""

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def prepare(self, vectors: Tensor) -> Tensor:
        """What is quantised, float32 (n, d): the direction for COSINE, x / scale for IP and L2."""
        return unit_rows(vectors)[0] if self.metric == "COSINE" else vectors / self.scale

    @torch.no_grad()
    def assign(self, prepared: Tensor, codewords: Tensor) -> Tensor:
        """Greedy codes: the nearest codeword of each level to what the levels before left over.

        Args:
            prepared: float32 (n, d).
            codewords: float32 (M, 256, d).

        Returns:
            int64 (n, M).
        """
        residual, codes = prepared, []
        for level in codewords:
            codes.append(nearest(residual, level))
            residual = residual - level[codes[-1]]
        return torch.stack(codes, dim=1)

    @torch.no_grad()
    def encode(self, prepared: Tensor, beam: int) -> Tensor:
        """Codes by beam search: at every level the ``beam`` best prefixes go on; the nearest in the end wins.

        Args:
            prepared: float32 (n, d).
            beam: How many prefixes are kept; 1 is greedy.

        Returns:
            int64 (n, M).
        """
        codewords = self.codewords()
        return torch.cat([_beam_search(chunk, codewords, beam) for chunk in torch.split(prepared, _CHUNK)])

    def forward(self, codes: Tensor) -> Tensor:
        """The reconstruction by every prefix, float32 (n, M, d), of codes int64 (n, M)."""
        return reconstruct(codes, self.codewords())

    def signs(self, reconstruction: Tensor) -> Tensor:
        """Sign bits, bool (n, S): sign(R (x / |x| - mean)), for reconstructions and queries alike, float32 (n, d)."""
        return (unit_rows(reconstruction)[0] - self.direction_mean) @ self.projection.T > 0

    def tables(self, prepared: Tensor) -> Tensor:
        """Look-up tables, float32 (n, M, 256): inner products of prepared queries with the scaled codewords."""
        return torch.einsum("nd,mkd->nmk", prepared, self.codewords())


class RecurrentQuantizer(Quantizer):
    """c_1 = v_1 R_1 C + m, c_t = v_t R_t C (Song et al., IJCAI 2019, the recurrent quantization block, with rotations).

    The paper shares one codebook C among all levels and learns one scalar v_s per level. Here each level also turns
    the codebook by an orthogonal R_s of its own, which costs nothing at search (look-up tables stay as they are) and
    halves the distortion, and the mean m of the training rows is a part of the first level's codewords.

    Args:
        input_dim: Length d of a vector.
        levels: Number of levels M; a code has one byte for each.
        sign_bits: Number of sign bits S.
        metric: COSINE, IP or L2.
        scale: Root mean square norm of the training rows (1 for COSINE).

    Attributes:
        codebook: float32 (256, d), C.
        log_scales: float32 (M,), log v_s.
        rotations: float32 (M, d, d), R_s; a row vector c is turned as c @ R_s.
        offset: float32 (d,), m.
    """

    offset: Tensor

    def __init__(
        self, input_dim: int, levels: int, sign_bits: int, metric: Metric = "COSINE", scale: float = 1.0
    ) -> None:
        super().__init__(input_dim, sign_bits, metric, scale)
        self.codebook = nn.Parameter(torch.zeros(CODEWORDS, input_dim))
        self.log_scales = nn.Parameter(torch.zeros(levels))
        self.rotations = nn.Parameter(torch.eye(input_dim).repeat(levels, 1, 1))
        self.register_buffer("offset", torch.zeros(input_dim))

    @property
    def levels(self) -> int:
        """Number of levels M."""
        return self.rotations.shape[0]

    def codewords(self) -> Tensor:
        """Every level's scaled and turned codewords, float32 (M, 256, d); the first level's hold the mean."""
        turned = torch.matmul(self.codebook, self.rotations) * self.log_scales.exp()[:, None, None]
        return torch.cat([turned[:1] + self.offset, turned[1:]])

    @torch.no_grad()
    def constrain(self) -> None:
        """One Newton-Schulz step towards the nearest orthogonal matrices: exact enough after each small update."""
        turns = self.rotations
        turns.copy_(1.5 * turns - 0.5 * turns @ turns.transpose(1, 2) @ turns)


def nearest(residual: Tensor, codewords: Tensor) -> Tensor:
    """Number of the codeword nearest in L2, int64 (n,), for residuals float32 (n, d) and codewords (256, d)."""
    return torch.addmm(codewords.square().sum(1), residual, codewords.T, alpha=-2).argmin(1)


def reconstruct(codes: Tensor, codewords: Tensor) -> Tensor:
    """Sum the codewords of every prefix.

    Args:
        codes: int64 (n, M).
        codewords: float32 (M, 256, d).

    Returns:
        float32 (n, M, d).
    """
    # embedding, not indexing: its gradient adds up in a fixed order, so training can be repeated bit for bit
    parts = [functional.embedding(codes[:, level], codewords[level]) for level in range(len(codewords))]
    return torch.stack(parts, dim=1).cumsum(1)


def soft_reconstruct(prepared: Tensor, hard: Tensor, codewords: Tensor) -> Tensor:
    """Replace each level's nearest codeword by a mean of all, which weighs near ones most (Song et al., IJCAI 2019).

    soft_t = sum_{s <= t} sum_k softmax_k(-|r_s - c_s[k]|^2 / tau_s) c_s[k], with the residuals r_s that the *hard*
    codes leave, and tau_s = `SOFTNESS` times the mean squared length of the level's codewords, so that no level is
    softer than another.

    Args:
        prepared: float32 (n, d).
        hard: float32 (n, M, d), from `reconstruct`.
        codewords: float32 (M, 256, d).

    Returns:
        float32 (n, M, d).
    """
    residuals = prepared[:, None, :] - torch.cat([torch.zeros_like(hard[:, :1]), hard[:, :-1]], dim=1)
    squares = codewords.square().sum(2)
    costs = squares - 2 * torch.einsum("nmd,mkd->nmk", residuals, codewords)  # |r|^2 is the same for all codewords
    tau = SOFTNESS * squares.detach().mean(1, keepdim=True).clamp_min(TINY)
    return torch.einsum("nmk,mkd->nmd", torch.softmax(-costs / tau, dim=2), codewords).cumsum(1)


def pack_signs(signs: Tensor) -> Tensor:
    """Pack bits as numpy.packbits does, most significant first: bool (n, S) to uint8 (n, S / 8)."""
    weights = 2 ** torch.arange(7, -1, -1)
    return (signs.view(len(signs), -1, 8) * weights).sum(2).to(torch.uint8)


def _beam_search(prepared: Tensor, codewords: Tensor, beam: int) -> Tensor:
    rows = len(prepared)
    codes = torch.zeros(rows, 1, 0, dtype=torch.int64)
    residuals, errors = prepared[:, None, :], torch.zeros(rows, 1)
    for level in codewords:
        # |r - c|^2 less the part that all share; |r|^2 is carried along in errors
        costs = errors[:, :, None] + level.square().sum(1) - 2 * (residuals @ level.T)
        errors, picked = costs.flatten(1).topk(min(beam, costs[0].numel()), dim=1, largest=False)
        parents, words = picked // CODEWORDS, picked % CODEWORDS
        residuals = residuals.gather(1, parents[:, :, None].expand(-1, -1, prepared.shape[1])) - level[words]
        codes = torch.cat([codes.gather(1, parents[:, :, None].expand(-1, -1, codes.shape[2])), words[:, :, None]], 2)
    return codes[:, 0]


def safe_scale(values: Tensor) -> Tensor:
    """Root mean square norm of rows, never 0, as a scalar."""
    return values.square().sum(1).mean().sqrt().clamp_min(TINY)
