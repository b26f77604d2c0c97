"""The benchmark of the label index, on a small set."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import label_index
from benchmarks.label_index import in_child, main, parse_opt, synthetic_index


@pytest.mark.parametrize(("images", "boxes"), [(0, 0), (1, 0), (1, 7), (50, 3), (50, 400)])
def test_synthetic_index_is_one(images, boxes):
    index = synthetic_index([f"images/{i}.jpg" for i in range(images)], boxes)
    assert len(index) == images
    assert sum(len(index.labels(i)) for i in range(images)) == (boxes if images else 0)
    low, high = index.rows[:, 1:3] - index.rows[:, 3:] / 2, index.rows[:, 1:3] + index.rows[:, 3:] / 2
    assert (low >= 0).all()
    assert (high <= 1).all()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak")
def test_a_child_tells_peak_and_rest():
    def step():
        np.ones(2**26, np.uint8)
        return np.ones(2**24, np.uint8)

    _, _, peak, kept, result = in_child(step)
    assert 2**26 * 0.9 < peak < 2**26 * 1.5
    assert 0 < kept < 2**25  # what else the child gives back, or had to give back, counts too
    assert result == "[1 1 1 ... 1 1 1]"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak")
def test_the_whole_table(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(label_index.LOGGER, "info", told.append)
    main(parse_opt(["--images", "1500", "--boxes", "9000", "--folder", str(tmp_path)]))
    text = "\n".join(told)
    for step in ("list the images", "index from its cache", "--rect", "recall", "labels.jpg", "worker", "with mosaic"):
        assert step in text
    assert list(tmp_path.iterdir()) == []
