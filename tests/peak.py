"""The most memory that this process has taken."""

from __future__ import annotations

from pathlib import Path


def peak_mib() -> int:
    """Peak resident memory in MiB; that of `getrusage` includes the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) >> 10
