"""``alula encoders``: push, pull, list and remove, and what they say when it does not work."""

from __future__ import annotations

import hashlib
import io
import signal
from datetime import datetime, timezone
from pathlib import Path

import pytest

from alula.encoder_store import COLLECTION, querying
from alula.milvus import connect
from tests.fixtures.command_line import finish, start
from tests.tiny_encoders import TinyText, write_drq


@pytest.fixture
def at(lite_uri):
    """Options that name a database without encoders."""
    return ["--uri", lite_uri]


def digits(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_from_one_machine_to_another(alula, fails, in_database, drq, tmp_path):
    result = alula("encoders", "push", drq, *in_database, "--name", "words")
    assert (result.code, result.out, result.err) == (0, f"Pushed words ({digits(drq)}, 0.1 MB).\n", "")
    result = alula("encoders", "push", drq, *in_database, "--name", "words")
    assert result.out == f"words ({digits(drq)}, 0.1 MB) is there already; nothing was written.\n"
    result = alula("encoders", "pull", "words", *in_database)
    assert (result.code, result.out, result.err) == (0, f"words.onnx is the encoder {digits(drq)} (0.1 MB).\n", "")
    assert Path("words.onnx").read_bytes() == drq.read_bytes()
    result = alula("encoders", "remove", "words", *in_database, "--yes")
    assert (result.code, result.out, result.err) == (0, "Removed words.\n", "")
    fails(2, ["encoders", "pull", "words", *in_database], "no encoder 'words'", "none", "alula encoders push FILE")


def test_list(alula, at, drq, flops, folder):
    text = write_drq(folder / "text.onnx", backbone=TinyText()).path
    for args in ([drq], [drq, "--name", "also"], [flops], [text], [text, "--name", "flops", "--replace"]):
        assert alula("encoders", "push", *args, *at).code == 0
    lines = alula("encoders", "list", *at, "--format", "json").json
    assert [line["names"] for line in lines] == [["also", "drq"], ["flops", "text"], []]
    assert [line["kind"] for line in lines] == ["drq", "drq", "flops"]
    assert [line["input"] for line in lines] == ["vectors", "text", "vectors"]
    assert lines[0]["size"] == drq.stat().st_size
    age = datetime.now(timezone.utc) - datetime.fromisoformat(lines[0]["pushed"])
    assert abs(age.total_seconds()) < 100
    shown = alula("encoders", "list", *at)
    assert (shown.code, shown.err) == (0, "")
    assert max(map(len, shown.out.splitlines())) <= 120
    for word in ("also", "(replaced)", digits(text), "text, 8-d", "32 sparse dims", "32 bits"):
        assert word in shown.out


def test_an_empty_database(alula, at):
    assert alula("encoders", "push", "--help").code == 0
    Path(at[1]).touch()
    result = alula("encoders", "list", *at)
    assert (result.code, result.err) == (0, "")
    assert "There are no encoders" in result.out
    result = alula("encoders", "list", *at, "--format", "json")
    assert (result.code, result.out) == (0, "")


def test_names(alula, fails, at, drq, other_drq):
    push = ["encoders", "push"]
    assert alula(*push, drq, *at, "--name", "words").code == 0
    fails(2, [*push, other_drq, *at, "--name", "words"], digits(drq), digits(other_drq), "--replace")
    fails(2, [*push, drq, *at, "--name", "two words"], "'two words'", "--name")
    assert "Named also" in alula(*push, drq, *at, "--name", "also").out
    result = alula(*push, other_drq, *at, "--name", "words", "--replace")
    assert result.out.startswith(f"Pushed words ({digits(other_drq)}")
    assert f"alula encoders remove {digits(drq)}" in result.out
    result = alula("encoders", "remove", "also", *at, "--yes")
    assert result.out == "Removed also.\n"


def test_what_is_no_encoder(fails, at, tmp_path):
    (tmp_path / "text.onnx").write_text("no encoder")
    fails(1, ["encoders", "push", "text.onnx", *at], "text.onnx", "not an ONNX file")
    fails(2, ["encoders", "push", "nothing.onnx", *at], "nothing.onnx", "does not exist")
    assert not Path(at[1]).exists()


def test_pull_writes_over_nothing(alula, fails, at, drq, other_drq):
    assert alula("encoders", "push", drq, *at).code == 0
    Path("there.onnx").write_bytes(other_drq.read_bytes())
    pull = ["encoders", "pull", digits(drq), *at, "--out", "there.onnx"]
    fails(2, pull, "there.onnx is there", "--overwrite")
    assert Path("there.onnx").read_bytes() == other_drq.read_bytes()
    assert alula(*pull, "--overwrite").code == 0
    assert Path("there.onnx").read_bytes() == drq.read_bytes()
    fails(2, ["encoders", "pull", "drq", *at, "--out", "no/such/folder.onnx"], "no folder")
    fails(2, ["encoders", "pull", "drq", "--uri", "typo.db"], "There is no database")


def test_remove_asks_and_refuses(alula, fails, at, drq, monkeypatch):
    assert alula("encoders", "push", drq, *at, "--name", "words").code == 0
    assert alula("create", "w", "--index-type", "DRQ", "--encoder", drq, *at).code == 0
    remove = ["encoders", "remove", "words", *at]
    fails(2, [*remove, "--yes"], "made with: w.", "--force")
    for stdin, code, end in (
        (io.StringIO("n\n"), 1, "Error: words was not removed.\n"),
        (io.StringIO(""), 2, "Error: Not a terminal, so nothing can be asked. Pass --yes to remove it.\n"),
    ):
        monkeypatch.setattr("sys.stdin", stdin)
        result = alula(*remove, "--force")
        assert (result.code, result.out) == (code, "")
        assert result.err.endswith(end)
    assert len(alula("encoders", "list", *at, "--format", "json").json) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert alula(*remove, "--force").out == "Removed words.\n"
    assert alula("encoders", "list", *at, "--format", "json").json == []


def test_repair(alula, at, drq, flops):
    """Bad rows are named by a list, and removed; damaged files are named."""
    for path in (drq, flops):
        assert alula("encoders", "push", path, *at).code == 0
    with connect(at[1]) as server:
        where = {"output_fields": ["*"], "consistency_level": "Strong"}
        rows = server.client.query(COLLECTION, filter='role in ["file", "part"]', **where)
        for row in rows:
            if row["role"] == "file" and row["sha256"].startswith(digits(drq)):
                bad = {**row, "id": "bad", "data": "[]", "sha256": "\x1b[2J"}
            if row["role"] == "part" and row["sha256"].startswith(digits(flops)):
                damaged = {**row, "data": "AAAA"}
        server.client.delete(COLLECTION, filter=f'id in ["{damaged["id"]}"]')
        server.client.insert(COLLECTION, [{**row, "nothing": [0.0, 0.0]} for row in (bad, damaged)])
    listed = alula("encoders", "list", *at)
    assert listed.code == 0
    assert listed.err == "Rows that cannot be read, and are skipped: 1; see 'alula encoders repair'.\n"
    shown = alula("encoders", "repair", *at)
    assert shown.code == 1
    assert shown.err.endswith("Error: Damaged encoders: 1.\n")
    assert "Removed the row 'bad' of '\\x1b[2J': it does not describe an encoder file." in shown.out
    assert f"flops ({digits(flops)}) is damaged; push its file again" in shown.out
    assert "complete: 1." in shown.out
    assert alula("encoders", "push", flops, *at, "--replace").code == 0
    assert alula("encoders", "repair", *at).out == "Encoders that are complete: 2.\n"


def test_help(alula, fails):
    shown = alula("encoders", "--help").out
    for name in ("push", "pull", "list", "remove", "repair"):
        assert f"\n  {name} " in shown
        assert alula("encoders", name, "--help").out.startswith(f"Usage: alula encoders {name}")
    result = alula("encoders")
    assert result.code == 2
    assert "Commands:" in result.err
    fails(2, ["encoders", "pusch"], "pusch", "alula encoders --help")
    fails(2, ["encoders", "pull", "words"], "--uri", "alula encoders pull --help")


def test_ctrl_c(database, in_database, folder, alula):
    """A push that is interrupted says so, and leaves nothing that counts."""
    large = write_drq(folder / "large.onnx", input_dim=6000).path  # 75 MB, so that there is time to interrupt
    process = start("encoders", "push", large, *in_database)
    while not (database.client.has_collection(COLLECTION) and querying(database)('role == "part"', ["part"])):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert (result.code, result.out, result.err.strip()) == (130, "", "Stopped.")
    assert alula("encoders", "list", *in_database, "--format", "json").json == []
