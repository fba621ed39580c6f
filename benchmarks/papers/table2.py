"""Table 2: sparse rows trained with labels, end to end: quality per search cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alula_exporters import FlopsConfig, train_flops
from alula_exporters.flops import SparseEncoder
from alula_exporters.flops.cost import expected_flops
from benchmarks.papers.datasets import F32, spread
from benchmarks.papers.labelled import DIM, Pictures, dense_network, judge, load_pictures, unit_vectors
from benchmarks.report import Report, say

TITLE = "sparse rows trained with labels, at what search cost"
ANSWERS = f"""\
The question: when rows have classes and a row is right if it has the query's class, how well do sparse rows rank, and
what does a pair of rows cost? "mAP" is the mean average precision over the whole gallery: the mean, over a query's
right rows, of the share of right rows among all ranked as high or higher; 1 is a perfect ranking. "recall@1" is the
share of queries whose best row has their class. FLOPs are the multiplications per pair of rows (the sum over dimensions
of the squared share of rows that use them), counted on the gallery; R_sub is how much more they are than if all
dimensions were used alike (1 is the best). The dense network's vectors cost {DIM} multiplications a pair. The pictures
are Fashion-MNIST's (10 classes of clothes), split once: 5,000 to train on (a tenth of them is held out), 1,000 queries,
the others are searched.

All start from the same small convolutional network with {DIM} outputs, trained from nothing with the labels
(contrastive loss). A head of 1,024 outputs then stands on it and both go on training with the same loss. "top-k" keeps
a fixed number of non-zeros, and the regulariser only spreads them; "ReLU" leaves the number to the regulariser, whose
weight (in the column "setting") grows as in the paper (Paria et al., ICLR 2020): with "FLOPs" it is the paper's
regulariser, with "L1" the one that it is compared with. The settings were chosen on held-out training pictures of one
seed.

To read it: rows of one class must share dimensions to be found, so with 10 classes of equal size and k non-zeros
FLOPs cannot fall under k / 10 without tearing classes apart: if half of a class uses other dimensions than the other
half, half of the right rows share nothing with the query. R_sub near 1 is therefore no aim here, as it is without
labels. And few classes suit L1, which only makes rows short: each class on a few dimensions of its own is at once the
sparsest solution and a very good ranking, and the other dimensions may lie idle. The FLOPs regulariser instead spreads
rows over all dimensions; with ReLU and few classes it spreads each class too, which costs mAP before it saves FLOPs.
The top-k bounds a row's length by itself, so that the regulariser need not be strong. With many classes idle dimensions
would be missed, and the comparison with L1 can come out otherwise, as it does in the paper. Figures with ± are means
and standard deviations over seeds.
"""
SEEDS = (0, 1, 2)

HEAD = 1_024
TOP_K, RELU_FLOPS, RELU_L1, DENSE = "top-k + FLOPs", "ReLU + FLOPs", "ReLU + L1", "dense"
COMPARED = (TOP_K, "k = 8")  # what is held against the dense network ...
CHEAP = 1.0  # ... at these FLOPs at most
FULL = 0.03  # mAP that it may be behind
QUICK = 0.1  # a quick run trains the head for few steps
STEPS = 200

SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    # so few non-zeros start under their budget, and on the way up to it the closed loop tears classes apart
    (TOP_K, "k = 2, weight 1"): {"nnz": 2, "weight": 1.0},
    # 1.1 times what k non-zeros cost if the 10 classes share nothing
    **{(TOP_K, f"k = {nnz}"): {"nnz": nnz, "flops": 0.11 * nnz} for nnz in (4, 8, 16)},
    **{(RELU_FLOPS, f"{weight:g}"): {"activation": "relu", "weight": weight} for weight in (3.0, 10.0, 30.0)},
    **{
        (RELU_L1, f"{weight:g}"): {"activation": "relu", "regulariser": "l1", "weight": weight}
        for weight in (0.1, 0.3, 1.0)
    },
}
QUICK_SETTINGS = ((TOP_K, "k = 8"), (RELU_FLOPS, "10"), (RELU_L1, "0.3"))


@dataclass(frozen=True)
class Point:
    """One encoder's figures of one seed."""

    flops: float
    nnz: float
    r_sub: float
    first: float
    mean_average: float


