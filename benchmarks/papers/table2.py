"""Table 2: sparse rows trained with labels, searched among classes never seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from alula.kernels import warm_up
from alula.kernels.vectors import Vectors
from alula_exporters import FlopsConfig, TrainingData, train_flops
from alula_exporters.backbones import VectorBackbone
from alula_exporters.dense import BackboneConfig, train_backbone
from benchmarks.papers.curves import Curve, least_gain, mean_gain
from benchmarks.papers.datasets import F32, I64, spread, unit
from benchmarks.papers.rivals import Recipe, Rival, build_rivals
from benchmarks.papers.sparse_rows import (
    Cost,
    build_index,
    cost_cells,
    count_cost,
    encode,
    posting_bytes,
    split_queries,
)
from benchmarks.papers.timing import milliseconds
from benchmarks.papers.unseen import DEPTHS, Classes, Figures, load_classes
from benchmarks.report import Report, say

TITLE = "sparse rows trained with labels, among classes that were never seen"
ANSWERS = """\
The question: an encoder is trained on some classes and then searched for rows of others, as with faces (the protocol of
MegaFace, and of Paria et al., ICLR 2020): how well do sparse rows find them, and in what time? The rows are all glosses
of WordNet as MiniLM's vectors; the class of a noun's gloss is its direct hypernym. Of the classes with at least 10
glosses, four in five are trained on. Of each other class five glosses are queries, and the rest of it is searched for
among all other glosses of WordNet. A found row is right if it has the query's class: "recall@1" is the share of queries
whose best row is right, "P@4" and "P@16" are the shares of right rows among the first 4 and 16 (a class of fewer rows
cannot fill 16).

All encoders are trained alike, for as many steps, with ArcFace: a linear layer on MiniLM's vectors with 128 or 512
outputs ("dense"), or with 1,024 outputs and an activation that makes them sparse. (A second layer did not serve unseen
classes, so none is shown.) The regulariser's weight grows with the paper's quadratic ramp to the one in the column
"setting"; only the top-k encoders are held to the FLOPs that their length allows. "Soft-threshold" keeps the sign of an
output, so it has 2,048 dimensions, which its FLOPs and R_sub count. faiss's LSH, PCA, PQ and OPQ hold the dense vectors
of 512 numbers ("fs" is the fast scan of 4-bit codes). FLOPs are the multiplications per pair of rows, counted on the
searched rows; R_sub is how much more they are than if all dimensions were used alike (1 is the best). Layers and loss
were chosen on a fifth of the training classes, held apart.

"Re-ranked" is the paper's search: the 1,000 best rows by a method's own scores are ranked again by the dense vectors of
512 numbers, the work of another network. "ms" is the processor's time for one query in one thread, without the network;
sparse rows are searched in the index that Alula searches with (`alula.kernels.InvertedIndex`), and all candidates are
re-ranked by its kernel. All searches of a seed take turns, until no figure falls by more than 2 % any more; the least
time of each 20 queries counts. "Bytes/row" leaves out the vectors that re-ranking reads. Figures with ± are means and
standard deviations over seeds.

