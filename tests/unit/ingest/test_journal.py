"""The journal remembers exactly what was acknowledged, whatever happens to the process or the disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import pytest

from alula.errors import UsageError
from alula.ingest.journal import Acknowledgement, DeadLetter, Journal
from alula.ingest.journal_file import JournalError


def acknowledge(journal, number, first, last, **more):
    journal.acknowledge(number, Acknowledgement((first, last), last - first + 1, **more))


def test_done_grows_only_without_gaps(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.begin({"source": "x"}, 7)
    journal.begin_run()
    batches = [(i, 10 * i, 10 * i + 9) for i in range(20)]
    shuffled = random.Random(0).sample(batches, len(batches))
    acknowledged = set()
    for number, first, last in shuffled:
        acknowledge(journal, number, first, last)
        acknowledged.add(number)
        whole = next(i for i in range(21) if i not in acknowledged)
        assert journal.done == (10 * whole - 1 if whole else None)
        assert journal.done_rows == 10 * whole
        assert journal.read_rows == 10 * len(acknowledged)
    assert (journal.plan, journal.rows_before) == ({"source": "x"}, 7)


def test_a_second_run_knows_what_was_acknowledged_sent_or_neither(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.begin_run()
    for first in (0, 10, 20, 30):
        journal.sending((first, first + 9))
    acknowledge(journal, 0, 0, 9)
    acknowledge(journal, 2, 20, 29)
    assert not journal.in_doubt((10, 19))  # of this run, whose end is not known yet
    journal.close()

    again = Journal(tmp_path / "j")
    again.begin_run()
    assert (again.done, again.done_rows, again.read_rows) == (9, 10, 20)
    assert [again.is_acknowledged((a, a + 9)) for a in (10, 20, 30)] == [False, True, False]
    assert [again.in_doubt((a, a + 9)) for a in (10, 30, 40)] == [True, True, False]
    acknowledge(again, 0, 10, 19)
    acknowledge(again, 1, 20, 29)
    assert (again.done, again.read_rows) == (29, 30)


def test_cursors_may_be_strings(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.begin_run()
    journal.sending(("a", "k"))
    journal.sending(("l", "p"))
    journal.acknowledge(0, Acknowledgement(("a", "k"), 5))
    journal.close()
    journal = Journal(tmp_path / "j")
    journal.begin_run()
    assert journal.done == "k"
    assert journal.in_doubt(("l", "p"))
    assert not journal.in_doubt(("q", "z"))


def test_dead_letters_and_the_sample_are_kept_once(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.begin_run()
    for _ in range(2):  # a batch may be written again after a crash
        acknowledge(
            journal,
            0,
            0,
            9,
            dead=[DeadLetter(4, "no vector", b"x")],
            sample=[(p, b"%d" % p) for p in range(200, 0, -1)],
        )
    journal.doubt((0, 9))
    journal.doubt((0, 9))
    journal.close()
    journal = Journal(tmp_path / "j")
    assert list(journal.dead_letters()) == [DeadLetter(4, "no vector", b"x")]
    assert journal.sample == [b"%d" % p for p in range(1, Journal.SAMPLE + 1)]
    assert journal.doubtful == [(0, 9)]


def test_two_loads_cannot_have_one_journal(tmp_path):
    journal = Journal(tmp_path / "j")
    with pytest.raises(UsageError, match="Another load is using the journal"):
        Journal(tmp_path / "j")
    other = "from pathlib import Path; from alula.ingest.journal import Journal; Journal(Path('j'))"
    done = subprocess.run([sys.executable, "-c", other], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Another load is using the journal" in done.stderr
    journal.close()
    Journal(tmp_path / "j").remove()
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_journals(tmp_path):
    (tmp_path / "text").write_text("this is a long enough text that is no database" * 100)
    with pytest.raises(UsageError, match="is not a journal"):
        Journal(tmp_path / "text")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "nowhere" / "j")


WRITER = """
import sys
from pathlib import Path
from alula.ingest.journal import Acknowledgement, DeadLetter, Journal
journal = Journal(Path("j"))
journal.begin_run()
for i in range(100_000):
    journal.sending((i, i))
    journal.acknowledge(i, Acknowledgement((i, i), 1, [DeadLetter(i, "bad", bytes(2000))]))
    sys.stdout.write(f"{i}\\n")
    sys.stdout.flush()
"""


def test_what_was_confirmed_survives_a_kill(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    confirmed = -1
    for line in process.stdout:
        confirmed = int(line)
        if confirmed == 200:
            os.kill(process.pid, signal.SIGKILL)
            break
    confirmed = max([confirmed, *map(int, process.stdout.read().split())])
    process.wait()
    journal = Journal(tmp_path / "j")
    assert journal.done in (confirmed, confirmed + 1)  # the last may not have been said any more
    journal.begin_run()
    assert journal.in_doubt((journal.done + 1, journal.done + 1)) in (True, False)
    assert not journal.in_doubt((journal.done + 2, journal.done + 2))


SMALL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
"""


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK + WRITER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "JournalError" in done.stderr
    assert "cannot be written" in done.stderr
    confirmed = int(done.stdout.split()[-1])
    assert confirmed > 10
    assert Journal(tmp_path / "j").done == confirmed


def test_only_its_owner_reads_it(tmp_path):
    """It contains the rows that could not be loaded."""
    before = os.umask(0)
    try:
        journal = Journal(tmp_path / "j")
        journal.begin({"source": "x"}, 7)
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    finally:
        os.umask(before)
