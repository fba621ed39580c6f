"""Table 6: pictures of unseen characters, searched by sparse rows and by codes."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from alula.kernels import warm_up
from alula_exporters import DrqConfig, FlopsConfig, TrainingData, train_flops
from alula_exporters.backbones import image_backbone
from alula_exporters.choices import PAPER_DIM, LabelLoss, Mode
from alula_exporters.data import fingerprint
from alula_exporters.dense import BackboneConfig
from benchmarks.characters import U8
from benchmarks.papers.curves import mean_gain
from benchmarks.papers.datasets import F32, spread, unit
from benchmarks.papers.networks import AS_LONG, DENSE, DENSE_PAPER, Network, dense_networks, train_network
from benchmarks.papers.quantisers import BEAM, QUANTISERS, Quantised, quantise, train_codes
from benchmarks.papers.sparse_rows import (
    Cost,
    build_index,
    cost_cells,
    count_cost,
    encode,
    posting_bytes,
    split_queries,
)
from benchmarks.papers.unseen import DEPTHS, Classes, Figures, class_means, load_pictures
from benchmarks.report import Report, say

TITLE = "pictures of unseen characters in unseen fonts, end to end"
ANSWERS = """\
The question: a network learns from pictures together with its sparse rows or codes; how well do these find classes that
it has never seen, beside the network's own vectors and faiss's codes of them? The pictures are the 2,965 kanji of JIS X
0208's first level in 24 of Debian's fonts, drawn at 24 x 24 pixels; the class is the character. The networks learn
2,372 characters in 18 fonts. Of each of the 593 others two pictures in 6 other fonts are queries; its other pictures in
these fonts are searched for, among all trained characters in the unseen fonts: neither a character that is searched for
nor a font that is searched was seen in training. A found row is right if it has the query's character: "recall@1" is
the share of queries whose best row is right, "P@4" the share of right rows among the first 4.

`cnn` and `resnet` are the two image networks of `alula train`. All methods go on training one network of a seed that
ends in 128 numbers ("dense"), and all its weights: "dense, as long" with the label loss alone, the sparse encoders with
a layer of 1,024 outputs, DRQ with its codes. The loss is the contrastive one, the default of `alula train`. "DRQ
default" and "DRQ paper" are trained once for all four lengths. The paper's has its losses and stages: the adaptive
margin loss, with the mean of a character's training pictures at 8 x 8 pixels in the place of the word vector of its
name, for the network too, which ends in two layers of 212 and 300 numbers that are both its vector: it has a dense row
of its own. "Moved pictures" is "dense" with the FLOPs paper's augmentation for small pictures: in each epoch each is
moved by up to two pixels, and cut off (mirrored characters are none). `alula train` has no such option. The sparse
encoders are trained to the FLOPs in the column "setting" (top-k to the FLOPs that its length allows); the column
"FLOPs" counts them on the searched rows, where L1 and the FLOPs regulariser can differ. faiss's PQ, OPQ and ITQ's signs
quantise the vectors of "dense, as long" afterwards, with a model for each length, PQ also at 128 bytes, fewer than
sparse rows have at F = 1; the query keeps its float vector, as for DRQ (PQ and OPQ rank by L2, as faiss does).