Where a target compares at equal FLOPs or time, recall between two points of a line is linear in the logarithm of the
cost; a rival that is faster than all points of ours counts as if ours found nothing. The pictures are the four panels
of the paper's figure 4, which has two activations and for each recall by time, and R_sub by the length of rows.
"""
SEEDS = (0, 1, 2)

MINILM = 384
DENSE_SIZES = (128, 512)
HEAD = 1_024
BATCH = 512
EPOCHS = 6
RERANKED = 1_000
TIMED = 100  # queries
SIMILAR = 0.01  # recall that the abstract's "similar or better" may be behind

NO_REGULARISER, TOP_K = "ReLU, no regulariser", "top-k + FLOPs"
RELU_FLOPS, RELU_L1 = "ReLU + FLOPs", "ReLU + L1"
SOFT_FLOPS, SOFT_L1 = "soft-threshold + FLOPs", "soft-threshold + L1"
GIVEN, DENSE = "MiniLM as given", "Dense"

Key = tuple[str, str]  # method, setting


def _sweep(name: str, activation: str, regulariser: str, weights: tuple[float, ...]) -> dict[Key, dict[str, Any]]:
    options = {"activation": activation, "regulariser": regulariser, "most_nnz": HEAD // 4}
    return {(name, f"weight {weight:g}"): {**options, "weight": weight} for weight in weights}


SETTINGS: dict[Key, dict[str, Any]] = {
    (NO_REGULARISER, ""): {"activation": "relu", "regulariser": "none", "most_nnz": HEAD // 4},
    **_sweep(RELU_FLOPS, "relu", "flops", (20, 100, 400)),
    **_sweep(RELU_L1, "relu", "l1", (0.3, 1, 3)),
    **_sweep(SOFT_FLOPS, "soft-threshold", "flops", (20, 100, 400)),
    **_sweep(SOFT_L1, "soft-threshold", "l1", (0.3, 1, 3)),
    **{(TOP_K, f"k = {nnz}"): {"nnz": nnz} for nnz in (8, 16, 32)},
}
QUICK_SETTINGS = ((RELU_FLOPS, "weight 20"), (RELU_FLOPS, "weight 100"), (RELU_L1, "weight 0.3"), (RELU_L1, "weight 1"))

RECIPES = (
    Recipe("LSH", "LSH256rt", 32),
    Recipe("LSH", "LSH512rt", 64),
    Recipe("LSH", "LSH1024rt", 128),
    Recipe("PCA", "PCA32,Flat", 128),
    Recipe("PCA", "PCA64,Flat", 256),
    Recipe("PQ", "PQ32x8", 32),
    Recipe("PQ", "PQ128x4fs", 64),
    Recipe("OPQ", "OPQ32_256,PQ32x8", 32),
    Recipe("OPQ", "OPQ128_256,PQ128x4fs", 64),
)


@dataclass(frozen=True)
class Space:
    """The dense vectors of 512 numbers that candidates are re-ranked by.

    Args:
        training: float32 (t, 512), of unit length like the others.
        queries: float32 (q, 512).
        rows: float32 (n, 512).
        exact: The rows, ready to be ranked.
    """

    training: F32
    queries: F32
    rows: F32
    exact: Vectors


@dataclass(frozen=True)
class Contender:
    """A way to search.

    Args:
        found: int64 (q, 16): the best rows of each query by its own scores ...
        reranked: ... and by the dense vectors, of its first 1,000.
        searches: For a query's number: the search without and with re-ranking, to be timed.
        bytes_per_row: Bytes of a row, without the vectors that re-ranking reads.
        cost: Of sparse rows.
    """

    found: I64
    reranked: I64
    searches: tuple[Callable[[int], Any], Callable[[int], Any]]
    bytes_per_row: float
    cost: Cost | None = None


@dataclass(frozen=True)
class Point:
    """Figures of one seed: precision by depth and ms, without and with re-ranking."""

    precisions: tuple[Figures, Figures]
    ms: tuple[float, float]
    bytes_per_row: float
    cost: Cost | None


def measure(report: Report, *, quick: bool) -> None:
    """All contenders, seed by seed."""
    warm_up()
    classes = load_classes(quick)
    name = (
        f"{len(classes.rows[0]):,} glosses, {len(np.unique(classes.training[1])):,} classes trained on, "
        f"{len(classes.queries[0]):,} queries of {len(np.unique(classes.queries[1]))} others"
    )
    points: dict[Key, list[Point]] = {}
    for seed in SEEDS[:1] if quick else SEEDS:
        for key, point in _points(report, classes, quick, seed).items():
            points.setdefault(key, []).append(point)
    for key, seeds in points.items():
        _row(report, name, key, seeds)
    _pictures(report, points)
    _targets(report, points)


def _points(report: Report, classes: Classes, quick: bool, seed: int) -> dict[Key, Point]:
    """The figures of one seed."""
    data = classes.data(seed)
    contenders: dict[Key, Contender] = {}
    with report.part(f"dense networks, seed {seed}"):
        space, others = _dense(classes, data, quick, seed)
        for key, (queries, rows) in others.items():
            rival = next(build_rivals([Recipe(key[0], "Flat", 4 * rows.shape[1])], rows, rows))
            contenders[key] = _of_rival(rival, queries, space)
    for key in QUICK_SETTINGS if quick else SETTINGS:
        with report.part(f"{' '.join(key)}, seed {seed}"):
            contenders[key] = _sparse(classes, data, space, SETTINGS[key], quick, seed)
        cost, found = contenders[key].cost, classes.precisions(contenders[key].found)
        say(f"  {cost}, recall@1 {found[1]:.3f}")
    with report.part(f"faiss's indexes, seed {seed}"):
        for rival in build_rivals(RECIPES[:1] if quick else RECIPES, space.training, space.rows):
            contenders[rival.name, rival.setting] = _of_rival(rival, space.queries, space)
    with report.part(f"times, seed {seed}"):
        searches = {(key, way): one.searches[way] for key, one in contenders.items() for way in (0, 1)}
        ms, unstable = milliseconds(searches, TIMED)
    if unstable:
        report.figures[f"seed {seed}: times that had not settled"] = ", ".join(" ".join(key) for key, _ in unstable)
    return {
        key: Point(
            (classes.precisions(one.found), classes.precisions(one.reranked)),
            (ms[key, 0], ms[key, 1]),
            one.bytes_per_row,
            one.cost,
        )
        for key, one in contenders.items()
    }


def _epochs(quick: bool) -> int:
    return 2 * EPOCHS if quick else EPOCHS  # of a sixth of the rows


def _dense(classes: Classes, data: TrainingData, quick: bool, seed: int) -> tuple[Space, dict[Key, tuple[F32, F32]]]:
    """The space of re-ranking, and the unit vectors of queries and rows to scan."""
    vectors = {(GIVEN, f"{MINILM} numbers"): (classes.queries[0], classes.rows[0])}
    for outputs in DENSE_SIZES:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = VectorBackbone(nn.Linear(MINILM, outputs), MINILM)
        config = BackboneConfig(loss="arcface", epochs=_epochs(quick), batch=BATCH, seed=seed)
        train_backbone(network, data, config)
        embedded = [unit(network.embed(part)) for part in (classes.queries[0], classes.rows[0])]
        vectors[DENSE, f"{outputs} numbers"] = (embedded[0], embedded[1])
    # the last and largest is what candidates are re-ranked by
    queries, rows = embedded
    return Space(unit(network.embed(data.train)), queries, rows, Vectors.over(rows, "COSINE")), vectors


def _of_rival(rival: Rival, queries: F32, space: Space) -> Contender:
    deepest = max(DEPTHS)
    found = rival.find(queries, RERANKED)

    def rerank(query: int, ids: I64) -> I64:
        return space.exact.best(space.queries[query], ids[ids >= 0], deepest)[0]

    return Contender(
        found[:, :deepest],
        np.stack([rerank(query, ids) for query, ids in enumerate(found)]),
        (
            lambda query: rival.find(queries[query : query + 1], deepest),
            lambda query: rerank(query, rival.find(queries[query : query + 1], RERANKED)[0]),
        ),
        rival.bytes_per_row,
    )


def _sparse(
    classes: Classes, data: TrainingData, space: Space, options: Mapping[str, Any], quick: bool, seed: int
) -> Contender:
    steps = _epochs(quick) * -(-len(data.train) // BATCH)  # as many as the dense networks take
    config = FlopsConfig(
        dim=HEAD,
        anchors=BATCH // 4,
        batch=BATCH - BATCH // 4,
        steps=steps,
        loss="arcface",
        seed=seed,
        **options,
    )
    model = train_flops(data, config).model
    rows = encode(model, classes.rows[0])
    index = build_index(rows, space.exact)
    queries = split_queries(encode(model, classes.queries[0]))
    deepest = max(DEPTHS)

    def search(query: int, rerank: int) -> I64:
        exact = space.queries[query : query + 1]
        return index.search(
            queries[query], deepest, vectors=exact, candidates=rerank or deepest, rerank=rerank
        ).positions[0]

    plain, reranked = partial(search, rerank=0), partial(search, rerank=RERANKED)
    found = [np.stack([one(query) for query in range(len(queries))]) for one in (plain, reranked)]
    return Contender(found[0], found[1], (plain, reranked), posting_bytes(index), count_cost(rows))


def _row(report: Report, name: str, key: Key, seeds: list[Point]) -> None:
    cells: dict[str, Any] = {"method": key[0], "setting": key[1]}
    cells |= cost_cells([point.cost for point in seeds if point.cost is not None])
    for way, title in ((0, ""), (1, f", {RERANKED:,} re-ranked")):
        for depth in DEPTHS:
            what = "recall@1" if depth == 1 else f"P@{depth}"
            cells[what + title] = spread([point.precisions[way][depth] for point in seeds])
        cells["ms" + title] = spread([point.ms[way] for point in seeds], 2)
    report.row(name, **cells, **{"bytes/row": round(float(np.mean([point.bytes_per_row for point in seeds])))})


def _curves(
    points: dict[Key, list[Point]], cost: Callable[[Point], float], gain: Callable[[Point], float]
) -> dict[str, Curve]:
    """Points of each method, means over the seeds, by rising cost."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for (method, _), seeds in points.items():
        means = tuple(float(np.mean([figure(point) for point in seeds])) for figure in (cost, gain))
        curves.setdefault(method, []).append((means[0], means[1]))
    return {method: sorted(curve) for method, curve in curves.items()}


