"""What a validation keeps of each image."""

import numpy as np
import pytest
import torch

from utils import tally as tally_module
from utils.tally import ImageResult, Rows, Tally


@pytest.mark.parametrize("counts", [[], [0], [1], [4], [5], [0, 3, 0, 2, 4], [13, 1]])
def test_rows_are_those_that_came_in_their_order(monkeypatch, counts):
    monkeypatch.setattr(tally_module, "BLOCK_ROWS", 4)
    expected = np.arange(2 * sum(counts), dtype=np.float32).reshape(-1, 2)
    rows = Rows(2, np.float32)
    for few in np.split(expected, np.cumsum(counts))[: len(counts)]:
        rows.extend(few)
    assert rows.array().dtype == np.float32
    np.testing.assert_array_equal(rows.array(), expected)


def test_a_tally_keeps_18_bytes_a_detection_and_no_boxes(monkeypatch):
    monkeypatch.setattr(tally_module, "BLOCK_ROWS", 300)
    tally = Tally(2)
    for _ in range(4):
        tally.add(ImageResult("a.jpg", (64, 64), torch.rand(150, 6), torch.rand(20, 5)))
    blocks = [block for rows in (tally.scores, tally.correct) for block in rows._blocks]
    assert all(block.base is None for block in blocks)
    assert sum(block.nbytes for block in blocks) == 4 * 150 * 18
