"""The index type in examples/sign_bits works as its readers would use it: installed, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_encoders import random_vectors, write_drq

EXAMPLE = Path(__file__).parents[3] / "examples" / "sign_bits"
ROWS, QUERIES, CANDIDATES, LIMIT = 300, 5, 40, 10


@pytest.fixture(scope="module")
def installed_package(tmp_path_factory):
    """The example, really installed: an environment in which Python finds it beside Alula."""
    folder = tmp_path_factory.mktemp("third_party")
    shutil.copytree(EXAMPLE, folder / "source")  # building leaves files beside the source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder / "installed", folder / "source"], check=True)
    path = os.pathsep.join(filter(None, [str(folder / "installed"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def alula(installed_package):
    def run(*args):
        command = [sys.executable, "-m", "alula.cli", *map(str, args)]
        done = subprocess.run(command, env=installed_package, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def collection(alula, tmp_path_factory):
    """A collection of the example's type on an embedded database: the options that name it, and what is in it."""
    folder = tmp_path_factory.mktemp("collection")
    drq = write_drq(folder / "drq.onnx", sign_bits=64, metric="L2")
    rows, queries = random_vectors(ROWS, seed=1), random_vectors(QUERIES, seed=2)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "queries.npy", queries)
    where = ["--uri", folder / "signs.db", "--encoder", drq.path]
    alula("create", "mine", "--index-type", "DRQ_SIGNS", *where)
    alula("load", "mine", folder / "rows.npy", *where)
    distances = np.square(queries[:, None] - rows).sum(2)
    bits = np.unpackbits(drq.query_signs(queries)[:, None] ^ drq.row_signs(rows), axis=2)
    search = ["search", "mine", "--vectors", folder / "queries.npy", *where, "--limit", LIMIT, "--format", "json"]
    return search, distances, bits.sum(2, dtype=int)


def hits(output):
    """For each query the ids and the scores of what was found."""
    found = [json.loads(line)["hits"] for line in output.splitlines()]
    return [([hit["id"] for hit in some], [hit["score"] for hit in some]) for some in found]


def test_it_is_short():
    assert len((EXAMPLE / "sign_bits.py").read_text().splitlines()) < 60


def test_it_is_listed_beside_the_built_ins(alula):
    listed = [json.loads(line) for line in alula("index-types", "--format", "json").splitlines()]
    assert {"DRQ", "FLOPS_SPARSE", "DRQ_SIGNS"} <= {kind["name"] for kind in listed}
    (mine,) = (kind for kind in listed if kind["name"] == "DRQ_SIGNS")
    assert mine["encoder"] == "drq"
    assert mine["search_options"] == {"candidates": 200}


def test_candidates_are_ranked_by_their_exact_vectors(alula, collection):
    search, distances, hamming = collection
    found = hits(alula(*search, "--candidates", CANDIDATES))
    assert len(found) == QUERIES
    for (ids, scores), exact, differing in zip(found, distances, hamming, strict=True):
        np.testing.assert_allclose(scores, exact[ids], rtol=1e-4)
        assert scores == sorted(scores)
        # rows that tie at the last candidate's distance may or may not have been candidates
        last = np.sort(differing)[CANDIDATES - 1]
        assert (differing[ids] <= last).all()
        surely = np.flatnonzero(differing < last)
        missed = set(surely[exact[surely] < scores[-1]].tolist()) - set(ids)
        assert len(ids) == LIMIT
        assert not missed


def test_with_all_rows_as_candidates_the_results_are_exact(alula, collection):
    search, distances, _ = collection
    for (ids, _), exact in zip(hits(alula(*search, "--candidates", ROWS)), distances, strict=True):
        assert ids == np.argsort(exact, kind="stable")[:LIMIT].tolist()


def test_without_exact_vectors_the_score_is_the_hamming_distance(alula, collection):
    search, _, hamming = collection
    for (ids, scores), differing in zip(hits(alula(*search, "--rerank", 0)), hamming, strict=True):
        assert scores == np.sort(differing)[:LIMIT].tolist()
        assert scores == differing[ids].tolist()
