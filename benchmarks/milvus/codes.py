"""Codes against codes in this process, 10 to 200 bytes for 384 numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

from alula_exporters import DrqConfig, make_training_data, train_drq
from alula_exporters.drq.model import CODEWORDS, level_parts, sizes
from alula_exporters.drq.signs import SignBits, hard_signs, learn_signs
from benchmarks.glosses import load_glosses
from benchmarks.papers.datasets import F32, I64, K, found, squared_error, unit
from benchmarks.papers.numbers import numbers_in_file
from benchmarks.report import Report

TITLE = "codes against codes, 384 numbers"
ANSWERS = """\
The question: vectors aside, what are the bytes of each kind of code worth? Vectors of WordNet's glosses by MiniLM, 384
numbers, cosine, 500 held out as queries. Every code is searched as a whole by its own estimate of the distance, in this
process. "By code" is recall@10 of that ranking, "x3" to "x50" what is found if its best 30 to 500 rows are scored
exactly. Nothing here depends on a server: a server that looks at a part of the rows finds less.

"DRQ code" is `alula train drq`, ranked by cosine with 2 bytes for the norm; the lengths of one training are prefixes of
its longest code. "DRQ signs" are the sign bits that layout hamming stores, ranked by a float query, as re-ranking with
dropped vectors does; "Hamming" ranks the same bits as a binary index does. The others are faiss's: RaBitQ with 1, 2 and
4 bits a dimension after a random rotation (8 to 20 bytes of factors are in its bytes), SQ4 after a rotation, SQ8, LSH
with a random rotation, OPQ, and RQ with a float for the norm, in the vectors' own axes and in as many principal axes as
DRQ takes. DRQ and RQ are trained on all rows that are searched, the others on every third of them. "Reconstruction" is
the mean squared error (vectors have length 1) of the held-out queries, beside the numbers of the model that the codes
need, those of DRQ counted in its encoder file. Seconds are of one run, in which other work may have shared the machine.
"""
SEED = 0
SEEDS = (SEED,)
QUERIES = 500
FACTORS = (3, 5, 10, 50)
DEPTH = K * max(FACTORS)
TRAINING = 50_000  # most rows that faiss's codes but RQ are trained on
NORM = 2  # bytes of a float16
BLOCK = 100  # queries that are scored at once
# DRQ's trainings, in bits, and the lengths that are judged of each
TRAININGS = {
    384: {256: (64, 128, 256), 768: (512, 768)},
    768: {256: (128, 256), 768: (512, 768)},
    1536: {256: (128, 256)},
}
SIGNS = {384: (128, 256, 512, 1024), 768: (256, 512, 1024, 1536), 1536: (256, 512, 1024)}
OPQ_PARTS = {384: (16, 32, 64, 96), 768: (32, 64, 96, 128), 1536: (32,)}
LEVELS = 32  # of the codes whose reconstructions are compared
RQ_LEVELS: dict[int, tuple[int, ...]] = {384: (16, LEVELS), 768: (16, LEVELS), 1536: ()}
ALONG = f"RQ {LEVELS}, principal axes"
FLOAT = 4  # bytes of the norm beside RQ's code
JUDGED = (34, 66, 98)  # bytes of a row, the target's


@dataclass(frozen=True)
class Code:
    """A code's search of all queries.

    Args:
        method: Its name.
        bytes: Bytes stored for a row.
        numbers: int64 (q, DEPTH): rows by the code's own ranking.
        seconds: Seconds of training.
        mse: Mean squared error of the queries' reconstruction, NaN where nothing is reconstructed.
        size: Numbers of the model that the codes need.
    """

    method: str
    bytes: float
    numbers: I64
    seconds: float
    mse: float = math.nan
    size: int = 0


def measure(report: Report, *, quick: bool) -> None:
    """See `measure_codes`."""
    measure_codes(report, "minilm", quick)


def measure_codes(report: Report, model: str, quick: bool) -> None:
    """Search by all codes; quick: 12,000 rows, short codes, brief training."""
    vectors = unit(load_glosses(12_000 if quick else None, model=model))
    order = np.random.default_rng(SEED).permutation(len(vectors))
    queries, rows = vectors[order[:QUERIES]], vectors[np.sort(order[QUERIES:])]
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    truth = index.search(queries, K)[1]
    table = f"{len(rows):,} x {rows.shape[1]} ({model})"
    results: list[tuple[str, float, float]] = []
    reconstructions: dict[tuple[str, float], Code] = {}
    for code in _codes(report, rows, queries, quick):
        shares = [found(code.numbers[:, : K * factor], truth) for factor in (1, *FACTORS)]
        names = ("by code", *(f"x{factor}" for factor in FACTORS))
        cells = dict(zip(names, shares, strict=True))
        report.row(table, **{"bytes/row": code.bytes, "code": code.method, **cells, "training s": code.seconds})
        results.append((code.method, code.bytes, shares[0]))
        if not math.isnan(code.mse):
            cells = {"MSE": code.mse, "numbers": code.size}
            report.row("Reconstruction", **{"bytes/row": code.bytes, "code": code.method, **cells})
            reconstructions[code.method, code.bytes] = code
    for shown in report.tables.values():
        shown.sort(key=lambda row: (row["bytes/row"], row["code"]))
    _targets(report, rows.shape[1], results)
    ours = reconstructions["DRQ code", LEVELS + NORM]
    what = f"{rows.shape[1]} numbers, {8 * LEVELS} bits"
    error = ours.mse / reconstructions[ALONG, LEVELS + FLOAT].mse
    report.at_most(f"{what}: MSE of DRQ's code over that of {ALONG}", error, 1.0)
    size = ours.size / (LEVELS * CODEWORDS * rows.shape[1])
    report.at_most(f"{what}: numbers of DRQ's code over those of RQ {LEVELS}", size, 1 / 3)


def _targets(report: Report, dim: int, results: list[tuple[str, float, float]]) -> None:
    """DRQ's code against the best other code of as many bytes at most."""
    for size in JUDGED:
        ours = next((share for name, used, share in results if name == "DRQ code" and used == size), None)
        if ours is None:
            continue
        share, name, used = max(
            (share, name, used) for name, used, share in results if "DRQ" not in name and used <= size
        )
        what = f"{dim} numbers, {size} bytes: recall@10 of DRQ's code over the best other's ({name}, {used:g} bytes)"
        report.at_least(what, ours - share, 0.0)


