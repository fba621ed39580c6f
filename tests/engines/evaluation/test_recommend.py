"""Recommendations in both engines: figures against formulas and brute force, the choice, and no trace left."""

from __future__ import annotations

import numpy as np
import pytest

from alula.encoders import load_encoder
from alula.errors import AlulaError, DataError, LoadInterrupted, UsageError
from alula.evaluation.choice import LESS_TIME, MORE_MEMORY
from alula.evaluation.native import PREFIX
from alula.evaluation.native_types import FAISS, NATIVE
from alula.evaluation.prospects import drq_prospects
from alula.evaluation.queries import QueryOptions
from alula.evaluation.recommend import Wish, recommend
from alula.evaluation.row_sample import draw_sample
from alula.evaluation.row_source import file_rows
from tests.tiny_encoders import random_vectors, write_drq, write_flops

ROWS = 1300  # Milvus 2.3 builds no index for fewer than 1,024 rows
SAMPLE = 1100
MANY = 1_000_000
DIM = 8


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    written = [write_drq(folder / "drq.onnx", sign_bits=64), write_flops(folder / "flops.onnx")]
    return [load_encoder(encoder.path) for encoder in written]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(file, random_vectors(ROWS, DIM, seed=1))
    return file_rows(str(file), None, None)


def ask(server, source, encoders=(), *, k=5, **wish):
    given = {"target": 0.9, "sample_rows": SAMPLE, "build_timeout": 20.0, "seconds": 1.0, **wish}
    return recommend(server, source, Wish(**given), QueryOptions(k=k), encoders=encoders)


def temporary(server):
    return [name for name in server.client.list_collections() if name.startswith(PREFIX)]


@pytest.fixture(scope="module")
def with_encoders(engine, rows, encoders):
    return engine, ask(engine, rows, encoders, rows=MANY)


def test_every_type_is_measured_or_refused(with_encoders):
    server, found = with_encoders
    alula = ["DRQ (drq), vectors kept", "DRQ (drq), vectors dropped"]
    alula += ["FLOPS_SPARSE (flops), vectors kept"]
    names = [one.name for one in found.contenders]
    assert set(names) | set(found.refused) == {*NATIVE, *alula} - {FAISS}
    assert not set(names) & set(found.refused)
    if server.embedded:
        assert set(names) == {"FLAT", "IVF_FLAT", *alula}
        assert "local mode only" in found.refused["HNSW"]
    else:
        assert "not built the index in 20 seconds" in found.refused["DISKANN"]
        assert "FLOPS_SPARSE" in " ".join(found.refused)  # 2.3 cannot index sparse vectors
        assert {"FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", *alula[:2]} <= set(names)
    assert found.prospects == []
    assert temporary(server) == []
    assert (found.rows, found.file_rows, found.sample_rows, found.dim) == (MANY, ROWS, SAMPLE, DIM)


def test_the_figures(with_encoders):
    _, found = with_encoders
    by_name = {one.name: one for one in found.contenders}
    flat = by_name["FLAT"]
    assert [point.recall.value for point in flat.points] == [1.0]
    assert flat.sizes.memory == {"vectors": 4 * DIM}
    nlist = 4 * int(MANY**0.5)  # the clusters of the rows asked for, not of the sample
    assert by_name["IVF_FLAT"].sizes.memory["centroids"] == pytest.approx(4 * DIM * nlist / MANY)
    dropped = by_name["DRQ (drq), vectors dropped"]
    assert (dropped.sizes.memory, dropped.sizes.disk) == ({"drq sign": 8}, {})
    kept = by_name["DRQ (drq), vectors kept"]
    assert kept.sizes.memory_bytes >= 8 + 4 * DIM  # neither engine maps them
    assert kept.sizes.disk == {}
    assert all(one.build_seconds > 0 for one in found.contenders)
    for one in found.contenders:
        assert (one.chosen is not None) == any(point.recall.low >= found.target for point in one.points)
        assert one.chosen is None or one.chosen.recall.low >= found.target
        assert one.chosen is None or one.p50 > 0
    at_rows = flat.p50_at_rows
    assert at_rows > flat.p50
    assert f"{at_rows:,.0f} ms for 1,000,000 rows" in " ".join(flat.notes)
    assert "sign bits of every row" in " ".join(kept.notes)


