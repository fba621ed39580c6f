"""The data of the parts, and encoders trained on it, once per run."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from alula.encoders import DrqEncoder, FlopsEncoder, load_encoder
from alula_exporters import (
    DrqConfig,
    FlopsConfig,
    export_drq,
    export_flops,
    make_training_data,
    train_drq,
    train_flops,
)
from benchmarks.glosses import load_glosses
from benchmarks.glove import load_words
from benchmarks.papers.datasets import unit
from benchmarks.report import quick, say
from benchmarks.speed.timing import I64, K

SEED = 0  # of the split and of training
HELD_OUT = 2_000
NAMES = ("MiniLM", "GloVe")
FLOPS = {
    "MiniLM": FlopsConfig(dim=4_096, nnz=64, flops=1.0, seed=SEED),
    "GloVe": FlopsConfig(dim=4_096, nnz=32, flops=0.28, seed=SEED),
}
DRQ = DrqConfig(levels=16, seed=SEED)

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Data:
    """The searched data.

    Args:
        name: Whose vectors.
        rows: float32 (n, d), of unit length.
        queries: float32 (q, d), of unit length, neither among the rows nor trained on: the first half to choose
            settings by, the second to report.
        truth: int64 (q, 10): their nearest rows by cosine.
    """

    name: str
    rows: F32
    queries: F32
    truth: I64

    def __str__(self) -> str:
        return f"{self.name} {len(self.rows):,} x {self.rows.shape[1]}"

    @property
    def tuning(self) -> range:
        """The numbers of the queries to choose settings by."""
        return range(len(self.queries) // 2)

    @property
    def reported(self) -> range:
        """The numbers of the others."""
        return range(len(self.queries) // 2, len(self.queries))


@cache
def load_data(name: str) -> Data:
    """GloVe's 400,000 words, or 50,000 WordNet glosses by MiniLM; fewer when quick."""
    held_out = HELD_OUT // 4 if quick() else HELD_OUT
    if name == "GloVe":
        words = load_words(held_out, SEED, most=50_000 if quick() else None)
        rows, queries = unit(words.rows), unit(words.queries)
    else:
        glosses = unit(load_glosses(12_000 if quick() else 50_000))
        order = np.random.default_rng(SEED).permutation(len(glosses))
        rows, queries = glosses[order[held_out:]], glosses[order[:held_out]]
    exact = faiss.IndexFlatIP(rows.shape[1])
    exact.add(rows)
    return Data(name, rows, queries, exact.search(queries, K)[1])


@cache
def encoder_file(name: str, kind: str) -> Path:
    """An encoder (``flops`` or ``drq``) trained on all rows, removed after the run."""
    data = load_data(name)
    say(f"\nTraining a {kind} encoder on {data} ...")
    training = make_training_data(data.rows, seed=SEED)
    path = _folder() / f"{name}-{kind}.onnx"
    if kind == "flops":
        export_flops(train_flops(training, FLOPS[name]), path)
    else:
        export_drq(train_drq(training, DRQ), path)
    return path


def load_flops(name: str) -> FlopsEncoder:
    """The sparse encoder of a data set."""
    encoder = load_encoder(encoder_file(name, "flops"), threads=1)
    assert isinstance(encoder, FlopsEncoder)
    return encoder


def load_drq(name: str) -> DrqEncoder:
    """The recurrent quantiser of a data set, of 128 bits."""
    encoder = load_encoder(encoder_file(name, "drq"), threads=1)
    assert isinstance(encoder, DrqEncoder)
    return encoder


@cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="alula-speed-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def in_batches(encode: Any, rows: F32, size: int = 4_096) -> list[Any]:
    """The encoded rows, block by block to bound memory."""
    return [encode(rows[start : start + size]) for start in range(0, len(rows), size)]
