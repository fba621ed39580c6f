"""Declarations of index types: errors in the words of an SDK."""

from __future__ import annotations

import pytest

from alula.gateway.declaration import as_index_params


@pytest.mark.parametrize(
    ("message", "spelled"),
    [
        ('use layout="hamming".', 'use params={"layout": "hamming"}.'),
        ("without them (keep_vectors=False).", 'without them (params={"keep_vectors": false}).'),
        ("raise candidates=100 or rerank=...", 'raise params={"candidates": 100} or params={"rerank": ...}'),
        ('use index_type="DRQ" or metric="L2".', 'use index_type="DRQ" or metric_type="L2".'),
        ("The filter 'bits=3' and timeout=3 stay.", "The filter 'bits=3' and timeout=3 stay."),
    ],
)
def test_arguments_become_parameters(message, spelled):
    assert as_index_params(message) == spelled