def test_the_choice_keeps_the_rule(with_encoders):
    _, found = with_encoders
    good = [one for one in found.contenders if one.chosen]
    assert found.contenders[: len(good)] == sorted(good, key=lambda one: one.memory)
    (taken,) = [one for one in good if one.name == found.taken]
    least = min(one.memory for one in good)
    assert taken.memory <= MORE_MEMORY * least
    smallest = min(good, key=lambda one: (one.memory, one.time))
    assert taken is smallest or taken.time <= LESS_TIME * smallest.time
    assert taken.name in found.reason


def test_without_an_encoder_drq_is_a_formula_and_an_estimate(lite, rows):
    found = ask(lite, rows)
    assert [one.name for one in found.prospects] == ["DRQ, vectors kept", "DRQ, vectors dropped"]
    assert found.taken in ("FLAT", "IVF_FLAT")
    assert "alula train drq rows.npy" in found.hint
    assert found.rows == ROWS
    assert all(one.p50_at_rows is None for one in found.contenders)
    assert temporary(lite) == []


def test_the_prospects_of_drq(engine, rows):
    sample = draw_sample(rows, QueryOptions(k=5), most=SAMPLE, target=0.9, metric="COSINE")
    queries = sample.query_set.queries
    (kept, dropped), refused = drq_prospects(engine, sample.vectors, queries, metric="COSINE", target=0.9)
    # 256 sign bits alone, and no engine here maps kept vectors from disk
    assert dropped.sizes.memory_bytes == 32
    assert kept.sizes.memory["drq sign"] == 32
    assert kept.sizes.memory["kept vectors"] >= 4 * DIM
    assert kept.sizes.disk_bytes == 0
    assert list(kept.estimates) == [5, 15, 25, 50, 100, 250, 500]
    assert kept.enough == min(count for count, recall in kept.estimates.items() if recall.low >= 0.9)
    assert (dropped.estimates, dropped.enough, refused) == ({}, None, {})


def test_wrong_demands(lite, rows, encoders, tmp_path):
    with pytest.raises(UsageError, match="One metric can be evaluated at a time, and these are COSINE, L2"):
        ask(lite, rows, encoders, metric="L2")
    with pytest.raises(UsageError, match="1,300 rows, too few for 2,000 neighbours"):
        ask(lite, rows, k=2000)
    np.save(tmp_path / "narrow.npy", random_vectors(100, 7))
    with pytest.raises(DataError, match=r"drq.onnx takes vectors of 8 numbers, and those of .*narrow.npy have 7"):
        ask(lite, file_rows(str(tmp_path / "narrow.npy"), None, None), encoders)
    wide = write_drq(tmp_path / "wide.onnx", input_dim=9)
    with pytest.raises(DataError, match=r"wide.onnx takes vectors of 9"):
        ask(lite, rows, [*encoders, load_encoder(wide.path)])
    assert temporary(lite) == []


def test_a_server_that_refuses_everything(lite, tmp_path):
    np.save(tmp_path / "wide.npy", random_vectors(60, 32_769))  # one number more than Milvus takes
    with pytest.raises(AlulaError, match=r"^Nothing could be measured\. .*with FLAT.* 32768.*with HNSW"):
        ask(lite, file_rows(str(tmp_path / "wide.npy"), None, None))
    assert temporary(lite) == []


def test_a_server_builds_no_index_for_few_rows(standalone, rows):
    with pytest.raises(UsageError, match=r"sample has 1,000 rows, and Milvus builds no index for fewer than 1,024"):
        ask(standalone, rows, sample_rows=1000)


def test_stopped_it_leaves_nothing_behind(lite, rows, encoders):
    def stop(stage, done, total, figures=None):
        if stage.startswith("loading DRQ"):
            raise KeyboardInterrupt

    with pytest.raises(LoadInterrupted, match="the temporary collection was dropped"):
        recommend(lite, rows, Wish(sample_rows=SAMPLE), QueryOptions(), encoders=encoders, progress=stop)
    assert temporary(lite) == []
