"""CSV and JSON lines: what becomes of columns, and of rows that do not fit; and columns under other names."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alula.errors import DataError, UsageError
from alula.sources import open_source, read_inputs, read_mapping, read_vectors


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def bad_rows(source, size=3):
    return {batch.start + position: why for batch in source.batches(size) for position, why in batch.bad.items()}


def test_csv_types_are_those_of_the_first_rows(tmp_path):
    path = write(
        tmp_path / "x.csv",
        "whole,number,truth,code,day,text,some,v",
        '1,1.5,true,007,2024-01-01,NA,,"[1, 2]"',
        '-2,NA,False,12,2024-01-02,,,"[3, 4.5]"',
    )
    source = open_source(path)
    names = {"whole": pa.int64(), "number": pa.float64(), "truth": pa.bool_()}
    assert source.scalars == {**names, **dict.fromkeys(("code", "day", "text", "some"), pa.string())}
    (batch,) = source.batches()
    np.testing.assert_array_equal(batch.inputs, [[1, 2], [3, 4.5]])
    assert [batch.columns[name].to_pylist() for name in ("whole", "number", "truth", "code", "text")] == [
        [1, -2],
        [1.5, None],
        [True, False],
        ["007", "12"],
        ["NA", ""],
    ]


def test_csv_rows_that_do_not_fit_are_bad_and_the_others_are_read(tmp_path):
    path = write(
        tmp_path / "x.csv",
        "id,tag,v",
        '0,1999,"[1, 2]"',
        '1,2000,"[3, oops]"',
        '2,2001,"[5, 6]"',
        '3,2002,"[7, 8]",more',
        "4",
        "5,2004,",
        '6,2005,"[9, 10, 11]"',
        '7,2006,"[NaN, 1]"',
        '8,2007,"[null, 1]"',
        '9,2008,"[1, 1]"',
        "",
        '10,2009,"[1, 2]}{[3, 4]"',
        "11,2010,7",
        '12,2011,"[13, 14]"',
    )
    source = open_source(path)
    assert bad_rows(source) == {
        1: "'[3, oops]' in the column 'v', which holds lists of numbers",
        3: "4 fields, where the header has 3",
        4: "1 fields, where the header has 3",
        5: "no vector in the column 'v'",
        6: "a vector of length 3 in the column 'v', where 2 is needed",
        7: "NaN or infinite values in the column 'v'",
        8: "a missing number in the column 'v'",
        10: "'[1, 2]}{[3, 4]' in the column 'v', which holds lists of numbers",
        11: "'7' in the column 'v', which holds lists of numbers",
    }
    batches = list(source.batches(3))
    vectors = np.concatenate([batch.inputs for batch in batches])
    np.testing.assert_array_equal(vectors[[0, 12]], [[1, 2], [13, 14]])
    assert not vectors[list(bad_rows(source))].any(), "a bad row has a placeholder"
    assert source.rows == 13
    assert batches[0].row(2).to_pylist() == [{"id": 2, "tag": 2001, "v": [5.0, 6.0]}]
    assert [key for part in source.keys("id") for key in part.to_pylist()] == [0, 1, 2, None, None, *range(5, 13)]
    with pytest.raises(DataError, match=r"Row 1 of .*x\.csv: '\[3, oops\]' in the column 'v'"):
        read_vectors(path)


def test_csv_values_that_do_not_fit_the_first_thousand_are_bad(tmp_path):
    good = [f'{i},{i}.5,true,"[1]"' for i in range(1200)]
    path = write(tmp_path / "x.csv", "year,price,new,v", *good, '007,1,true,"[1]"', '1,free,true,"[1]"', '1,,2,"[1]"')
    assert bad_rows(open_source(path), 5000) == {
        1200: "'007' in the column 'year', which holds whole numbers",
        1201: "'free' in the column 'price', which holds numbers",
        1202: "'2' in the column 'new', which holds true or false",
    }


@pytest.mark.parametrize(
    ("lines", "error", "says"),
    [
        (["a,b", "1,2"], UsageError, "no column of number lists"),
        (["a,a", "1,2"], DataError, "two columns are named 'a'"),
        (["a,v", '1,"[1, 2]"', '2,"[3'], DataError, "a quote is not closed"),
        (["v"], UsageError, "no column of number lists"),
        (["", ""], DataError, "it holds no rows"),
    ],
)
def test_csv_files_that_cannot_be_read(tmp_path, lines, error, says):
    with pytest.raises(error, match=says):
        list(open_source(write(tmp_path / "x.csv", *lines)).batches())


def test_csv_texts(tmp_path):
    path = write(tmp_path / "x.csv", "id,title", '1,"one, two"', "2,null", "3,")
    assert read_inputs(path, None, "text") == ["one, two", "null", ""]


@pytest.mark.parametrize("line", ["null", "[1]", "7", '{"v": [1.0, 2.0]', '{"v": "x"}', '{"v": [1, 2]} {"v": [1, 2]}'])
def test_json_lines_that_do_not_fit_are_bad_and_the_others_are_read(tmp_path, line):
    """A line that says null ends the process in Arrow's own reader."""
    good = '{"id": 1, "v": [1.0, 2.0]}'
    path = write(tmp_path / "x.jsonl", *[good] * 5, line, "", *[good] * 4)
    source = open_source(path)
    assert list(bad_rows(source)) == [5]
    assert source.rows == 10
    assert open_source(write(tmp_path / "y.jsonl", line, good, good)).scalars == {"id": pa.int64()}


