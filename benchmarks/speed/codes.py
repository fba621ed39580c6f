"""Scans of DRQ codes against a memory copy and against faiss at equal bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import faiss
import numpy as np

from benchmarks.report import Report, say
from benchmarks.speed.data import Data, load_data
from benchmarks.speed.drq import CANDIDATES, DEPTH, WORDS, Codes, Drq, load_codes
from benchmarks.speed.timing import I64, Contender, K, milliseconds, recall, tune

TITLE = "DRQ codes against faiss's quantised indexes"
ANSWERS = """\
The question: what does a search cost that scans codes in this process, and is that less than what faiss needs at the
same bytes of code for a row?

All times are of normal calls from Python, one query at a time on one thread, and what a method has to do for a query
(look-up tables, coarse centroids) is in them.

The first table scans all rows: the best 100 by code, nothing re-ranked. "of a copy" compares the bytes that were read
in a second with a copy of as many bytes from one array to another (counted once). In the second, every method's
candidates are re-ranked by the same exact scores. Each was tuned by the same sweep of what it visits (clusters, or the
codes' first codewords) and of how many candidates are re-ranked, on one half of the queries; what was fastest at each
recall is timed on the other half. Bytes are those of the codes, norms and factors in them. Beside them DRQ keeps 4
bytes for a row's number and faiss 8.
"""
SEEDS = (0,)
RECALLS = (0.95, 0.98, 0.99)
LISTS = (16, 32, 48, 64, 96, 128, 192, 256)  # of 1024
RIVALS = {8: ["IVF1024,PQ10np"], 11: ["IVF1024,PQ25x4fsr"], 13: ["IVF1024,RaBitQ", "IVF1024,RaBitQfs"]}  # by levels
NORM = 2  # bytes of a float16
TRAINING = 100_000  # rows that faiss is trained on
ROUNDS = 5
TUNING_ROUNDS = 2
SCANS = 200  # queries that scans of all rows are timed on


class Faiss(Contender):
    """One of faiss's indexes; the effort is how many candidates are re-ranked."""

    efforts = CANDIDATES

    def __init__(self, data: Data, codes: Codes, name: str, index: Any, visits: int | None = None) -> None:
        super().__init__(f"faiss {name}")
        self.visits = visits
        self._index, self._queries, self._vectors = index, data.queries, codes.vectors

    def prepare(self, effort: int) -> None:
        """See `Contender.prepare`."""
        if self.visits is not None:
            self._index.nprobe = self.visits

    def search(self, query: int, effort: int) -> I64:
        """See `Contender.search`; the best by code where the effort is 0."""
        found = self._index.search(self._queries[query : query + 1], effort or DEPTH)[1][0]
        return self._vectors.best(self._queries[query], found[found >= 0], K)[0] if effort else found


class Copy(Contender):
    """No search: a copy of bytes from one array to another."""

    def __init__(self, size: int) -> None:
        super().__init__("copy")
        self._source, self._target = np.ones(size, np.uint8), np.ones(size, np.uint8)

    def search(self, query: int, effort: int) -> I64:
        """Copy, and find nothing."""
        np.copyto(self._target, self._source)
        return np.empty(0, np.int64)


def measure(report: Report, *, quick: bool) -> None:
    """Both tables."""
    faiss.omp_set_num_threads(1)
    data, codes = load_data("GloVe"), load_codes("GloVe")
    _scans(report, data, codes)
    for levels, rivals in RIVALS.items():
        _partitioned(report, data, codes, levels, rivals)


# --- all rows -------------------------------------------------------------------------------------------------------


def _scans(report: Report, data: Data, codes: Codes) -> None:
    table = f"All {len(data.rows):,} rows by code, the best {DEPTH}, one query on one core"
    say(f"\n{table}")
    contenders: list[tuple[Contender, int]] = []  # with the bytes of a row
    for levels in (4, 8, 16):
        contenders.append((Drq(data, codes, codes.index(levels)), levels + 2))
        contenders.append(
            (Faiss(data, codes, f"RQ, the same {8 * levels} bit", _hosted(data, codes, levels)), levels + 4)
        )
    contenders.append((Faiss(data, codes, "PQ10, 80 bit", _faiss(data, "PQ10")), 10))
    copies = [Copy(size * len(data.rows)) for _, size in contenders]
    settings = [(one, 0) for one in (*(contender for contender, _ in contenders), *copies)]
    times = milliseconds(settings, data.reported[:SCANS], ROUNDS)
    ms: dict[str, float] = {}
    for (contender, size), time, copied in zip(contenders, times, times[len(contenders) :], strict=False):
        ms[contender.name] = time
        speed = size * len(data.rows) / time / 1e6
        report.row(
            table,
            **{"method": contender.name, "bytes/row": size, "ms": time, "GB/s": speed, "of a copy": copied / time},
        )
    what = f"DRQ scan, 64 bit, {len(data.rows):,} rows: ms per query and core"
    report.target(what, ms["DRQ 64 bit"], "<= 1", ms["DRQ 64 bit"] <= 1)
    for bits in (32, 64, 128):
        ratio = ms[f"faiss RQ, the same {bits} bit"] / ms[f"DRQ {bits} bit"]
        report.at_least(f"DRQ scan, {bits} bit: times as fast as faiss's of the same codes", ratio, 1)


def _hosted(data: Data, codes: Codes, levels: int) -> Any:
    """The same codes and codebooks in faiss."""
    dim = data.rows.shape[1]
    index = faiss.IndexResidualQuantizer(dim, levels, 8, faiss.METRIC_L2, faiss.AdditiveQuantizer.ST_norm_float)
    books = codes.words.reshape(dim, -1, 256)[:, :levels].transpose(1, 2, 0)
    faiss.copy_array_to_vector(np.ascontiguousarray(books).ravel(), index.rq.codebooks)
    index.rq.is_trained = index.is_trained = True
    norms = np.square(codes.norms[:, levels - 1 : levels]).astype(np.float32)
    index.add_sa_codes(np.concatenate([codes.codes[:, :levels], norms.view(np.uint8)], axis=1))
    return index


def _faiss(data: Data, factory: str) -> Any:
    index = faiss.index_factory(data.rows.shape[1], factory, faiss.METRIC_L2)
    index.train(data.rows[:: max(1, len(data.rows) // TRAINING)])
    index.add(data.rows)
    return index


# --- the nearest cells ----------------------------------------------------------------------------------------------


def _partitioned(report: Report, data: Data, codes: Codes, levels: int, rivals: Sequence[str]) -> None:
    """Our codes of some length against faiss's of as many bytes."""
    table = f"{levels + NORM} bytes of code for a row, re-ranked exactly, {len(data.rows):,} rows"
    with report.part(f"{table}: building"):
        index = codes.index(levels)
        ways: list[list[Contender]] = [[Drq(data, codes, index, visits) for visits in WORDS]]
        for factory in rivals:
            built = _faiss(data, factory)
            assert built.code_size == levels + NORM, f"{factory} has {built.code_size} bytes for a row"
            ways.append([Faiss(data, codes, factory.removesuffix("np"), built, visits) for visits in LISTS])
    lines: dict[str, list[tuple[float, float]]] = {way[0].name: [] for way in ways}
    for wanted in RECALLS:
        chosen = list(_chosen(data, ways, wanted))
        times = milliseconds(chosen, data.reported, ROUNDS)
        ours = next((time for (one, _), time in zip(chosen, times, strict=True) if isinstance(one, Drq)), np.inf)
        for (contender, effort), time in zip(chosen, times, strict=True):
            reached = recall(contender, effort, data.reported, data.truth)
            lines[contender.name].append((reached, time))
            report.row(
                table,
                **{
                    "tuned to": wanted,
                    "method": contender.name,
                    "visits": "all" if contender.visits is None else contender.visits,
                    "re-ranked": effort,
                    "recall@10": reached,
                    "ms": time,
                    "times ours": time / ours,
                },
            )
        rivals_ms = [time for (one, _), time in zip(chosen, times, strict=True) if isinstance(one, Faiss)]
        what = f"{levels + NORM} bytes of code, recall@10 {wanted}: DRQ, times as fast as {' and '.join(rivals)}"
        if rivals_ms:
            report.at_least(what, min(rivals_ms) / ours, 1)
        else:
            say(f"  recall@10 {wanted} is reached by none of {', '.join(rivals)}")
    report.picture(f"codes-{levels + NORM}-bytes", table, "recall@10", "ms", lines, log="y")


def _chosen(data: Data, ways: Sequence[Sequence[Any]], wanted: float) -> Iterator[tuple[Any, int]]:
    """The fastest setting of each method that reaches a recall on the tuning queries."""
    for way in ways:
        tuned = [(one, tune(one, wanted, data.tuning, data.truth)) for one in way]
        reaching = [(one, effort) for one, effort in tuned if effort is not None]
        if reaching:
            yield reaching[int(np.argmin(milliseconds(reaching, data.tuning[:SCANS], TUNING_ROUNDS)))]
