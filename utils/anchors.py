"""The one encode/decode pair of YOLOv5 boxes, and the grid of cells they refer to. Detect and the loss both use it.

Not for fitting anchors to a data set: that is utils/autoanchor.py.
"""

import torch
from torch import Tensor


def make_grid(
    size_hw: tuple[int, int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Column and row of each cell of a feature map. size_hw in cells. Returns (h, w, 2), the last axis being (x, y)."""
    rows = torch.arange(size_hw[0], device=device, dtype=dtype)
    columns = torch.arange(size_hw[1], device=device, dtype=dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), dim=-1)  # (h, w, 2)


def decode(sigmoids: Tensor, cells_xy: Tensor | float, anchors_wh: Tensor, *, stride: Tensor | float = 1.0) -> Tensor:
    """Boxes from the head's first four sigmoids.

    sigmoids (..., 4) in 0..1; cells_xy (..., 2) in cells, or 0.0 for offsets from the cell; anchors_wh (..., 2) in the
    unit of the result; stride = that unit per cell (1 for grid units). Returns xywh (..., 4):
    xy = (2 sigmoid - 0.5 + cell) * stride, wh = (2 sigmoid)^2 * anchor. A centre reaches half a cell beyond
    its own cell, a side from 0 to 4 anchors.
    """
    xy = (sigmoids[..., 0:2] * 2 - 0.5 + cells_xy) * stride
    wh = (sigmoids[..., 2:4] * 2).square() * anchors_wh
    return torch.cat((xy, wh), dim=-1)


def encode(xywh: Tensor, cells_xy: Tensor | float, anchors_wh: Tensor, *, stride: Tensor | float = 1.0) -> Tensor:
    """The inverse of `decode`: the four sigmoids that stand for a box. xywh (..., 4) and anchors_wh (..., 2) in one
    unit, stride = that unit per cell. Values outside 0..1 say that cell and anchor cannot express the box."""
    xy = (xywh[..., 0:2] / stride - cells_xy + 0.5) / 2
    wh = (xywh[..., 2:4] / anchors_wh).sqrt() / 2
    return torch.cat((xy, wh), dim=-1)


def in_stride_order(anchors_wh: Tensor, strides: Tensor) -> Tensor:
    """Anchors (nl, na, 2), pixels, with their levels reversed where their areas run against the strides (nl,): the
    finest level gets the smallest anchors. Levels of equal area stay as they are."""
    mean_area = anchors_wh.prod(-1).mean(-1)  # (nl,)
    area_growth = mean_area[-1] - mean_area[0]
    stride_growth = strides[-1] - strides[0]
    return anchors_wh.flip(0) if area_growth * stride_growth < 0 else anchors_wh
