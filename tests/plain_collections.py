"""Plain Milvus collections, made without Alula, and whether a migrated one holds exactly their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymilvus import DataType

import alula
from alula.index_types import FieldSpec
from alula.milvus.schema_fields import add_field
from alula.sources.declared_types import DYNAMIC
from tests.tiny_encoders import TinyDrq, random_vectors

DIM = 8
SCALARS = {
    "updated_at": DataType.INT64,
    "word": DataType.VARCHAR,
    "score": DataType.FLOAT,
    "exact": DataType.DOUBLE,
    "flag": DataType.BOOL,
    "small": DataType.INT8,
}


def create_with_signs(server: alula.Server, name: str, fields: Sequence[FieldSpec]) -> None:
    """Create a collection of these fields, the first its key, with BIN_FLAT on the field ``signs``."""
    dynamic = any(field.name == DYNAMIC for field in fields)
    schema = server.client.create_schema(auto_id=False, enable_dynamic_field=dynamic)
    for field in fields:
        if field.name != DYNAMIC:
            add_field(schema, field, is_primary=field is fields[0])
    index = server.client.prepare_index_params()
    index.add_index("signs", index_type="BIN_FLAT", metric_type="HAMMING")
    server.client.create_collection(name, schema=schema, index_params=index)


def plain_rows(ids, *, clock: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with these ids; ``updated_at`` is the clock."""
    rng = np.random.default_rng(seed)
    vectors = random_vectors(len(ids), DIM, seed=seed)
    return [
        {
            "id": id_,
            "vec": vector.tolist(),
            "updated_at": clock,
            "word": f"w{number}",
            "score": float(np.float32(number)),
            "exact": number / 3,
            "flag": bool(number % 2),
            "small": number % 100 - 50,
        }
        for id_, vector, number in zip(ids, vectors, rng.integers(0, 10_000, len(ids)).tolist(), strict=True)
    ]


def create_plain(server: alula.Server, name: str, rows: list[dict[str, Any]], *extra, **schema_options) -> None:
    """A collection with a graph index (Milvus Lite: an exact one) that holds the rows.

    ``extra``: more fields, each arguments of ``add_field``.
    """
    client = server.client
    schema = client.create_schema(auto_id=False, description="what they are", **schema_options)
    if isinstance(rows[0]["id"], str):
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=60)
    else:
        schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vec", DataType.FLOAT_VECTOR, dim=DIM)
    for field, kind in SCALARS.items():
        schema.add_field(field, kind, **({"max_length": 20} if kind == DataType.VARCHAR else {}))
    for arguments in extra:
        schema.add_field(**arguments)
    params = client.prepare_index_params()
    kind = "FLAT" if server.embedded else "HNSW"
    params.add_index("vec", index_type=kind, metric_type="COSINE", params={"M": 8, "efConstruction": 64})
    client.create_collection(name, schema=schema, consistency_level="Strong")
    client.create_index(name, params)
    client.load_collection(name)
    for start in range(0, len(rows), 5000):
        client.insert(name, rows[start : start + 5000])


def everything(server: alula.Server, name: str, filter: str) -> dict[Any, dict[str, Any]]:
    """Every row by id, as Milvus gives them."""
    rows = server.client.query(name, filter=filter, output_fields=["*"], limit=16384, consistency_level="Strong")
    return {row["id"]: row for row in rows}


def check_migrated(server: alula.Server, old: str, new: str, encoder: TinyDrq, filter: str = "id >= 0") -> int:
    """Whether the new collection has the rows of the old one, field by field, and the sign bits of their vectors.

    Returns the number of rows.
    """
    theirs, ours = everything(server, old, filter), everything(server, new, filter)
    assert ours
    assert set(ours) == set(theirs)
    count = server.client.query(new, filter="", output_fields=["count(*)"], consistency_level="Strong")
    assert count[0]["count(*)"] == len(theirs)
    ids = list(theirs)
    vector_field = next(name for name in theirs[ids[0]] if name in ("vec", "embedding"))
    vectors = np.array([theirs[id_][vector_field] for id_ in ids], np.float32)
    signs = encoder.row_signs(vectors)
    for i, id_ in enumerate(ids):
        row = ours[id_]
        for field, value in theirs[id_].items():
            if field == vector_field:
                assert np.array_equal(np.asarray(row[field], np.float32), vectors[i])
            elif not field.startswith(f"{vector_field}__"):
                assert row[field] == value, (id_, field)
        assert bytes(row[f"{vector_field}__drq_sign"][0]) == signs[i].tobytes()
    return len(ids)
