"""What a load writes to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from alula.catalog.schema import ScalarField
from alula.errors import UsageError
from alula.ingest.target import Target


def test_fields_that_cannot_be_written_are_named():
    chunks = ScalarField("chunks", "ARRAY", element_type="STRUCT", max_capacity=8)
    fields = (ScalarField("year", "INT64"), chunks, ScalarField("place", "GEOMETRY"))
    spec = SimpleNamespace(name="papers", fields=fields)
    with pytest.raises(UsageError, match=r"cannot write .* 'papers', .*: chunks:ARRAY<STRUCT>\(8\), place:GEOMETRY\."):
        Target.of(spec)
