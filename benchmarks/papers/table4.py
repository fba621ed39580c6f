"""Table 4: one unlabelled DRQ model against faiss's quantisers at equal bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch

from alula_exporters import DrqConfig, make_training_data, train_drq
from alula_exporters.choices import Mode
from alula_exporters.drq import Quantizer, RecurrentQuantizer
from benchmarks.papers.datasets import F32, I64, K, Vectors, found, load_vectors, spread, squared_error
from benchmarks.papers.numbers import numbers_in_file
from benchmarks.report import Report, say

TITLE = "DRQ without labels against faiss's quantisers"
ANSWERS = """\
The question: at the same bytes per row, how many of the ten true neighbours does the code alone find, and how many once
the best 100 or 1,000 by code were re-ranked exactly? "MSE" is the mean squared error of the reconstruction (the vectors
have length 1) on rows that no method was trained on. "Numbers" are all that codes need of the model, rotations and axes
included; those of DRQ are counted in its encoder file. "Training s" is what all the lengths of a method took together:
DRQ trains once and its shorter codes are prefixes of the longest (RQ's first codebooks serve for shorter codes as
well), while PQ and OPQ train for each length.

"DRQ default" has at most half as many codebooks as levels, which later levels turn and scale, along the principal axes
of long vectors. "Shared" is the structure of the paper (Song et al., IJCAI 2019), one codebook and a scale per level,
trained on the distortion of all prefixes; "paper" is that structure with the paper's losses and stages too, its codes
by least L2. "Separate" has a codebook per level: RQ's structure, trained as the default is. Of these "(M = 4)" are
models of four levels, the paper's own number. RQ is faiss's, with the beam of DRQ; "RQ, DRQ's axes" is RQ along the
axes that the default takes, without the mean.

Bytes count what is stored for a row: DRQ and RQ keep a norm beside the code (float16, 2 bytes), so PQ and OPQ are given
2 bytes more of code; for both there are rows of the same code length too. PQ and OPQ rank by L2 to the reconstruction
(as faiss does, without a norm), the others by cosine to it. RaBitQ keeps 8 bytes of factors for a row, so only the
longest size has room for bits beside them: its row is for as many random (GloVe) or principal (MiniLM) dimensions as
fit, at one bit each. It estimates distances and reconstructs nothing. OPQ's rotation takes 25 rounds. Figures with ±
are means and standard deviations over seeds of training; the others are of one seed.

