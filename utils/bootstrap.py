"""How sure a difference in mAP is: a paired bootstrap over images. Not for the scores of one set as it stands: those
are in utils/metrics.py, and equal these where each image counts once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

POINTS = np.linspace(0, 1, 101)  # recalls at which average precision samples its curve
CHUNK = 4_000_000  # detections x resamples that are held at a time: some 100 MB
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class ImageMatches:
    """What a model found in a set of N images, as needed to score any resample of them.

    Attributes:
        image: int (n,), the number of the image that detection n is in, 0 to N-1.
        correct: bool (n, t), is it right at IoU threshold t.
        conf: (n,) confidences; cls: int (n,) class ids.
        labels: int (N, nc), how many labels of each class an image has.
    """

    image: np.ndarray
    correct: np.ndarray
    conf: np.ndarray
    cls: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Interval:
    """A difference, and the bounds between which it lies in 95 % of the resamples."""

    value: float
    low: float
    high: float

    @property
    def covers_zero(self) -> bool:
        """Whether no difference is among what the images allow."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Differences:
    """Second model less first: of mAP50-95, of mAP50, and of mAP50-95 by class id for the classes that have labels."""

    map: Interval
    map50: Interval
    per_class: dict[int, Interval]


def draw_counts(rng: np.random.Generator, images: int, resamples: int) -> np.ndarray:
    """int64 (resamples, images): how often each image is in a resample of as many images, drawn with replacement.
    images: 1 or more."""
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples)


def paired_differences(first: ImageMatches, others: list[ImageMatches], counts: np.ndarray) -> list[Differences]:
    """How each of the others differs from the first on the same images and on the same resamples of them.

    Args:
        first, others: of the same images, N >= 2 (one image has one resample, itself), at least one of them labelled.
        counts: (resamples, N) of draw_counts.

    The intervals are percentiles of the differences (Efron 1979). They tell what the choice of images may have done,
    not what another training of the same model would give. They are too narrow for few images: of simulated equal
    detectors, 11 % were told apart on 10 images, 7 % on 30 and 5.5 % on 90, where it should be 5 %.
    """
    counts = np.concatenate((np.ones_like(counts[:1]), counts))  # row 0: the images as they are
    base = weighted_ap(first, counts)
    return [_differences(base, weighted_ap(other, counts)) for other in others]


def _differences(base: np.ndarray, other: np.ndarray) -> Differences:
    """Of two ap (1 + resamples, nc, t), the first row of which is the set as it is."""
    change = other - base  # NaN for both where a resample has no label of the class
    in_set = np.flatnonzero(~np.isnan(change[0, :, 0]))
    return Differences(
        map=_interval(_mean_of_classes(change.mean(2))),
        map50=_interval(_mean_of_classes(change[:, :, 0])),
        per_class={int(cls): _interval(change[:, cls].mean(1)) for cls in in_set},
    )


def _mean_of_classes(change: np.ndarray) -> np.ndarray:
    """(r, nc) -> (r,), over the classes that a resample has labels of; NaN where it has none at all."""
    present = ~np.isnan(change)
    count = present.sum(1)
    return np.divide(change.sum(1, where=present), count, out=np.full(len(change), np.nan), where=count > 0)


def _interval(change: np.ndarray) -> Interval:
    """Of values (1 + resamples,), the first of which is the set's; resamples without the class, NaN, do not count."""
    low, high = np.nanpercentile(change[1:], PERCENTILES)
    return Interval(float(change[0]), float(low), float(high))


def weighted_ap(matches: ImageMatches, counts: np.ndarray) -> np.ndarray:
    """Average precision (r, nc, t) of each resample, in which image i is counts[r, i] times: exactly what
    utils.metrics.ap_per_class gives for the images put together so often. NaN where the resample has no label of a
    class, as that class is then left out of the mean."""
    ap = np.full((len(counts), matches.labels.shape[1], matches.correct.shape[1]), np.nan)
    order = np.argsort(-matches.conf, kind="stable")
    for cls in np.flatnonzero(matches.labels.any(0)):
        mine = order[matches.cls[order] == cls]
        labels = counts @ matches.labels[:, cls]
        for rows in _chunks(len(counts), len(mine)):
            ap[rows, cls] = _class_ap(matches.correct[mine], matches.image[mine], counts[rows], labels[rows])
        ap[labels == 0, cls] = np.nan
    return ap


def _chunks(resamples: int, detections: int) -> Iterator[slice]:
    size = max(CHUNK // max(detections, 1), 1)
    return (slice(start, start + size) for start in range(0, resamples, size))


def _class_ap(correct: np.ndarray, image: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision (r, t) of one class, whose detections, most confident first, are correct (n, t) and in image
    (n,); labels (r,) are its labels in each resample."""
    hit = np.flatnonzero(correct.any(1))
    if not hit.size:
        return np.zeros((len(counts), correct.shape[1]))
    times = counts[:, image].astype(np.int32)  # (r, n)
    seen = times.cumsum(1, dtype=np.int32)
    total, seen, times = seen[:, -1], seen[:, hit], times[:, hit]  # precision peaks at hits: the rest need not be kept
    behind = _labels_behind(labels)
    areas = [_area(times[:, column], seen[:, column], total, labels, behind) for column in correct[hit].T]
    return np.stack(areas, axis=1)


def _labels_behind(labels: np.ndarray) -> np.ndarray:
    """(r, 101): the most hits whose recall, hits / labels in floating point, does not exceed each of POINTS."""
    share = np.maximum(labels, 1)[:, None]
    behind = np.floor(POINTS * share)
    behind += (behind + 1) / share <= POINTS  # the product may be rounded to either side of a whole number
    behind -= behind / share > POINTS
    return behind.astype(np.int64)


def _area(times: np.ndarray, seen: np.ndarray, total: np.ndarray, labels: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Average precision (r,) from the hits in order of confidence: times (r, h), how often each is in the resample;
    seen (r, h), how many detections of the class there are up to it; total (r,), how many in all.

    Between two hits the envelope of utils.metrics.compute_ap is flat, at the best precision of those to come; behind
    the last it falls in a straight line to 0 at recall 1. So the copies of a hit need not be laid out one by one.
    """
    if not times.shape[1]:
        return np.zeros(len(times))
    hits = times.cumsum(1, dtype=np.int64)  # (r, h)
    precision = hits / np.maximum(seen, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = hits[:, -1:]  # (r, 1)
    row = np.arange(len(hits))[:, None] * (max(hits.max(), behind.max()) + 1)  # keeps the rows apart in one search
    following = np.searchsorted((hits + row).ravel(), behind + row, side="right")
    flat = envelope.ravel()[np.minimum(following, envelope.size - 1)]  # (r, 101)
    missed = np.maximum(1 - found / np.maximum(labels, 1)[:, None], 1e-300)  # where all is found, nothing is behind
    falling = found / np.maximum(total, 1)[:, None] * (1 - POINTS) / missed
    return np.trapezoid(np.where(behind < found, flat, falling), POINTS, axis=1)
