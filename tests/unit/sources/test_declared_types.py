"""Text formats are read as the types that fields declare: no value changes, and no valid row is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from alula.sources import open_source
from alula.sources.json_values import DOCUMENT

BIG = 2**60 + 1  # no double
VECTOR = [0.5, 1.5]


def write_csv(path, names, rows):
    lines = [",".join([*names, "vector"])]
    lines += [",".join([*(f'"{value}"' for value in row), f'"{VECTOR}"']) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_json(path, *texts, name="x"):
    path.write_text("".join(f'{{"{name}": {text}, "vector": {VECTOR}}}\n' for text in texts))
    return path


def read(path, size=100, **types):
    """Each column, converted as a collection does, and the bad rows."""
    columns = {name: [] for name in types}
    bad = {}
    for batch in open_source(path, "vector", types=types).batches(size):
        bad |= {batch.start + row: why for row, why in batch.bad.items()}
        for name, data_type in types.items():
            for row, value in enumerate(batch.columns[name]):
                try:
                    columns[name].append(value.cast(data_type).as_py())
                except pa.ArrowInvalid as error:
                    columns[name].append(None)
                    bad[batch.start + row] = str(error)
    return columns, bad


@pytest.mark.parametrize("odd", ["30.0", "1e3", "30.5", str(2**63), "01"])
def test_one_odd_number_leaves_the_integers_beside_it_exact(tmp_path, odd):
    numbers = [str(BIG + 2000 * i) for i in range(6)]
    numbers[3] = odd
    whole = {"30.0": 30, "1e3": 1000, "01": 1}.get(odd)
    expected = [int(number) if i != 3 else whole for i, number in enumerate(numbers)]
    for file in (
        write_csv(tmp_path / "x.csv", ["x"], [[number] for number in numbers]),
        write_json(tmp_path / "x.jsonl", *(f'"{n}"' if n == "01" else n for n in numbers)),
    ):
        columns, bad = read(file, x=pa.int64())
        assert columns["x"] == expected
        assert list(bad) == ([] if expected[3] is not None else [3])


TEXTS = ["1.10", "+4930", "32E0130", "10000000000000000000000", "TRUE", "2e1", "007", "", "NA", "plain"]


def test_texts_are_never_rewritten(tmp_path):
    csv = write_csv(tmp_path / "x.csv", ["x"], [[text] for text in TEXTS])
    assert read(csv, x=pa.string()) == ({"x": TEXTS}, {})
    quoted = write_json(tmp_path / "x.jsonl", *map(json.dumps, TEXTS))
    assert read(quoted, x=pa.string()) == ({"x": TEXTS}, {})


def test_numbers_of_json_become_texts_as_they_are_written(tmp_path):
    literals = ["1.10", "12", "1e22", "10000000000000000000000", "-0.50", "true", '"word"', "null"]
    columns, bad = read(write_json(tmp_path / "x.jsonl", *literals), x=pa.string())
    assert columns["x"] == [*literals[:6], "word", None]
    assert bad == {}


def test_a_text_behind_many_numbers_is_no_bad_row(tmp_path):
    ids = [*map(str, range(1500)), "x1"]
    csv = write_csv(tmp_path / "x.csv", ["x"], [[text] for text in ids])
    assert read(csv, size=500, x=pa.string()) == ({"x": ids}, {})


def test_fractions_behind_whole_numbers_and_nulls_in_front(tmp_path):
    numbers = [i if i < 1200 else i + 0.5 for i in range(1300)]
    csv = write_csv(tmp_path / "x.csv", ["x"], [[number] for number in numbers])
    assert read(csv, x=pa.float64()) == ({"x": numbers}, {})
    (tmp_path / "parts").mkdir()
    write_json(tmp_path / "parts" / "a.jsonl", "null", "null")
    write_json(tmp_path / "parts" / "b.jsonl", "1", "2.5")
    write_json(tmp_path / "parts" / "c.jsonl", "3")
    assert read(tmp_path / "parts", x=pa.float64()) == ({"x": [None, None, 1, 2.5, 3]}, {})


def test_the_types_follow_the_mapping(tmp_path):
    file = write_csv(tmp_path / "x.csv", ["version"], [["1.10"]])
    (batch,) = open_source(file, mapping={"v": "version"}, types={"v": pa.string()}).batches()
    assert batch.columns["v"].to_pylist() == ["1.10"]


def test_a_value_that_does_not_fit_leaves_the_rest_of_its_row(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": 1, "n": 1, "vector": [1, 2]}\n{"id": 2, "n": 0.5, "vector": [3, 4]}\n')
    (batch,) = open_source(path, types={"id": pa.int64(), "n": pa.int64()}).batches()
    assert batch.columns["id"].to_pylist() == [1, 2]
    assert batch.columns["n"].to_pylist() == [1, None]
    np.testing.assert_array_equal(batch.inputs, [[1, 2], [3, 4]])
    assert batch.bad == {1: "0.5 is no int64 in the column 'n'"}


def test_views_are_read_as_plain_columns(tmp_path):
    ids = ["a", None, "b" * 40]
    vectors = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    table = pa.table(
        {
            "id": pa.array(ids, pa.string_view()),
            "vector": pa.array(vectors, pa.list_view(pa.float32())),
        }
    )
    feather.write_feather(table, tmp_path / "x.arrow", compression="uncompressed")
    plain = table.set_column(1, "vector", pa.array(vectors, pa.list_(pa.float32())))
    parquet.write_table(plain, tmp_path / "x.parquet")
    for name in ("x.arrow", "x.parquet"):
        source = open_source(tmp_path / name)
        assert source.scalars == {"id": pa.string()}
        batches = list(source.batches(2))
        assert [value for batch in batches for value in batch.columns["id"].to_pylist()] == ids
        np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), vectors)


def documents(path, **types):
    (batch,) = open_source(path, "vector", types=types).batches()
    return batch, {name: column.to_pylist() for name, column in batch.columns.items()}


def test_documents_of_json_lines_are_as_they_are_written(tmp_path):
    texts = ['{"a": 9007199254740993, "b": 1.50}', "[1, {}]", '"text"', "null", "0.10000000000000000001"]
    batch, columns = documents(write_json(tmp_path / "x.jsonl", *texts), x=DOCUMENT)
    assert columns["x"] == [None if text == "null" else text.encode() for text in texts]
    assert batch.bad == {}


def test_arrays_of_json_lines(tmp_path):
    whole, texts = pa.list_(pa.int64()), pa.list_(pa.string())
    path = write_json(tmp_path / "x.jsonl", f"[{BIG}, 2.0]", "[]", "[0.5]", '"a"')
    batch, columns = documents(path, x=whole)
    assert columns["x"][:2] == [[BIG, 2], []]
    assert batch.bad == {
        2: "0.5 is no int64 in the column 'x'",
        3: "\"a\" is no list<item: int64> in the column 'x'",
    }
    batch, columns = documents(write_json(tmp_path / "y.jsonl", '["a", 1.50, true]', "[1]"), x=texts)
    assert (columns["x"], batch.bad) == ([["a", "1.50", "true"], ["1"]], {})


def test_other_columns_of_dynamic_rows_are_documents(tmp_path):
    """They differ from row to row, and one fraction must not make fractions of all integers."""
    lines = [
        {"id": 1, "vector": VECTOR, "n": BIG, "more": {"a": 1}},
        {"id": 2, "vector": VECTOR, "n": 0.5, "more": [1]},
        {"id": 3, "vector": VECTOR, "late": [1, 2]},
    ]
    (tmp_path / "x.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    batch, columns = documents(tmp_path / "x.jsonl", **{"id": pa.int64(), "$meta": DOCUMENT})
    assert batch.bad == {}
    np.testing.assert_array_equal(batch.inputs, np.float32([VECTOR] * 3))
    assert columns == {
        "id": [1, 2, 3],
        "n": [str(BIG).encode(), b"0.5", None],
        "more": [b'{"a": 1}', b"[1]", None],
        "late": [None, None, b"[1, 2]"],
    }
