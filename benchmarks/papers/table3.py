"""Table 3: one labelled DRQ training for all lengths, against one for each length."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch
from torch import nn

from alula_exporters import DrqConfig, TrainingData, make_training_data, train_drq
from alula_exporters.backbones import Backbone, VectorBackbone
from alula_exporters.choices import LabelLoss, Mode
from alula_exporters.dense import BackboneConfig, train_backbone
from benchmarks.papers.datasets import F32, spread, unit
from benchmarks.papers.unseen import DEPTHS, Classes, load_classes, precisions
from benchmarks.report import Report, say

TITLE = "DRQ with labels: one training for all lengths, and one for each"
ANSWERS = """\
The question: codes of several lengths are wanted of a network that learns with them. Is one training of Deep Recurrent
Quantization (Song et al., IJCAI 2019), whose shorter codes are prefixes of the longest, as good as a training for each
length, and what does it save? The rows are all glosses of WordNet as MiniLM's vectors; the class of a noun's gloss is
its direct hypernym. 1,300 classes are trained on. Of 325 others five glosses each are queries, and the rest of them is
searched for among all other glosses of WordNet. A found row is right if it has the query's class: "recall@1" is the
share of queries whose best row is right, "P@4" the share of right rows among the first 4. Queries keep their float
vector; only the searched rows are codes, ranked by the cosine of the query to the row's reconstruction (PQ and OPQ by
L2, as faiss does).

All start from one network for a seed: two layers on MiniLM's vectors that end in 128 numbers, trained with ArcFace. DRQ
goes on training it while it learns codes. "Default, once" has codebooks for half of its levels, which the others turn
and scale; "shared, once" has the paper's structure, one codebook and a scale per level; "default, each" and "separate,
each" train network and codes for each length, "separate" with a codebook per level. "Paper, once" has the paper's
losses and stages: the adaptive margin loss, with the mean of a class's given vectors in the place of the word vector of
its name, for the network too, so it has a dense row of its own. "Dense" ranks by the network's vectors; "dense, as
long" has gone on training for as many steps as DRQ did. faiss's PQ, OPQ, RQ (beam 5) and ITQ's signs quantise the
vectors of "dense, as long" afterwards, with a model for each length.

"Numbers" are those of the codes for all lengths together, without the networks; "networks" is how many of these are
trained and must be served. "Seconds" are of one seed's whole training, all lengths, the network's included: what the
paper's claim of one training is about. Figures with ± are means and standard deviations over seeds.
"""
SEEDS = (0, 1, 2)

LEVELS = (1, 2, 4, 6)
BEAM = 5
DIM = 128
HIDDEN = 1_024
EPOCHS = 12  # of the network alone, and again of network and codes
RATE = 2e-3  # of the network while codes learn
ONCE, EACH, SEPARATE, PAPER = "DRQ default, once", "DRQ default, each", "DRQ separate, each", "DRQ paper, once"
SHARED = "DRQ shared, once"
DENSE, AS_LONG, DENSE_PAPER = "dense", "dense, as long", "dense, adaptive margin"
TRAININGS: dict[str, tuple[Mode, LabelLoss, tuple[tuple[int, ...], ...]]] = {
    ONCE: ("default", "arcface", (LEVELS,)),
    SHARED: ("shared", "arcface", (LEVELS,)),
    PAPER: ("paper", "adaptive-margin", (LEVELS,)),
    EACH: ("default", "arcface", tuple((level,) for level in LEVELS)),
    SEPARATE: ("separate", "arcface", tuple((level,) for level in LEVELS)),
}
QUICK_TRAININGS = (ONCE, PAPER, EACH)
BEHIND = 0.01  # recall@1 that one training may be behind one for each length ...
QUICK = 0.1  # ... and behind anything in a quick run, which trains nothing to its end

Figures = Mapping[int, float]  # precision by depth


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


@dataclass(frozen=True)
class Trained:
    """A network, and the seconds that it took."""

    network: Backbone
    seconds: float


def measure(report: Report, *, quick: bool) -> None:
    """All methods, seed by seed."""
    classes = load_classes(quick)
    name = f"{len(classes.rows[0]):,} glosses, {len(classes.queries[0]):,} queries of unseen classes"
    dense: dict[str, list[Figures]] = {}
    results: dict[str, list[Quantised]] = {}
    for seed in SEEDS[:1] if quick else SEEDS:
        data = _data(classes, seed)
        with report.part(f"dense networks, seed {seed}"):
            networks = _networks(data, quick, seed)
            for key, one in networks.items():
                dense.setdefault(key, []).append(_judge(classes, *_vectors(classes, one.network)))
        say("  " + ", ".join(f"{key} {values[-1][1]:.3f}" for key, values in dense.items()))
        for method, quantise in _methods(classes, data, networks, quick, seed):
            with report.part(f"{method}, seed {seed}"):
                quantised = quantise()
            say(f"  {' '.join(f'{one[1]:.3f}' for one in quantised.found.values())}, {quantised.seconds:.0f} s")
            results.setdefault(method, []).append(quantised)
    _rows(report, name, dense, results)
    _picture(report, name, dense, results)
    _targets(report, results, quick)


def _data(classes: Classes, seed: int) -> TrainingData:
    """The training rows; a class is described by the mean of its rows."""
    vectors, labels = classes.training
    means = np.stack([vectors[labels == label].mean(0) for label in np.unique(labels)])
    return make_training_data(vectors, labels, label_vectors=means, seed=seed)


def _networks(data: TrainingData, quick: bool, seed: int) -> dict[str, Trained]:
    """The network that all start from, the same trained on, and the paper's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(data.dim, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM)]
        untrained = VectorBackbone(nn.Sequential(*layers), data.dim)

    def trained(start: Backbone, loss: LabelLoss, before: float = 0.0) -> Trained:
        network = copy.deepcopy(start)
        started = time.perf_counter()
        config = BackboneConfig(loss=loss, epochs=2 if quick else EPOCHS, batch=256, learning_rate=RATE, seed=seed)
        train_backbone(network, data, config)
        return Trained(network, before + time.perf_counter() - started)

    first = trained(untrained, "arcface")
    return {
        DENSE: first,
        AS_LONG: trained(first.network, "arcface", first.seconds),
        DENSE_PAPER: trained(untrained, "adaptive-margin"),
    }


