"""Table 3: one labelled DRQ model for all lengths, against quantisers per length."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch

from alula_exporters import DrqConfig, train_drq
from alula_exporters.choices import LabelLoss
from benchmarks.papers.datasets import F32, spread
from benchmarks.papers.labelled import Pictures, dense_network, judge, load_pictures, unit_vectors
from benchmarks.report import Report, say

TITLE = "DRQ with labels against quantisers of the same network's vectors"
ANSWERS = """\
The question: when rows have classes and a row is right if it has the query's class, how much of the network's ranking
survives in codes of 1 to 4 bytes? "mAP" is the mean average precision over the whole gallery: the mean, over a query's
right rows, of the share of right rows among all ranked as high or higher; 1 is a perfect ranking. The pictures are
Fashion-MNIST's (10 classes of clothes), split once: 5,000 to train on (a tenth of them is held out), 1,000 queries, the
others are searched. Queries keep their float vector; only the searched rows are codes, ranked by the distance of the
query to the row's reconstruction.

All methods start from the same small convolutional network with 48 outputs, trained from nothing with the labels
(contrastive loss). "Dense" ranks by its vectors themselves, unit length: nothing that quantises them is expected to do
much better. faiss's PQ, OPQ and RQ quantise them as they are (RQ with beam 5), ITQ keeps the signs of rotated principal
components, and a row's score is the product of its signs with the query's float components. DRQ goes on training the
network with the labels while it learns its codes: "default" shares one turned and scaled codebook among its levels but
the first, "separate" has a codebook per level, and "paper" follows the published training (Song et al., IJCAI 2019):
the adaptive margin loss, for the features too, so it has a dense row of its own.

One training run of DRQ gives all four lengths: a shorter code is a prefix of the longest. PQ, OPQ and ITQ need a model
for each length. RQ is trained for each length here as well, though its first codebooks would serve shorter codes too.
"Trained numbers" are those of the codes, for all lengths together, without the network. "Training s" is what all
lengths took together, on top of the network's own training; for DRQ most of it is the network, which goes on learning.
Figures with ± are means and standard deviations over seeds of training. A code may rank a little better than the
vectors it stands for: rows of one class that share a codeword are no longer apart.

From 16 bits on, all that learn from the data rank as well as the network itself does, and the order among them is
inside the spread over seeds; only at 8 bits does it matter how a code was trained.
"""
SEEDS = (0, 1, 2)

LEVELS = (1, 2, 3, 4)
BEAM = 5
DEFAULT, PAPER = "DRQ default", "DRQ paper"
DRQ: dict[str, DrqConfig] = {
    DEFAULT: DrqConfig(levels=max(LEVELS), loss="contrastive", beam=BEAM),
    "DRQ separate": DrqConfig(levels=max(LEVELS), loss="contrastive", beam=BEAM, mode="separate"),
    PAPER: DrqConfig(levels=max(LEVELS), loss="adaptive-margin", beam=BEAM, mode="paper"),
}


@dataclass(frozen=True)
class Targets:
    """The targets of the default DRQ.

    Args:
        behind_best: Most mAP that it may be behind the best method of each length ...
        over_paper: ... and how much at least it is ahead of the paper's training.
    """

    behind_best: float
    over_paper: float


FULL = Targets(behind_best=0.01, over_paper=0.0)
# few steps train neither the network nor the codes to the end, and one seed is no mean
QUICK = Targets(behind_best=0.03, over_paper=-0.01)


@dataclass(frozen=True)
class Quantised:
    """One method's figures of one seed.

    Args:
        maps: mAP by number of levels (bytes of code).
        models: Number of models for all lengths.
        numbers: Number of trained numbers of the codes.
        seconds: Seconds of training, for all lengths.
    """

    maps: dict[int, float]
    models: int
    numbers: int
    seconds: float


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of a network, float32 (n, 48) each."""

    training: F32
    queries: F32
    rows: F32


