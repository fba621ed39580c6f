"""Milvus's own index types of later versions, as ``alula evaluate --compare`` measures them."""

from __future__ import annotations

import numpy as np
import pytest

from alula.catalog.schema import ScalarField
from alula.errors import ServerError
from alula.evaluation.evaluate import Budget, IndexComparison
from alula.evaluation.native_types import parse_native
from alula.evaluation.queries import QueryOptions, make_queries
from alula.evaluation.row_source import file_rows
from tests.small_collections import DIM
from tests.tiny_encoders import random_vectors
from tools.servers.versions.indexes import FaissStrings

ROWS, K = 1200, 5  # Milvus 2.3 builds no index for fewer than 1,024 rows


@pytest.fixture(scope="module")
def comparison(standalone, tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(file, random_vectors(ROWS, DIM, seed=1))
    rows, key = file_rows(str(file), None, None), ScalarField("alula_row", "INT64")
    return IndexComparison(standalone, rows, key, "COSINE", DIM, ROWS, Budget(0, 1, build_timeout=60))


@pytest.fixture(scope="module")
def queries(comparison):
    return make_queries(comparison.rows, QueryOptions(sample=10, k=K), encoder=None, metric="COSINE").queries


@pytest.mark.parametrize(
    ("string", "names"),
    [
        ("IVF16,PQ4x4fs", {"nprobe"}),
        ("PCA4,IVF16,SQ8,Refine(SQfp16)", {"nprobe", "k_factor"}),
        ("HNSW16,Flat", {"efSearch"}),
    ],
)
def test_factory_strings_of_faiss(on_standalone, comparison, queries, string, names):
    index_type, params = parse_native(f"FAISS:{string}")
    if not on_standalone.has(FaissStrings):
        with pytest.raises(ServerError, match=r"could not make a collection with FAISS: invalid index type: FAISS"):
            comparison.native(index_type, params, queries)
        return
    subject = comparison.native(index_type, params, queries).subject
    assert subject.name == f"FAISS faiss_index_name={string}"
    assert {name for point in subject.points for name in point.settings} == names
    assert {point.recall.value for point in subject.points} == {1.0}, "the engine's index is exact"


def test_a_wrong_factory_string_is_accepted_and_not_built(on_standalone, comparison, queries):
    if not on_standalone.has(FaissStrings):
        pytest.skip("this version has no FAISS")
    with pytest.raises(ServerError, match=r"Milvus could not build the index: faiss::index_factory failed"):
        comparison.native(*parse_native("FAISS:IVF16,Nonsense"), queries)
    assert not [name for name in comparison.server.client.list_collections() if "faiss" in name]