def _first(point: Point, way: int = 1) -> float:
    return point.precisions[way][1]


def _pictures(report: Report, points: dict[Key, list[Point]]) -> None:
    """The four panels of the paper's figure 4: two for each of its activations."""
    sparse = {key: seeds for key, seeds in points.items() if seeds[0].cost is not None}
    by_time = _curves(points, lambda point: point.ms[1], _first)
    by_length = _curves(sparse, lambda point: point.cost.nnz, lambda point: point.cost.r_sub)  # type: ignore[union-attr]
    for name, methods in (("relu", (RELU_FLOPS, RELU_L1, NO_REGULARISER, TOP_K)), ("soft", (SOFT_FLOPS, SOFT_L1))):
        others = [method for method in by_time if method not in by_length]
        title = "ReLU, and top-k" if name == "relu" else "Soft threshold"
        shown = {method: by_time[method] for method in (*methods, *others) if method in by_time}
        report.picture(
            f"table2-{name}-ms",
            title,
            "ms for a query, one thread",
            f"recall@1, {RERANKED:,} re-ranked",
            shown,
            log="x",
        )
        shown = {method: by_length[method] for method in methods if method in by_length}
        report.picture(f"table2-{name}-rsub", title, "non-zeros in a row", "R_sub", shown, log="xy")


def _targets(report: Report, points: dict[Key, list[Point]]) -> None:
    sparse = {key: seeds for key, seeds in points.items() if seeds[0].cost is not None}
    by_flops = _curves(sparse, lambda point: point.cost.flops, partial(_first, way=0))  # type: ignore[union-attr]
    by_time = _curves(points, lambda point: point.ms[1], _first)
    for ours, theirs in ((RELU_FLOPS, RELU_L1), (SOFT_FLOPS, SOFT_L1)):
        if ours in by_flops:
            gain = mean_gain(by_flops[ours], by_flops[theirs])
            report.at_least(f"{ours} over {theirs} at equal FLOPs, recall@1, mean", gain, 0)
    for ours in (RELU_FLOPS, SOFT_FLOPS, TOP_K):
        for rival in dict.fromkeys(recipe.name for recipe in RECIPES):
            if ours in by_time and rival in by_time:
                what = f"{ours} over {rival} at equal ms, recall@1 with {RERANKED:,} re-ranked, least"
                report.at_least(what, least_gain(by_time[ours], by_time[rival]), -SIMILAR)
