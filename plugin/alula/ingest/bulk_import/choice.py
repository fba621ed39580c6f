"""Choose between insert calls and bulk import when the user leaves it open."""

from __future__ import annotations

from typing import Literal

IMPORT_ROWS = 10_000_000


def choose(*, rows: int | None, empty: bool, staged: bool, importable: bool) -> Literal["insert", "import"]:
    """Choose between insert requests and bulk import.

    Seconds until all rows could be found, on Milvus 2.3.5 and a machine with two cores; rows of 48 bytes (256 sign bits
    and two integers), and rows that keep their vector, of 1.6 KB; one run each. Encoding is left out, writing the files
    is counted, and the collection's load was not refreshed, which `ImportSink` does and which saves up to 10 seconds:

    ====================  ======  ======
    rows                  insert  import
    ====================  ======  ======
    20,000 of 48 B           0.7      16
    500,000                  2.0      21
    2,000,000                 14      28
    8,000,000                 29      44
    300,000 of 1.6 KB         23      31
    ====================  ======  ======

    So an import was never faster: it costs 5 to 20 seconds more. It saves the server's message queue and the growing
    segments, which keep inserted rows in memory until they are flushed. From `IMPORT_ROWS` on those seconds do not
    matter beside the encoding, so a load with a staging area imports.

    Args:
        rows: Rows to load; None if unknown.
        empty: True if the collection is empty: an import cannot replace rows.
        staged: True if there is a staging area.
        importable: True if the server has bulk import (`alula.ingest.bulk_import.tasks.can_import`).
    """
    pays = rows is not None and rows >= IMPORT_ROWS
    return "import" if empty and staged and importable and pays else "insert"
