"""The watch itself: it sees programs, writes, hangs, memory and tracebacks."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.hostile.child import attempt, bounded
from utils.errors import InputError


def refusing() -> None:
    raise InputError("expected something else in some file")


@pytest.mark.parametrize(
    ("task", "ended"),
    [
        (lambda: 1, "returned"),
        (refusing, "refused"),
        (lambda: 1 / 0, "raised"),
        (lambda: np.zeros(2**32).sum(), "raised"),
        (lambda: time.sleep(60), "hung"),
        (lambda: os.kill(os.getpid(), 9), "killed"),
    ],
)
def test_endings_are_told_apart(task, ended, ground):
    assert attempt(task, ground, seconds=2).ended == ended


@pytest.mark.parametrize("act", ["system", "outside", "inside"])
def test_acts_are_seen(act, ground, tmp_path):
    tasks = {
        "system": lambda: os.system("true"),
        "outside": lambda: (tmp_path / "outside").write_text(""),
        "inside": lambda: Path("inside").write_text(""),
    }
    outcome = attempt(tasks[act], ground)
    (tmp_path / "outside").unlink(missing_ok=True)
    assert bool(outcome.acts) == (act != "inside")
    if outcome.acts:
        with pytest.raises(AssertionError):
            bounded(outcome, ends=("returned",))


def test_memory_is_measured(ground):
    assert attempt(lambda: np.ones(2**24).sum(), ground).grown > 100