def measure(report: Report, *, quick: bool) -> None:
    """All encoders, seed by seed."""
    pictures = load_pictures(quick)
    name = f"Fashion-MNIST, {len(pictures.rows[0]):,} rows"
    settings = {key: SETTINGS[key] for key in QUICK_SETTINGS} if quick else SETTINGS
    points: dict[tuple[str, str], list[Point]] = {}
    for seed in SEEDS[:1] if quick else SEEDS:
        with report.part(f"{name}, dense network, seed {seed}"):
            points.setdefault((DENSE, ""), []).append(_dense(pictures, quick, seed))
        _tell(points[DENSE, ""][-1])
        for key, options in settings.items():
            with report.part(f"{name}, {' '.join(key)}, seed {seed}"):
                points.setdefault(key, []).append(_sparse(pictures, options, quick, seed))
            _tell(points[key][-1])
    for (family, setting), seeds in points.items():
        report.row(
            name,
            method=family,
            setting=setting,
            **{
                "non-zeros": spread([point.nnz for point in seeds], 1),
                "FLOPs": spread([point.flops for point in seeds], 2),
                "R_sub": spread([point.r_sub for point in seeds], 1),
                "recall@1": spread([point.first for point in seeds]),
                "mAP": spread([point.mean_average for point in seeds]),
            },
        )
    _picture(report, name, points)
    _targets(report, points, quick)


def _tell(point: Point) -> None:
    say(f"  mAP {point.mean_average:.3f}, recall@1 {point.first:.3f}, FLOPs {point.flops:.2f}, nnz {point.nnz:.1f}")


def _dense(pictures: Pictures, quick: bool, seed: int) -> Point:
    network = dense_network(quick, seed)
    queries, rows = (unit_vectors(network, part) for part in (pictures.queries[0], pictures.rows[0]))
    return Point(DIM, DIM, 1.0, *judge(pictures, queries, rows))


def _sparse(pictures: Pictures, options: dict[str, Any], quick: bool, seed: int) -> Point:
    config = FlopsConfig(
        dim=HEAD,
        anchors=64,
        batch=192,
        steps=60 if quick else STEPS,
        loss="contrastive",
        # the network is trained already: at the head's rate labels would spoil more than they teach
        backbone_learning_rate=2e-4,
        seed=seed,
        **options,
    )
    network = dense_network(quick, seed)
    model = train_flops(pictures.data(seed), config, backbone=network).model
    queries, rows = (_encode(model, network.embed(part)) for part in (pictures.queries[0], pictures.rows[0]))
    counts = torch.from_numpy(np.count_nonzero(rows, axis=0))
    flops, nnz = expected_flops(counts, len(rows)), float(counts.sum()) / len(rows)
    return Point(flops, nnz, flops * model.dim / nnz**2, *judge(pictures, queries, rows, "IP"))


@torch.no_grad()
def _encode(model: SparseEncoder, vectors: F32) -> F32:
    """The sparse rows with their zeros, float32 (n, 1024)."""
    parts = [model.dense(*model(chunk)).numpy() for chunk in torch.split(torch.from_numpy(vectors), 4_096)]
    return np.concatenate(parts)


def _picture(report: Report, name: str, points: dict[tuple[str, str], list[Point]]) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for (family, _), seeds in points.items():
        mean = (float(np.mean([point.flops for point in seeds])), _mean(seeds))
        lines.setdefault(family, []).append(mean)
    cheapest = min(flops for line in lines.values() for flops, _ in line)
    lines[f"{DENSE} ({DIM} multiplications)"] = [(x, lines[DENSE][0][1]) for x in (cheapest, DIM)]
    del lines[DENSE]
    ordered = {label: sorted(line) for label, line in lines.items()}
    report.picture("table2", name, "FLOPs: multiplications for a pair of rows", "mAP", ordered, log="x")


def _mean(seeds: list[Point]) -> float:
    return float(np.mean([point.mean_average for point in seeds]))


def _targets(report: Report, points: dict[tuple[str, str], list[Point]], quick: bool) -> None:
    seeds = points[COMPARED]
    flops, (family, setting) = float(np.mean([point.flops for point in seeds])), COMPARED
    report.target(f"{family}, {setting}: FLOPs", flops, f"<= {CHEAP:g}", flops <= CHEAP)
    gain = _mean(seeds) - _mean(points[DENSE, ""])
    report.at_least(f"{family}, {setting}: mAP over the dense network's", gain, -(QUICK if quick else FULL))
