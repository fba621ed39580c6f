"""A collection of Milvus Lite 3, and beside it in numpy what it should hold and find."""

from __future__ import annotations

import numpy as np
from pymilvus import DataType

from alula.lite.segment_index import SegmentIndex
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors

FIELD = "embedding"
QUERIES = random_vectors(5, seed=77)


class Mirror:
    """A collection with an index, and its rows by id.

    Args:
        database: Where.
        encoder: A tiny encoder.
        index_type: The index type.
        name: Its name.
        index: Whether to create the index.
    """

    def __init__(self, database, encoder, index_type, *, name="rows", index=True):
        self.database, self.encoder, self.index_type, self.name = database, encoder, index_type, name
        self.metric = encoder.info.metric
        self.rows = {}  # id: (vector, kind, partition)
        self._made = 0
        self.client = database.client()
        schema = self.client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=encoder.info.input_dim)
        schema.add_field("kind", DataType.INT64)
        self.client.create_collection(name, schema=schema)
        if index:
            self.create_index(encoder=str(encoder.path))
            self.client.load_collection(name)

    def create_index(self, *, metric="", **params):
        """Create the index as users of pymilvus do."""
        index = self.client.prepare_index_params()
        index.add_index(FIELD, index_type=self.index_type, metric_type=metric or self.metric, params=params)
        self.client.create_index(self.name, index, sync=False)  # it asks only every half second

    @property
    def engine(self):
        """Milvus Lite's own collection."""
        from milvus_lite.server_manager import server_manager_instance

        return server_manager_instance._servers[self.database.uri][1].get_collection(self.name)

    def put(self, ids, *, partition="_default", upsert=True):
        """Insert rows, or others in place of those there are."""
        self._made += 1
        vectors = random_vectors(len(ids), self.encoder.info.input_dim, seed=self._made)
        rows = [{"id": i, FIELD: v.tolist(), "kind": i % 7} for i, v in zip(ids, vectors, strict=True)]
        (self.client.upsert if upsert else self.client.insert)(self.name, rows, partition_name=partition)
        self.rows.update({i: (v, i % 7, partition) for i, v in zip(ids, vectors, strict=True)})

    def delete(self, ids):
        """Delete rows."""
        self.client.delete(self.name, ids=list(ids))
        for i in ids:
            self.rows.pop(i, None)

    def flush(self):
        """Make a segment of the rows that are not yet in one, and wait for its index."""
        self.client.flush(self.name)
        self.settle()

    def settle(self):
        """Wait for compaction and for the indexes of all segments."""
        self.engine._wait_for_bg()
        for segment in self.engine._segment_cache.values():
            assert isinstance(segment.indexes[FIELD], SegmentIndex)

    @property
    def segments(self):
        """The number of rows in each segment."""
        return [segment.num_rows for segment in self.engine._segment_cache.values()]

    def restart(self):
        """Close the database and open it again."""
        self.client.close()
        self.database.release()
        self.client = self.database.client()
        self.client.load_collection(self.name)

    def search(self, limit=10, queries=QUERIES, **arguments):
        """Hits of each query as (id, distance); the options of the index type go with ``params``."""
        params = arguments.pop("params", {})
        found = self.client.search(
            self.name, np.asarray(queries).tolist(), limit=limit, search_params={"params": params}, **arguments
        )
        return [[(hit["id"], hit["distance"]) for hit in hits] for hits in found]

    def check(self, limit=10, *, where=lambda i, kind, partition: True, queries=QUERIES, **arguments):
        """Search, and compare with brute force over the rows for which ``where`` holds."""
        ids = np.array([i for i, (_, kind, partition) in self.rows.items() if where(i, kind, partition)])
        vectors = np.array([self.rows[i][0] for i in ids]).reshape(len(ids), self.encoder.info.input_dim)
        for query, hits in zip(queries, self.search(limit, queries, **arguments), strict=True):
            exact = scores(query, vectors, self.metric)
            expected = best(exact, limit, self.metric)
            assert [i for i, _ in hits] == ids[expected].tolist()
            np.testing.assert_allclose([distance for _, distance in hits], exact[expected], rtol=1e-4, atol=1e-5)
