"""The data of the tutorial: ``python -m examples.texts FOLDER``.

WordNet's definitions with MiniLM's vectors, as files and as a collection that Milvus Lite had before Alula came;
queries with judgements; and a SPLADE model as sentence-transformers saves it. ``ROWS=3000`` makes all of it small.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import DataType, MilvusClient

from benchmarks.definitions import load_definitions
from benchmarks.report import say
from benchmarks.sentence_models import embed_minilm
from benchmarks.splade import save_splade

ROWS = int(os.environ.get("ROWS") or 60_000)
QUERIES = 200
INSERT = 500  # rows: the time that Milvus Lite takes grows with the square of an insert's bytes

F32 = npt.NDArray[np.float32]


def main(folder: Path) -> None:
    """Write everything into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found = load_definitions(ROWS, QUERIES, seed=0)
    texts, queries = pa.array(found.texts), found.judged["words"]
    ids = pa.array(np.arange(len(found.texts)))
    say(f"Embedding {len(texts):,} texts with MiniLM ...")
    vectors = found.vectors()
    pq.write_table(pa.table({"id": ids, "text": texts}), folder / "texts.parquet")
    pq.write_table(pa.table({"id": ids, "embedding": _lists(vectors)}), folder / "vectors.parquet")
    asked = {"_id": [f"q{i}" for i in range(len(queries.texts))], "text": list(queries.texts)}
    pq.write_table(pa.table({**asked, "embedding": _lists(embed_minilm(queries.texts))}), folder / "queries.parquet")
    lines = [f"q{i}\t{row}\t1\n" for i, rows in enumerate(queries.rows) for row in rows]
    (folder / "qrels.tsv").write_text("".join(lines))
    save_splade(folder / "splade")
    say("Filling the collection texts ...")
    make_collection(folder / "texts.db", list(found.texts), vectors)
    say(f"{len(texts):,} texts and {len(queries.texts):,} judged queries in {folder}.")


def make_collection(path: Path, texts: list[str], vectors: F32) -> None:
    """The collection ``texts`` with an index type of Milvus's own."""
    warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # which milvus-lite 2.5 imports
    client = MilvusClient(str(path))
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=2_000)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="FLAT", metric_type="COSINE")
    client.create_collection("texts", schema=schema, index_params=index)
    for start in range(0, len(texts), INSERT):
        rows = zip(texts[start : start + INSERT], vectors[start : start + INSERT], strict=True)
        client.insert(
            "texts", [{"id": i, "text": text, "embedding": vector} for i, (text, vector) in enumerate(rows, start)]
        )
    client.close()


def _lists(vectors: F32) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
