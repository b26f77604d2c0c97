"""How sure a difference in mAP is: a paired bootstrap over images. Not for the scores of a set as it is: those are in
utils/metrics.py, and are the same as the ones here where each image counts once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

POINTS = np.linspace(0, 1, 101)  # recalls at which average precision samples its curve
CHUNK = 4_000_000  # detections times resamples that are computed at once: some 100 MB
PERCENTILES = (2.5, 97.5)  # between them lie 95 % of the values


@dataclass(frozen=True)
class ImageMatches:
    """What a model found in a set of N images, as needed to score any resample of them.

    Attributes:
        image: int (n,), for each of n detections the number of the image that it is in, 0 to N-1.
        correct: bool (n, t), whether it is correct at IoU threshold t.
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
        """Whether the images leave it open that there is no difference."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Differences:
    """The second model's scores minus the first one's: mAP50-95, mAP50, and mAP50-95 of each class that has labels, by
    class id."""

    map: Interval
    map50: Interval
    per_class: dict[int, Interval]


def draw_counts(rng: np.random.Generator, images: int, resamples: int) -> np.ndarray:
    """Draws resamples: as many images as there are (1 or more), with replacement. Returns how often each image is in
    each resample, int64 (resamples, images)."""
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples)


def paired_differences(first: ImageMatches, others: list[ImageMatches], counts: np.ndarray) -> list[Differences]:
    """How each of the others differs from the first on the same images and on the same resamples of them.

    Args:
        first, others: of the same N images, at least one of them labelled; N >= 2, since the only resample of one image
            is the image itself.
        counts: (resamples, N) of draw_counts.

    The intervals are percentiles of the differences (Efron 1979). They show how much the choice of images matters, not
    how much another training of the same model would. With few images they are too narrow: of simulated pairs of equal
    detectors, a difference was shown for 11 % on 10 images, 7 % on 30 and 5.5 % on 90, where it should be 5 %.
    """
    counts = np.concatenate((np.ones_like(counts[:1]), counts))  # row 0: the images as they are
    base = weighted_ap(first, counts)
    return [_differences(base, weighted_ap(other, counts)) for other in others]


def _differences(base: np.ndarray, other: np.ndarray) -> Differences:
    """The differences of two arrays of average precision (1 + resamples, nc, t); row 0 is the set as it is."""
    change = other - base  # NaN for both where a resample has no label of the class
    in_set = np.flatnonzero(~np.isnan(change[0, :, 0]))
    return Differences(
        map=_interval(_mean_of_classes(change.mean(2))),
        map50=_interval(_mean_of_classes(change[:, :, 0])),
        per_class={int(cls): _interval(change[:, cls].mean(1)) for cls in in_set},
    )


def _mean_of_classes(change: np.ndarray) -> np.ndarray:
    """(r, nc) -> (r,), the mean over those classes of which a resample has labels; NaN where it has no labels at
    all."""
    present = ~np.isnan(change)
    count = present.sum(1)
    return np.divide(change.sum(1, where=present), count, out=np.full(len(change), np.nan), where=count > 0)


def _interval(change: np.ndarray) -> Interval:
    """The interval of values (1 + resamples,), the first of which is that of the set. NaN, for resamples without
    labels, do not count."""
    low, high = np.nanpercentile(change[1:], PERCENTILES)
    return Interval(float(change[0]), float(low), float(high))


def weighted_ap(matches: ImageMatches, counts: np.ndarray) -> np.ndarray:
    """Average precision (r, nc, t) of r resamples. In resample k image i is counts[k, i] times, and the result is
    exactly that of utils.metrics.ap_per_class for a set in which each image is so many times. NaN where a resample has
    no label of a class: the class is then left out of the mean."""
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
    """Slices of the resamples, each of about CHUNK detections."""
    size = max(CHUNK // max(detections, 1), 1)
    return (slice(start, start + size) for start in range(0, resamples, size))


def _class_ap(correct: np.ndarray, image: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision (r, t) of one class. correct (n, t) and image (n,): of its detections, most confident first;
    labels (r,): how many labels of the class each resample has."""
    hit = np.flatnonzero(correct.any(1))
    if not hit.size:
        return np.zeros((len(counts), correct.shape[1]))
    times = counts[:, image].astype(np.int32)  # (r, n)
    seen = times.cumsum(1, dtype=np.int32)
    total, seen, times = seen[:, -1], seen[:, hit], times[:, hit]  # between hits precision only falls: hits are enough
    within = _most_hits_within(labels)
    areas = [_area(times[:, column], seen[:, column], total, labels, within) for column in correct[hit].T]
    return np.stack(areas, axis=1)


def _most_hits_within(labels: np.ndarray) -> np.ndarray:
    """(r, 101): the largest number of hits whose recall, hits / labels in floating point, is at most each of POINTS."""
    count = np.maximum(labels, 1)[:, None]
    hits = np.floor(POINTS * count)
    hits += (hits + 1) / count <= POINTS  # the product may have been rounded to either side of a whole number
    hits -= hits / count > POINTS
    return hits.astype(np.int64)


def _area(times: np.ndarray, seen: np.ndarray, total: np.ndarray, labels: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Average precision (r,) from the h hits of one class at one threshold, most confident first.

    Args:
        times: (r, h), how often each hit is in each resample.
        seen: (r, h), how many detections of the class a resample has up to and including that hit.
        total, labels: (r,), how many detections and labels of the class a resample has in all.
        within: _most_hits_within(labels).

    Between two hits the envelope of utils.metrics.compute_ap is flat, at the best precision still to come; after the
    last hit it falls in a straight line to 0 at recall 1. So the copies of a hit need not be looked at one by one.
    """
    if not times.shape[1]:
        return np.zeros(len(times))
    hits = times.cumsum(1, dtype=np.int64)  # (r, h)
    precision = hits / np.maximum(seen, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = hits[:, -1:]  # (r, 1)
    row = np.arange(len(hits))[:, None] * (max(hits.max(), within.max()) + 1)  # so that one search serves all rows
    following = np.searchsorted((hits + row).ravel(), within + row, side="right")
    flat = envelope.ravel()[np.minimum(following, envelope.size - 1)]  # (r, 101)
    missed = np.maximum(1 - found / np.maximum(labels, 1)[:, None], 1e-300)  # it is 0 where all labels are found
    falling = found / np.maximum(total, 1)[:, None] * (1 - POINTS) / missed
    return np.trapezoid(np.where(within < found, flat, falling), POINTS, axis=1)