Short codes on short vectors pay for the norm: beside 4 bytes of code its 2 bytes are half as much again, and 2 more
bytes of OPQ know more of 50 dimensions than a norm does. That is so for RQ too. Where vectors are long, or codes are,
the additive codes are ahead with their norm counted.
"""
SEEDS = (0, 1, 2)

LEVELS = (4, 8, 16)
NORM = 2  # bytes of a float16
DEPTHS = (100, 1_000)
BEAM = 5
OPQ_ROUNDS = 25
SHORT = min(LEVELS)  # the paper's number of levels
ALONG = "RQ, DRQ's axes"

# name, mode, levels, and whether a full run trains it from all seeds
TRAININGS: tuple[tuple[str, Mode, int, bool], ...] = (
    ("DRQ default", "default", max(LEVELS), True),
    ("DRQ shared", "shared", max(LEVELS), True),
    ("DRQ paper", "paper", max(LEVELS), True),
    ("DRQ separate", "separate", max(LEVELS), False),
    ("DRQ shared (M = 4)", "shared", SHORT, True),
    ("DRQ paper (M = 4)", "paper", SHORT, True),
)


@dataclass(frozen=True)
class Targets:
    """The targets of DRQ.

    Args:
        mse: The largest MSE of the default at the longest code, as a multiple of RQ's ...
        numbers: ... with at most this multiple of RQ's numbers.
        shared: The largest MSE of one codebook for four levels, as a multiple of RQ's ...
        shared_numbers: ... with at most this multiple of RQ's numbers.
        opq: By what size the default is to be ahead of OPQ, in MSE and in recall by code: the name, and the bytes that
            count beside DRQ's code.
    """

    mse: float
    numbers: float
    shared: float
    shared_numbers: float
    opq: dict[str, int]


FULL = Targets(
    mse=1.03, numbers=1 / 3, shared=1.05, shared_numbers=0.251, opq={"bytes per row": NORM, "bytes of code": 0}
)
# few rows train neither DRQ nor RQ to the end
QUICK = Targets(mse=1.2, numbers=1 / 3, shared=1.2, shared_numbers=0.251, opq={"bytes of code": 0})


@dataclass(frozen=True)
class Quantised:
    """One method at one length.

    Args:
        method: Its name.
        code: Bytes of the code.
        stored: Bytes stored for a row, the norm included.
        mse: Mean squared error on unseen rows, NaN where nothing is reconstructed.
        recalls: Recall@10 by code alone, and with 100 and 1,000 re-ranked.
        numbers: Numbers of the model that the codes need.
        seconds: Seconds of training, for all lengths of the method.
    """

    method: str
    code: float
    stored: float
    mse: float
    recalls: tuple[float, ...]
    numbers: int
    seconds: float


def measure(report: Report, *, quick: bool) -> None:
    """Both data sets."""
    for vectors in load_vectors(quick, 12_000 if quick else 50_000):
        say(f"\n{vectors.name}: {len(vectors.queries):,} queries, {len(vectors.unseen):,} unseen rows")
        data = make_training_data(vectors.training, seed=SEEDS[0]).train
        results: dict[tuple[str, float], list[Quantised]] = {}
        for quantised in _methods(report, vectors, data, quick):
            for one in quantised:
                recalls = " ".join(f"{recall:.3f}" for recall in one.recalls)
                say(f"  {one.method}, {8 * one.code:.0f} bits: MSE {one.mse:.4f}, recall@10 {recalls}")
                results.setdefault((one.method, one.stored), []).append(one)
        for (_, _), seeds in sorted(results.items(), key=lambda entry: entry[0][1]):
            _row(report, vectors, seeds)
        _picture(report, vectors, results)
        _targets(report, vectors, results, QUICK if quick else FULL)


def _methods(report: Report, vectors: Vectors, data: F32, quick: bool) -> Iterator[list[Quantised]]:
    for name, mode, levels, repeated in TRAININGS:
        for seed in SEEDS if repeated and not quick else SEEDS[:1]:
            with report.part(f"{vectors.name}, {name}, seed {seed}"):
                quantised = _drq(vectors, name, DrqConfig(mode=mode, levels=levels, seed=seed))
            yield quantised
    for name, method in {"PQ": _pq, "OPQ": _opq, "RQ": _rq, ALONG: _rq_along_axes, "RaBitQ": _rabitq}.items():
        with report.part(f"{vectors.name}, {name}"):
            quantised = method(vectors, data, quick)
        yield quantised


def _drq(vectors: Vectors, name: str, config: DrqConfig) -> list[Quantised]:
    data = make_training_data(vectors.training, seed=config.seed)
    started = time.perf_counter()
    trained = train_drq(data, config)
    seconds = time.perf_counter() - started
    say(f"  trained in {seconds:.0f} s")
    model, numbers = trained.model, numbers_in_file(trained)
    codes = _drq_codes(model, vectors.rows)
    unseen = _drq_codes(model, vectors.unseen)
    words = model.codewords().numpy()
    quantised = []
    for level in LEVELS:
        if level <= config.levels:
            mse = squared_error(vectors.unseen, _sum(words, unseen[:, :level]))
            recalls = _recalls(vectors, _sum(words, codes[:, :level]), cosine=True)
            quantised.append(Quantised(name, level, level + NORM, mse, recalls, numbers, seconds))
    return quantised


@torch.no_grad()
def _drq_codes(model: Quantizer, vectors: F32) -> I64:
    return model.encode(model.prepare(torch.from_numpy(vectors)), BEAM).numpy()


def _sum(words: F32, codes: I64) -> F32:
    """The reconstruction, float32 (n, d), of codes (n, t) with codewords (M, 256, d)."""
    total = np.zeros((len(codes), words.shape[2]), np.float32)
    for level in range(codes.shape[1]):
        total += words[level][codes[:, level]]
    return total


def _pq(vectors: Vectors, data: F32, quick: bool) -> list[Quantised]:
    return _product("PQ", vectors, data, 0)


def _opq(vectors: Vectors, data: F32, quick: bool) -> list[Quantised]:
    return _product("OPQ", vectors, data, 5 if quick else OPQ_ROUNDS)


def _product(method: str, vectors: Vectors, data: F32, rounds: int) -> list[Quantised]:
    """One index per length, 8 bits per part; dimensions are padded with zeros."""
    dim = data.shape[1]
    trained = []
    started = time.perf_counter()
    for code in sorted({*LEVELS, *(level + NORM for level in LEVELS)}):
        filled = code * -(-dim // code)
        places = np.round(np.linspace(0, filled - 1, dim)).astype(np.int64)  # zeros spread evenly over the parts
        index = faiss.IndexPQ(filled, code, 8)
        if rounds:
            turn = faiss.OPQMatrix(filled, code)
            turn.niter = rounds
            index = faiss.IndexPreTransform(turn, index)
        index.train(_fill(data, places, filled))
        numbers = 256 * dim if not rounds else 256 * filled + filled * dim
        trained.append((code, index, places, filled, numbers))
    seconds = time.perf_counter() - started
    quantised = []
    for code, index, places, filled, numbers in trained:

        def reconstruct(rows: F32, index: Any = index, places: I64 = places, filled: int = filled) -> F32:
            return np.ascontiguousarray(index.sa_decode(index.sa_encode(_fill(rows, places, filled)))[:, places])

        mse = squared_error(vectors.unseen, reconstruct(vectors.unseen))
        recalls = _recalls(vectors, reconstruct(vectors.rows), cosine=False)
        quantised.append(Quantised(method, code, code, mse, recalls, numbers, seconds))
    return quantised


def _fill(rows: F32, places: I64, filled: int) -> F32:
    wide = np.zeros((len(rows), filled), np.float32)
    wide[:, places] = rows
    return wide


def _rq(vectors: Vectors, data: F32, quick: bool) -> list[Quantised]:
    dim = data.shape[1]
    return _residual("RQ", vectors, data, np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), time.perf_counter())


def _rq_along_axes(vectors: Vectors, data: F32, quick: bool) -> list[Quantised]:
    """RQ of rows without their mean, along the principal axes of `RecurrentQuantizer`."""
    started = time.perf_counter()
    axes = RecurrentQuantizer(data.shape[1], max(LEVELS), 8).axes
    if axes is None:
        return []
    # ascending eigenvalues
    found = np.linalg.eigh(np.cov(data.T))[1][:, -len(axes) :].astype(np.float32)
    return _residual(ALONG, vectors, data, data.mean(0), found, started)


def _residual(method: str, vectors: Vectors, data: F32, mean: F32, axes: F32, started: float) -> list[Quantised]:
    """RQ along axes (d, r), trained once; shorter codes use its first codebooks."""
    dim, rank = axes.shape
    longest = faiss.ResidualQuantizer(rank, max(LEVELS), 8)
    longest.max_beam_size = BEAM
    longest.train(np.ascontiguousarray((data - mean) @ axes))
    seconds = time.perf_counter() - started
    words = faiss.vector_to_array(longest.codebooks).reshape(max(LEVELS), 256, rank)
    quantised = []
    for level in LEVELS:
        quantiser = faiss.ResidualQuantizer(rank, level, 8)
        quantiser.max_beam_size = BEAM
        faiss.copy_array_to_vector(words[:level].ravel(), quantiser.codebooks)
        quantiser.is_trained = True
        quantiser.compute_codebook_tables()

        def reconstruct(rows: F32, quantiser: Any = quantiser) -> F32:
            codes = quantiser.compute_codes(np.ascontiguousarray((rows - mean) @ axes))
            return np.asarray(quantiser.decode(codes)) @ axes.T + mean

        mse = squared_error(vectors.unseen, reconstruct(vectors.unseen))
        recalls = _recalls(vectors, reconstruct(vectors.rows), cosine=True)
        numbers = 256 * rank * level + (0 if method == "RQ" else axes.size + dim)
        quantised.append(Quantised(method, level, level + NORM, mse, recalls, numbers, seconds))
    return quantised


def _rabitq(vectors: Vectors, data: F32, quick: bool) -> list[Quantised]:
    """As many dimensions as fit into the longest code's bytes, at one bit each."""
    dim, size = data.shape[1], max(LEVELS) + NORM
    bits = 8 * (size - faiss.IndexRaBitQ(8, faiss.METRIC_L2).code_size + 1)
    turn = faiss.PCAMatrix(dim, bits, 0, True) if dim > bits else faiss.RandomRotationMatrix(dim, bits)
    index = faiss.IndexPreTransform(turn, faiss.IndexRaBitQ(bits, faiss.METRIC_L2))
    started = time.perf_counter()
    index.train(data)
    seconds = time.perf_counter() - started
    index.add(vectors.rows)
    ids = index.search(vectors.queries, max(DEPTHS))[1]
    numbers = bits + (dim * bits if dim > bits else 0)
    stored = faiss.downcast_index(index.index).code_size
    return [Quantised("RaBitQ", bits / 8, stored, np.nan, _found(vectors, ids), numbers, seconds)]


