"""Decoded predictions to detections: confidence, class filter, non-maximum suppression. Not for drawing or matching."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.boxes import xywh2xyxy
from utils.errors import InputError

MIN_SIDE, MAX_SIDE = 2, 7680  # pixels; a box with a side outside is no detection
MAX_CANDIDATES = 30_000  # the most confident ones that enter suppression
FIRST_ROUND = 10  # suppression first looks at this many candidates per wanted detection


@torch.no_grad()
def non_max_suppression(
    pred: Tensor,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    *,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[Tensor] = (),
    max_det: int = 300,
) -> list[Tensor]:
    """Detections of each image, most confident first: a list of (n, 6) [x1, y1, x2, y2, confidence, class], float32.

    Args:
        pred: (B, N, 5 + nc) [x, y, w, h in pixels, objectness, class probabilities]; not written to.
        conf_thres: only confidences (objectness x class probability) above it count.
        iou_thres: a box is dropped where it overlaps a more confident one of its class by more.
        classes: keep only these class ids.
        agnostic: boxes suppress each other across classes.
        multi_label: a box is a detection of every class above the threshold, not of its best one alone.
        labels: for each image (k, 5) [class, x, y, w, h in pixels]: known objects, which are added as predictions with
            confidence 1 (autolabelling); empty: no image has any.
        max_det: the most detections an image may have.

    Raises InputError where a threshold is outside 0..1 or pred has another shape.

    Differs from v6.1: no wall-clock limit, the result is always complete; the input is left as it is; rows with NaN or
    infinite values are no candidates; half precision is computed in float32 (class offsets overflow float16).
    """
    for name, value in (("conf_thres", conf_thres), ("iou_thres", iou_thres)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} must be in 0..1, got {value}")
    if pred.ndim != 3 or pred.shape[2] < 6:
        raise InputError(f"pred: (batch, boxes, 5 + classes) was expected, got {tuple(pred.shape)}")
    detections = []
    for image, rows in enumerate(pred):
        candidates = select_candidates(rows, conf_thres)
        if len(labels):
            candidates = torch.cat((candidates, label_rows(labels[image], candidates)))
        scored = to_detections(candidates, conf_thres, multi_label=multi_label)
        if classes is not None:
            scored = scored[torch.isin(scored[:, 5], scored.new_tensor(list(classes)))]
        detections.append(suppress(scored, iou_thres, agnostic=agnostic, max_det=max_det))
    return detections


def select_candidates(rows: Tensor, conf_thres: float) -> Tensor:
    """Those of the rows (N, 5 + nc) that can become a detection, float32 (n, 5 + nc): objectness above the threshold,
    sides from MIN_SIDE to MAX_SIDE, all values finite."""
    chosen = rows[(rows[:, 4] > conf_thres).nonzero()[:, 0]].float()  # the other rows are never copied
    sides = chosen[:, 2:4]
    usable = ((sides >= MIN_SIDE) & (sides <= MAX_SIDE)).all(1) & chosen.isfinite().all(1)
    return chosen[usable]


def label_rows(labels: Tensor, like: Tensor) -> Tensor:
    """Known objects (k, 5) [class, xywh px] as prediction rows (k, 5 + nc) with objectness and class probability 1."""
    rows = like.new_zeros(len(labels), like.shape[1])
    labels = labels.to(rows)
    rows[:, :4] = labels[:, 1:5]
    rows[:, 4] = 1
    rows.scatter_(1, 5 + labels[:, :1].long(), 1)
    return rows


def to_detections(candidates: Tensor, conf_thres: float, *, multi_label: bool) -> Tensor:
    """Prediction rows (n, 5 + nc) -> (m, 6) [xyxy, confidence, class], those above the threshold, in the rows'
    order."""
    xyxy, confidences = xywh2xyxy(candidates[:, :4]), candidates[:, 5:] * candidates[:, 4:5]
    if multi_label:
        row, label = (confidences > conf_thres).nonzero(as_tuple=True)
        confidence = confidences[row, label]
    else:
        best, label = confidences.max(1)
        row = (best > conf_thres).nonzero()[:, 0]
        confidence, label = best[row], label[row]
    return torch.cat((xyxy[row], confidence[:, None], label[:, None].to(xyxy)), 1)


def suppress(detections: Tensor, iou_thres: float, *, agnostic: bool, max_det: int) -> Tensor:
    """Greedy non-maximum suppression of (m, 6) rows: at most max_det of them, most confident first.

    Whether a box stays depends on the more confident boxes alone. So suppression of the most confident candidates is
    tried first. If that keeps max_det boxes, they are the result; else it is repeated with four times as many. The
    result is the same as with all candidates at once, whose cost grows with the square of their number.
    """
    order = detections[:, 4].argsort(descending=True, stable=True)[:MAX_CANDIDATES]
    detections = detections[order]
    # classes lie side by side, further apart than any box is wide, so that they never overlap
    offset = 0 if agnostic else detections[:, 5:6] * MAX_SIDE
    xyxy = detections[:, :4] + offset
    count = FIRST_ROUND * max_det
    while True:
        kept = torchvision_operators().nms(xyxy[:count], detections[:count, 4], iou_thres)
        if count >= len(detections) or len(kept) >= max_det:
            return detections[kept[:max_det]]
        count *= 4


@cache
def torchvision_operators() -> Any:
    """torch.ops.torchvision, with its compiled operators loaded.

    Their library is loaded without the package around it where that works: it takes milliseconds, while the package
    imports torch's compiler, 1 s and 140 MB at each start of detect.py.
    """
    package = find_spec("torchvision")
    for library in Path(package.origin).parent.glob("_C*.so") if package and package.origin else ():
        try:
            torch.ops.load_library(library)
        except OSError:  # it wants what the package prepares
            break
    if not hasattr(torch.ops.torchvision, "nms"):
        import torchvision  # noqa: F401  (registers them)
    return torch.ops.torchvision
