"""The memory of a program and its children while it works, against how far it is. Linux, whose /proc tells it."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
EACH_S = 0.1  # between two looks
# What the middle memory of the last quarter may be above that of the second: the C library's arenas and Python's pools
# move by a few MiB, while one forgotten picture a picture is 90 MiB in the smallest of the runs here.
ALLOWED = 16 * MIB

needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")


@dataclass
class Watched:
    """What a program did: its exit code, what it told, and [share done (0..1), bytes] of each look."""

    code: int = 0
    told: str = ""
    looks: list[tuple[float, int]] = field(default_factory=list)

    def between(self, low: float, high: float) -> float:
        """Bytes, the middle of the looks while the share done was in [low, high)."""
        found = [size for share, size in self.looks if low <= share < high]
        assert len(found) >= 5, f"{len(found)} looks from {low} to {high} are too few to tell anything"
        return median(found)

    @property
    def growth(self) -> float:
        """Bytes by which the last quarter takes more than the second; the first is for warming up."""
        return self.between(0.75, 1.0) - self.between(0.25, 0.5)

    def summary(self) -> str:
        """The figures of docs/reliability.md, in MiB."""
        sizes = [self.between(low, low + 0.25) for low in (0.25, 0.5, 0.75)]
        quarters = " / ".join(f"{size / MIB:.1f}" for size in sizes)
        return f"{quarters} MiB in the 2nd / 3rd / 4th quarter, {max(size for _, size in self.looks) / MIB:.0f} at most"


def proportional_memory(pid: int) -> int:
    """Bytes of RAM of a process and its children, what they share counted once; 0 where it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, ValueError):
        return 0
    own = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return (int(own[1]) * 1024 if own else 0) + sum(proportional_memory(int(child)) for child in children)


def lines_done(log: Path, pattern: str) -> Callable[[], float]:
    """A function that tells the share done by the newest match of the pattern, whose groups are done and total."""

    def share() -> float:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - 4096, 0))
            found = re.findall(pattern, file.read().decode(errors="replace"))
        return int(found[-1][0]) / int(found[-1][1]) if found else 0.0

    return share


def time_done(log: Path, seconds: float, begun: str) -> Callable[[], float]:
    """A function that tells the share of the seconds that is over since a look first found the text in the log."""
    started: list[float] = []

    def share() -> float:
        if not started and begun in log.read_text(errors="replace"):
            started.append(time.monotonic())
        return (time.monotonic() - started[0]) / seconds if started else 0.0

    return share


def watch(
    arguments: Sequence[object], *, log: Path, share_done: Callable[[], float], stop: Callable | None = None
) -> Watched:
    """Runs python with the arguments, its words in `log`, until it ends; `stop` gets the process once all is done, for
    those that would never end."""
    watched, ended = Watched(), threading.Event()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as words:
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.Popen(command, cwd=log.parent, stdout=words, stderr=words, env=environment)
        try:
            while process.poll() is None:
                share, size = share_done(), proportional_memory(process.pid)
                if size and 0 < share < 1:  # the summary at the end is not part of the work
                    watched.looks.append((share, size))
                if stop and share >= 1:
                    stop(process)
                    process.wait(120)
                ended.wait(EACH_S)
        finally:
            process.kill()
            watched.code = process.wait()
    watched.told = log.read_text(errors="replace")
    return watched
