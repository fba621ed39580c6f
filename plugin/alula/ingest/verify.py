"""Check after a load that the collection contains its rows."""

from __future__ import annotations

from dataclasses import dataclass

from alula.ingest.compare_rows import same_rows
from alula.ingest.target import Target
from alula.milvus import any_of, milvus_errors

NEIGHBOURS = 10


@dataclass(frozen=True)
class Verification:
    """The result of the check.

    Args:
        rows: Rows in the collection.
        fewest: The fewest rows expected.
        most: The most rows expected; more than `fewest` if rows may have replaced others.
        compared: Rows of the sample, encoded again and compared with what Milvus returns, bit for bit.
        different: The differing rows, one sentence each.
        answered: Rows of the sample whose search finds any row.
        found: Rows among these that are among their own ten nearest rows. Few are, if many rows are alike, or if codes
            are short and vectors were dropped.
    """

    rows: int
    fewest: int
    most: int
    compared: int
    different: tuple[str, ...]
    answered: int
    found: int

    @property
    def problem(self) -> str:
        """The first problem, in a sentence; "" without one."""
        if not self.fewest <= self.rows <= self.most:
            should = f"{self.most:,}" if self.fewest == self.most else f"{self.fewest:,} to {self.most:,}"
            return f"the collection contains {self.rows:,} rows, and should contain {should}"
        if self.different:
            return f"{len(self.different)} of {self.compared} rows differ from their source ({self.different[0]})"
        if self.compared and not self.answered:
            return "a search finds nothing in it"
        return ""


def verify(target: Target, sample: list[bytes], fewest: int, most: int) -> Verification:
    """Count the rows, compare a sample of them with their source, and search for them.

    Args:
        target: The collection.
        sample: Rows as `Target.remember` kept them.
        fewest: The fewest rows expected.
        most: The most.

    Raises:
        ServerError: If Milvus fails.
    """
    rows = target.count()
    if not sample:
        return Verification(rows, fewest, most, 0, (), 0, 0)
    checked = target.recall(sample)
    columns = target.encode(checked)
    key = target.primary_key.name
    keys = [value.item() if hasattr(value, "item") else value for value in columns[key]]
    with milvus_errors(f"read rows of {target.name!r}"):
        stored = target.server.client.query(
            target.name, filter=any_of(key, keys), output_fields=["*"], consistency_level="Strong"
        )
    by_key = {row[key]: row for row in stored}
    different = []
    for i, value in enumerate(keys):
        if value not in by_key:
            different.append(f"{value!r} is missing")
        elif (field := same_rows(by_key[value], columns, i, target.specs)) is not None:
            different.append(f"{field!r} of {value!r} is another")
    vectors = columns.get(target.lowering.field.name)
    if vectors is None:  # they are not kept
        vectors = target.lowering.encoder.embed(checked.inputs)
    found = target.search(vectors, NEIGHBOURS)
    hits = sum(value in ids for value, ids in zip(keys, found, strict=True))
    return Verification(rows, fewest, most, len(keys), tuple(different), sum(map(bool, found)), hits)