def _recalls(vectors: Vectors, reconstruction: F32, *, cosine: bool) -> tuple[float, ...]:
    """By the distance of queries to all reconstructions, as look-up tables sum it."""
    dim = reconstruction.shape[1]
    index = faiss.IndexFlatIP(dim) if cosine else faiss.IndexFlatL2(dim)
    if cosine:  # with the norm as stored
        norms = np.linalg.norm(reconstruction, axis=1, keepdims=True).astype(np.float16).astype(np.float32)
        reconstruction = reconstruction / np.maximum(norms, np.float32(1e-7))
    index.add(reconstruction)
    return _found(vectors, index.search(vectors.queries, max(DEPTHS))[1])


def _found(vectors: Vectors, ids: I64) -> tuple[float, ...]:
    return tuple(found(ids[:, :depth], vectors.truth) for depth in (K, *DEPTHS))


def _row(report: Report, vectors: Vectors, seeds: list[Quantised]) -> None:
    one = seeds[0]
    columns = ("by code", *(f"re-ranked {depth:,}" for depth in DEPTHS))
    recalls = {column: spread([each.recalls[i] for each in seeds]) for i, column in enumerate(columns)}
    report.row(
        vectors.name,
        **{
            "bytes/row": round(one.stored),
            "method": one.method,
            "code bits": round(8 * one.code),
            "seeds": len(seeds),
            "MSE": "" if np.isnan(one.mse) else spread([each.mse for each in seeds], 4),
            **recalls,
            "numbers": one.numbers,
            "training s": round(float(np.mean([each.seconds for each in seeds]))),
        },
    )


