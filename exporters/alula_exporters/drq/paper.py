"""The paper's training: soft and hard codes, in stages (Song et al., IJCAI 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from alula_exporters.drq.losses import joint_central_loss, prefix_distortions

_JOINT_WEIGHT = 0.1
TEMPERATURE = 0.05  # of rows of length 1


class PaperStages:
    """Losses and stages of the authors' code: one shared codebook, a scalar per level.

    With hard_t and soft_t the reconstructions by the first t levels, E_t^H and E_t^S their distortions:

    1. In the first half: E_1^H + E_1^S + 0.1 |soft_1 - hard_1|^2, which trains the codebook for the shortest code.
    2. In the second half every other step takes the longer codes instead, codebook and scalars:
       sum_{t >= 2} (E_t^H + E_t^S) + 0.1 |soft_M - hard_M|^2.

    A level's hard code is the nearest codeword to the residual that the hard codes before left, as the paper's
    equations have it (the published code takes the highest cosine, which collapses with many levels); its soft code is
    the mean of all codewords, weighted by the softmax of minus these squared distances. Their first stage, features
    alone, is `alula_exporters.dense.train_backbone` with the loss ``adaptive-margin``; features go on being trained by
    their labels beside, and the losses here never reach them.

    Four things are not theirs. Codebook and scalars start from the data and not from noise, without which a few epochs
    do not suffice; the softmax has a temperature, as rows have length 1 here and theirs were longer; Adam's rate
    follows one cycle; and rows are encoded in the end by beam search.

    Args:
        steps: Steps of the whole run.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def loss(self, rows: Tensor, codewords: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Loss of a step, and hard distortion of its longest code; scalars.

        Args:
            rows: float32 (n, d).
            codewords: float32 (M, 256, d).
            number: The step.
        """
        first = 2 * number < self._steps or number % 2 == 0
        hard, soft = hard_and_soft_parts(rows, codewords[:1] if first else codewords)
        hard_errors, soft_errors = prefix_distortions(rows, hard), prefix_distortions(rows, soft)
        if not first and len(hard_errors) > 1:
            hard_errors, soft_errors = hard_errors[1:], soft_errors[1:]
        joint = _JOINT_WEIGHT * joint_central_loss(torch.stack(soft).sum(0), torch.stack(hard).sum(0))
        return hard_errors.sum() + soft_errors.sum() + joint, hard_errors[-1]


def hard_and_soft_parts(rows: Tensor, codewords: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Hard and soft codewords that each level adds, M tensors float32 (n, d) each.

    Args:
        rows: float32 (n, d).
        codewords: float32 (M, 256, d).
    """
    residual, hard, soft = rows, [], []
    for level in codewords:
        # |r - c|^2 without |r|^2, which all codewords share
        distances = torch.addmm(level.square().sum(1), residual, level.T, alpha=-2)
        hard.append(functional.embedding(distances.detach().argmin(1), level))
        soft.append(torch.softmax(-distances / TEMPERATURE, dim=1) @ level)
        residual = residual - hard[-1]
    return hard, soft
