"""How much memory there is, and how much this process takes."""

import numpy as np
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
    large = np.ones(2**26, np.uint8)
    peak = peak_memory()
    assert peak - before > 2**25
    del large
    if forget_peak():
        assert peak - peak_memory() > 2**24
