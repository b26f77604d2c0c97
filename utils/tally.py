"""From the detections and labels of one image after the other to named metrics, the table in the log and the charts.
Not for running a model: that is engine/validator.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from utils.coco import CocoScore
from utils.curves import plot_confusion_matrix, plot_curves
from utils.log import LOGGER
from utils.metrics import AveragePrecision, ConfusionMatrix, ap_per_class, match_detections
from utils.speed import Speed, StageTimers

IOU_THRESHOLDS = torch.linspace(0.5, 0.95, 10)  # mAP50-95 is the mean over these
BLOCK_ROWS = 65_536
COLUMNS = ("Class", "Images", "Labels", "P", "R", "mAP@.5", "mAP@.5:.95")


@dataclass(frozen=True)
class ClassMetrics:
    """The scores, 0..1, of one class that has labels; precision and recall at the confidence with the best mean F1 over
    the classes. labels: how many it has."""

    cls: int
    name: str
    labels: int
    precision: float
    recall: float
    map50: float
    map: float


@dataclass(frozen=True)
class Metrics:
    """What a validation found. precision, recall, map50 and map (mAP50-95) are means over the classes that have labels,
    0..1."""

    precision: float
    recall: float
    map50: float
    map: float
    per_class: tuple[ClassMetrics, ...]
    maps: np.ndarray  # (nc,) mAP50-95; a class without labels has the mean
    loss: tuple[float, float, float]  # mean (box, obj, cls); zeros where no loss was asked for
    speed_ms: Speed
    images: int
    labels: int
    coco: CocoScore | None = None  # by COCO's own rules; with --save-json, where there are annotations


@dataclass(frozen=True)
class ImageResult:
    """One image's detections (n, 6) [xyxy, confidence, class] and labels (m, 5) [class, xyxy], in pixels of its file,
    on the CPU."""

    path: str
    size_hw: tuple[int, int]
    detections: Tensor
    labels: Tensor


class Rows:
    """Rows of one width and type, of any number, that come a few at a time. They are kept in large blocks: as an array
    an image they took twice their bytes."""

    def __init__(self, width: int, dtype: DTypeLike) -> None:
        self._blocks = [np.empty((0, width), dtype)]
        self._room = 0  # free rows at the end of the last block

    def extend(self, rows: np.ndarray) -> None:
        """Appends a copy of rows (n, width)."""
        while len(rows):
            if not self._room:
                self._blocks.append(np.empty((BLOCK_ROWS, rows.shape[1]), self._blocks[0].dtype))
                self._room = BLOCK_ROWS
            start = BLOCK_ROWS - self._room
            taken = min(len(rows), self._room)
            self._blocks[-1][start : start + taken] = rows[:taken]
            self._room -= taken
            rows = rows[taken:]

    def array(self) -> np.ndarray:
        """All rows, (n, width), as a copy."""
        rows = np.concatenate(self._blocks)
        return rows[: len(rows) - self._room]


class Tally:
    """Collects the matches of all images, for metrics and charts. pictures: also what the confusion matrix needs."""

    def __init__(self, nc: int, *, pictures: bool = False) -> None:
        self.confusion = ConfusionMatrix(nc) if pictures else None
        self.images = 0
        self.correct = Rows(len(IOU_THRESHOLDS), bool)  # a row a detection
        self.scores = Rows(2, np.float32)  # [confidence, class] of each detection
        self.classes = Rows(1, np.float32)  # of each label

    def add(self, result: ImageResult) -> None:
        """Matches one image's detections with its labels."""
        self.images += 1
        self.correct.extend(match_detections(result.detections, result.labels, IOU_THRESHOLDS).numpy())
        self.scores.extend(result.detections[:, 4:].numpy())
        self.classes.extend(result.labels[:, :1].numpy())
        if self.confusion:
            self.confusion.update(result.detections, result.labels)

    def average_precision(self) -> AveragePrecision:
        """The scores of each class over all images so far."""
        confidence, classes = self.scores.array().T
        return ap_per_class(self.correct.array(), confidence, classes, self.label_classes())

    def label_classes(self) -> np.ndarray:
        """Class ids (m,) of all labels so far."""
        return self.classes.array()[:, 0].astype(int)

    def metrics(self, names: Mapping[int, str], *, loss: Tensor, timers: StageTimers) -> Metrics:
        """The result over all images so far. loss (3,) and the timers' means become part of it."""
        scores = self.average_precision()
        counts = np.bincount(self.label_classes(), minlength=len(names))
        columns = (scores.classes, scores.precision, scores.recall, scores.ap[:, 0], scores.ap.mean(1))
        per_class = tuple(
            ClassMetrics(int(cls), names[int(cls)], int(counts[int(cls)]), *map(float, row))
            for cls, *row in zip(*columns, strict=True)
        )
        maps = np.full(len(names), scores.map)
        maps[scores.classes] = scores.ap.mean(1)
        return Metrics(
            scores.mean_precision,
            scores.mean_recall,
            scores.map50,
            scores.map,
            per_class=per_class,
            maps=maps,
            loss=tuple(loss.tolist()),
            speed_ms=timers.mean_ms(self.images),
            images=self.images,
            labels=int(counts.sum()),
        )

    def draw(self, save_dir: Path, names: Mapping[int, str]) -> None:
        """Writes the precision and recall curves and, with `pictures`, the confusion matrix."""
        plot_curves(self.average_precision(), save_dir, names)
        if self.confusion:
            plot_confusion_matrix(self.confusion.matrix, save_dir / "confusion_matrix.png", names)


def table_row(name: str, *cells: object) -> str:
    """One line of the table: the class's name and six figures."""
    return f"{name:>20}" + "".join(f"{cell:>11.3g}" if isinstance(cell, float) else f"{cell:>11}" for cell in cells)


def report(metrics: Metrics, *, verbose: bool) -> None:
    """Logs the figures over all classes, and with `verbose` those of each."""
    quality = (metrics.precision, metrics.recall, metrics.map50, metrics.map)
    LOGGER.info(table_row("all", metrics.images, metrics.labels, *quality))
    if not metrics.labels:
        LOGGER.warning("None of the images has a label, so that there is nothing to compare the detections with.")
    if verbose and len(metrics.maps) > 1:
        for row in metrics.per_class:
            LOGGER.info(table_row(row.name, metrics.images, row.labels, row.precision, row.recall, row.map50, row.map))