FLOPs are the multiplications per pair of rows (of dense vectors their numbers), R_sub is how much more they are than if
all dimensions were used alike (1 is the best). "Bytes/row" are those of the posting lists with their weights, of the
vectors or of the code, without the 2 bytes of a norm that a search by DRQ's codes stores beside them. Nothing is
re-ranked. 16,603 rows are too few to time a search: table 2 does. "Seconds" are of one seed's whole training, the
network's included. Figures with ± are means and standard deviations over seeds. `resnet` costs more than five times as
much: it has one seed, fewer epochs and fewer rows, and no target compares it. Where a target compares at equal FLOPs,
recall between two points of a line is linear in the logarithm of the cost.
"""
SEEDS = (0, 1, 2)

DIM = 128
HEAD = 1_024
BATCH = 256
LOSS: LabelLoss = "contrastive"
RATE = 2e-3  # of the network while it goes on training
LEVELS = (2, 3, 4, 6)
WIDE = 128  # bytes of the longest code of PQ, fewer than those of a sparse row at F = 1
MARGIN = 2  # pixels that pictures are moved by at most
MEAN_SIDE = 8  # of the mean picture that describes a character

RELU = RELU_FLOPS, RELU_L1 = "ReLU + FLOPs", "ReLU + L1"
SOFT_FLOPS, TOP_K = "soft-threshold + FLOPs", "top-k + FLOPs"
ONCE, PAPER = "DRQ default, once", "DRQ paper, once"
CHEAP, DEAR = "F = 1", "F = 4"
MOVED = "dense, moved pictures"
AFTERWARDS = ("PQ", "OPQ", "ITQ signs")

Key = tuple[str, str]  # method, setting


def _sparse_options(activation: str, regulariser: str, flops: float) -> dict[str, Any]:
    return {"activation": activation, "regulariser": regulariser, "flops": flops, "most_nnz": HEAD // 4}


SPARSE: dict[Key, dict[str, Any]] = {
    (RELU_FLOPS, CHEAP): _sparse_options("relu", "flops", 1),
    (RELU_FLOPS, DEAR): _sparse_options("relu", "flops", 4),
    (RELU_L1, CHEAP): _sparse_options("relu", "l1", 1),
    (RELU_L1, DEAR): _sparse_options("relu", "l1", 4),
    (SOFT_FLOPS, CHEAP): _sparse_options("soft-threshold", "flops", 1),
    (TOP_K, "k = 32"): {"nnz": 32},
}
SIMILAR = 0.01  # recall@1 that "similar or better" may be behind ...
QUICK = 0.3  # ... and anything in a quick run, which trains nothing to its end


@dataclass(frozen=True)
class Plan:
    """Trainings of one image network.

    Args:
        seeds: Of the training.
        first: Epochs from nothing.
        more: Epochs of each training that goes on.
        sparse: Sparse encoders, keys of `SPARSE`.
        whole: True with the DRQ paper's training, with moved pictures, and with targets.
    """

    seeds: tuple[int, ...]
    first: int
    more: int
    sparse: tuple[Key, ...]
    whole: bool


PLANS = {
    "cnn": Plan(SEEDS, 4, 3, tuple(SPARSE), whole=True),
    "resnet": Plan(SEEDS[:1], 2, 2, ((RELU_FLOPS, CHEAP), (RELU_L1, CHEAP)), whole=False),
}
QUICK_PLANS = {
    "cnn": Plan(SEEDS[:1], 4, 4, tuple(key for key in SPARSE if key[0] in RELU), whole=True),
    "resnet": Plan(SEEDS[:1], 1, 1, ((RELU_FLOPS, CHEAP),), whole=False),
}


@dataclass(frozen=True)
class Point:
    """Figures of a method at a setting, of one seed.

    Args:
        found: Precisions.
        bytes_per_row: Bytes of a row.
        seconds: Of the whole training.
        cost: Of sparse rows.
    """

    found: Figures
    bytes_per_row: float
    seconds: float
    cost: Cost | None = None


def measure(report: Report, *, quick: bool) -> None:
    """Both networks, seed by seed."""
    warm_up()
    classes = load_pictures(quick)
    pictures = [part[0] for part in (classes.training, classes.queries, classes.rows)]
    report.figures["the pictures"] = f"{sum(map(len, pictures)):,}, sha256 {fingerprint(*pictures)[:16]}"
    for name, plan in (QUICK_PLANS if quick else PLANS).items():
        points: dict[Key, list[Point]] = {}
        for seed in plan.seeds:
            for key, point in _points(report, classes, name, plan, seed).items():
                points.setdefault(key, []).append(point)
        title = f"{name}: {len(pictures[2]):,} rows, {len(pictures[1]):,} queries"
        for key, seeds in points.items():
            _row(report, title, key, seeds)
        _picture(report, name, points)
        if plan.whole:
            _targets(report, name, points, quick)


def _points(report: Report, classes: Classes, name: str, plan: Plan, seed: int) -> dict[Key, Point]:
    """The figures of one seed."""
    data = classes.data(seed, _label_vectors(classes))
    points: dict[Key, Point] = {}
    with report.part(f"{name}, dense networks, seed {seed}"):
        networks = _networks(data, name, plan, seed)
        for method, network in networks.items():
            queries, rows = classes.embed(network.backbone)
            dim = rows.shape[1]
            points[method, f"{dim} numbers"] = Point(classes.judge(queries, rows), 4 * dim, network.seconds)
    for key in plan.sparse:
        with report.part(f"{name}, {', '.join(key)}, seed {seed}"):
            points[key] = _sparse(classes, data, networks[DENSE], SPARSE[key], plan.more, seed)
        say(f"  {points[key].cost}")
    trainings: dict[str, tuple[Mode, LabelLoss, str]] = {ONCE: ("default", LOSS, DENSE)}
    if plan.whole:
        trainings[PAPER] = ("paper", "adaptive-margin", DENSE_PAPER)
    for method, (mode, loss, start) in trainings.items():
        config = DrqConfig(
            mode=mode,
            loss=loss,
            beam=BEAM,
            sign_bits=8,  # the fewest: none are used
            epochs=plan.more,
            backbone_learning_rate=RATE,
            seed=seed,
        )
        with report.part(f"{name}, {method}, seed {seed}"):
            points |= _by_length(method, train_codes(classes, data, networks[start], (LEVELS,), config))
    with report.part(f"{name}, faiss's codes, seed {seed}"):
        long = networks[AS_LONG]
        vectors = (unit(long.backbone.embed(data.train)), *classes.embed(long.backbone))
        for method in AFTERWARDS:
            levels = (*LEVELS, WIDE) if method == "PQ" else LEVELS
            points |= _by_length(method, quantise(classes, vectors, QUANTISERS[method], levels, long.seconds))
    say("  " + ", ".join(f"{' '.join(key)} {point.found[1]:.3f}" for key, point in points.items()))
    return points


def _label_vectors(classes: Classes) -> F32:
    """Mean pictures of characters, float32 (C, 64), less the mean of all."""
    pictures, labels = classes.training
    block = pictures.shape[1] // MEAN_SIDE
    blocks = pictures.reshape(-1, MEAN_SIDE, block, MEAN_SIDE, block)
    small = blocks.mean((2, 4), dtype=np.float32).reshape(len(labels), -1)
    return class_means(small - small.mean(0), labels)


def _networks(data: TrainingData, name: str, plan: Plan, seed: int) -> dict[str, Network]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = image_backbone(name, data.train, dim=DIM)
        paper = image_backbone(name, data.train, dim=PAPER_DIM) if plan.whole else None
    first = BackboneConfig(loss=LOSS, epochs=plan.first, batch=BATCH, seed=seed)
    more = BackboneConfig(loss=LOSS, epochs=plan.more, batch=BATCH, learning_rate=RATE, seed=seed)
    networks = dense_networks(untrained, data, first, more, paper=paper)
    if plan.whole:
        # a copy of the pictures for each epoch, elsewhere in each
        copies = [moved(data.train, np.random.default_rng((seed, copy))) for copy in range(plan.first)]
        several = replace(data, train=np.concatenate(copies), train_labels=np.tile(data.labels, plan.first))
        networks[MOVED] = train_network(Network(untrained, 0.0), several, replace(first, epochs=1))
    return networks


def moved(pictures: U8, generator: np.random.Generator) -> U8:
    """Pictures, each cut out of itself with a black margin of two pixels, at random.

    Args:
        pictures: uint8 (n, h, w, c).
        generator: Source of randomness.
    """
    count, height, width, _ = pictures.shape
    wide = np.pad(pictures, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))
    top, left = generator.integers(2 * MARGIN + 1, size=(2, count, 1))
    rows, columns = top + np.arange(height), left + np.arange(width)
    return wide[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _sparse(
    classes: Classes, data: TrainingData, start: Network, options: Mapping[str, Any], epochs: int, seed: int
) -> Point:
    steps = epochs * -(-len(data.train) // BATCH)  # as many as the others take
    config = FlopsConfig(
        dim=HEAD,
        anchors=BATCH // 4,
        batch=BATCH - BATCH // 4,
        steps=steps,
        warm_up=steps // 10,
        loss=LOSS,
        backbone_learning_rate=RATE,
        seed=seed,
        **options,
    )
    network = copy.deepcopy(start.backbone)
    started = time.perf_counter()
    model = train_flops(data, config, backbone=network).model
    seconds = start.seconds + time.perf_counter() - started
    queries, rows = (encode(model, vectors) for vectors in classes.embed(network))
    index = build_index(rows)
    found = np.stack([index.search(query, max(DEPTHS), rerank=0).positions[0] for query in split_queries(queries)])
    return Point(classes.precisions(found), posting_bytes(index, reranked=False), seconds, count_cost(rows))


def _by_length(method: str, quantised: Quantised) -> dict[Key, Point]:
    return {
        (method, f"{8 * level} bits"): Point(found, level, quantised.seconds)
        for level, found in quantised.found.items()
    }


def _row(report: Report, title: str, key: Key, seeds: list[Point]) -> None:
    cells: dict[str, Any] = {"method": key[0], "setting": key[1]}
    for depth, what in ((1, "recall@1"), (4, "P@4")):
        cells[what] = spread([point.found[depth] for point in seeds])
    cells["bytes/row"] = round(_mean(seeds, "bytes_per_row"))
    cells |= cost_cells([point.cost for point in seeds if point.cost is not None])
    report.row(title, **cells, seconds=round(_mean(seeds, "seconds")))


def _mean(seeds: list[Point], figure: str) -> float:
    return float(np.mean([getattr(point, figure) for point in seeds]))


def _recall(seeds: list[Point]) -> float:
    return float(np.mean([point.found[1] for point in seeds]))


def _picture(report: Report, name: str, points: dict[Key, list[Point]]) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for (method, _), seeds in points.items():
        size = _mean(seeds, "bytes_per_row")
        at = (LEVELS[0], size) if method.startswith(DENSE) else (size,)
        lines.setdefault(method, []).extend((size, _recall(seeds)) for size in at)
    lines = {method: sorted(line) for method, line in lines.items()}
    report.picture(f"table6-{name}", name, "bytes of a row", "recall@1", lines, log="x")


def _targets(report: Report, name: str, points: dict[Key, list[Point]], quick: bool) -> None:
    similar, ahead = (-QUICK, -QUICK) if quick else (-SIMILAR, 0.0)
    recalls = {key: _recall(seeds) for key, seeds in points.items()}
    curves = {method: [(_flops(points[key]), recalls[key]) for key in points if key[0] == method] for method in RELU}
    gain = mean_gain(curves[RELU_FLOPS], curves[RELU_L1])
    report.at_least(f"{name}: {RELU_FLOPS} over {RELU_L1} at equal FLOPs, recall@1, mean", gain, ahead)
    size = round(_mean(points[RELU_FLOPS, CHEAP], "bytes_per_row"))
    gain = recalls[RELU_FLOPS, CHEAP] - recalls["PQ", f"{8 * WIDE} bits"]
    report.at_least(f"{name}: {RELU_FLOPS}, {CHEAP} ({size} bytes), over PQ of {WIDE} bytes, recall@1", gain, similar)
    gain = recalls[RELU_FLOPS, DEAR] - recalls[AS_LONG, f"{DIM} numbers"]
    report.at_least(f"{name}: {RELU_FLOPS}, {DEAR}, over {AS_LONG}, recall@1", gain, similar)
    for level in LEVELS:
        bits = f"{8 * level} bits"
        for rival, least in (("OPQ", similar), (PAPER, ahead)):
            gain = recalls[ONCE, bits] - recalls[rival, bits]
            report.at_least(f"{name}, {bits}: {ONCE}, over {rival}, recall@1", gain, least)


def _flops(seeds: list[Point]) -> float:
    return float(np.mean([point.cost.flops for point in seeds if point.cost is not None]))