def _codes(report: Report, rows: F32, queries: F32, quick: bool) -> Iterator[Code]:
    dim = rows.shape[1]
    trainings = {256: (64, 128, 256)} if quick else TRAININGS[dim]
    for bits, lengths in trainings.items():
        with report.part(f"{dim} numbers, DRQ code of {bits} bits"):
            yield from _drq(rows, queries, bits, lengths, epochs=1 if quick else DrqConfig().epochs)
    for bits in SIGNS[dim][:2] if quick else SIGNS[dim]:
        with report.part(f"{dim} numbers, {bits} DRQ signs"):
            yield from _signs(rows, queries, bits)
    others = ["RaBitQ", "RaBitQ2", "RaBitQ4"]
    names = {f"{name}, rotated": f"RR{dim},{name}" for name in (*others, "SQ4")} | {"SQ8": "SQ8"}
    names |= {f"LSH {bits}": f"RR{bits},LSH" for bits in (dim, 2 * dim)}
    names |= {f"OPQ {parts}": f"OPQ{parts}_{dim},PQ{parts}" for parts in OPQ_PARTS[dim][: 1 if quick else None]}
    names |= {f"RQ {levels}": f"RQ{levels}x8_Nfloat" for levels in RQ_LEVELS[dim]}
    names[ALONG] = f"PCA{sizes(dim, LEVELS)[0]},RQ{LEVELS}x8_Nfloat"
    for name, factory in names.items():
        with report.part(f"{dim} numbers, {name}"):
            yield _faiss(name, factory, rows, queries)


def _drq(rows: F32, queries: F32, bits: int, lengths: tuple[int, ...], *, epochs: int | None) -> Iterator[Code]:
    started = time.perf_counter()
    config = DrqConfig(levels=bits // 8, epochs=epochs, seed=SEED)
    trained = train_drq(make_training_data(rows, seed=SEED), config)
    seconds = time.perf_counter() - started
    model, size = trained.model, numbers_in_file(trained)
    with torch.no_grad():
        words = model.codewords()
        codes, unseen = (model.encode(model.prepare(torch.from_numpy(some)), config.beam) for some in (rows, queries))
        for length in lengths:
            x_hat, found_again = (_sum(some[:, : length // 8], words) for some in (codes, unseen))
            mse = squared_error(queries, found_again.numpy())
            # the norm as stored
            x_hat /= x_hat.norm(dim=1, keepdim=True).half().float().clamp_min(1e-7)
            numbers = _best(queries, lambda part, x_hat=x_hat: part @ x_hat.T)  # type: ignore[misc]
            yield Code("DRQ code", length / 8 + NORM, numbers, seconds, mse, size)


def _sum(codes: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Reconstructions, float32 (n, d)."""
    levels = codes.shape[1]
    return sum(level_parts(codes, words[:levels]), torch.zeros(()))


def _signs(rows: F32, queries: F32, bits: int) -> Iterator[Code]:
    signs = SignBits(rows.shape[1], bits, "COSINE")
    started = time.perf_counter()
    learn_signs(signs, torch.from_numpy(rows), torch.Generator().manual_seed(SEED))
    seconds = time.perf_counter() - started
    with torch.no_grad():
        hard = hard_signs(signs(torch.from_numpy(rows)))
        # a factor and a summand that all rows share do not change a query's ranking
        yield Code("DRQ signs", bits / 8, _best(queries, lambda part: signs(part) @ hard.T), seconds)
        numbers = _best(queries, lambda part: hard_signs(signs(part)) @ hard.T)
        yield Code("DRQ signs, Hamming", bits / 8, numbers, seconds)


def _best(queries: F32, score: Callable[[torch.Tensor], torch.Tensor]) -> I64:
    """Numbers of the rows with the largest scores, int64 (q, DEPTH), best first."""
    parts = torch.from_numpy(queries).split(BLOCK)
    best: npt.NDArray[np.int64] = torch.cat([score(part).topk(DEPTH, dim=1).indices for part in parts]).numpy()
    return best


def _faiss(name: str, factory: str, rows: F32, queries: F32) -> Code:
    index = faiss.index_factory(rows.shape[1], factory)
    compared = name.startswith("RQ")  # its error stands beside DRQ's, so it learns from the same rows
    training = rows if compared else rows[:: -(-len(rows) // TRAINING)]
    started = time.perf_counter()
    index.train(np.ascontiguousarray(training))
    seconds = time.perf_counter() - started
    index.add(rows)
    mse, size = math.nan, 0
    if compared:
        mse = squared_error(queries, index.sa_decode(index.sa_encode(queries)))
        size = _numbers(index)
    return Code(name, index.sa_code_size(), index.search(queries, DEPTH)[1], seconds, mse, size)


def _numbers(index: Any) -> int:
    """Numbers of RQ's codebooks, and of the axes before them and their mean."""
    if not isinstance(index, faiss.IndexPreTransform):
        return int(index.rq.codebooks.size())
    axes = faiss.downcast_VectorTransform(index.chain.at(0))
    return _numbers(faiss.downcast_index(index.index)) + axes.d_in * axes.d_out + axes.d_in
