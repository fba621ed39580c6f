"""The files of a bulk import have vectors in the form that Milvus reads."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alula.ingest.bulk_import.import_file import ImportFileWriter
from alula.milvus.wire.types import field_spec
from tests.tiny_encoders import random_vectors

ROWS, DIM = 20, 16
BYTES = pa.list_(pa.uint8())


def test_vectors_are_lists_of_floats_or_of_bytes(tmp_path):
    """As pymilvus's own bulk writer writes them: little-endian numbers of two bytes for half precision."""
    vectors, signs = random_vectors(ROWS, DIM, seed=4), np.arange(2 * ROWS, dtype=np.uint8).reshape(ROWS, 2)
    types = {"whole": "FLOAT_VECTOR", "half": "FLOAT16_VECTOR", "signs": "BINARY_VECTOR"}
    fields = [field_spec("id", "INT64"), *(field_spec(name, kind, dim=DIM) for name, kind in types.items())]
    writer = ImportFileWriter(tmp_path / "rows.parquet", fields, 0)
    writer.write({"id": np.arange(ROWS), "whole": vectors, "half": vectors, "signs": signs}, ROWS - 1)
    writer.close()
    found = pq.read_table(tmp_path / "rows.parquet")
    expected = {
        "id": pa.array(range(ROWS), pa.int64()),
        "whole": pa.array(vectors.tolist(), pa.list_(pa.float32())),
        "half": pa.array([list(vector.astype("<f2").tobytes()) for vector in vectors], BYTES),
        "signs": pa.array(signs.tolist(), BYTES),
    }
    assert found.to_pydict() == pa.table(expected).to_pydict()
    assert [field.type.value_type for field in found.schema if field.name != "id"] == [
        pa.float32(),
        pa.uint8(),
        pa.uint8(),
    ]
