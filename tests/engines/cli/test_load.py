"""``alula load``: bad files write nothing; a load that broke off is completed by the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import MilvusClient

from alula.ingest.journal import Journal
from tests.fixtures.command_line import MANY, ROWS, check_failure, created, finish, start, wait_for_rows, write_rows
from tests.waiting import wait_until


def vectors(rows=3, dim=8):
    return np.random.default_rng(5).standard_normal((rows, dim)).astype(np.float32)


def json_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def count(alula, place) -> int:
    (about,) = alula("describe", place.name, *place.at, "--format", "json").json
    return about["rows"]


def test_loads_rows(alula, lite_uri, drq, tmp_path):
    file = write_rows(tmp_path / "r.parquet", 50)
    opened = ["--uri", lite_uri, "--encoder", drq]
    assert alula("create", "w", "--index-type", "DRQ", "--like", file, *opened).code == 0
    result = alula("load", "w", file, *opened)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Loaded 50 rows in ")
    assert "w now contains 50.\n" in result.out
    assert "Checked: 8 rows equal their source bit for bit" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.parquet"]  # nothing is left lying about
    again = alula("load", "w", file, *opened)
    assert "50 of them replaced rows with the same id. w now contains 50." in again.out


def test_rows_of_a_plain_array_are_numbered(alula, lite_uri, drq, tmp_path):
    opened = ["--uri", lite_uri, "--encoder", drq]
    np.save(tmp_path / "v.npy", vectors(20))
    assert alula("create", "w", "--index-type", "DRQ", *opened).code == 0
    assert "numbered from 0" in alula("load", "w", tmp_path / "v.npy", *opened).out


def test_files_that_cannot_be_read(alula, fails, in_server, rows_file, tmp_path):
    np.save(tmp_path / "good.npy", vectors())
    for name, content, word in (
        ("empty.npy", b"", "is empty"),
        ("empty.parquet", b"", "is empty"),
        ("empty.jsonl", b"", "is empty"),
        ("cut.npy", (tmp_path / "good.npy").read_bytes()[:140], "truncated"),
        ("cut.parquet", rows_file.read_bytes()[:-200], "truncated"),
        ("cut.jsonl", b'{"id": "a", "year": 1, "embedding": [1, 2', "truncated"),
        ("text.npy", b"these are no vectors", "not a .npy array"),
    ):
        (tmp_path / name).write_bytes(content)
        fails(1, ["load", in_server.name, tmp_path / name, *in_server.opened], name, word)
    (tmp_path / "rows.xml").write_text("<a/>")
    fails(2, ["load", in_server.name, tmp_path / "rows.xml", *in_server.opened], "rows.xml", ".parquet")
    fails(2, ["load", in_server.name, tmp_path / "none.npy", *in_server.opened], "There is no file", "none.npy")
    assert count(alula, in_server) == ROWS


def test_rows_that_cannot_be_loaded_are_put_aside(alula, in_server, tmp_path):
    good = {"year": 1, "embedding": [1.0] * 8}
    bad = (
        ({"embedding": [1.0] * 7 + [1e300]}, "NaN or infinite"),
        ({"embedding": [1.0] * 5}, "5"),
        ({"embedding": None}, "vector"),
        ({"id": "good"}, "the id 'good' of an earlier row"),
        ({"id": None}, "no value in 'id'"),
        ({"year": None}, "no value in 'year'"),
    )
    rows = [{**good, "id": "good"}] + [{**good, "id": f"bad {i}", **change} for i, (change, _) in enumerate(bad)]
    file = json_lines(tmp_path / "r.jsonl", *rows)
    load = ["load", in_server.name, file, *in_server.opened]
    result = alula(*load)
    assert result.code == 3
    assert "6 rows could not be loaded" in result.err
    assert count(alula, in_server) == ROWS + 1
    letters = pq.read_table(f"alula-{in_server.name}.dead.parquet").to_pylist()
    assert [letter["alula_row"] for letter in letters] == [1, 2, 3, 4, 5, 6]
    for letter, (_, reason), row in zip(letters, bad, rows[1:], strict=True):
        assert reason in letter["alula_reason"]
        assert letter["id"] == row["id"]

    mended = [
        {**letter, "id": f"mended {i}", "year": 2, "embedding": [float(i)] * 8} for i, letter in enumerate(letters)
    ]
    pq.write_table(pa.Table.from_pylist(mended), "mended.parquet")
    again = alula("load", in_server.name, "mended.parquet", *in_server.opened)
    assert (again.code, again.err) == (0, "")
    assert count(alula, in_server) == ROWS + 7
    client = MilvusClient(in_server.uri)
    client.delete(in_server.name, filter='id like "mended%" or id == "good"')
    client.close()
    assert count(alula, in_server) == ROWS


def test_no_row_is_written_when_none_may_be_left_out(alula, fails, in_server, tmp_path):
    good = {"id": "new", "year": 1, "embedding": [1.0] * 8}
    strict = [*in_server.opened, "--max-errors", "0"]
    for change, *words in (
        ({"embedding": [1.0] * 7 + [float("nan")]}, "Row 1", "NaN"),
        ({"embedding": [1.0] * 5}, "Row 1", "5"),
        ({"id": "new"}, "Row 1", "the id of an earlier row"),
        ({"year": None}, "Row 1", "no value in 'year'"),
    ):
        rows = json_lines(tmp_path / "r.jsonl", good, {**good, "id": "second", **change})
        fails(1, ["load", in_server.name, rows, *strict], *words, "Nothing was written")
    assert count(alula, in_server) == ROWS
    assert not list(tmp_path.glob("alula-*"))


def test_too_many_bad_rows_stop_the_load(alula, fails, lite_uri, drq, tmp_path):
    rows = [{"id": f"r{i}", "year": 1, "embedding": [1.0] * 8 if i % 10 else None} for i in range(100)]
    file = json_lines(tmp_path / "r.jsonl", *rows)
    opened = ["--uri", lite_uri, "--encoder", drq]
    assert alula("create", "w", "--index-type", "DRQ", "--like", file, *opened).code == 0
    fails(1, ["load", "w", file, *opened, "--max-errors", "9"], "10 rows", "more than --max-errors 9", "Row 0")
    assert alula("load", "w", file, *opened, "--max-errors", "10", "--resume").code == 3
    assert "w now contains 90" in alula("load", "w", file, *opened).out


def test_files_of_which_no_row_fits(alula, fails, in_server, tmp_path):
    good = {"id": "new", "year": 1, "embedding": [1.0] * 8}
    without = json_lines(tmp_path / "r.jsonl", {"id": "a", "embedding": [1.0] * 8})
    fails(1, ["load", in_server.name, without, *in_server.opened], "lacks the column 'year'", "--map")
    np.save(tmp_path / "v.npy", vectors())
    fails(1, ["load", in_server.name, tmp_path / "v.npy", *in_server.opened], "'id'", "string ids")
    wide = json_lines(tmp_path / "r.jsonl", {**good, "embedding": [1.0] * 9})
    fails(1, ["load", in_server.name, wide, *in_server.opened], "9", "8")
    assert count(alula, in_server) == ROWS


def test_a_dry_run_writes_nothing(alula, in_server, tmp_path):
    rows = [{"id": f"r{i}", "year": i, "embedding": [1.0] * 8, "more": 1} for i in range(30)]
    rows[7]["embedding"] = None
    rows[9]["id"] = "r8"
    file = json_lines(tmp_path / "r.jsonl", *rows)
    result = alula("load", in_server.name, file, *in_server.opened, "--dry-run")
    assert result.code == 0
    for words in (
        "year:INT64  from  year",
        "28 of 30 rows",
        "Row 7: ",
        "Row 9: the id 'r8' of an earlier",
        "Columns without a field",
    ):
        assert words in result.out
    assert count(alula, in_server) == ROWS
    (line,) = alula("load", in_server.name, file, *in_server.opened, "--dry-run", "--json-logs").json[-1:]
    assert (line["rows"], line["bad"], line["ignored"]) == (30, 2, ["more"])


def test_logs_for_machines_and_silence(alula, in_server, rows_file):
    lines = alula("load", in_server.name, rows_file, *in_server.opened, "--json-logs").json
    assert [line["event"] for line in lines][-1] == "done"
    assert {line["stage"] for line in lines[:-1]} == {"checking", "loading", "verifying"}
    assert (lines[-1]["rows"], lines[-1]["replaced"], lines[-1]["bad"]) == (ROWS, ROWS, 0)
    assert lines[-1]["bottleneck"] in ("reading", "encoding", "writing")
    quiet = alula("load", in_server.name, rows_file, *in_server.opened, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_an_unfinished_load_is_not_forgotten_by_mistake(alula, fails, lite_uri, drq, tmp_path):
    file = write_rows(tmp_path / "r.parquet", 50)
    opened = ["--uri", lite_uri, "--encoder", drq]
    assert alula("create", "w", "--index-type", "DRQ", "--like", file, *opened).code == 0
    rows = [{"id": f"r{i}", "year": 1, "embedding": [1.0] * 8 if i != 5 else None} for i in range(20)]
    broken = json_lines(tmp_path / "broken.jsonl", *rows)
    with broken.open("a") as out:
        out.write('{"id": "r20", "year": 1, "embe')
    fails(1, ["load", "w", broken, *opened], "broken.jsonl")
    journal = Journal(Path("alula-w.journal"))
    journal.begin({"source": "x", "server": lite_uri}, 0)
    journal.sending((0, 9))
    journal.close()
    fails(2, ["load", "w", file, *opened], "unfinished load of x", "--resume", "--restart")
    fails(2, ["load", "w", file, *opened, "--resume", "--restart"], "opposites")
    with Journal(Path("alula-w.journal")) as held:
        fails(2, ["load", "w", file, *opened, "--resume"], "Another load is using the journal")
        assert held.plan
    assert alula("load", "w", file, *opened, "--restart").code == 0
    assert not Path("alula-w.journal").exists()
    assert alula("load", "w", file, *opened, "--resume").code == 0  # nothing to go on with: it begins


def test_a_journal_of_something_else_is_refused(alula, fails, lite_uri, drq, tmp_path):
    opened = ["--uri", lite_uri, "--encoder", drq]
    file, other = write_rows(tmp_path / "r.parquet", 50), write_rows(tmp_path / "other.parquet", 50)
    assert alula("create", "w", "--index-type", "DRQ", "--like", file, *opened).code == 0
    rows = pq.read_table(file).to_pylist()
    for row in rows[10:40]:
        row["embedding"] = None
    json_lines(tmp_path / "r.jsonl", *rows)
    fails(1, ["load", "w", tmp_path / "r.jsonl", *opened, "--max-errors", "3"], "more than --max-errors")
    if Path("alula-w.journal").exists():
        fails(2, ["load", "w", other, *opened, "--resume"], "journal", "another source")


def test_partitions(alula, fails, place, rows_file):
    words = ("no partitions",) if place.embedded else ("no partition 'nowhere'", "_default")
    fails(2, ["load", place.name, rows_file, "--partition", "nowhere", *place.opened], *words)
    assert count(alula, place) == ROWS


def test_wrong_encoder_and_collection(fails, in_server, rows_file, other_drq, flops):
    load = ["load", in_server.name, rows_file, *in_server.at, "--encoder"]
    fails(1, [*load, other_drq], "was created with the encoder", "other.onnx")
    fails(1, [*load, flops], "was created with the encoder")
    fails(2, ["load", "missing", rows_file, *in_server.opened], "no collection 'missing'", in_server.name)


def test_ctrl_c_and_again(alula, milvus_server, drq, many, tmp_path):
    name = "cli_ctrl_c"
    client = milvus_server.client()
    try:
        opened = created(alula, milvus_server.uri, name, drq, many)
        process = start("load", name, many, *opened, cwd=tmp_path)
        wait_for_rows(client, name)
        os.killpg(process.pid, signal.SIGINT)
        stopped = finish(process)
        check_failure(stopped, 130, "Stopped.", f"of {MANY:,} rows are written and acknowledged", "--resume")
        again = alula("load", name, many, *opened, "--resume")
        assert (again.code, again.err) == (0, "")
        assert f"{name} now contains {MANY:,}." in again.out
    finally:
        client.drop_collection(name)


def test_ctrl_c_in_milvus_lite(alula, lite_uri, drq, many, tmp_path):
    opened = created(alula, lite_uri, "w", drq, many)
    process = start("load", "w", many, *opened, "--debug", cwd=tmp_path)
    size = Path(lite_uri).stat().st_size
    wait_until(lambda: Path(lite_uri).stat().st_size >= size + 500_000, "the load to write")
    os.killpg(process.pid, signal.SIGINT)
    stopped = finish(process)
    assert stopped.code == 130
    assert "Error: Stopped. " in stopped.err.splitlines()[-1]
    again = alula("load", "w", many, *opened, "--resume")
    assert (again.code, again.err) == (0, "")
    assert f"w now contains {MANY:,}." in again.out


def test_what_an_import_needs(alula, fails, place, rows_file, tmp_path):
    load = ["load", place.name, rows_file, *place.opened, "--via", "import"]
    if place.embedded:
        fails(2, [*load, "--stage", tmp_path], "Milvus Lite has no bulk import")
    else:
        fails(2, load, "--stage")
        fails(2, [*load, "--stage", tmp_path, "--mode", "upsert"], "cannot replace rows")
        fails(2, [*load, "--stage", tmp_path], "contains 200 rows already", "--via insert")
        fails(2, [*load, "--stage", "nothing://x"], "stage")
    assert not list(tmp_path.glob("alula-*"))


def test_sources_of_every_kind(alula, fails, lite_uri, drq, tmp_path, monkeypatch):
    opened = ["--uri", lite_uri, "--encoder", drq]
    for i in range(3):
        write_rows(tmp_path / f"part{i}.parquet", 20, seed=i, ids=[f"{i} {j}" for j in range(20)])
    assert alula("create", "w", "--index-type", "DRQ", "--like", tmp_path / "part0.parquet", *opened).code == 0
    assert "now contains 60" in alula("load", "w", tmp_path / "part*.parquet", *opened).out
    several = [tmp_path / f"part{i}.parquet" for i in range(2)]
    assert "40 of them replaced rows" in alula("load", "w", *several, *opened).out

    other = pq.read_table(tmp_path / "part0.parquet").rename_columns(["key", "when", "embedding"])
    pq.write_table(other, tmp_path / "other.parquet")
    mapped = ["--map", "id=key", "--map", "year=when"]
    assert "20 of them replaced" in alula("load", "w", tmp_path / "other.parquet", *mapped, *opened).out
    (tmp_path / "map.toml").write_text('vector = "embedding"\n[columns]\nid = "key"\nyear = "when"\n')
    file = ["--mapping", tmp_path / "map.toml"]
    assert "20 of them replaced" in alula("load", "w", tmp_path / "other.parquet", *file, *opened).out

    np.save(tmp_path / "v.npy", vectors(20))
    beside = ["--metadata", tmp_path / "part1.parquet"]
    assert "20 of them replaced" in alula("load", "w", tmp_path / "v.npy", *beside, *opened).out

    line = json.dumps({"id": "piped", "year": 1, "embedding": [1.0] * 8}) + "\n"
    piped = subprocess.run(
        [sys.executable, "-m", "alula.cli", "load", "w", "-", *map(str, opened)],
        input=line * 1 + line.replace("piped", "piped 2"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (piped.returncode, piped.stderr) == (0, "")
    assert "w now contains 62" in piped.stdout
    assert not list(tmp_path.glob("alula-*"))

    assert alula("create", "copy", "--index-type", "DRQ", "--like", tmp_path / "part0.parquet", *opened).code == 0
    copied = alula("load", "copy", "--from-collection", "w", "--filter", 'id like "piped%"', *opened)
    assert "copy now contains 2" in copied.out

    fails(2, ["load", "w", *opened], "Say what to load")
    fails(2, ["load", "w", "-", tmp_path / "v.npy", *opened], "together with files")
    fails(2, ["load", "w", tmp_path / "v.npy", "--filter", "year > 1", *opened], "--from-collection")
    fails(2, ["load", "w", tmp_path / "v.npy", "--map", "year", *opened], "FIELD=COLUMN")
    fails(2, ["load", "copy", "--from-collection", "nowhere", *opened], "no collection 'nowhere'")
    fails(2, ["load", "copy", tmp_path / "v.npy", "--from-collection", "w", *opened], "takes no files")
    fails(2, ["load", "w", "s3x://bucket/x.parquet", *opened], "s3x")