def _vectors(classes: Classes, network: Backbone) -> tuple[F32, F32]:
    """Unit vectors of the queries and of the rows."""
    return unit(network.embed(classes.queries[0])), unit(network.embed(classes.rows[0]))


def _methods(
    classes: Classes, data: TrainingData, networks: Mapping[str, Trained], quick: bool, seed: int
) -> Iterator[tuple[str, Callable[[], Quantised]]]:
    for method in QUICK_TRAININGS if quick else TRAININGS:
        start = networks[DENSE_PAPER if method == PAPER else DENSE]
        yield method, partial(_drq, classes, data, start, method, quick, seed)
    long = networks[AS_LONG]
    training, (queries, rows) = unit(long.network.embed(data.train)), _vectors(classes, long.network)
    for name, make in (("PQ", _pq), ("OPQ", _opq), ("RQ", _rq), ("ITQ signs", _itq)):
        yield name, partial(_rival, classes, (training, queries, rows), make, long.seconds)


def _drq(classes: Classes, data: TrainingData, start: Trained, method: str, quick: bool, seed: int) -> Quantised:
    """One training for each group of lengths."""
    mode, loss, groups = TRAININGS[method]
    found: dict[int, Figures] = {}
    numbers, seconds = 0, start.seconds
    for group in groups:
        network = copy.deepcopy(start.network)
        config = DrqConfig(
            mode=mode,
            levels=max(group),
            loss=loss,
            beam=BEAM,
            epochs=2 if quick else EPOCHS,
            backbone_learning_rate=RATE,
            seed=seed,
        )
        started = time.perf_counter()
        model = train_drq(data, config, backbone=network).model
        seconds += time.perf_counter() - started
        # numbers of the sign bits are no part of the code
        others = [buffer.numel() for name, buffer in model.named_buffers() if not name.startswith("signs.")]
        numbers += model.parameter_count + sum(others)
        queries, rows = _vectors(classes, network)
        with torch.no_grad():
            codes = model.encode(torch.from_numpy(rows), BEAM).numpy()
        words = model.codewords().numpy()
        for level in group:
            x_hat = sum(words[t][codes[:, t]] for t in range(level))
            found[level] = _judge(classes, queries, unit(x_hat))
    return Quantised(found, len(groups), numbers, seconds)


# makes of training rows at a length: what codes rows and queries so that inner products rank, and its numbers
Rival = Callable[[F32, int], tuple[Callable[[F32, F32], tuple[F32, F32]], int]]


