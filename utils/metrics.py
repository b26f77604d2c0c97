"""How good detections are: matching to labels, average precision, the confusion matrix, fitness, sampling weights. Not
for drawing them (utils/curves.py), nor for COCO's own evaluation."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.boxes import box_iou

EPS = 1e-16
CURVE_POINTS = 1000
FITNESS_WEIGHTS = (0.0, 0.0, 0.1, 0.9)  # precision, recall, mAP50, mAP50-95


def fitness(precision: float, recall: float, map50: float, map: float) -> float:
    """The one number by which epochs are compared: 0.1 mAP50 + 0.9 mAP50-95, in 0..1."""
    return float(np.dot((precision, recall, map50, map), FITNESS_WEIGHTS))


def pair_up(overlaps: Tensor, *, by_overlap: bool) -> tuple[Tensor, Tensor]:
    """Pairs labels and detections one to one.

    Each detection goes for the label that it overlaps most, each label takes one of those that come: the one with the
    largest overlap, or, if not `by_overlap`, the first in order.

    Args:
        overlaps: (m labels, n detections), negative where a pair is not allowed.

    Returns the labels (k,) and the detections (k,) of the pairs.
    """
    if not overlaps.numel():
        none = torch.zeros(0, dtype=torch.long, device=overlaps.device)
        return none, none
    best, label = overlaps.max(0)  # (n,)
    comers = (best >= 0).nonzero()[:, 0]
    if by_overlap:
        comers = comers[best[comers].argsort(descending=True, stable=True)]
    nobody = len(comers)
    rank = torch.arange(nobody, device=comers.device)
    first = comers.new_full((len(overlaps),), nobody).scatter_reduce_(0, label[comers], rank, "amin")
    taken = comers[first[first < nobody]]
    return label[taken], taken


def match_detections(detections: Tensor, labels: Tensor, iou_thresholds: Tensor) -> Tensor:
    """Which detections of an image are right at which IoU threshold.

    Args:
        detections: (n, 6) [xyxy, confidence, class], most confident first.
        labels: (m, 5) [class, xyxy], in the same pixels.
        iou_thresholds: (t,), rising.

    Returns bool (n, t). Per label it is the most confident detection of its class above the lowest threshold that can
    be right, not the one with the largest overlap; all others are wrong at every threshold.
    """
    overlaps = box_iou(labels[:, 1:], detections[:, :4])  # (m, n)
    allowed = (labels[:, :1] == detections[:, 5]) & (overlaps >= iou_thresholds[0])
    label, detection = pair_up(overlaps.where(allowed, -1.0), by_overlap=False)
    correct = torch.zeros(len(detections), len(iou_thresholds), dtype=torch.bool, device=detections.device)
    correct[detection] = overlaps[label, detection][:, None] >= iou_thresholds
    return correct


class ConfusionMatrix:
    """Counts of predicted (row) against true (column) classes at one confidence and overlap; the last of each is the
    background: the last row counts missed labels, the last column detections of nothing.

    As in v6.1, images without labels or without any detection do not count, and detections of nothing count only in
    images in which at least one pair was found.
    """

    def __init__(self, nc: int, conf: float = 0.25, iou: float = 0.45) -> None:
        self.nc, self.conf, self.iou = nc, conf, iou
        self.matrix = np.zeros((nc + 1, nc + 1))

    def update(self, detections: Tensor, labels: Tensor) -> None:
        """Adds an image: detections (n, 6) [xyxy, confidence, class], labels (m, 5) [class, xyxy], in one frame."""
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
    """Per class (c, 1000) over a common axis (1000,): of confidence for precision, recall and f1, and of recall for
    `precision_at_recall`; all at the lowest IoU threshold."""

    axis: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    precision_at_recall: np.ndarray


@dataclass(frozen=True)
class AveragePrecision:
    """Scores of the c classes that have labels. precision, recall, f1, tp and fp are those at the lowest IoU threshold
    and at the one confidence where the mean F1 is best."""

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

    The curve is taken to start at (recall 0, precision 1) and to end at (1, 0); so a perfect detector scores 0.995.
    Returns the area, and the envelope's precision (n + 2,) and recall (n + 2,).
    """
    recall = np.concatenate(([0.0], recall, [1.0]))
    envelope = np.maximum.accumulate(np.concatenate(([1.0], precision, [0.0]))[::-1])[::-1]
    points = np.linspace(0, 1, 101)
    return float(np.trapezoid(np.interp(points, recall, envelope), points)), envelope, recall


def ap_per_class(tp: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray, target_cls: np.ndarray) -> AveragePrecision:
    """Average precision of each class that has labels.

    Args:
        tp: bool (n, t), is detection n right at IoU threshold t.
        conf: (n,) confidences; pred_cls: (n,) class ids; in any order.
        target_cls: (m,) class ids of all labels.

    Differs from v6.1: equal confidences keep their order; a class without detections has a precision-recall curve (of
    zeros) like any other, so that rows and classes correspond.
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
    """Weights (nc,) that sum to 1 and fall with the frequency of a class among the ids (m,); a class without labels
    weighs as if it had one."""
    inverse = 1 / np.bincount(classes.astype(np.int64), minlength=nc).clip(1)
    return inverse / inverse.sum()


def image_weights(classes: np.ndarray, offsets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum (n,) of the class weights (nc,) over each image's labels. The labels' classes (m,) lie one image after the
    other, image i from offsets[i] to offsets[i + 1]."""
    images = len(offsets) - 1
    owner = np.repeat(np.arange(images), np.diff(offsets))
    return np.bincount(owner, weights=weights[classes.astype(np.int64)], minlength=images)
