"""Table 5: candidates by sign bits, learned, by ITQ and by random directions."""

from __future__ import annotations

import time
from collections.abc import Callable

import faiss
import numpy as np
import numpy.typing as npt
import torch

from alula_exporters.drq.signs import SignBits, learn_signs, start_signs
from alula_exporters.drq.start import random_orthogonal
from benchmarks.papers.datasets import F32, I64, K, Vectors, found, load_vectors, spread
from benchmarks.report import Report, say

TITLE = "DRQ's sign bits against ITQ and random directions"
ANSWERS = """\
The question: a server's binary index finds candidates by the Hamming distance of sign bits, and exact scores rank them;
how many candidates must be scored? "x10" is recall@10 if the 100 candidates with the fewest different bits are scored
exactly: the share of the 10 nearest rows by cosine that are among them.

"Learned" are the bits of `alula train drq`: PCA and ITQ to start with, then a loss over neighbours, kept if rows that
were not learned from find more. "ITQ" is that start (Gong and Lazebnik, CVPR 2011), stacked where there are more bits
than dimensions. "Random" are stacked random orthogonal directions of the centred vectors. All are trained on the rows
that are searched, without the queries. Figures with ± are means and standard deviations over seeds of training.
"""
SEEDS = (0, 1, 2)

BITS = (64, 128, 256)
FACTORS = (3, 5, 10, 30, 100)
RANDOM, ITQ, LEARNED = "random", "ITQ", "learned"
JUDGED = 10  # the factor of the targets
WANTED = {("GloVe", 256): 0.96, ("MiniLM", 128): 0.85, ("MiniLM", 256): 0.96}


def measure(report: Report, *, quick: bool) -> None:
    """All kinds of bits, seed by seed."""
    for vectors in load_vectors(quick, 1 << 20, words=101_000):
        name = vectors.name.split()[0]
        rows = torch.from_numpy(np.ascontiguousarray(vectors.rows))
        for bits in BITS[-1:] if quick else BITS:
            at_ten: dict[str, float] = {}
            for kind, make in (("random", _random), (ITQ, start_signs), (LEARNED, learn_signs)):
                shares: list[list[float]] = []
                seconds = []
                for seed in SEEDS[:1] if quick else SEEDS:
                    with report.part(f"{vectors.name}, {bits} bits, {kind}, seed {seed}"):
                        started = time.perf_counter()
                        signs = _train(make, rows, bits, seed)
                        seconds.append(time.perf_counter() - started)
                        candidates = _candidates(signs, vectors)
                    shares.append([found(candidates[:, : K * factor], vectors.truth) for factor in FACTORS])
                by_factor = dict(zip(FACTORS, np.transpose(shares).tolist(), strict=True))
                at_ten[kind] = float(np.mean(by_factor[JUDGED]))
                report.row(
                    vectors.name,
                    bits=bits,
                    signs=kind,
                    **{f"x{factor}": spread(values) for factor, values in by_factor.items()},
                    **{"training s": round(float(np.mean(seconds)), 1)},
                )
            _targets(report, name, bits, at_ten, quick)


def _targets(report: Report, name: str, bits: int, at_ten: dict[str, float], quick: bool) -> None:
    gain = at_ten[LEARNED] - at_ten[ITQ]
    report.at_least(f"{name}, {bits} bits, x{JUDGED}: learned over ITQ", gain, -0.01 if quick else 0.0)
    wanted = WANTED.get((name, bits))
    if wanted and not quick:
        report.at_least(f"{name}, {bits} bits, x{JUDGED}", at_ten[LEARNED], wanted)
    say(f"  learned over ITQ {gain:+.3f}")


def _train(
    make: Callable[[SignBits, torch.Tensor, torch.Generator], None], rows: torch.Tensor, bits: int, seed: int
) -> SignBits:
    signs = SignBits(rows.shape[1], bits, "COSINE")
    make(signs, rows, torch.Generator().manual_seed(seed))
    return signs


def _random(signs: SignBits, rows: torch.Tensor, generator: torch.Generator) -> None:
    bits, dim = signs.projection.shape
    signs.mean.copy_(signs.centred(rows).mean(0))
    signs.projection.copy_(torch.cat([random_orthogonal(dim, generator) for _ in range(-(-bits // dim))])[:bits])


def _candidates(signs: SignBits, vectors: Vectors) -> I64:
    """Rows by Hamming distance, int64 (q, 1000)."""
    index = faiss.IndexBinaryFlat(len(signs.offset))
    index.add(_packed(signs, vectors.rows))
    numbers: I64 = index.search(_packed(signs, vectors.queries), K * max(FACTORS))[1]
    return numbers


def _packed(signs: SignBits, vectors: F32) -> npt.NDArray[np.uint8]:
    return np.packbits((signs(torch.from_numpy(np.ascontiguousarray(vectors))) > 0).numpy(), axis=1)
