"""How good detections are: matching them to labels, average precision, the confusion matrix, fitness; and how often to
draw which image. Not for curves on paper (utils/curves.py), nor for COCO's own evaluation (utils/coco.py)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.boxes import box_iou

EPS = 1e-16  # keeps divisions by zero finite
CURVE_POINTS = 1000  # confidences or recalls, evenly from 0 to 1
FITNESS_WEIGHTS = (0.0, 0.0, 0.1, 0.9)  # precision, recall, mAP50, mAP50-95


def fitness(precision: float, recall: float, map50: float, map: float) -> float:
    """The one number by which epochs are compared: 0.1 mAP50 + 0.9 mAP50-95, in 0..1."""
    return float(np.dot((precision, recall, map50, map), FITNESS_WEIGHTS))


def pair_up(overlaps: Tensor, *, by_overlap: bool) -> tuple[Tensor, Tensor]:
    """Pairs labels and detections one to one.

    Each detection has one candidate: the label that it overlaps most. Of the detections with the same candidate, the
    one with the largest overlap gets it, or, if not `by_overlap`, the first one. The others stay without a label.

    Args:
        overlaps: (m labels, n detections), negative where a pair is not allowed.

    Returns the numbers of the labels (k,) and of the detections (k,) of the pairs.
    """
    if not overlaps.numel():
        none = torch.zeros(0, dtype=torch.long, device=overlaps.device)
        return none, none
    best, label = overlaps.max(0)  # (n,)
    queue = (best >= 0).nonzero()[:, 0]  # detections with a candidate, those that are served first at the front
    if by_overlap:
        queue = queue[best[queue].argsort(descending=True, stable=True)]
    nobody = len(queue)
    place = torch.arange(nobody, device=queue.device)
    # for each label the place in the queue of the first detection that has it as its candidate
    first = queue.new_full((len(overlaps),), nobody).scatter_reduce_(0, label[queue], place, "amin")  # (m,)
    paired = queue[first[first < nobody]]
    return label[paired], paired


def match_detections(detections: Tensor, labels: Tensor, iou_thresholds: Tensor) -> Tensor:
    """Which detections of an image are correct at which IoU threshold.

    Args:
        detections: (n, 6) [xyxy, confidence, class], most confident first.
        labels: (m, 5) [class, xyxy], in the same pixels.
        iou_thresholds: (t,), rising.

    Returns bool (n, t). A detection is compared with the label of its class that it overlaps most, if at least by the
    lowest threshold. Of several detections of one label the most confident one counts, not the one with the largest
    overlap; the others are wrong at every threshold.
    """
    overlaps = box_iou(labels[:, 1:], detections[:, :4])  # (m, n)
    allowed = (labels[:, :1] == detections[:, 5]) & (overlaps >= iou_thresholds[0])
    label, detection = pair_up(overlaps.where(allowed, -1.0), by_overlap=False)
    correct = torch.zeros(len(detections), len(iou_thresholds), dtype=torch.bool, device=detections.device)
    correct[detection] = overlaps[label, detection][:, None] >= iou_thresholds
    return correct


class ConfusionMatrix:
    """Counts of predicted (row) against true (column) classes: `matrix` (nc + 1, nc + 1), the last class being the
    background. So the last row counts labels that were missed, the last column detections where there is nothing.

    conf, iou: only detections above this confidence count, and only pairs that overlap by more than this.

    As in v6.1, images without labels or without any detection do not count, and detections where there is nothing count
    only in images in which at least one pair was found.
    """

    def __init__(self, nc: int, conf: float = 0.25, iou: float = 0.45) -> None:
        self.nc, self.conf, self.iou = nc, conf, iou
        self.matrix = np.zeros((nc + 1, nc + 1))

    def update(self, detections: Tensor, labels: Tensor) -> None:
        """Adds an image: detections (n, 6) [xyxy, confidence, class] and labels (m, 5) [class, xyxy], in the same
        pixels."""
        if not len(detections) or not len(labels):
            return
        detections = detections[detections[:, 4] > self.conf]
        overlaps = box_iou(labels[:, 1:], detections[:, :4])
        label, detection = pair_up(overlaps.where(overlaps > self.iou, -1.0), by_overlap=True)
        predicted = torch.full((len(labels),), self.nc, device=labels.device)  # background: missed
        predicted[label] = detections[detection, 5].long()
        self._count(predicted, labels[:, 0])
        if len(label):
            unpaired = torch.ones(len(detections), dtype=torch.bool, device=detections.device)
            unpaired[detection] = False
            nothing = detections[unpaired, 5]
            self._count(nothing, torch.full_like(nothing, self.nc))

    def _count(self, predicted: Tensor, true: Tensor) -> None:
        np.add.at(self.matrix, (predicted.long().cpu().numpy(), true.long().cpu().numpy()), 1)


@dataclass(frozen=True)
class Curves:
    """Curves of the c classes that have labels, each (c, 1000), at the lowest IoU threshold. The axis (1000,), 0 to 1,
    is confidence for precision, recall and f1, and recall for precision_at_recall."""

    axis: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    precision_at_recall: np.ndarray


@dataclass(frozen=True)
class AveragePrecision:
    """Scores of the c classes that have labels. precision, recall, f1, tp and fp (true and false positives) are those
    at the lowest IoU threshold, and at the same confidence for all classes: that with the best mean F1."""

    classes: np.ndarray  # (c,) int, ids in rising order
    ap: np.ndarray  # (c, t) per IoU threshold
    precision: np.ndarray  # (c,)
    recall: np.ndarray
    f1: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    confidence: float
    curves: Curves

    @property
    def mean_precision(self) -> float:
        """Over the classes; 0 where there is none."""
        return _mean(self.precision)

    @property
    def mean_recall(self) -> float:
        """Over the classes; 0 where there is none."""
        return _mean(self.recall)

    @property
    def map50(self) -> float:
        """Mean over classes at the lowest threshold, which is 0.5 by convention."""
        return _mean(self.ap[:, 0])

    @property
    def map(self) -> float:
        """Mean over classes and thresholds."""
        return _mean(self.ap)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def compute_ap(recall: np.ndarray, precision: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Area under a precision-recall curve (n,), by 101-point interpolation over its falling envelope.

    The envelope is the highest precision at the same or a higher recall. The curve is taken to start at (recall 0,
    precision 1) and to end at (1, 0), so that a perfect detector scores 0.995. Returns the area, and the envelope's
    precision (n + 2,) and recall (n + 2,).
    """
    recall = np.concatenate(([0.0], recall, [1.0]))
    envelope = np.maximum.accumulate(np.concatenate(([1.0], precision, [0.0]))[::-1])[::-1]
    points = np.linspace(0, 1, 101)
    return float(np.trapezoid(np.interp(points, recall, envelope), points)), envelope, recall


