"""SPLADE fine-tuned on pairs at a requested cost, judged before and after."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import alula
from alula.evaluation.judged import judge
from alula.evaluation.judgements import MEASURES
from alula_exporters.cli import train
from alula_exporters.sparse_checkpoints import export_checkpoint
from benchmarks.definitions import Definitions, Queries, load_definitions
from benchmarks.milvus.text import CHUNK, SEED, Side, cells, sparse_sides
from benchmarks.report import Report
from benchmarks.sentence_models import open_minilm
from benchmarks.splade import save_splade
from tools.servers.lite import LiteDatabase

TITLE = "SPLADE fine-tuned at a requested cost"
ANSWERS = """\
The question: does `alula train splade` find more with queries of the kind that it learned from, and does a search cost
the FLOPs that were asked for? The model is SPLADE of BERT-tiny, as in the part on text; the rows are 20,000 of
WordNet's definitions, in Milvus Lite 2.5. It learns from up to 4,000 queries of words and as many of examples. They
have no row, and those of words no word, in common with the judged queries, nor with 500 of each kind that are left to
choose settings by. *scored*: each query has its row, and two of the rows that MiniLM ranks next after it, with MiniLM's
cosines. *in_batch*: the same queries with their rows alone. One budget is the model's own cost, the other half of it.

FLOPs are the dimensions that a query and a row have in common, on average over the judged queries and 4,000 of the
rows. The difference is from the model before training, by the paired bootstrap over the queries.

**What this can show:** that training improves such a model on such queries, and at which cost. **What it cannot show:**
a gain on queries of another kind, or of a larger model. This one has 4.4 million parameters, and has learned from
searches of the web.
"""
SEEDS = (0, 1, 2)
ROWS, QUICK_ROWS = 20_000, 4_000
QUERIES, QUICK_QUERIES = 1_000, 100
CHOSEN_BY = 500  # queries of each kind that settings were chosen by
STEPS, QUICK_STEPS = 400, 30
LEARNED = 4_000  # queries of each kind, most: as many of both, as among the judged
RATE = 3e-4  # of a tiny model; larger ones want less
NEXT, OTHERS = 20, 2  # rows next after the answer, and how many of them are drawn
SHARES = (1.0, 0.5)  # of the model's own cost
TAUGHT = "scored"
TOLERANCE = 0.1  # of the requested FLOPs ...
QUICK = 1.0  # ... and in a quick run, which trains nothing to its end
COUNTED = 4_000  # rows whose non-zeros are counted


def measure(report: Report, *, quick: bool) -> None:
    """Fine-tune at each budget and search; quick: 4,000 rows, 30 steps, one seed."""
    texts = load_definitions(QUICK_ROWS if quick else ROWS, QUICK_QUERIES if quick else QUERIES, SEED)
    seeds = SEEDS[:1] if quick else SEEDS
    with tempfile.TemporaryDirectory() as place, LiteDatabase() as database, alula.connect(database.uri) as server:
        folder = Path(place)
        save_splade(folder / "splade")
        export_checkpoint(folder / "splade", folder / "before.onnx")
        with report.part("Pairs, scored by MiniLM"):
            write_pairs(texts, folder)
        (before,) = sparse_sides(server, texts, {folder / "before.onnx": "before"})
        cost = report_cost(report, before, texts)
        sides, missed = [before], []
        for seed, share, pairs in [
            (SEED, 1.0, "in_batch"),
            *((seed, share, TAUGHT) for share in SHARES for seed in seeds),
        ]:
            name = f"{pairs}, {share:g} x FLOPs, seed {seed}"
            path = folder / f"{pairs}_{int(100 * share)}_{seed}.onnx"
            with report.part(name):
                fine_tune(folder, pairs, path, flops=share * cost, steps=QUICK_STEPS if quick else STEPS, seed=seed)
                sides += sparse_sides(server, texts, {path: name})
            missed.append(abs(report_cost(report, sides[-1], texts) / (share * cost) - 1))
        what = "FLOPs of the encoder: the largest share that a training missed of those asked for"
        most = QUICK if quick else TOLERANCE
        report.at_most(what, max(missed), most)
        for kind, queries in texts.judged.items():
            _search(report, kind, queries, sides)


def write_pairs(texts: Definitions, folder: Path) -> None:
    """Write ``scored.jsonl``, and ``in_batch.jsonl`` without scores."""
    rng = np.random.default_rng(SEED)
    learned = to_learn_from(texts)
    rows, queries = texts.vectors(), open_minilm()(learned.texts)
    with (folder / f"{TAUGHT}.jsonl").open("w") as scored, (folder / "in_batch.jsonl").open("w") as plain:
        for query, vector, own in zip(learned.texts, queries, learned.rows, strict=True):
            scores = rows @ vector
            for row in own:
                plain.write(json.dumps({"query": query, "document": texts.texts[row]}) + "\n")
            for row in _taught(own, scores, rng):
                pair = {"query": query, "document": texts.texts[row], "score": round(float(scores[row]), 4)}
                scored.write(json.dumps(pair) + "\n")


def to_learn_from(texts: Definitions) -> Queries:
    """Queries without rows or words of those that judge, or that choose settings."""
    kept = {kind: queries.part(range(CHOSEN_BY)) for kind, queries in texts.others.items()}
    rows = {row for queries in kept.values() for own in queries.rows for row in own}
    words = {word for some in (kept, texts.judged) for query in some["words"].texts for word in _words(query)}
    found: Mapping[str, list[tuple[str, tuple[int, ...]]]] = {
        kind: [
            (text, own)
            for text, own in zip(queries.texts[CHOSEN_BY:], queries.rows[CHOSEN_BY:], strict=True)
            if rows.isdisjoint(own) and (kind != "words" or words.isdisjoint(_words(text)))
        ]
        for kind, queries in texts.others.items()
    }
    pairs = dict(pair for some in found.values() for pair in some[:LEARNED])
    return Queries(list(pairs), list(pairs.values()))


def _words(query: str) -> list[str]:
    return query.casefold().split(", ")


def _taught(own: tuple[int, ...], scores: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """The answer that the teacher prefers, and some of the rows that it ranks next."""
    answer = max(own, key=lambda row: scores[row])
    lower = np.flatnonzero(scores < scores[answer])
    lower = lower[~np.isin(lower, own)]
    after = lower[np.argsort(-scores[lower], kind="stable")[:NEXT]]
    yield answer
    yield from map(int, rng.choice(after, min(OTHERS, len(after)), replace=False))


def fine_tune(folder: Path, pairs: str, out: Path, *, flops: float, steps: int, seed: int) -> None:
    """Run ``alula train splade`` on one of the folder's files of pairs."""
    options = f"--flops {flops} --steps {steps} --learning-rate {RATE} --seed {seed}".split()
    command = ["splade", str(folder / "splade"), str(folder / f"{pairs}.jsonl"), "--out", str(out), *options]
    done = CliRunner().invoke(train, command)
    if done.exit_code:
        raise SystemExit(f"{done.output}{done.exception}")


