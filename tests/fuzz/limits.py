"""What a case may take: seconds, memory, files inside of its folder."""

import contextlib
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

SECONDS = 10  # of processor time
WAITING = 60  # seconds on the clock, of a case that waits for something
BYTES = 2 * 10**9
# What Python, its packages, TensorFlow's autograph and the tests read and write by themselves.
_ELSEWHERE = (
    *(sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev", "/usr", "/lib", "/etc/localtime"),
    str(Path(__file__).resolve().parents[2]),
    *(f"{tempfile.gettempdir()}/{name}" for name in ("__autograph", "__pycache__/__autograph")),
)

_watching: list[tuple[tuple[str, ...], list[str]]] = []


def _audit(event: str, arguments: tuple) -> None:
    if event != "open" or not _watching:
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    allowed, found = _watching[-1]
    name = os.path.abspath(os.fsdecode(path))
    if name != tempfile.gettempdir() and not name.startswith(allowed):
        found.append(name)


sys.addaudithook(_audit)


@contextlib.contextmanager
def limited(*folders: Path) -> Iterator[None]:
    """Ends a block that takes too long or too much memory, or opens files of other folders.

    Args:
        *folders: In which it may open files.

    Raises:
        TimeoutError: After `SECONDS` of processor time, or `WAITING` on the clock.
        MemoryError: From `BYTES` more than before on; also if they were taken for a moment only.
        AssertionError: If a file outside of the folders was opened.
    """

    def ring(number: int, _: object) -> None:
        raise TimeoutError(f"It takes too long ({signal.Signals(number).name}).")

    opened: list[str] = []
    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, SECONDS),
        signal.SIGALRM: (signal.ITIMER_REAL, WAITING),
    }
    before = {number: signal.signal(number, ring) for number in timers}
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, limits[1]))
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    _watching.append(((*map(str, folders), *_ELSEWHERE), opened))
    try:
        yield
    finally:
        _watching.pop()
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert not opened, f"Files outside of {folders[0]} were opened: {opened}"