def ap_per_class(tp: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray, target_cls: np.ndarray) -> AveragePrecision:
    """Average precision of each class that has labels.

    Args:
        tp: bool (n, t), whether detection n is correct at IoU threshold t.
        conf: (n,) confidences; pred_cls: (n,) class ids; in any order.
        target_cls: (m,) class ids of all labels.

    Differs from v6.1: detections of equal confidence keep their order; a class without detections has a
    precision-recall curve (of zeros) like any other, so that rows and classes correspond.
    """
    order = np.argsort(-conf, kind="stable")
    tp, conf, pred_cls = tp[order], conf[order], pred_cls[order]
    classes, label_counts = np.unique(target_cls, return_counts=True)
    axis = np.linspace(0, 1, CURVE_POINTS)
    ap = np.zeros((len(classes), tp.shape[1]))
    precision, recall, at_recall = np.zeros((3, len(classes), CURVE_POINTS))
    for row, (label, count) in enumerate(zip(classes, label_counts, strict=True)):
        mine = pred_cls == label
        if not mine.any():
            continue
        hits = tp[mine].cumsum(0)  # (n of the class, t)
        recalls = hits / (count + EPS)
        precisions = hits / np.arange(1, len(hits) + 1)[:, None]
        # np.interp wants a rising axis, so both are negated; above the highest confidence nothing is found or wrong
        recall[row] = np.interp(-axis, -conf[mine], recalls[:, 0], left=0)
        precision[row] = np.interp(-axis, -conf[mine], precisions[:, 0], left=1)
        areas = [compute_ap(*curve) for curve in zip(recalls.T, precisions.T, strict=True)]
        ap[row] = [area for area, _, _ in areas]
        at_recall[row] = np.interp(axis, areas[0][2], areas[0][1])
    f1 = 2 * precision * recall / (precision + recall + EPS)
    curves = Curves(axis, precision, recall, f1, at_recall)
    return _at_best_f1(classes.astype(np.int64), label_counts, ap, curves)


def _at_best_f1(classes: np.ndarray, label_counts: np.ndarray, ap: np.ndarray, curves: Curves) -> AveragePrecision:
    """The curves read at the confidence of the best mean F1."""
    best = int(curves.f1.mean(0).argmax()) if len(classes) else 0
    precision, recall = curves.precision[:, best], curves.recall[:, best]
    tp = (recall * label_counts).round()
    return AveragePrecision(
        classes=classes,
        ap=ap,
        precision=precision,
        recall=recall,
        f1=curves.f1[:, best],
        tp=tp,
        fp=(tp / (precision + EPS) - tp).round(),
        confidence=float(curves.axis[best]),
        curves=curves,
    )


def class_weights(classes: np.ndarray, nc: int) -> np.ndarray:
    """Weights (nc,), in inverse proportion to how often each class is among the ids (m,), with the sum 1. A class
    without labels has the weight of one with a single label."""
    inverse = 1 / np.bincount(classes.astype(np.int64), minlength=nc).clip(1)
    return inverse / inverse.sum()


def image_weights(classes: np.ndarray, offsets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weight of each of n images: the sum of the class weights (nc,) over its labels, (n,). classes: (m,) of all
    labels, image by image; those of image i go from offsets[i] up to, but without, offsets[i + 1]."""
    images = len(offsets) - 1
    owner = np.repeat(np.arange(images), np.diff(offsets))
    return np.bincount(owner, weights=weights[classes.astype(np.int64)], minlength=images)
