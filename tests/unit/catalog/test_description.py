"""The description of a collection in a notebook."""

from __future__ import annotations

from xml.etree import ElementTree

from alula.catalog.description import Description
from alula.catalog.schema import ScalarField
from alula.index_types import RowCost

AWKWARD = "<script>alert(1)</script> & more"


def test_a_notebook_shows_a_table():
    settings = {"type": "DRQ", "layout": "hamming", "field": "embedding", "dim": "8", "metric": "COSINE"}
    description = Description(
        name="words",
        server="http://localhost:19530",
        rows=1200,
        settings={**settings, "vectors": "dropped", "encoder": "ab12"},
        primary_key=ScalarField("id", "INT64"),
        fields=(ScalarField("year", "INT64", default=7),),
        companions={"embedding__drq_sign": "BINARY_VECTOR"},
        text=AWKWARD,
        cost=RowCost({"drq sign": 48.0}, {}),
        defaults={"candidates": "100"},
        partition_key="year",
    )
    caption, head, *rows = ElementTree.fromstring(description._repr_html_())
    assert caption.text == "words at http://localhost:19530"
    assert [cell.text for cell in head] == ["property", "value"]
    assert dict([cell.text for cell in row] for row in rows) == {
        "rows": "1,200",
        "index type": "DRQ, layout hamming",
        "vector field": "embedding, 8 dimensions, COSINE",
        "vectors": "dropped; scores are estimates",
        "encoder (sha256)": "ab12",
        "primary key": "id:INT64",
        "scalar fields": "year:INT64:default=7 (partition key)",
        "added by Alula": "embedding__drq_sign (BINARY_VECTOR)",
        "memory per row": "48 bytes",
        "disk per row": "0 bytes",
        "search options": "candidates 100",
        "description": AWKWARD,
    }
