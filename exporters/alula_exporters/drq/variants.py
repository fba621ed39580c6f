"""The paper's quantiser and its baseline: fewer and more parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alula.encoders import Metric
from alula_exporters.choices import Mode
from alula_exporters.drq.model import CODEWORDS, Quantizer, RecurrentQuantizer


class SharedQuantizer(Quantizer):
    """c_t = v_t C: one codebook and one scalar per level (Song et al., IJCAI 2019).

    Args:
        input_dim: Length d of a vector.
        levels: Number of levels M.
        sign_bits: Number of sign bits S.
        metric: COSINE, IP or L2.
        scale: Root mean square norm of the training rows (1 for COSINE).

    Attributes:
        codebook: float32 (256, d), C.
        later_scales: float32 (M - 1,), v_2 to v_M; v_1 is 1.
    """

    def __init__(
        self, input_dim: int, levels: int, sign_bits: int, metric: Metric = "COSINE", scale: float = 1.0
    ) -> None:
        super().__init__(input_dim, sign_bits, metric, scale)
        self.codebook = nn.Parameter(torch.zeros(CODEWORDS, input_dim))
        self.later_scales = nn.Parameter(torch.ones(levels - 1))

    @property
    def levels(self) -> int:
        """Number of levels M."""
        return len(self.later_scales) + 1

    @property
    def scales(self) -> Tensor:
        """v_t, float32 (M,)."""
        return torch.cat([self.later_scales.new_ones(1), self.later_scales])

    def codewords(self) -> Tensor:
        """Every level's scaled codewords, float32 (M, 256, d)."""
        return self.scales[:, None, None] * self.codebook


class SeparateQuantizer(Quantizer):
    """c_t = s_t C_t: a codebook per level, residual quantisation (paper's baseline).

    Args:
        input_dim: Length d of a vector.
        levels: Number of levels M.
        sign_bits: Number of sign bits S.
        metric: COSINE, IP or L2.
        scale: Root mean square norm of the training rows (1 for COSINE).

    Attributes:
        codebooks: float32 (M, 256, d), C_t without their scales.
        log_scales: float32 (M,): logarithms of the scales. Codebooks are of like size beside them, and so learn alike.
    """

    def __init__(
        self, input_dim: int, levels: int, sign_bits: int, metric: Metric = "COSINE", scale: float = 1.0
    ) -> None:
        super().__init__(input_dim, sign_bits, metric, scale)
        self.codebooks = nn.Parameter(torch.zeros(levels, CODEWORDS, input_dim))
        self.log_scales = nn.Parameter(torch.zeros(levels))

    @property
    def levels(self) -> int:
        """Number of levels M."""
        return self.codebooks.shape[0]

    def codewords(self) -> Tensor:
        """The scaled codebooks, float32 (M, 256, d)."""
        return self.log_scales.exp()[:, None, None] * self.codebooks


QUANTIZERS: Mapping[Mode, type[RecurrentQuantizer] | type[SharedQuantizer] | type[SeparateQuantizer]] = {
    "default": RecurrentQuantizer,
    "shared": SharedQuantizer,
    "paper": SharedQuantizer,
    "separate": SeparateQuantizer,
}
