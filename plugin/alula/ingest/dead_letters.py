"""Rows that could not be loaded, as a Parquet file that can be mended and loaded in its turn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alula.ingest.journal import DeadLetter
from alula.ingest.target import unpack

ROW, REASON = "alula_row", "alula_reason"


def write_dead_letters(letters: Iterable[DeadLetter], path: Path) -> int:
    """Write dead letters; returns how many there are, and writes no file when there are none.

    The columns are the source's own, with the number of the row in the source and the reason behind them.
    """
    tables = []
    for letter in letters:
        record = unpack(letter.record)
        kept = dict(zip(record.schema.names, record.columns, strict=True))
        kept |= {ROW: pa.array([letter.number]), REASON: pa.array([letter.reason])}
        tables.append(pa.table(kept))
    if not tables:
        return 0
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:  # a column has values of kinds that nothing can hold together, as JSON allows
        whole = pa.Table.from_pylist([{k: str(v) for k, v in table.to_pylist()[0].items()} for table in tables])
    pq.write_table(whole, path)
    return len(tables)
