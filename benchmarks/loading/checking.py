"""Expected and actual rows of a collection, computed and read without Alula.

The companion fields come straight from the encoder file by onnxruntime, and are packed here again. The stored rows are
read by pymilvus alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import MilvusClient

from tests.tiny_encoders import random_vectors

FIELD = "embedding"  # the default name of the vector field
ROW_OUTPUTS = {"drq": ["signs"], "flops": ["rows", "dims", "weights"]}
PAGE = 16_000  # rows that are read at a time
LENGTH_ERROR = 1e-5  # of float32 sums


@dataclass(frozen=True)
class Rows:
    """Rows to load: unordered ids with gaps, a vector, a number, a long text."""

    count: int
    dim: int = 16
    seed: int = 0
    text_bytes: int = 300
    columns: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        texts = rng.bytes(self.count * self.text_bytes // 2).hex()
        columns = {
            "id": rng.permutation(self.count) * 3 + 7,
            "year": rng.integers(1900, 2100, self.count),
            "text": [texts[i : i + self.text_bytes] for i in range(0, self.count * self.text_bytes, self.text_bytes)],
            FIELD: random_vectors(self.count, self.dim, seed=self.seed),
        }
        object.__setattr__(self, "columns", columns)

    @property
    def scalars(self) -> list[str]:
        """The fields beside the key, as ``Collection.create`` takes them."""
        return ["year:INT64", f"text:VARCHAR({self.text_bytes})"]

    def write(self, path: Path) -> Path:
        """Write them as Parquet, in several row groups."""
        pq.write_table(pa.table({**self.columns, FIELD: list(self.columns[FIELD])}), path, row_group_size=7000)
        return path

    def write_stale(self, path: Path) -> Path:
        """Write half of the ids with other values, for a load to replace."""
        columns = {name: np.asarray(column)[1::2] for name, column in self.columns.items()}
        columns["id"] = self.columns["id"][::2]
        pq.write_table(pa.table({**columns, FIELD: list(columns[FIELD])}), path)
        return path


@dataclass(frozen=True)
class Verdict:
    """The errors in the rows of a collection.

    Args:
        lost: Rows that should be there and are not.
        doubled: Surplus rows: second ones of an id, and unknown ids.
        wrong: Rows of which any field is not what it should be.
    """

    lost: int
    doubled: int
    wrong: int
    examples: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """True if every row is there once with the right values."""
        return not (self.lost or self.doubled or self.wrong)


def check(client: MilvusClient, name: str, rows: Rows, encoder: Path) -> Verdict:
    """Read a whole collection and compare it with what the rows and the encoder say.

    Args:
        client: A client of the server.
        name: The collection.
        rows: The loaded rows.
        encoder: With which encoder.
    """
    return compare(client, name, rows.columns, encoder)


def compare(client: MilvusClient, name: str, columns: Mapping[str, Any], encoder: Path | None) -> Verdict:
    """Read a whole collection and compare it with columns.

    Args:
        client: A client of the server.
        name: The collection.
        columns: The expected columns, the key ``id`` and the vectors `FIELD` among them.
        encoder: The encoder of the companion fields; None if there must be none to see.
    """
    fields = {spec["name"] for spec in client.describe_collection(name)["fields"]}
    wanted = {field: column for field, column in columns.items() if field not in ("id", FIELD)}
    if encoder is not None:
        wanted |= companions(open_encoder(encoder), columns[FIELD])
    if FIELD in fields:
        wanted[FIELD] = columns[FIELD]
    unknown = fields ^ (set(wanted) | {"id"})
    if unknown:
        raise ValueError(f"These fields are not in both the collection and the expectation: {', '.join(unknown)}")
    there = count(client, name)
    if not there:  # Milvus Lite fails to read such a collection
        return Verdict(len(columns["id"]), 0, 0, ("there is no row",))
    where = {id_: position for position, id_ in enumerate(columns["id"].tolist())}
    seen: set[int] = set()
    doubled = wrong = 0
    examples = []
    for row in scan(client, name):
        position = where.get(row["id"])
        if position is None or row["id"] in seen:
            doubled += 1
            examples.append(f"row {row['id']} is there again, or should not be")
            continue
        seen.add(row["id"])
        differing = [field for field in wanted if not _same(field, row[field], wanted[field], position)]
        if differing:
            wrong += 1
            examples.append(f"row {row['id']} differs in {', '.join(differing)}")
    lost = len(where) - len(seen)
    if lost:
        examples.append(f"rows {sorted(set(where) - seen)[:5]} are not there")
    # a server answers with one row of an id that it holds twice: only its count gives the other away
    doubled = max(doubled, there - len(seen))
    return Verdict(lost, doubled, wrong, tuple(examples[:5]))


def count(client: MilvusClient, name: str) -> int:
    """The strongly consistent row count of the server."""
    return int(client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"])


def scan(client: MilvusClient, name: str) -> Iterator[dict[str, Any]]:
    """Every row of a collection."""
    iterator = client.query_iterator(
        name, batch_size=PAGE, filter="", output_fields=["*"], consistency_level="Strong", timeout=60
    )
    try:
        while page := iterator.next():
            yield from page
    finally:
        iterator.close()


def open_encoder(path: Path) -> onnxruntime.InferenceSession:
    """The outputs of an encoder file, with onnxruntime's own number of threads."""
    model = onnx.load(path)
    outputs = {output.name for output in model.graph.output}
    wanted = ROW_OUTPUTS["drq" if "codes" in outputs else "flops"] + sorted(outputs & {"sign_lengths"})
    # cut, since onnxruntime would compute the queries' outputs too
    rows = onnx.utils.Extractor(model).extract_model(["vectors"], wanted)
    return onnxruntime.InferenceSession(rows.SerializeToString(), providers=["CPUExecutionProvider"])


def companions(session: onnxruntime.InferenceSession, vectors: np.ndarray) -> dict[str, Any]:
    """Companion fields as pymilvus takes them, from the encoder file alone."""
    outputs = session.run(None, {"vectors": vectors})
    if session.get_outputs()[0].name == "signs":
        signs, *lengths = outputs
        return {
            f"{FIELD}__drq_sign": [row.tobytes() for row in signs],
            **{f"{FIELD}__drq_length": column for column in lengths},
        }
    owners, dims, weights = outputs
    sparse: list[dict[int, float]] = [{} for _ in vectors]
    for owner, dim, weight in zip(owners.tolist(), dims.tolist(), weights.tolist(), strict=True):
        sparse[owner][dim] = weight
    return {f"{FIELD}__flops": sparse}


def _same(field: str, stored: Any, wanted: Any, position: int) -> bool:
    value = wanted[position]
    if field == FIELD:
        return np.array_equal(np.asarray(stored, np.float32), value)
    if field.endswith("__drq_sign"):
        return (stored[0] if isinstance(stored, list) else stored) == value
    if field.endswith("__flops"):
        return stored.keys() == value.keys() and np.allclose(
            [stored[dim] for dim in value], list(value.values()), rtol=1e-5, atol=1e-6
        )
    if field.endswith("__drq_length"):
        return bool(np.isclose(stored, value, rtol=LENGTH_ERROR))
    return stored == value
