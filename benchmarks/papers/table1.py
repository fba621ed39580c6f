"""Table 1: recall per search cost of sparse rows trained without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from alula.kernels import InvertedIndex, LinearQueries, warm_up
from alula.kernels.vectors import Vectors as ExactVectors
from alula_exporters import FlopsConfig, make_training_data, train_flops
from alula_exporters.flops import SparseEncoder
from alula_exporters.flops.cost import count_dims, expected_flops
from alula_exporters.flops.model import FLOOR
from benchmarks.papers.curves import Curve, frontier, least_gain, mean_gain
from benchmarks.papers.datasets import F32, I64, K, Vectors, found, load_vectors, spread
from benchmarks.papers.rivals import SEARCH_EFFORT, Recipe, Rival, build_rivals
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
from benchmarks.report import Report, say

TITLE = "the FLOPs regulariser against other ways to make rows sparse, and against faiss"
ANSWERS = """\
The question: at the same search cost, how many of the ten true neighbours does each method find? R=100, 500 and 1,000
are recall@10 after the R best rows by the method's own scores were re-ranked by the exact vectors. FLOPs are the
multiplications per pair of rows, R_sub is how much more they are than if all dimensions were used alike (1 is the
best), and bytes are the index's own, without the vectors that re-ranking reads.

Like is compared with like. "ReLU + FLOPs" and "ReLU + L1" differ in the regulariser only, and both are trained to the
same FLOPs: the paper's comparison (Paria et al., ICLR 2020). "Top-k + FLOPs" and "top-k, no regulariser" have rows of
the same length, and the second costs what it costs: where the two are compared, it is along their lines over several
lengths, at equal FLOPs and at equal time. "Untrained" is what training starts from, random rows as prototypes, with as
many non-zeros as its FLOPs allow. Figures with ± are means and standard deviations over seeds of training. Queries are
neither among the rows nor trained on.

