"""Standard input, kept in a file."""

from __future__ import annotations

import io

import pytest

from alula.errors import DataError, UsageError
from alula.sources import read_vectors, spool_stdin


def test_all_of_it_is_kept(tmp_path):
    content = b'{"v": [1.0, 2.0]}\n' * 200_000
    seen = []
    spool_stdin(tmp_path / "x.jsonl", io.BytesIO(content), seen.append)
    assert (tmp_path / "x.jsonl").read_bytes() == content
    assert seen == sorted(seen)
    assert seen[-1] == len(content)
    assert len(read_vectors(tmp_path / "x.jsonl")) == 200_000


def test_what_breaks_off_leaves_nothing(tmp_path):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spool_stdin(tmp_path / "x.jsonl", Broken())
    with pytest.raises(DataError, match="Nothing came from standard input"):
        spool_stdin(tmp_path / "x.csv", io.BytesIO())
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_be_kept(tmp_path):
    with pytest.raises(UsageError, match=r"can be \.jsonl, \.csv, \.tsv, \.txt, and not \.parquet"):
        spool_stdin(tmp_path / "x.parquet", io.BytesIO(b"x"))
    with pytest.raises(DataError, match="cannot be kept in"):
        spool_stdin(tmp_path / "none" / "x.csv", io.BytesIO(b"x"))
