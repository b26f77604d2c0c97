"""A picture's labels keep to their polygons."""

import numpy as np
import pytest

from utils.scene import NO_POLYGON, Scene, joined_labels, scaled_labels

IMAGE = np.zeros((6, 8, 3), np.uint8)
LABELS = np.array([(0, 1, 1, 3, 4), (1, 2, 0, 8, 6), (2, 0, 0, 1, 1)], np.float32)
SEGMENTS = (NO_POLYGON, np.array([(2, 0), (8, 6), (2, 6)], np.float32), NO_POLYGON)


def test_needs_a_segment_for_each_label():
    assert Scene(IMAGE).labels.shape == (0, 5)
    with pytest.raises(ValueError, match="0 for 3"):
        Scene(IMAGE, LABELS)


@pytest.mark.parametrize("keep", [[], [False] * 3, [True] * 3, [False, True, False]])
def test_select_keeps_labels_and_segments_together(keep):
    scene = Scene(IMAGE, LABELS[: len(keep)], SEGMENTS[: len(keep)], margin_yx=(1, 2))
    kept = scene.select(np.array(keep, bool))
    numbers = [i for i, wanted in enumerate(keep) if wanted]
    assert kept.labels[:, 0].tolist() == numbers
    assert [segment is SEGMENTS[i] for segment, i in zip(kept.segments, numbers, strict=True)] == [True] * len(numbers)
    assert kept.margin_yx == (1, 2)


def test_joined_and_scaled_labels():
    labels, segments = joined_labels([Scene(IMAGE), Scene(IMAGE, LABELS, SEGMENTS), Scene(IMAGE, LABELS, SEGMENTS)])
    assert labels.shape == (6, 5)
    moved, moved_segments = scaled_labels(labels, segments, (2, 3), (1, -1))
    assert moved[3].tolist() == [0, 3, 2, 7, 11]
    assert moved_segments[4].tolist() == [[5, -1], [17, 17], [5, 17]]
    assert moved.dtype == moved_segments[4].dtype == moved_segments[0].dtype == np.float32
    assert labels[0].tolist() == LABELS[0].tolist()
