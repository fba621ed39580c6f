"""Codes of several lengths: DRQ, trained with a network, and faiss's after it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np
import torch

from alula_exporters import DrqConfig, TrainingData, train_drq
from benchmarks.papers.datasets import F32, unit
from benchmarks.papers.networks import Network
from benchmarks.papers.numbers import numbers_in_file
from benchmarks.papers.unseen import Classes, Figures

BEAM = 5


@dataclass(frozen=True)
class Quantised:
    """One method's figures of one seed.

    Args:
        found: Precisions by number of levels (bytes of code).
        networks: Networks that all lengths need.
        numbers: Numbers of the codes, of all lengths.
        seconds: Seconds of training, the networks' included.
    """

    found: Mapping[int, Figures]
    networks: int
    numbers: int
    seconds: float


# makes of queries and rows what ranks the rows by inner products
Code = Callable[[F32, F32], tuple[F32, F32]]
# makes of training rows and a number of bytes the code and its numbers
Quantiser = Callable[[F32, int], tuple[Code, int]]


def train_codes(
    classes: Classes, data: TrainingData, start: Network, groups: Sequence[Sequence[int]], config: DrqConfig
) -> Quantised:
    """DRQ, which goes on training the network: one training for each group of lengths.

    Args:
        classes: The queries and rows that are judged.
        data: The rows to train on.
        start: The network that each training starts from.
        groups: Numbers of levels; the most of a group are trained, and the others are prefixes.
        config: Options of each training but the number of levels.
    """
    found: dict[int, Figures] = {}
    numbers, seconds = 0, start.seconds
    for group in groups:
        network = copy.deepcopy(start.backbone)
        started = time.perf_counter()
        trained = train_drq(data, replace(config, levels=max(group)), backbone=network)
        seconds += time.perf_counter() - started
        model = trained.model
        numbers += numbers_in_file(trained)
        queries, rows = classes.embed(network)
        with torch.no_grad():
            codes = model.encode(torch.from_numpy(rows), config.beam).numpy()
        words = model.codewords().numpy()
        for level in group:
            x_hat = sum(words[t][codes[:, t]] for t in range(level))
            found[level] = classes.judge(queries, unit(x_hat))
    return Quantised(found, len(groups), numbers, seconds)


def quantise(
    classes: Classes, vectors: tuple[F32, F32, F32], make: Quantiser, levels: Sequence[int], seconds: float
) -> Quantised:
    """A quantiser of the vectors as they are, trained for each length.

    Args:
        classes: The queries and rows that are judged.
        vectors: Float32 of unit length: training rows (t, d), queries (q, d), rows (n, d).
        make: The quantiser, a value of `QUANTISERS`.
        levels: Lengths of codes, in bytes.
        seconds: Of the network's training.
    """
    training, queries, rows = vectors
    started = time.perf_counter()
    trained = {level: make(training, level) for level in levels}
    seconds += time.perf_counter() - started
    found = {level: classes.judge(*code(queries, rows)) for level, (code, _) in trained.items()}
    return Quantised(found, 1, sum(numbers for _, numbers in trained.values()), seconds)


def _pq(training: F32, level: int) -> tuple[Code, int]:
    return _index(_product(training.shape[1], level), training), 256 * training.shape[1]


def _opq(training: F32, level: int) -> tuple[Code, int]:
    dim = training.shape[1]
    filled = -(-dim // level) * level
    turn = faiss.OPQMatrix(dim, level, filled)
    turn.pq = faiss.ProductQuantizer(filled, level, 8)
    turn.pq.cp.min_points_per_centroid = 1
    index = faiss.IndexPreTransform(turn, faiss.IndexPQ(filled, level, 8))
    return _index(index, training), 256 * filled + dim * filled


def _product(dim: int, level: int) -> Any:
    """PQ, behind zeros where the parts would not be of one length."""
    filled = -(-dim // level) * level
    index = faiss.IndexPQ(filled, level, 8)
    return index if filled == dim else faiss.IndexPreTransform(faiss.RemapDimensionsTransform(dim, filled, True), index)


def _rq(training: F32, level: int) -> tuple[Code, int]:
    index = faiss.IndexResidualQuantizer(training.shape[1], level, 8)
    index.rq.max_beam_size = BEAM
    return _index(index, training, cosine=True), level * 256 * training.shape[1]


def _index(index: Any, training: F32, *, cosine: bool = False) -> Code:
    inner: Any = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    # faiss warns of fewer than 39 rows for a codeword, and a quick run has no more
    (inner.rq if cosine else inner.pq).cp.min_points_per_centroid = 1
    index.train(training)

    def code(queries: F32, rows: F32) -> tuple[F32, F32]:
        x_hat = np.asarray(index.sa_decode(index.sa_encode(rows)))
        if cosine:
            return queries, unit(x_hat)
        # <q, x> - |x|^2 / 2 ranks as L2 does
        halves = 0.5 * np.square(x_hat).sum(1, keepdims=True)
        return np.hstack([queries, -np.ones((len(queries), 1), np.float32)]), np.hstack([x_hat, halves])

    return code


def _itq(training: F32, level: int) -> tuple[Code, int]:
    """Signs of rotated principal components, weighed by the query's."""
    dim, bits = training.shape[1], 8 * level
    turn = faiss.ITQTransform(dim, bits, True)
    turn.train(training)

    def code(queries: F32, rows: F32) -> tuple[F32, F32]:
        return turn.apply(queries), np.where(turn.apply(rows) > 0, 1, -1).astype(np.float32)

    return code, dim + dim * bits


QUANTISERS: Mapping[str, Quantiser] = {"PQ": _pq, "OPQ": _opq, "RQ": _rq, "ITQ signs": _itq}