def measure(report: Report, *, quick: bool) -> None:
    """All methods, seed by seed."""
    pictures = load_pictures(quick)
    name = f"Fashion-MNIST, {len(pictures.rows[0]):,} rows"
    dense: dict[LabelLoss, list[float]] = {}
    results: dict[str, list[Quantised]] = {}
    for seed in SEEDS[:1] if quick else SEEDS:
        with report.part(f"{name}, dense networks, seed {seed}"):
            vectors = _vectors(pictures, quick, seed)
            dense.setdefault("contrastive", []).append(judge(pictures, vectors.queries, vectors.rows)[1])
            others = _vectors(pictures, quick, seed, "adaptive-margin")
            dense.setdefault("adaptive-margin", []).append(judge(pictures, others.queries, others.rows)[1])
        say("  " + ", ".join(f"{loss} {values[-1]:.3f}" for loss, values in dense.items()))
        for method, quantise in _methods(pictures, vectors, quick, seed):
            with report.part(f"{name}, {method}, seed {seed}"):
                one = quantise()
            say(f"  {' '.join(f'{value:.3f}' for value in one.maps.values())}, trained in {one.seconds:.0f} s")
            results.setdefault(method, []).append(one)
    _rows(report, name, dense, results)
    _picture(report, name, dense, results)
    _targets(report, results, QUICK if quick else FULL)


def _vectors(pictures: Pictures, quick: bool, seed: int, loss: LabelLoss = "contrastive") -> Vectors:
    network = dense_network(quick, seed, loss)
    parts = (pictures.data(seed).train, pictures.queries[0], pictures.rows[0])
    return Vectors(*(unit_vectors(network, part) for part in parts))


def _methods(
    pictures: Pictures, vectors: Vectors, quick: bool, seed: int
) -> Iterator[tuple[str, Callable[[], Quantised]]]:
    for method, config in DRQ.items():
        yield method, partial(_drq, pictures, config, quick, seed)
    for method, make in (("PQ", _pq), ("OPQ", _opq), ("RQ", _rq), ("ITQ signs", _itq)):
        yield method, partial(_rival, pictures, vectors, make)


def _drq(pictures: Pictures, config: DrqConfig, quick: bool, seed: int) -> Quantised:
    loss: LabelLoss = "adaptive-margin" if config.mode == "paper" else "contrastive"
    network = dense_network(quick, seed, loss)
    config = replace(config, seed=seed, epochs=3 if quick else config.epochs)
    started = time.perf_counter()
    trained = train_drq(pictures.data(seed), config, backbone=network)
    seconds = time.perf_counter() - started
    model = trained.model
    queries = unit_vectors(network, pictures.queries[0])
    with torch.no_grad():
        prepared = torch.from_numpy(unit_vectors(network, pictures.rows[0]))
        codes = model.encode(prepared, config.beam).numpy()
        words = model.codewords().numpy()
    maps = {}
    reconstruction = np.zeros(prepared.shape, np.float32)
    for level in LEVELS:
        reconstruction += words[level - 1][codes[:, level - 1]]
        maps[level] = judge(pictures, queries, reconstruction)[1]
    # numbers of the sign bits are no part of the code
    others = [buffer.numel() for name, buffer in model.named_buffers() if not name.startswith("signs.")]
    return Quantised(maps, 1, model.parameter_count + sum(others), seconds)


# what a rival makes of rows at a length: their queries, their reconstructions, and how many numbers it trained
Rival = Callable[[F32, int], tuple[Callable[[Vectors], tuple[F32, F32]], int]]


def _rival(pictures: Pictures, vectors: Vectors, make: Rival) -> Quantised:
    started = time.perf_counter()
    trained = {level: make(vectors.training, level) for level in LEVELS}
    seconds = time.perf_counter() - started
    maps = {level: judge(pictures, *code(vectors))[1] for level, (code, _) in trained.items()}
    return Quantised(maps, len(LEVELS), sum(numbers for _, numbers in trained.values()), seconds)


