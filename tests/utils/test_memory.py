"""How much memory there is, and how much this process takes."""

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from utils import memory
from utils.memory import available_memory, forget_peak, memory_share, peak_memory, resident_memory


def test_available_memory_is_plausible():
    free = available_memory()
    assert free is None or 2**20 < free < 2**45


@pytest.mark.parametrize(
    ("processes", "number", "expected"),
    [
        (None, None, 800),
        ("1", "0", 800),
        ("8", "0", 100),  # before any of the eight has taken something
        ("8", "1", 114),  # the first has: seven are left
        ("8", "7", 114),
    ],
)
def test_processes_of_one_machine_share(monkeypatch, processes, number, expected):
    monkeypatch.setattr(memory, "available_memory", lambda: 800)
    for name, value in (("LOCAL_WORLD_SIZE", processes), ("LOCAL_RANK", number)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert memory_share() == expected


def test_nobody_shares_what_is_not_known(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert memory_share() is None


@pytest.mark.skipif(resident_memory() is None, reason="this system does not tell a process's memory")
def test_a_peak_is_seen_and_forgotten():
    before = resident_memory()
    with mmap.mmap(-1, 2**26) as large:  # new pages, whatever malloc keeps
        large.write(b"1" * 2**26)
        peak = peak_memory()
    assert peak - before > 2**25
    if forget_peak():
        assert peak - peak_memory() > 2**24


FREED = """
import resource, numpy
from utils.memory import keep_freed_memory
kept = {keep} and keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
numpy.ones(2**26, numpy.uint8)
before = faults()
numpy.ones(2**26, numpy.uint8)
print(kept, faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a switch of glibc")
def test_freed_memory_is_taken_again():
    def run_with(keep):
        code, root = FREED.format(keep=keep), Path(memory.__file__).parents[1]
        answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
        kept, faults = answer.stdout.split()
        return kept == "True", int(faults)

    (kept, few), (_, many) = run_with(True), run_with(False)
    if not kept:
        pytest.skip("not glibc")
    assert few < 100 < many
