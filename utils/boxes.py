"""Box formats and overlaps as pure functions of arrays. Not for anchors (utils/anchors.py), nor for matching detections
to labels (utils/metrics.py).

Formats, always along the last axis: `xyxy` two corners, `xywh` centre and size, an `n` at the end = divided by the
image's width and height. The converters take numpy arrays and torch tensors alike and return the same kind and dtype.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

Boxes = TypeVar("Boxes", np.ndarray, Tensor)
RatioPad = tuple[tuple[float, float], tuple[float, float]]  # ((ratio, ratio), (pad_x, pad_y))
EPS = 1e-7  # keeps the overlaps of empty boxes finite; v6.1's value


def _join(left: Boxes, right: Boxes) -> Boxes:
    """Two halves (..., 2) of the columns -> (..., 4)."""
    if isinstance(left, Tensor):
        return torch.cat((left, right), -1)
    return np.concatenate((left, right), -1)


def _vector(values: Sequence[float], like: Boxes) -> Boxes:
    """The values as an array of the same kind, dtype and device as `like`."""
    if isinstance(like, Tensor):
        return torch.tensor(values, dtype=like.dtype, device=like.device)
    return np.asarray(values, dtype=like.dtype)


def xyxy2xywh(xyxy: Boxes) -> Boxes:
    """Corners (..., 4) -> centre and size (..., 4), in the same unit."""
    low, high = xyxy[..., :2], xyxy[..., 2:4]
    return _join((low + high) / 2, high - low)


def xywh2xyxy(xywh: Boxes) -> Boxes:
    """Centre and size (..., 4) -> corners (..., 4), in the same unit."""
    centre, half = xywh[..., :2], xywh[..., 2:4] / 2
    return _join(centre - half, centre + half)


def xyn2xy(xyn: Boxes, size_hw: Sequence[float], pad_xy: Sequence[float] = (0.0, 0.0)) -> Boxes:
    """Normalised points (..., 2), such as those of polygons, -> pixels (..., 2).

    pad_xy: pixels of padding at the left and at the top, by which the points are moved.
    """
    height, width = size_hw
    return xyn * _vector((width, height), xyn) + _vector(pad_xy, xyn)


def xywhn2xyxy(xywhn: Boxes, size_hw: Sequence[float], pad_xy: Sequence[float] = (0.0, 0.0)) -> Boxes:
    """Normalised centre and size (..., 4) -> pixel corners (..., 4). pad_xy: see xyn2xy."""
    corners = xywh2xyxy(xywhn)
    return _join(xyn2xy(corners[..., :2], size_hw, pad_xy), xyn2xy(corners[..., 2:], size_hw, pad_xy))


def xyxy2xywhn(xyxy: Boxes, size_hw: Sequence[float], *, clip: bool = False, eps: float = 0.0) -> Boxes:
    """Pixel corners (..., 4) -> normalised centre and size (..., 4).

    clip: limit the corners to the image first. eps: pixels before the right and the bottom edge to limit them to, so
    that float32 rounding cannot lift a normalised coordinate above 1.

    Differs from v6.1: the input is never written to.
    """
    height, width = size_hw
    if clip:
        xyxy = xyxy.clone() if isinstance(xyxy, Tensor) else xyxy.copy()
        clip_boxes_(xyxy, (height - eps, width - eps))
    return xyxy2xywh(xyxy) / _vector((width, height, width, height), xyxy)


def clip_boxes_(xyxy: Boxes, size_hw: Sequence[float]) -> None:
    """Limits corners (..., 4 or more columns) to [0, width] and [0, height], in place."""
    height, width = size_hw
    for columns, limit in ((xyxy[..., 0:4:2], width), (xyxy[..., 1:4:2], height)):
        if isinstance(columns, Tensor):
            columns.clamp_(0, limit)
        else:
            np.clip(columns, 0, limit, out=columns)


def scale_boxes(
    xyxy: Boxes, *, from_hw: Sequence[float], to_hw: Sequence[float], ratio_pad: RatioPad | None = None
) -> Boxes:
    """The inverse of a letterbox: corners (..., 4) in the padded image -> in the original one, clipped to it.

    Args:
        xyxy: pixels of the letterboxed image of size `from_hw`; not written to.
        to_hw: size of the original image.
        ratio_pad: ((ratio, _), (pad_x, pad_y)) of the letterbox, as utils/dataloaders.py returns it. Without it: the
            largest ratio that fits, and the rest spread evenly over both sides. The first ratio serves both axes.
    """
    if ratio_pad is None:
        ratio = min(from_hw[0] / to_hw[0], from_hw[1] / to_hw[1])
        pad_y, pad_x = ((outer - inner * ratio) / 2 for outer, inner in zip(from_hw, to_hw, strict=True))
    else:
        ratio, (pad_x, pad_y) = ratio_pad[0][0], ratio_pad[1]
    original = (xyxy - _vector((pad_x, pad_y, pad_x, pad_y), xyxy)) / ratio
    clip_boxes_(original, to_hw)
    return original


def _intersection(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Area that boxes (..., 4) share after broadcasting, (...)."""
    sides = torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    return sides.clamp(min=0).prod(-1)