def _pq(training: F32, level: int) -> tuple[Callable[[Vectors], tuple[F32, F32]], int]:
    return _index(faiss.IndexPQ(training.shape[1], level, 8), training), 256 * training.shape[1]


def _opq(training: F32, level: int) -> tuple[Callable[[Vectors], tuple[F32, F32]], int]:
    dim = training.shape[1]
    turn = faiss.OPQMatrix(dim, level)
    turn.pq = faiss.ProductQuantizer(dim, level, 8)
    turn.pq.cp.min_points_per_centroid = 1
    index = faiss.IndexPreTransform(turn, faiss.IndexPQ(dim, level, 8))
    return _index(index, training), 256 * dim + dim * dim


def _rq(training: F32, level: int) -> tuple[Callable[[Vectors], tuple[F32, F32]], int]:
    index = faiss.IndexResidualQuantizer(training.shape[1], level, 8)
    index.rq.max_beam_size = BEAM
    return _index(index, training), level * 256 * training.shape[1]


def _index(index: Any, training: F32) -> Callable[[Vectors], tuple[F32, F32]]:
    inner: Any = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    # faiss warns of fewer than 39 rows for a codeword, and there are no more
    (inner.rq if isinstance(inner, faiss.IndexResidualQuantizer) else inner.pq).cp.min_points_per_centroid = 1
    index.train(training)
    return lambda vectors: (vectors.queries, np.asarray(index.sa_decode(index.sa_encode(vectors.rows))))


def _itq(training: F32, level: int) -> tuple[Callable[[Vectors], tuple[F32, F32]], int]:
    """Signs of rotated principal components; L2 ranks them as the inner product does."""
    dim, bits = training.shape[1], 8 * level
    turn = faiss.ITQTransform(dim, bits, True)
    turn.train(training)

    def code(vectors: Vectors) -> tuple[F32, F32]:
        signs = np.where(turn.apply(vectors.rows) > 0, 1, -1).astype(np.float32)
        return np.asarray(turn.apply(vectors.queries)), signs

    return code, dim + dim * bits


def _rows(report: Report, name: str, dense: dict[LabelLoss, list[float]], results: dict[str, list[Quantised]]) -> None:
    for loss, values in dense.items():
        report.row(name, method=f"dense, {loss}", **{"float mAP": spread(values)})
    for method, seeds in results.items():
        report.row(
            name,
            method=method,
            **{f"{8 * level} bits": spread([one.maps[level] for one in seeds]) for level in LEVELS},
            models=seeds[0].models,
            **{
                "trained numbers": seeds[0].numbers,
                "training s": round(float(np.mean([one.seconds for one in seeds])), 1),
            },
        )


def _picture(
    report: Report, name: str, dense: dict[LabelLoss, list[float]], results: dict[str, list[Quantised]]
) -> None:
    lines: dict[str, list[tuple[float, float]]]
    lines = {method: [(8 * level, _mean(seeds, level)) for level in LEVELS] for method, seeds in results.items()}
    for loss, values in dense.items():
        lines[f"dense, {loss}"] = [(size, float(np.mean(values))) for size in (8 * LEVELS[0], 8 * LEVELS[-1])]
    report.picture("table3", name, "bits of code", "mAP", lines)


def _mean(seeds: list[Quantised], level: int) -> float:
    return float(np.mean([one.maps[level] for one in seeds]))


def _targets(report: Report, results: dict[str, list[Quantised]], targets: Targets) -> None:
    for level in LEVELS:
        figures = {method: _mean(seeds, level) for method, seeds in results.items()}
        best = max(figures, key=lambda method: figures[method])
        ours = figures[DEFAULT]
        what = f"{8 * level} bits, mAP: {DEFAULT} over"
        report.at_least(f"{what} the best ({best})", ours - figures[best], -targets.behind_best)
        report.at_least(f"{what} {PAPER}", ours - figures[PAPER], targets.over_paper)
    models = results[DEFAULT][0].models
    report.target(f"{DEFAULT}: models for {len(LEVELS)} lengths", models, "1", models == 1)