def _picture(report: Report, vectors: Vectors, results: dict[tuple[str, float], list[Quantised]]) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for (method, stored), seeds in sorted(results.items(), key=lambda entry: entry[0]):
        lines.setdefault(method, []).append((stored, float(np.mean([one.recalls[0] for one in seeds]))))
    name = f"table4-{vectors.name.split()[0].lower()}"
    report.picture(name, vectors.name, "bytes stored for a row", "recall@10 by code alone", lines)


def _targets(
    report: Report, vectors: Vectors, results: dict[tuple[str, float], list[Quantised]], targets: Targets
) -> None:
    name = vectors.name.split()[0]

    def mse(method: str, stored: float) -> float:
        return float(np.mean([one.mse for one in results[method, stored]]))

    def recall(method: str, stored: float) -> float:
        return float(np.mean([one.recalls[0] for one in results[method, stored]]))

    longest = max(LEVELS) + NORM
    ratio = mse("DRQ default", longest) / mse("RQ", longest)
    what = f"{name}, {8 * max(LEVELS)} bits: DRQ default over RQ"
    report.at_most(f"{what}, MSE", ratio, targets.mse)
    ratio = results["DRQ default", longest][0].numbers / results["RQ", longest][0].numbers
    report.at_most(f"{what}, numbers", ratio, targets.numbers)
    short, what = SHORT + NORM, f"{name}, {8 * SHORT} bits: DRQ shared (M = 4) over RQ"
    ratio = mse("DRQ shared (M = 4)", short) / mse("RQ", short)
    report.at_most(f"{what}, MSE", ratio, targets.shared)
    ratio = results["DRQ shared (M = 4)", short][0].numbers / results["RQ", short][0].numbers
    report.at_most(f"{what}, numbers", ratio, targets.shared_numbers)
    for level in LEVELS:
        for size, beside in targets.opq.items():
            what = f"{name}, DRQ default at {8 * level} bits, OPQ of the same {size}"
            ratio = mse("DRQ default", level + NORM) / mse("OPQ", level + beside)
            report.target(f"{what}: MSE over OPQ's", ratio, "< 1", ratio < 1)
            gain = recall("DRQ default", level + NORM) - recall("OPQ", level + beside)
            report.target(f"{what}: recall@10 by code, gain", gain, "> 0", gain > 0)
