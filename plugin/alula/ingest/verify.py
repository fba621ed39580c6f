"""After a load: does the collection hold what it should?"""

from __future__ import annotations

from dataclasses import dataclass

from alula.ingest.compare_rows import same_rows
from alula.ingest.target import Target
from alula.milvus import any_of, milvus_errors

NEIGHBOURS = 10


@dataclass(frozen=True)
class Verification:
    """What was found.

    Args:
        rows: Rows in the collection.
        fewest: The fewest rows it may hold.
        most: The most rows it may hold; more than `fewest` when rows may have replaced others.
        compared: Rows of the sample, encoded again and compared with what Milvus returns, bit for bit.
        different: What was wrong with those that differ, one sentence each.
        answered: How many of the sample's rows, searched for, find any row.
        found: How many of them find themselves among their ten nearest rows. Few do where many rows are alike, or where
            codes are short and vectors were dropped.
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
        """What is wrong, in a sentence; "" if nothing is."""
        if not self.fewest <= self.rows <= self.most:
            should = f"{self.most:,}" if self.fewest == self.most else f"{self.fewest:,} to {self.most:,}"
            return f"the collection holds {self.rows:,} rows, and should hold {should}"
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
        fewest: The fewest rows that the collection may hold.
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