"ms" is the processor's time for one query in one thread, search and exact re-ranking of 100, 500 and 1,000 rows
together, in the index that Alula searches with (`alula.kernels.InvertedIndex`, of the first seed's encoders); encoding
a query is shown apart. faiss's indexes hand their best rows to the same re-ranking; HNSW keeps the vectors in its index
and needs none. PQ with "fs" is faiss's fast scan of 4-bit codes. All searches of a data set take turns, until no figure
falls by more than 2 % any more; the least time of each 20 queries counts. Where a target or a picture compares at equal
time, each method has its best of all settings and numbers re-ranked that take no longer, and recall between two such
points is linear in the logarithm of the time; a rival that is faster than all points of ours counts as if ours found
nothing.

The last picture of each data set searches parts of the rows: the time of a search is fitted by a constant, a time per
row, and a time per multiplication of n x FLOPs.
"""
SEEDS = (0, 1, 2)

DIM = 1_024
FLOPS = 1.1
NNZ = 32
SIZES = (8, 32, 64)  # non-zeros of top-k ...
RELU_SIZES = (16, 64)  # ... and what the FLOPs of ReLU correspond to
DEPTHS = (100, 500, 1_000)
TITLES = {depth: f"R={depth:,}" if depth else "not re-ranked" for depth in (0, *DEPTHS)}
RERANKED = 500  # where costs are FLOPs, and where parts of the rows are searched
TIMED = 200  # queries
PARTS = (8, 4, 2)  # what the rows are divided by to see how time grows with them
MINILM_AT_LEAST = 0.98
R_SUB_AT_MOST = {False: 1.15, True: 1.5}  # by quick: fewer steps
SIMILAR = 0.01  # recall that the abstract's "similar or better" may be behind

TOP_K = "top-k + FLOPs"
NO_REGULARISER = "top-k, no regulariser"
UNTRAINED = "top-k, untrained"
WIDE = "k = 64 of 4,096"  # a setting
RELU_L1 = "ReLU + L1"
RELU_FLOPS = "ReLU + FLOPs"

Key = tuple[str, str]  # method, setting


@dataclass
class Point:
    """Figures of a method, by seed where it is trained.

    Args:
        bytes_per_row: Of the index.
        recalls: Recall@10 after re-ranking by depth, one dictionary for each seed; the depth 0 is without re-ranking.
        costs: Of sparse rows, for each seed.
        ms: By depth, of the first seed; of depth 0 alone where the index ranks by the vectors.
        encode_ms: The same, for a query's encoding.
    """

    bytes_per_row: float
    recalls: list[dict[int, float]] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    ms: dict[int, float] = field(default_factory=dict)
    encode_ms: float = np.nan

    def recall(self, depth: int = RERANKED) -> float:
        """Mean over seeds."""
        return float(np.mean([recalls[depth] for recalls in self.recalls]))

    @property
    def flops(self) -> float:
        """Mean over seeds."""
        return float(np.mean([cost.flops for cost in self.costs]))


def measure(report: Report, *, quick: bool) -> None:
    """Both data sets."""
    warm_up()
    for vectors in load_vectors(quick, 20_000 if quick else 100_000):
        say(f"\n{vectors.name}: {len(vectors.queries):,} queries, trained on {len(vectors.training):,} rows")
        exact = ExactVectors.over(vectors.rows, "COSINE")
        searches: dict[Any, Callable[[int], Any]] = {}
        points = _sparse(report, vectors, exact, searches, quick) | _rivals(report, vectors, exact, searches)
        parts = [key for key in searches if isinstance(key[-1], int)]
        with report.part(f"{vectors.name}, times"):
            times, unstable = milliseconds(searches, TIMED // 4 if quick else TIMED)
        if unstable:
            names = (" ".join(map(str, key)) for key in unstable)
            report.figures[f"{vectors.name}: times that had not settled"] = ", ".join(names)
        for key, point in points.items():
            point.ms = {depth: times[(*key, title)] for depth, title in TITLES.items() if (*key, title) in times}
            point.encode_ms = times.get((*key, "encode"), np.nan)
            _row(report, vectors, key, point)
        _pictures(report, vectors, points)
        _growth(report, vectors, points, {key: times[key] for key in parts})
        _targets(report, vectors, points, quick)


def _grid(vectors: Vectors, quick: bool) -> Iterator[tuple[Key, int]]:
    """Methods with their settings, and numbers of non-zeros."""
    for nnz in (8, NNZ) if quick else SIZES:
        yield (TOP_K, f"k = {nnz}"), nnz
        yield (NO_REGULARISER, f"k = {nnz}"), nnz
    for nnz in (NNZ,) if quick else RELU_SIZES:
        for method in (RELU_FLOPS, RELU_L1):
            yield (method, f"F = {_budget(nnz):.3g}"), nnz
    yield (UNTRAINED, f"F = {FLOPS}"), NNZ
    if "MiniLM" in vectors.name and not quick:
        yield (TOP_K, WIDE), 64


def _budget(nnz: int) -> float:
    return FLOPS * (nnz / NNZ) ** 2


@torch.no_grad()
def _untrained(training: F32, nnz: int, flops: float, seed: int) -> SparseEncoder:
    """Initial weights and biases: each dimension is the prototype of a random row.

    Without training a row of k non-zeros costs more than k^2 / d, so the number kept is not the trained encoder's, but
    what the same FLOPs allow (twice as many at most; fewer where no more outputs are positive).
    """
    model = SparseEncoder(training.shape[1], DIM, 2 * nnz).requires_grad_(False).eval()
    generator = np.random.default_rng(seed)
    picked = generator.choice(len(training), DIM, replace=False)
    model.weight.copy_(torch.from_numpy(training[picked] - training.mean(0)))
    model.bias.fill_(FlopsConfig().bias)
    sample = torch.from_numpy(training[generator.choice(len(training), min(len(training), 10_000), replace=False)])
    weights, dims = model(sample)
    while model.nnz > 1:
        kept = slice(0, model.nnz)
        if expected_flops(count_dims(weights[:, kept], dims[:, kept], DIM), len(sample)) <= flops:
            break
        model.nnz -= 1
    return model


def _sparse(
    report: Report, vectors: Vectors, exact: ExactVectors, searches: dict[Any, Callable[[int], Any]], quick: bool
) -> dict[Key, Point]:
    """Points of the sparse encoders; adds the searches of each one's first seed."""
    points: dict[Key, Point] = {}
    for key, nnz in _grid(vectors, quick):
        seeds = SEEDS[:1] if quick or key[1] == WIDE else SEEDS
        with report.part(f"{vectors.name}, {', '.join(key)}, {len(seeds)} seeds"):
            for seed in seeds:
                model = _encoder(vectors, key, nnz, seed, quick)
                rows = encode(model, vectors.rows)
                index = build_index(rows, exact)
                queries = split_queries(encode(model, vectors.queries))
                point = points.setdefault(key, Point(posting_bytes(index)))
                point.recalls.append({depth: _recall(vectors, index, queries, depth) for depth in TITLES})
                point.costs.append(count_cost(rows))
                if seed != seeds[0]:
                    continue
                for depth in DEPTHS:
                    searches[(*key, TITLES[depth])] = partial(_search, vectors, index, queries, depth=depth)
                head = LinearQueries(model.weight.numpy(), model.bias.numpy(), nnz=model.nnz, floor=FLOOR, scale=None)
                searches[(*key, "encode")] = partial(_encode_one, head, vectors)
                if key[0] == TOP_K and key[1] != WIDE:
                    for part in PARTS:
                        some = build_index(rows[::part], ExactVectors.over(vectors.rows[::part], "COSINE"))
                        searches[(*key, len(some))] = partial(_search, vectors, some, queries)
        say(f"  recall@10 {point.recall():.3f}, {point.costs[0]}")
    return points


def _encoder(vectors: Vectors, key: Key, nnz: int, seed: int, quick: bool) -> SparseEncoder:
    data = make_training_data(vectors.training, seed=seed)
    method, setting = key
    if method == UNTRAINED:
        return _untrained(data.train, nnz, FLOPS, seed)
    options: dict[str, Any] = {"dim": DIM, "seed": seed, "steps": 300 if quick else 800}
    if setting == WIDE:
        options |= {"dim": 4 * DIM, "nnz": nnz}
    elif method == TOP_K:
        options |= {"nnz": nnz, "flops": _budget(nnz)}
    elif method == NO_REGULARISER:
        options |= {"nnz": nnz, "regulariser": "none"}
    else:
        options |= {"activation": "relu", "regulariser": "l1" if method == RELU_L1 else "flops", "flops": _budget(nnz)}
    return train_flops(data, FlopsConfig(**options)).model


def _search(
    vectors: Vectors, index: InvertedIndex, queries: list[list[tuple[I64, F32]]], query: int, depth: int = RERANKED
) -> I64:
    """The 10 best rows of one query with `depth` re-ranked, int64 (10,)."""
    exact = vectors.queries[query : query + 1]
    found = index.search(queries[query], K, vectors=exact, candidates=max(depth, K), rerank=depth)
    return found.positions[0]


def _recall(vectors: Vectors, index: InvertedIndex, queries: list[list[tuple[I64, F32]]], depth: int) -> float:
    ranked = np.stack([_search(vectors, index, queries, query, depth) for query in range(len(queries))])
    return found(ranked, vectors.truth)


def _encode_one(head: LinearQueries, vectors: Vectors, query: int) -> Any:
    return head.encode(vectors.queries[query])


def _recipes(vectors: Vectors) -> Iterator[Recipe]:
    dim = vectors.rows.shape[1]
    long = dim > 100
    code, kept, lists = (48, (32, 64), 512) if long else (25, (16, 25), 1_024)
    lists = min(lists, len(vectors.training) // 50)  # fewer rows than 39 a list are too few to train it
    probes = ("nprobe", (4, 16, 64))
    number = 8  # bytes of a row's number in an inverted list
    for bits in (256, 512):
        yield Recipe("LSH", f"LSH{bits}rt", bits / 8)
    for dims in kept:
        yield Recipe("PCA", f"PCA{dims},Flat", 4 * dims)
    yield Recipe("PQ", f"PQ{code}x8", code)
    yield Recipe("PQ", f"PQ{2 * code}x4fs", code)
    yield Recipe("IVF-PQ", f"IVF{lists},PQ{code}x8", code + number, probes)
    yield Recipe("IVF-PQ, fast scan", f"IVF{lists},PQ{2 * code}x4fs", code + number, probes)
    yield Recipe("HNSW", "HNSW16", 4 * dim + 4 * 2 * 16, (SEARCH_EFFORT, (16, 32, 64, 128, 512)))


def _rivals(
    report: Report, vectors: Vectors, exact: ExactVectors, searches: dict[Any, Callable[[int], Any]]
) -> dict[Key, Point]:
    """Points of faiss's indexes; adds their searches."""
    points: dict[Key, Point] = {}
    with report.part(f"{vectors.name}, faiss's indexes"):
        for rival in build_rivals(list(_recipes(vectors)), vectors.training, vectors.rows):
            depths = (0,) if rival.exact else (0, *DEPTHS)
            candidates = rival.find(vectors.queries, max(*depths, K))
            recalls = {0: found(candidates[:, :K], vectors.truth)}
            recalls |= {depth: found(candidates[:, :depth], vectors.truth) for depth in depths[1:]}
            key = rival.name, rival.setting
            points[key] = Point(rival.bytes_per_row, [recalls])
            for depth in depths[:1] if rival.exact else depths[1:]:
                searches[(*key, TITLES[depth])] = partial(_search_rival, vectors, exact, rival, depth)
    return points


def _search_rival(vectors: Vectors, exact: ExactVectors, rival: Rival, depth: int, query: int) -> I64:
    ids = rival.find(vectors.queries[query : query + 1], depth or K)[0]
    return exact.best(vectors.queries[query], ids[ids >= 0], K)[0] if depth else ids


def _row(report: Report, vectors: Vectors, key: Key, point: Point) -> None:
    cells: dict[str, Any] = {"method": key[0], "setting": key[1], **cost_cells(point.costs, digits=3)}
    for depth, title in TITLES.items():
        if depth in point.recalls[0]:
            cells[title] = spread([recalls[depth] for recalls in point.recalls])
    cells["ms, R=" + " / ".join(f"{depth:,}" for depth in DEPTHS)] = " / ".join(f"{ms:.3f}" for ms in point.ms.values())
    if point.costs:
        cells["ms to encode"] = f"{point.encode_ms:.3f}"
    report.row(vectors.name, **cells, **{"bytes/row": round(point.bytes_per_row)})


def _by_flops(points: dict[Key, Point]) -> dict[str, Curve]:
    """FLOPs and recall of each sparse method's points."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for (method, setting), point in points.items():
        if point.costs and setting != WIDE:
            curves.setdefault(method, []).append((point.flops, point.recall()))
    return {method: frontier(curve) for method, curve in curves.items()}


def _by_time(points: dict[Key, Point]) -> dict[str, Curve]:
    """Milliseconds and recall of each method at its best settings and depths."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for (method, setting), point in points.items():
        if setting != WIDE:
            curves.setdefault(method, []).extend((ms, point.recall(depth)) for depth, ms in point.ms.items())
    return {method: frontier(curve) for method, curve in curves.items()}


def _pictures(report: Report, vectors: Vectors, points: dict[Key, Point]) -> None:
    name = vectors.name.split()[0].lower()
    x, y = "FLOPs: multiplications for a pair of rows", f"recall@10, {RERANKED} re-ranked"
    report.picture(f"table1-{name}-flops", vectors.name, x, y, _by_flops(points), log="x")
    x, y = "ms for a query, one thread", "recall@10, re-ranked"
    report.picture(f"table1-{name}-ms", vectors.name, x, y, _by_time(points), log="x")


def _growth(report: Report, vectors: Vectors, points: dict[Key, Point], parts: dict[Any, float]) -> None:
    """Fit the time of a search to the rows and to n F, and draw it."""
    lines: dict[str, list[tuple[float, float]]] = {}
    measured = []
    for key, point in points.items():
        if key[0] != TOP_K or key[1] == WIDE:
            continue
        times = {part[-1]: ms for part, ms in parts.items() if part[:-1] == key}
        times[len(vectors.rows)] = point.ms[RERANKED]
        flops = point.costs[0].flops
        measured += [(n, n * flops, ms) for n, ms in times.items()]
        lines[f"F = {flops:.2f}"] = sorted((n * flops, ms) for n, ms in times.items())
    rows, products, times = np.array(measured).T
    terms = np.stack([np.ones_like(rows), rows, products], axis=1)
    # relative errors: the fastest count as much as the slowest
    constant, by_row, by_product = np.linalg.lstsq(terms / times[:, None], np.ones_like(times), rcond=None)[0]
    off = np.abs(terms @ [constant, by_row, by_product] / times - 1).max()
    name = vectors.name.split()[0]
    report.figures[f"{name}, {TOP_K}, ms of a search among n rows"] = (
        f"{constant:.3f} + {1e6 * by_row:.3f} per million rows + {1e6 * by_product:.3f} per million of n x FLOPs, "
        f"at most {off:.0%} off"
    )
    title = f"{vectors.name}, and 1/2, 1/4, 1/8 of its rows"
    report.picture(f"table1-{name.lower()}-growth", title, "n x FLOPs", "ms for a query, one thread", lines, log="xy")


def _targets(report: Report, vectors: Vectors, points: dict[Key, Point], quick: bool) -> None:
    name = vectors.name.split()[0]
    by_flops, by_time = _by_flops(points), _by_time(points)
    recall = f"recall@10 with {RERANKED} re-ranked"
    for key, point in points.items():
        if key[0] == RELU_FLOPS:
            gain = point.recall() - points[RELU_L1, key[1]].recall()
            report.at_least(f"{name}, {key[1]}: {RELU_FLOPS} over {RELU_L1}, {recall}", gain, 0)
    gain = mean_gain(by_flops[TOP_K], by_flops[NO_REGULARISER])
    report.at_least(f"{name}: {TOP_K} over {NO_REGULARISER} at equal FLOPs, {recall}, mean", gain, 0)
    gain = mean_gain(by_time[TOP_K], by_time[NO_REGULARISER])
    report.at_least(f"{name}: {TOP_K} over {NO_REGULARISER} at equal ms, recall@10, mean", gain, 0)
    for rival in dict.fromkeys(recipe.name for recipe in _recipes(vectors)):
        gain = least_gain(by_time[TOP_K], by_time[rival])
        report.at_least(f"{name}: {TOP_K} over {rival} at equal ms, recall@10, least", gain, -SIMILAR)
    worst = max(cost.r_sub for cost in points[TOP_K, f"k = {NNZ}"].costs)
    most = R_SUB_AT_MOST[quick]
    report.at_most(f"{name}, {TOP_K}, k = {NNZ}: largest R_sub", worst, most)
    if (TOP_K, WIDE) in points:
        report.at_least(f"{name}, top-64 of 4,096: {recall}", points[TOP_K, WIDE].recall(), MINILM_AT_LEAST)
