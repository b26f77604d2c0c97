"""Runs that start in the same moment in the same project: none shares its directory with another."""

import multiprocessing
import os
from pathlib import Path

import pytest

from utils.files import increment_path

RUNS = 8


def begin(barrier, wanted: Path, made) -> None:
    """One run: waits for the others, and makes its directory."""
    barrier.wait()
    made.put(str(increment_path(wanted, mkdir=True)))


@pytest.mark.parametrize("present", [(), ("exp",), ("exp", "exp2")])
def test_runs_of_the_same_second_get_directories_of_their_own(present, tmp_path):
    for name in present:
        (tmp_path / "runs" / name).mkdir(parents=True)
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    barrier, made = context.Barrier(RUNS), context.Queue()
    runs = [context.Process(target=begin, args=(barrier, tmp_path / "runs" / "exp", made)) for _ in range(RUNS)]
    for run in runs:
        run.start()
    directories = {made.get(timeout=60) for _ in runs}
    for run in runs:
        run.join()
    assert len(directories) == RUNS
    assert not directories & {str(tmp_path / "runs" / name) for name in present}
    assert all(Path(directory).is_dir() for directory in directories)
