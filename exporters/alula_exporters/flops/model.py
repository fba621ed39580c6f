"""The sparse encoder: linear head, top k, ReLU, unit length (ICLR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alula.encoders import Metric
from alula_exporters.choices import Activation
from alula_exporters.inputs import TINY, unit_rows

# The largest activation never falls under this: a row whose activations are all negative (a zero vector, say) keeps
# one dimension, because an empty row would never be found.
FLOOR = 1e-6

# Lengths count as at most this many times the usual one: powers of an outlier's, and their products, must stay finite.
LONGEST = 1e3


class SparseEncoder(nn.Module):
    """f(x) = r / |r| with r = ReLU(top-k(h)).

    The paper's encoder with a top-k before the ReLU, which bounds the length of a row. The activation says what h is,
    and what k is for:

    - ``top-k``: h = W x' + b; k is the number of non-zeros wanted.
    - ``relu``: h = W x' + b; k is a bound that few rows reach, how long a row is follows from the regulariser.
    - ``soft-threshold``: k as for ReLU; a = S(W x') with S_j(y) = sign(y) max(|y| - |b_j|, 0) is stored as
      s(a) = [max(a, 0); max(-a, 0)], so h = [W x' - |b|; -W x' - |b|] has 2 D dimensions, because Milvus takes no
      negative weights. Lengths are kept, |s(a)| = |a|, and inner products are kept but for the cross terms:
      s(a).s(c) = a.c + sum_{j: a_j c_j < 0} |a_j c_j|, so a dimension where the signs differ counts as 0 and not as
      a penalty; without such dimensions the two are equal. Training uses s(a), so it learns what Milvus computes.

    The input x' depends on the metric: the direction x/|x|, but x/scale for L2 with ``top-k`` (with the other
    activations a short row would reach no threshold). For IP and L2 the sparse row is then multiplied by
    (|x|/scale)^p, with
    p chosen on the data: over 1 for IP, because sparse rows overlap less than their vectors do and a long row must be
    found from further away (GloVe, F = .27: share of the true top 10 in the sparse top 500 .63 with p = 1, .88 with
    3.5); under 0 for L2, where a short row is nearer at the same angle (.80 with 0, .85 with -2.5).

    Args:
        input_dim: Length d of a vector.
        dim: Number of outputs D of the linear head.
        nnz: Most non-zeros in a row, k.
        metric: COSINE, IP or L2.
        scale: Root mean square norm of the training rows (1 for COSINE).
        activation: ``top-k``, ``relu`` or ``soft-threshold``.

    Attributes:
        weight: float32 (D, d), the rows of W.
        bias: float32 (D,), b.
        length_power: float32 scalar, p (used for IP and L2).
    """

    length_power: Tensor

    def __init__(
        self,
        input_dim: int,
        dim: int,
        nnz: int,
        metric: Metric = "COSINE",
        scale: float = 1.0,
        *,
        activation: Activation = "top-k",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.nnz = nnz
        self.metric = metric
        self.scale = scale
        self.weight = nn.Parameter(torch.zeros(dim, input_dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("length_power", torch.tensor(2.0 if metric == "IP" else 0.0))

    @property
    def dim(self) -> int:
        """Number of sparse dimensions: D, or 2 D for soft-threshold."""
        return self.weight.shape[0] * (2 if self.activation == "soft-threshold" else 1)

    def prepare(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the head, float32 (n, d), and lengths |x|/scale, float32 (n, 1)."""
        directions, lengths = unit_rows(vectors)
        if self.metric == "COSINE":
            return directions, torch.ones_like(lengths)
        return vectors / self.scale if self.sees_lengths else directions, lengths / self.scale

    @property
    def sees_lengths(self) -> bool:
        """True if the head takes x/scale and not the direction."""
        return self.metric == "L2" and self.activation == "top-k"

    @property
    def shortest(self) -> float:
        """Lengths count as at least this; a negative power would blow up near 0."""
        return TINY if self.metric == "IP" else 0.25

    def multipliers(self, lengths: Tensor) -> Tensor:
        """Factors of the sparse rows, float32 (n, 1): never 0, so that rows are found."""
        if self.metric == "COSINE":
            return lengths
        return lengths.clamp(self.shortest, LONGEST).pow(self.length_power).clamp_min(TINY)

    def activations(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest activations of each row, of unit length.

        Args:
            prepared: float32 (n, d), from `prepare`.

        Returns:
            Weights float32 (n, k), non-negative and falling along a row, and their dimensions int64 (n, k).
        """
        values, dims = self.head(prepared).topk(self.nnz, dim=1)
        floor = torch.zeros(self.nnz)
        floor[0] = FLOOR
        weights = torch.maximum(values, floor)
        return weights / weights.norm(dim=1, keepdim=True), dims

    def head(self, prepared: Tensor) -> Tensor:
        """h, float32 (n, dim): what the k largest are taken of.

        Args:
            prepared: float32 (n, d), from `prepare`.
        """
        if self.activation != "soft-threshold":
            return torch.addmm(self.bias, prepared, self.weight.T)
        outputs, thresholds = prepared @ self.weight.T, self.bias.abs()
        return torch.cat([outputs - thresholds, -outputs - thresholds], dim=1)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Encode vectors, float32 (n, d), to weights and dimensions (n, k).

        Weights of 0 are padding: they are not part of the sparse row.
        """
        prepared, lengths = self.prepare(vectors)
        weights, dims = self.activations(prepared)
        return weights * self.multipliers(lengths), dims

    def dense(self, weights: Tensor, dims: Tensor) -> Tensor:
        """Rows of weights and dimensions, (n, k) each, as a dense float32 (n, D)."""
        return torch.zeros(len(weights), self.dim).scatter(1, dims, weights)
