"""BM25 as the server computes it, for judged searches of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alula.catalog.description import read_schema
from alula.errors import UsageError
from alula.milvus import Server, ensure_loaded, milvus_errors
from alula.search import RankedIds

METRIC = "BM25"


@dataclass(frozen=True)
class Bm25:
    """A loaded collection with a BM25 function, which makes sparse rows of texts.

    Args:
        server: The server.
        collection: Name of the collection, which need not be one of Alula's.
        field: Output of the function.
    """

    server: Server
    collection: str
    field: str

    @classmethod
    def open(cls, server: Server, collection: str) -> Bm25:
        """Find the field in the collection's indexes.

        Raises:
            UsageError: If there is no such collection, or it has no BM25.
            ServerError: If Milvus fails.
        """
        if not server.has_collection(collection):
            raise UsageError(f"There is no collection {collection!r} at {server.uri} to search by BM25.")
        _, indexes = read_schema(server, collection)
        field = next((str(index["field_name"]) for index in indexes if index.get("metric_type") == METRIC), None)
        if field is None:
            raise UsageError(
                f"The collection {collection!r} has no index with the metric BM25; make one on the output of a BM25 "
                "function, which Milvus 2.5 and later and Milvus Lite 2.5 have."
            )
        ensure_loaded(server, collection)
        return cls(server, collection, field)

    def search(self, texts: Sequence[str], limit: int) -> RankedIds:
        """Rank the rows for one text.

        Raises:
            ServerError: If Milvus fails.
        """
        with milvus_errors("search by BM25"):
            (hits,) = self.server.client.search(
                self.collection,
                data=list(texts),
                anns_field=self.field,
                limit=limit,
                search_params={"metric_type": METRIC},
            )
        return RankedIds(list(hits.ids), np.array(hits.distances, np.float32), exact=True)
