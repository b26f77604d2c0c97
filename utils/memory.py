"""How much memory there is and how much this process takes. Not for the memory of GPUs, which torch tells."""

import ctypes
import os
import sys
from pathlib import Path

PROC = Path("/proc/self")
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def available_memory() -> int | None:
    """Bytes that can be taken without swapping and within the limit of a container; None where the system does not
    tell."""
    known = [value for value in (_system_available(), _container_available()) if value is not None]
    return min(known, default=None)


def memory_share() -> int | None:
    """The available bytes, divided by the processes that the launcher of a distributed training has started on this
    machine. The first of them takes what it needs before the others ask, so that these share by one less."""
    processes, number = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    sharing = processes if number == 0 else processes - 1
    available = available_memory()
    return None if available is None else available // sharing


def _system_available() -> int | None:
    """Linux's own estimate; elsewhere half of the physical memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024  # "MemAvailable:   123 kB"
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _container_available() -> int | None:
    """Bytes below the limit of this process's cgroup (version 2), where file cache that can be dropped counts as free;
    None where there is no limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used + int(statistics.get("inactive_file", 0)), 0)


def resident_memory() -> int | None:
    """Bytes of RAM that this process takes; None where the system does not tell (all but Linux)."""
    return _status("VmRSS:")


def peak_memory() -> int | None:
    """The most bytes of RAM that this process has taken since forget_peak(), or since its start where the system cannot
    forget. None on Windows."""
    peak = _status("VmHWM:")
    if peak is not None or sys.platform == "win32":
        return peak
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> bool:
    """Has peak_memory() count from now on. Returns whether the system can do that (Linux, where the container lets
    it)."""
    try:
        (PROC / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(key: str) -> int | None:
    """Bytes in the line of Linux's status file that begins with the key."""
    status = PROC / "status"
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(key)]  # "VmRSS:   123 kB"
    return found[0] if found else None


def keep_freed_memory() -> bool:
    """Has this process, and those that it forks, keep the memory that it frees for its next tensors. Returns whether
    the C library has such switches (glibc's has: Linux). For scripts, as it holds until the process ends.

    By default glibc gives large blocks back to the system, which zeroes each page of them again: a tenth of a CPU's
    training step. And each thread gets an arena of its own, which gives memory back whatever the other switches say: a
    quarter of the time that a network takes in a thread. So all threads share one.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        return False
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_ARENA_MAX: 1}
    return all(library.mallopt(switch, value) for switch, value in wanted.items())
