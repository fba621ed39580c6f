"""The resources of a process, as Linux counts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """The resources of a process at one moment.

    Args:
        rss: Resident bytes.
        anonymous: Bytes of them that are not pages of files.
        files: Open file descriptors.
        threads: Threads.
        cpu: Seconds of all cores, user and system, since it began.
    """

    rss: int
    anonymous: int
    files: int
    threads: int
    cpu: float


def usage(pid: int) -> Usage:
    """The present resources of a process, as Linux counts them.

    Raises:
        FileNotFoundError, ProcessLookupError: If it has ended.
    """
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name may hold blanks
    return Usage(
        rss=int(status["VmRSS"].split()[0]) << 10,
        anonymous=int(status["RssAnon"].split()[0]) << 10,
        files=sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        threads=int(status["Threads"]),
        cpu=(int(times[11]) + int(times[12])) / TICKS,
    )