def report_cost(report: Report, side: Side, texts: Definitions) -> float:
    """Add an encoder's non-zeros and FLOPs on judged queries and some rows; returns F."""
    encoder = side.collection.lowering.encoder
    queries = [text for some in texts.judged.values() for text in some.texts]
    rows = list(texts.texts[:: -(-len(texts.texts) // COUNTED)])
    shares = []
    for is_query, some in ((True, queries), (False, rows)):
        counts = np.zeros(encoder.info.dim)
        for start in range(0, len(some), CHUNK):
            vectors = encoder.embed(some[start : start + CHUNK], queries=is_query)
            counts += np.bincount(encoder.encode_rows(vectors).indices, minlength=encoder.info.dim)
        shares.append(counts / len(some))
    flops = float(shares[0] @ shares[1])
    non_zeros = {"non-zeros of a query": float(shares[0].sum()), "of a row": float(shares[1].sum())}
    report.row("Cost", encoder=side.name, **non_zeros, FLOPs=flops)
    return flops


def _search(report: Report, kind: str, queries: Queries, sides: list[Side]) -> None:
    systems = judge([side.run(queries) for side in sides], queries.relevance, SEED)
    for system in systems:
        shown = cells(system)
        shown[f"{MEASURES[0]} less before"] = shown.pop(f"{MEASURES[0]} less exact")
        report.row(f"Queries of {kind}", **shown)
    for share in SHARES:
        lows = [one.differences[MEASURES[0]].low for one in systems if one.name.startswith(f"{TAUGHT}, {share:g} x")]
        what = f"{kind}: {MEASURES[0]} gained at {share:g} x the FLOPs, the lowest of the seeds' lower ends"
        report.at_least(what, min(lows), 0.0)
