"""The two sides of a SPLADE model in torch: queries and rows to sparse weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from alula_exporters.backbones.base import compute_device
from alula_exporters.data import F32, Inputs
from alula_exporters.sparse_checkpoints import SparseModel
from alula_exporters.splade.largest import LargestPooling, pooling_early

_CHUNK = 32  # texts: their weights are as wide as the vocabulary
_LARGEST_SHIFT = 0.5  # of logits: a model that needs less than its budget is not filled up with whatever is near
_BISECTIONS = 16


class TokenTable(nn.Module):
    """Queries by a table of token weights: that of each token of the text.

    Args:
        static: The ``SparseStaticEmbedding``, which is trained unless it is frozen.
    """

    def __init__(self, static: Any) -> None:
        super().__init__()
        self._static = static

    def compute(self, texts: Inputs) -> Tensor:
        """Weights of a batch for a training step, float32 (n, V), with gradients."""
        device = compute_device()
        self.to(device)
        features = self._static.preprocess(list(texts))
        weights: Tensor = self._static({name: features[name].to(device) for name in features})["sentence_embedding"]
        return weights

    def embed(self, texts: Inputs) -> F32:
        """The same without gradients."""
        weights: F32 = self.compute(texts).detach().cpu().numpy()
        return weights


class Sides(nn.Module):
    """Both sides of a model, which its exported file will have.

    Args:
        sparse: The model; training changes its weights.
        max_nnz: Most non-zeros in a row or a query.
    """

    def __init__(self, sparse: SparseModel, max_nnz: int | None) -> None:
        super().__init__()
        self._rows = pooling_early(sparse.backbone())
        self._queries: Any = self._rows.of_queries() if sparse.static is None else TokenTable(sparse.static)
        self._sparse, self._max_nnz = sparse, max_nnz
        self.has_table = sparse.static is not None

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Weights of documents, float32 (n, V), at most ``max_nnz`` in a row."""
        return self._heaviest(self._rows.compute(np.array(texts, object)))

    def queries(self, texts: Sequence[str]) -> Tensor:
        """Weights of queries, float32 (n, V)."""
        return self._heaviest(self._queries.compute(np.array(texts, object)))

    @torch.no_grad()
    def encode(self, texts: Sequence[str], *, queries: bool = False) -> sp.csr_array:
        """Weights of any number of texts in evaluation mode, float32 (n, V)."""
        side = self._queries if queries else self._rows
        chunks = (np.array(texts[start : start + _CHUNK], object) for start in range(0, len(texts), _CHUNK))
        kept = (self._heaviest(torch.from_numpy(side.embed(chunk))) for chunk in chunks)
        return sp.vstack([sp.csr_array(weights.numpy()) for weights in kept])

    @torch.no_grad()
    def meet_budget(self, queries: Sequence[str], documents: Sequence[str], budget: float) -> None:
        """Shift the bias of the logits until a query and a document cost the budget.

        The loop of training alone ends off the budget, because weights hardly move in the last steps of a run. The
        shift is bounded; a model whose logits have no bias stays as it is.

        Args:
            queries: Queries to count the non-zeros of.
            documents: Documents, likewise.
            budget: The cost F; see `SpladeConfig`.
        """
        pooling = self._rows.parts[0]
        if not isinstance(pooling, LargestPooling):
            return
        pooling.only_logits = True
        try:
            logits = [self._logits(self._rows, documents), self._logits(self._queries, queries)]
        finally:
            pooling.only_logits = False
        low, high = -_LARGEST_SHIFT, _LARGEST_SHIFT
        for _ in range(_BISECTIONS):
            shift = (low + high) / 2
            rows, asked = (np.bincount(one.indices[one.data > shift], minlength=one.shape[1]) for one in logits)
            cost = float(rows @ asked) / (len(documents) * len(queries))
            low, high = (shift, high) if cost > budget else (low, shift)
        pooling.bias.sub_((low + high) / 2)

    def _logits(self, side: Any, texts: Sequence[str]) -> sp.csr_array:
        """Largest logits of texts, float32 (n, V); those above a shift are non-zeros.

        The rows leave out what no shift brings above 0, and what they have no place for; a table's weights are inf.
        """
        chunks = (np.array(texts[start : start + _CHUNK], object) for start in range(0, len(texts), _CHUNK))
        return sp.vstack([self._reachable(side, torch.from_numpy(side.embed(chunk))) for chunk in chunks])

    def _reachable(self, side: Any, found: Tensor) -> sp.csr_array:
        if isinstance(side, TokenTable):
            found = torch.where(found > 0, torch.inf, -torch.inf)
        else:
            limit = self._sparse.max_nnz(self._max_nnz, found.shape[1])
            found = found.masked_fill(found < found.topk(limit, dim=1).values[:, -1:], -torch.inf)
        rows, entries = torch.nonzero(found > -_LARGEST_SHIFT, as_tuple=True)
        return sp.csr_array((found[rows, entries].numpy(), (rows.numpy(), entries.numpy())), shape=tuple(found.shape))

    def _heaviest(self, weights: Tensor) -> Tensor:
        limit = self._sparse.max_nnz(self._max_nnz, weights.shape[1])
        if int((weights > 0).sum(1).max()) <= limit:
            return weights
        lightest = weights.topk(limit, dim=1).values[:, -1:]
        return weights * (weights >= lightest)
