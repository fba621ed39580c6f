"""Search sparse embeddings of sentence-transformers in Milvus.

No encoder file is needed. The function has the signature and the results of sentence-transformers' own helpers for
other engines (``sentence_transformers.sparse_encoder.search_engines``).
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_ROWS = 5_000  # of an insert: rows of 256 weights take 10 MB
_QUERIES = 100  # of a search


def semantic_search_milvus(
    query_embeddings: Tensor,
    corpus_embeddings: Tensor | None = None,
    corpus_index: tuple[MilvusClient, str] | None = None,
    top_k: int = 10,
    output_index: bool = False,
    **kwargs: Any,
) -> (
    tuple[list[list[dict[str, int | float]]], float]
    | tuple[list[list[dict[str, int | float]]], float, tuple[MilvusClient, str]]
):
    """Search sparse embeddings by their inner product.

    Args:
        query_embeddings: Sparse COO (q, V) or (V,), as ``SparseEncoder.encode_query`` returns them.
        corpus_embeddings: Sparse COO (n, V), as ``SparseEncoder.encode_document`` returns them. Without
            `corpus_index` they are inserted into a new collection, row i with the id i.
        corpus_index: A client and the collection that an earlier call made.
        top_k: Results per query.
        output_index: True to return the client and the collection too.
        kwargs: Arguments of ``pymilvus.MilvusClient``; by default ``uri="http://localhost:19530"``.

    Returns:
        For each query its results, best first, as ``{"corpus_id": id, "score": inner product}``; the seconds of the
        search; and with `output_index` the client and the collection. A query without weights has no results, and a
        row without weights is never found: Milvus stores none.

    Raises:
        ValueError: If the embeddings are not sparse COO tensors, or neither rows nor a collection are given.
    """
    from pymilvus import MilvusClient  # noqa: PLC0415 (a second)

    queries = _rows(query_embeddings.unsqueeze(0) if query_embeddings.ndim == 1 else query_embeddings, "Query")
    if corpus_index is None:
        if corpus_embeddings is None:
            raise ValueError("Either corpus_embeddings or corpus_index must be provided")
        rows = _rows(corpus_embeddings, "Corpus")
        client = MilvusClient(**{"uri": "http://localhost:19530", **kwargs})
        corpus_index = client, f"sparse_collection_{uuid4().hex}"
        _insert(*corpus_index, rows)
    client, name = corpus_index

    started = time.time()
    found: list[list[dict[str, int | float]]] = [[] for _ in queries]
    asked = [i for i, query in enumerate(queries) if query]
    for first in range(0, len(asked), _QUERIES):
        places = asked[first : first + _QUERIES]
        data = [queries[i] for i in places]
        answers = client.search(name, data=data, anns_field="sparse", limit=top_k, search_params={"metric_type": "IP"})
        for i, hits in zip(places, answers, strict=True):
            found[i] = [{"corpus_id": hit["id"], "score": float(hit["distance"])} for hit in hits]
    seconds = time.time() - started
    return (found, seconds, corpus_index) if output_index else (found, seconds)


def _insert(client: MilvusClient, name: str, rows: list[dict[int, float]]) -> None:
    """Insert rows into a new collection, which is loaded."""
    from pymilvus import DataType  # noqa: PLC0415

    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    index = client.prepare_index_params()
    index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
    entities = [{"id": i, "sparse": row} for i, row in enumerate(rows) if row]
    for first in range(0, len(entities), _ROWS):
        client.insert(name, entities[first : first + _ROWS])


def _rows(embeddings: Tensor, what: str) -> list[dict[int, float]]:
    """The weights of each row by dimension, zeros left out.

    Raises:
        ValueError: If it is not a sparse COO tensor with two axes.
    """
    if embeddings.layout != torch.sparse_coo:
        raise ValueError(f"{what} embeddings must be a sparse COO tensor")
    if embeddings.ndim != 2:
        raise ValueError(f"{what} embeddings must be a 1D or 2D sparse tensor, got {embeddings.ndim}D")
    coalesced = embeddings.coalesce().cpu()
    (numbers, dims), weights = coalesced.indices().numpy(), coalesced.values().float().numpy()
    starts = np.searchsorted(numbers, np.arange(len(embeddings) + 1))
    return [
        {int(dim): float(weight) for dim, weight in zip(dims[a:b], weights[a:b], strict=True) if weight}
        for a, b in pairwise(starts)
    ]
