"""From the head's sigmoids to boxes and back, the grid of cells that they refer to, and the order of anchors. The head
and the loss both use it. Not for fitting anchors to a data set: that is utils/autoanchor.py."""

import torch
from torch import Tensor


def make_grid(
    size_hw: tuple[int, int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Column and row of each cell of a feature map. size_hw: in cells. Returns (h, w, 2), [column, row] = (x, y)."""
    rows = torch.arange(size_hw[0], device=device, dtype=dtype)
    columns = torch.arange(size_hw[1], device=device, dtype=dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), dim=-1)  # (h, w, 2)


def decode(sigmoids: Tensor, cells_xy: Tensor | float, anchors_wh: Tensor, *, stride: Tensor | float = 1.0) -> Tensor:
    """Boxes from the head's first four sigmoids: xy = (2 sigmoid - 0.5 + cell) * stride, wh = (2 sigmoid)^2 * anchor.
    So a centre lies at most half a cell outside of its own cell, and a side is at most 4 times the anchor's.

    Args:
        sigmoids: (..., 4) in 0..1.
        cells_xy: (..., 2) column and row of each cell; 0.0: centres are measured from the corner of their own cell.
        anchors_wh: (..., 2) in the unit of the result.
        stride: how many of that unit make a cell; 1 where the unit is a cell.

    Returns xywh (..., 4).
    """
    xy = (sigmoids[..., 0:2] * 2 - 0.5 + cells_xy) * stride
    wh = (sigmoids[..., 2:4] * 2).square() * anchors_wh
    return torch.cat((xy, wh), dim=-1)


def encode(xywh: Tensor, cells_xy: Tensor | float, anchors_wh: Tensor, *, stride: Tensor | float = 1.0) -> Tensor:
    """The inverse of `decode`: the four sigmoids (..., 4) that stand for the boxes xywh (..., 4). A value outside of
    0..1 means that the box cannot be expressed from that cell with that anchor."""
    xy = (xywh[..., 0:2] / stride - cells_xy + 0.5) / 2
    wh = (xywh[..., 2:4] / anchors_wh).sqrt() / 2
    return torch.cat((xy, wh), dim=-1)


def in_stride_order(anchors_wh: Tensor, strides: Tensor) -> Tensor:
    """The anchors (nl, na, 2), pixels, in the order of the strides (nl,), so that the finest level has the smallest
    ones: their levels are reversed where the mean areas fall while the strides rise, or the other way round."""
    mean_area = anchors_wh.prod(-1).mean(-1)  # (nl,)
    area_growth = mean_area[-1] - mean_area[0]
    stride_growth = strides[-1] - strides[0]
    return anchors_wh.flip(0) if area_growth * stride_growth < 0 else anchors_wh
