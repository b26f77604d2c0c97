import pytest
import torch

from utils.anchors import decode, encode, in_stride_order, make_grid


@pytest.mark.parametrize("size_hw", [(0, 0), (1, 1), (2, 3), (5, 4)])
def test_grid_names_column_then_row(size_hw):
    grid = make_grid(size_hw)
    assert grid.shape == (*size_hw, 2)
    for row in range(size_hw[0]):
        for column in range(size_hw[1]):
            assert grid[row, column].tolist() == [column, row]


def test_grid_takes_dtype():
    assert make_grid((2, 2), dtype=torch.float64).dtype == torch.float64


# the formulas of the v6.1 head worked by hand: sigmoids, cell, anchor, stride -> xywh
DECODED = [
    ([0.5, 0.5, 0.5, 0.5], [0, 0], [10, 13], 8, [4, 4, 10, 13]),
    ([0.0, 1.0, 0.0, 1.0], [3, 2], [10, 13], 8, [20, 28, 0, 52]),
    ([0.25, 0.75, 0.25, 0.75], [1, 1], [4, 4], 1, [1, 2, 1, 9]),
]


@pytest.mark.parametrize(("sigmoids", "cell", "anchor", "stride", "xywh"), DECODED)
def test_decode_by_hand(sigmoids, cell, anchor, stride, xywh):
    as_tensor = lambda values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    boxes = decode(as_tensor(sigmoids), as_tensor(cell), as_tensor(anchor), stride=stride)
    assert boxes.tolist() == pytest.approx(xywh)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_encode_and_decode_are_inverse(count):
    generator = torch.Generator().manual_seed(count)
    sigmoids = torch.rand(count, 4, generator=generator, dtype=torch.float64)
    cells = torch.randint(0, 20, (count, 2), generator=generator).double()
    anchors = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 100 + 1
    boxes = decode(sigmoids, cells, anchors, stride=16)
    torch.testing.assert_close(encode(boxes, cells, anchors, stride=16), sigmoids, rtol=0, atol=1e-12)


def test_decode_relative_to_the_cell():
    sigmoids, anchors = torch.rand(7, 4), torch.rand(7, 2)
    cells = torch.full((7, 2), 5.0)
    offset = decode(sigmoids, cells, anchors)[:, :2] - 5
    torch.testing.assert_close(decode(sigmoids, 0.0, anchors)[:, :2], offset)


@pytest.mark.parametrize(
    ("sides", "strides", "flipped"),
    [([1.0], [8.0], False), ([1, 2, 3], [8, 16, 32], False), ([3, 2, 1], [8, 16, 32], True), ([2, 2], [8, 16], False)],
)
def test_levels_follow_the_strides(sides, strides, flipped):
    anchors = torch.tensor(sides, dtype=torch.float32).view(-1, 1, 1).expand(-1, 3, 2)
    expected = anchors.flip(0) if flipped else anchors
    assert torch.equal(in_stride_order(anchors, torch.tensor(strides, dtype=torch.float32)), expected)
