"""How much memory there is and how much this process takes. Not for the memory of GPUs, which torch tells."""

import ctypes
import os
import sys
from pathlib import Path

PROC = Path("/proc/self")
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
HALF = 2  # where a system tells only how much memory it has, one in HALF bytes counts as available


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, with the limit of a container counted in; None where the system does
    not tell."""
    free = [_meminfo_available(), _container_available()]
    known = [value for value in free if value is not None]
    return min(known) if known else None


def memory_share() -> int | None:
    """Of the available bytes those for this process alone, where the launcher of a distributed training has started
    several on this machine. The first of them takes what it needs before the others ask."""
    waiting = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - (int(os.environ.get("LOCAL_RANK", 0)) > 0)
    available = available_memory()
    return None if available is None else available // waiting


def _meminfo_available() -> int | None:
    """Linux's own estimate; elsewhere half of the physical memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024  # "MemAvailable:   123 kB"
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // HALF
    return None


def _container_available() -> int | None:
    """What a cgroup (version 2) leaves below its limit; its file cache counts as free."""
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
    """Lets peak_memory() count anew from now on. Returns whether the system can (Linux, if the container lets it)."""
    try:
        (PROC / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(key: str) -> int | None:
    status = PROC / "status"
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(key)]  # "VmRSS:   123 kB"
    return found[0] if found else None


def keep_freed_memory() -> bool:
    """Lets this process, and those that it forks, keep the memory that it frees for its next tensors. By default glibc
    gives large blocks back to the system, which zeroes each page of them again: a tenth of a CPU's training step. All
    threads share one arena, as those that threads have to themselves give back regardless: a third of the time that a
    network takes in a thread. Returns whether the C library has such a switch (glibc: Linux). For scripts, as it holds until the process ends."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        return False
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_ARENA_MAX: 1}
    return all(library.mallopt(switch, value) for switch, value in wanted.items())
