"""Open a stranger's encoder file in a child process first, within bounds.

`alula.encoders.safety` refuses what is known to end, stop or fill a process. A fault of onnxruntime that it does not
know then ends a child: ``python -m alula.encoders.trial FILE SECONDS BYTES`` opens the file and encodes the probes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from alula.encoders.loading import load_encoder
from alula.encoders.session import memory_limit
from alula.errors import EncoderError

CPU_SECONDS = 30
WALL_SECONDS = 2 * CPU_SECONDS  # on a busy machine
COPIES = 6  # of a file in memory while it is opened: bytes, message, parts, weights
REFUSED = 3  # exit status
# One thread of each kind: every thread reserves addresses, and these are what is bounded.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def open_in_child(
    path: Path, *, cpu_seconds: int = CPU_SECONDS, wall_seconds: float = WALL_SECONDS, max_bytes: int | None = None
) -> None:
    """Open an encoder file in a child process, within bounds.

    Args:
        path: The ``.onnx`` file.
        cpu_seconds: Processor time that it may take.
        wall_seconds: Time that it may take by the clock.
        max_bytes: Memory that it may take, by default half of what encoders may take, and more for a large file.

    Raises:
        EncoderError: If the file cannot be opened within the bounds, or ends the child.
        OSError: If no child can be started.
    """
    if max_bytes is None:
        max_bytes = memory_limit() // 2 + COPIES * path.stat().st_size
    command = [sys.executable, "-m", "alula.encoders.trial", str(path), str(cpu_seconds), str(max_bytes)]
    took = f"Cannot use the encoder {path}: opening it took more than"
    try:
        # without a `preexec_fn`, which would run Python in a copy of a process that has threads
        done = subprocess.run(  # noqa: S603 (this interpreter, without a shell)
            command,
            env={**os.environ, **_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            timeout=wall_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EncoderError(f"{took} {wall_seconds:g} s.") from None
    if done.returncode == REFUSED:
        raise EncoderError(done.stdout)
    if done.returncode == -signal.SIGXCPU:
        raise EncoderError(f"{took} {cpu_seconds} s of processor time.")
    if done.returncode:
        raise EncoderError(f"Cannot use the encoder {path}: it ended the process that opened it ({_status(done)}).")


def _status(done: subprocess.CompletedProcess[str]) -> str:
    return signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"


def _main(path: Path, cpu_seconds: int, max_bytes: int) -> int:
    _bound(cpu_seconds, max_bytes)
    try:
        load_encoder(path, threads=1)
    except EncoderError as error:
        sys.stdout.write(str(error))
    except MemoryError:
        sys.stdout.write(f"Cannot use the encoder {path}: opening it takes more than {max_bytes / 1e6:,.0f} MB.")
    else:
        return 0
    return REFUSED


def _bound(cpu_seconds: int, max_bytes: int) -> None:
    """Bound the time and the memory of this process, as far as the system can."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 (not on every system)

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        # where memory runs out nevertheless, the system ends this process, and not the one that started it
        Path("/proc/self/oom_score_adj").write_text("1000")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + max_bytes, used + max_bytes))


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
