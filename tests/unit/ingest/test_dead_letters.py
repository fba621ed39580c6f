"""Dead letters never replace a file that another load wrote or reads."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from alula.ingest.dead_letters import write_dead_letters
from alula.ingest.journal import DeadLetter
from alula.ingest.target import pack


def letters(*numbers):
    return [DeadLetter(n, "why", pack(pa.record_batch({"id": pa.array([n])}))) for n in numbers]


def rows(path):
    return pq.read_table(path)["alula_row"].to_pylist()


def test_a_file_of_the_same_load_is_replaced_and_any_other_is_kept(tmp_path):
    path = tmp_path / "dead.parquet"
    assert write_dead_letters(letters(1), path, "first") == path
    assert write_dead_letters(letters(1, 2), path, "first") == path
    assert rows(path) == [1, 2]
    second = write_dead_letters(letters(3), path, "second")
    assert second == tmp_path / "dead-2.parquet"
    assert write_dead_letters(letters(3, 4), path, "second") == second
    assert (rows(path), rows(second)) == ([1, 2], [3, 4])


def test_a_corrected_file_is_kept(tmp_path):
    path = tmp_path / "dead.parquet"
    write_dead_letters(letters(1), path, "first")
    pq.write_table(pa.table({"id": [1]}), path)  # as pandas writes it: without our mark
    assert write_dead_letters(letters(5), path, "first") == tmp_path / "dead-2.parquet"
    assert pq.read_table(path).to_pydict() == {"id": [1]}
    path.write_text("no Parquet")
    assert write_dead_letters(letters(5, 6), path, "first") == tmp_path / "dead-2.parquet"
    assert path.read_text() == "no Parquet"


def test_without_letters_nothing_is_written(tmp_path):
    assert write_dead_letters([], tmp_path / "dead.parquet", "x") is None
    assert not list(tmp_path.iterdir())