def test_times_in_json_stay_what_they_are(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"day": "2024-01-01", "tags": ["2024-01-01"], "v": [1]}')
    source = open_source(path)
    assert source.scalars == {"day": pa.string(), "tags": pa.list_(pa.string())}
    (batch,) = source.batches()
    assert batch.columns["day"].to_pylist() == ["2024-01-01"]


def test_the_dimension_a_caller_asks_for(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"v": [1]}', '{"v": [1, 2]}', '{"v": []}')
    assert list(bad_rows(open_source(path, dim=2))) == [0, 2]
    assert list(bad_rows(open_source(path))) == [1, 2]


def test_fields_under_other_names(tmp_path):
    pq.write_table(
        pa.table({"nr": [1, 2], "title": ["a", "b"], "name": ["x", "y"], "v": [[1.0], [2.0]]}), tmp_path / "x.parquet"
    )
    source = open_source(tmp_path / "x.parquet", mapping={"id": "nr", "title": "name"})
    assert source.scalars == {"id": pa.int64(), "title": pa.string()}
    (batch,) = source.batches()
    assert {name: column.to_pylist() for name, column in batch.columns.items()} == {"id": [1, 2], "title": ["x", "y"]}
    assert batch.row(1).to_pylist() == [{"nr": 2, "title": "b", "name": "y", "v": [2.0]}]
    assert [part.to_pylist() for part in source.keys("id")] == [[1, 2]]
    with pytest.raises(UsageError, match=r"no column 'nummer' for the field 'id'; its columns: nr, title, name"):
        open_source(tmp_path / "x.parquet", mapping={"id": "nummer"})


def test_a_mapping_file(tmp_path):
    path = tmp_path / "m.toml"
    path.write_text('vector = "emb"\n[columns]\nid = "nr"\n"title" = "name"\n')
    found = read_mapping(path)
    assert (found.vector, found.text, found.columns) == ("emb", None, {"id": "nr", "title": "name"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('vectors = "emb"', r"no key 'vectors' in a mapping; did you mean 'vector'\?"),
        ('zzz = "emb"', r"its keys are vector, text and the table \[columns\]"),
        ("vector = 7", "'vector' must be the name of a column, in quotes"),
        ("[columns]\nid = 3", "'id' must be the name of a column"),
        ('columns = "id"', "'columns' must be a table"),
        ("[columns", "is not a TOML file"),
        (None, "cannot be read: No such file"),
    ],
)
def test_mapping_files_that_say_something_else(tmp_path, text, says):
    path = tmp_path / "m.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_mapping(path)
