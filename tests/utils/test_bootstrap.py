"""utils/bootstrap.py against images really put together as often as a resample has them, and in known cases."""

import time

import numpy as np
import pytest

import utils.bootstrap
from utils.bootstrap import ImageMatches, Interval, draw_counts, paired_differences, weighted_ap
from utils.metrics import ap_per_class

NC, THRESHOLDS = 3, 10


def random_matches(seed: int, images: int, most: int = 12, quality: float = 1.0) -> ImageMatches:
    """Up to `most` detections an image, of which no more are right than the image has labels of the class; the labels
    depend on the number of images alone."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), rng.integers(0, most + 1, images))
    conf, cls = rng.uniform(0, 1, len(image)), rng.integers(0, NC, len(image))
    labels = np.random.default_rng(images).integers(0, 3, (images, NC))
    level = np.where(rng.uniform(0, 1, len(image)) < conf * quality, rng.integers(1, THRESHOLDS + 1, len(image)), 0)
    left = labels.copy()
    for row in np.argsort(-conf):
        free = left[image[row], cls[row]]
        level[row] *= free > 0
        left[image[row], cls[row]] -= level[row] > 0
    return ImageMatches(image, np.arange(THRESHOLDS) < level[:, None], conf, cls, labels)


def put_together(matches: ImageMatches, counts: np.ndarray):
    """ap_per_class of every image's rows, repeated counts[image] times: slow and obvious."""
    rows = np.concatenate(
        [np.zeros(0, int), *(np.flatnonzero(matches.image == i) for i in np.repeat(range(len(counts)), counts))]
    )
    targets = np.repeat(np.arange(NC), counts @ matches.labels)
    return ap_per_class(matches.correct[rows], matches.conf[rows], matches.cls[rows], targets)


NO_ROWS = (np.zeros(0, int), np.zeros((0, THRESHOLDS), bool), np.zeros(0), np.zeros(0, int))
ONE_HIT = (np.zeros(1, int), np.ones((1, THRESHOLDS), bool), np.ones(1), np.zeros(1, int))


@pytest.mark.parametrize(
    ("rows", "labels", "expected"),
    [
        (NO_ROWS, [[0, 0]], [np.nan, np.nan]),
        (NO_ROWS, [[1, 0]], [0, np.nan]),
        (ONE_HIT, [[0, 0]], [np.nan, np.nan]),
        (ONE_HIT, [[1, 0]], [0.995, np.nan]),  # the curve ends at (recall 1, precision 0)
        (ONE_HIT, [[0, 1]], [np.nan, 0]),
    ],
)
def test_known_sets(rows, labels, expected):
    ap = weighted_ap(ImageMatches(*rows, np.array(labels)), np.array([[1], [3]]))
    assert ap.shape == (2, 2, THRESHOLDS)
    np.testing.assert_allclose(ap, np.broadcast_to(np.array(expected)[:, None], ap.shape))


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_images_put_together(seed, monkeypatch):
    """For each image once, and for random counts, in one chunk and in many."""
    rng = np.random.default_rng(seed)
    images = int(rng.integers(1, 9))
    matches = random_matches(seed, images, quality=rng.uniform(0.3, 3))
    counts = np.concatenate((np.ones((1, images), int), draw_counts(rng, images, 5)))
    monkeypatch.setattr(utils.bootstrap, "CHUNK", int(rng.choice((1, 60, 10_000))))
    for weights, ap in zip(counts, weighted_ap(matches, counts), strict=True):
        expected = put_together(matches, weights)
        assert np.flatnonzero(~np.isnan(ap[:, 0])).tolist() == expected.classes.tolist()
        np.testing.assert_allclose(ap[expected.classes], expected.ap, atol=1e-12)


def test_equal_confidences_keep_their_order_as_in_ap_per_class():
    matches = random_matches(5, 8, quality=2)
    tied = ImageMatches(matches.image, matches.correct, matches.conf.round(1), matches.cls, matches.labels)
    ones = np.ones(8, int)
    expected = put_together(tied, ones)
    np.testing.assert_allclose(weighted_ap(tied, ones[None])[0, expected.classes], expected.ap, atol=1e-12)


@pytest.mark.parametrize(("images", "resamples"), [(1, 3), (50, 20)])
def test_resamples_are_as_large_as_the_set(images, resamples):
    counts = draw_counts(np.random.default_rng(0), images, resamples)
    assert counts.shape == (resamples, images)
    assert (counts.sum(1) == images).all()
    np.testing.assert_array_equal(counts, draw_counts(np.random.default_rng(0), images, resamples))


def test_a_model_does_not_differ_from_itself():
    matches = random_matches(1, 40)
    (change,) = paired_differences(matches, [matches], draw_counts(np.random.default_rng(0), 40, 200))
    for interval in (change.map, change.map50, *change.per_class.values()):
        assert interval == Interval(0, 0, 0)
        assert interval.covers_zero


def test_a_twin_with_permuted_classes_differs():
    matches = random_matches(1, 40, quality=3)
    twin = ImageMatches(
        matches.image, np.zeros_like(matches.correct), matches.conf, (matches.cls + 1) % NC, matches.labels
    )
    (change,) = paired_differences(matches, [twin], draw_counts(np.random.default_rng(0), 40, 200))
    whole = put_together(matches, np.ones(40, int))
    assert (change.map.value, change.map50.value) == pytest.approx((-whole.map, -whole.map50))
    assert change.map.low < change.map.value < change.map.high < 0
    assert not change.map.covers_zero
    assert {cls: it.value for cls, it in change.per_class.items()} == pytest.approx(dict(enumerate(-whole.ap.mean(1))))


def test_differences_are_of_the_same_resamples():
    """Interval by interval what the slow way gives, with classes missing from some resamples."""
    first, second = random_matches(2, 6), random_matches(3, 6)
    counts = draw_counts(np.random.default_rng(0), 6, 50)
    (change,) = paired_differences(first, [second], counts)
    slow = [put_together(second, row).map50 - put_together(first, row).map50 for row in counts]
    assert (change.map50.low, change.map50.high) == pytest.approx(tuple(np.percentile(slow, (2.5, 97.5))))


@pytest.mark.parametrize("shift", [-1, 1])
def test_what_chance_explains_is_not_shown(shift):
    """Two models of one quality on separate luck, against one that is better or worse by much."""
    first, equal = random_matches(10, 60, quality=0.6), random_matches(11, 60, quality=0.6)
    unlike = random_matches(12, 60, quality=0.6 + shift * 0.5)
    same, other = paired_differences(first, [equal, unlike], draw_counts(np.random.default_rng(0), 60, 200))
    assert same.map.covers_zero
    assert not other.map.covers_zero
    assert np.sign(other.map.value) == shift


@pytest.mark.parametrize(
    ("interval", "covers"), [((0, 0, 0), True), ((1, 0, 2), True), ((1, 0.1, 2), False), ((-1, -2, -0.1), False)]
)
def test_covers_zero(interval, covers):
    assert Interval(*interval).covers_zero == covers


@pytest.mark.slow
def test_a_thousand_resamples_take_seconds():
    matches = random_matches(0, 200, most=600)  # 300 an image
    start = time.perf_counter()
    paired_differences(matches, [matches], draw_counts(np.random.default_rng(0), 200, 1000))
    assert time.perf_counter() - start < 30