def box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU of every pair: (N, 4), (M, 4) -> (N, M) in [0, 1]. A pair of two boxes without area is NaN (0 / 0)."""
    inter = _intersection(a_xyxy[:, None], b_xyxy[None])  # (N, M)
    area_a, area_b = ((xyxy[:, 2:] - xyxy[:, :2]).prod(-1) for xyxy in (a_xyxy, b_xyxy))
    return inter / (area_a[:, None] + area_b - inter)


def bbox_iou(
    a: Tensor, b: Tensor, *, xywh: bool = True, kind: Literal["iou", "giou", "diou", "ciou"] = "iou"
) -> Tensor:
    """Overlap of paired boxes (..., 4), pixels or grid cells, broadcast; differentiable. Returns (...).

    iou in [0, 1]; giou in (-1, 1], arXiv:1902.09630; diou in (-1, 1] and ciou in (-1.5, 1] (up to the epsilons),
    arXiv:1911.08287; the weight of ciou's aspect term takes no gradient. `a` and `b` are xywh, or xyxy if not `xywh`.
    """
    a_xyxy, b_xyxy = (xywh2xyxy(a), xywh2xyxy(b)) if xywh else (a, b)
    (width_a, height_a), (width_b, height_b) = _sides(a_xyxy), _sides(b_xyxy)
    inter = _intersection(a_xyxy, b_xyxy)
    union = width_a * height_a + width_b * height_b - inter + EPS
    iou = inter / union
    if kind == "iou":
        return iou
    # the smallest box around both
    hull = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    if kind == "giou":
        hull_area = hull.prod(-1) + EPS
        return iou - (hull_area - union) / hull_area
    diagonal = hull.square().sum(-1) + EPS
    twice_offset = b_xyxy[..., :2] + b_xyxy[..., 2:] - a_xyxy[..., :2] - a_xyxy[..., 2:]
    distance = twice_offset.square().sum(-1) / 4 / diagonal
    if kind == "diou":
        return iou - distance
    aspect = (torch.atan(width_b / height_b) - torch.atan(width_a / height_a)).square() * (4 / math.pi**2)
    with torch.no_grad():
        weight = aspect / (aspect - iou + (1 + EPS))
    return iou - (distance + aspect * weight)


def _sides(xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Widths and heights. Only the height carries the epsilon: it is a divisor in CIoU's aspect term."""
    return xyxy[..., 2] - xyxy[..., 0], xyxy[..., 3] - xyxy[..., 1] + EPS


def box_ioa(box_xyxy: np.ndarray, others_xyxy: np.ndarray) -> np.ndarray:
    """Share of the area of each other box (N, 4) that one box (4,) covers. Returns (N,), in [0, 1]."""
    low = np.maximum(box_xyxy[:2], others_xyxy[:, :2])
    high = np.minimum(box_xyxy[2:], others_xyxy[:, 2:])
    areas = (others_xyxy[:, 2:] - others_xyxy[:, :2]).prod(-1)
    return (high - low).clip(0).prod(-1) / (areas + EPS)


def segment2box(segment: np.ndarray, size_hw: Sequence[float]) -> np.ndarray:
    """Corners (4,) of the box around those points of a polygon (n, 2), pixels, that lie in the image; zeros where none
    does."""
    height, width = size_hw
    inside = ((segment >= 0) & (segment <= (width, height))).all(1)
    if not inside.any():
        return np.zeros(4, segment.dtype)
    points = segment[inside]
    return np.concatenate((points.min(0), points.max(0)))


def segments2boxes(segments: Sequence[np.ndarray]) -> np.ndarray:
    """xywh (N, 4) of the boxes around N polygons of (n_i, 2) points, in the points' unit."""
    if not len(segments):
        return np.zeros((0, 4), np.float32)
    return xyxy2xywh(np.stack([np.concatenate((points.min(0), points.max(0))) for points in segments]))


def resample_segments(segments: Sequence[np.ndarray], n: int = 1000) -> list[np.ndarray]:
    """Polygons of any number of points (n_i, 2) -> n points each (n, 2), float64.

    The new points lie on the straight lines from the first point to the last (the line back to the first has none).
    Between two neighbouring old points there are equally many, however far apart these are.

    Differs from v6.1: returns new arrays and leaves the given list as it is.
    """

    def resample(points: np.ndarray) -> np.ndarray:
        at = np.linspace(0, len(points) - 1, n)
        return np.stack([np.interp(at, np.arange(len(points)), axis) for axis in points.T], 1)

    return [resample(points) for points in segments]