def _rival(classes: Classes, vectors: tuple[F32, F32, F32], make: Rival, seconds: float) -> Quantised:
    training, queries, rows = vectors
    started = time.perf_counter()
    trained = {level: make(training, level) for level in LEVELS}
    seconds += time.perf_counter() - started
    found = {level: _judge(classes, *code(queries, rows)) for level, (code, _) in trained.items()}
    return Quantised(found, 1, sum(numbers for _, numbers in trained.values()), seconds)


def _pq(training: F32, level: int) -> tuple[Callable[[F32, F32], tuple[F32, F32]], int]:
    return _index(_product(training.shape[1], level), training), 256 * training.shape[1]


def _opq(training: F32, level: int) -> tuple[Callable[[F32, F32], tuple[F32, F32]], int]:
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


def _rq(training: F32, level: int) -> tuple[Callable[[F32, F32], tuple[F32, F32]], int]:
    index = faiss.IndexResidualQuantizer(training.shape[1], level, 8)
    index.rq.max_beam_size = BEAM
    return _index(index, training, cosine=True), level * 256 * training.shape[1]


def _index(index: Any, training: F32, *, cosine: bool = False) -> Callable[[F32, F32], tuple[F32, F32]]:
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


def _itq(training: F32, level: int) -> tuple[Callable[[F32, F32], tuple[F32, F32]], int]:
    """Signs of rotated principal components, weighed by the query's."""
    dim, bits = training.shape[1], 8 * level
    turn = faiss.ITQTransform(dim, bits, True)
    turn.train(training)

    def code(queries: F32, rows: F32) -> tuple[F32, F32]:
        return turn.apply(queries), np.where(turn.apply(rows) > 0, 1, -1).astype(np.float32)

    return code, dim + dim * bits


def _judge(classes: Classes, queries: F32, rows: F32) -> Figures:
    """Precisions of the best rows by inner product."""
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows))
    found = index.search(np.ascontiguousarray(queries), max(DEPTHS))[1]
    return precisions(found, classes.queries[1], classes.rows[1])


def _rows(report: Report, name: str, dense: dict[str, list[Figures]], results: dict[str, list[Quantised]]) -> None:
    for depth, what in ((1, "recall@1"), (4, "P@4")):
        table = f"{name}: {what}"
        for key, values in dense.items():
            report.row(table, method=key, float=spread([one[depth] for one in values]))
        for method, seeds in results.items():
            by_bits = {f"{8 * level} bits": spread([one.found[level][depth] for one in seeds]) for level in LEVELS}
            seconds = round(float(np.mean([one.seconds for one in seeds])))
            report.row(
                table,
                method=method,
                **by_bits,
                networks=seeds[0].networks,
                numbers=seeds[0].numbers,
                seconds=seconds,
            )


def _picture(report: Report, name: str, dense: dict[str, list[Figures]], results: dict[str, list[Quantised]]) -> None:
    lines: dict[str, list[tuple[float, float]]]
    lines = {method: [(8 * level, _mean(seeds, level)) for level in LEVELS] for method, seeds in results.items()}
    for key, values in dense.items():
        mean = float(np.mean([one[1] for one in values]))
        lines[key] = [(size, mean) for size in (8 * LEVELS[0], 8 * LEVELS[-1])]
    report.picture("table3", name, "bits of code", "recall@1", lines)


def _mean(seeds: list[Quantised], level: int, depth: int = 1) -> float:
    return float(np.mean([one.found[level][depth] for one in seeds]))


def _targets(report: Report, results: dict[str, list[Quantised]], quick: bool) -> None:
    for level in LEVELS:
        ours, what = _mean(results[ONCE], level), f"{8 * level} bits, recall@1: {ONCE}, over"
        report.at_least(f"{what} {EACH}", ours - _mean(results[EACH], level), -QUICK if quick else -BEHIND)
        after = {name: _mean(results[name], level) for name in ("PQ", "OPQ", "RQ", "ITQ signs")}
        best = max(after, key=lambda name: after[name])
        report.at_least(f"{what} the best of faiss's ({best})", ours - after[best], -QUICK if quick else 0.0)
        report.at_least(f"{what} {PAPER}", ours - _mean(results[PAPER], level), -QUICK if quick else 0.0)
    once, each = (float(np.mean([one.seconds for one in results[method]])) for method in (ONCE, EACH))
    report.target(f"Seconds of {ONCE}, over {EACH}", once / each, "<= 0.5", once <= 0.5 * each)
