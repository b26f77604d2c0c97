"""A picture together with what is labelled in it: the noun that mosaic and augmentations hand to each other. Not for
reading files (utils/images.py) or for tensors (utils/datasets.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

NO_POLYGON = np.zeros((0, 2), np.float32)  # the segment of a label that is a plain box
GREY = 114  # the colour of everything outside of a picture: YOLOv5's padding


@dataclass(frozen=True)
class Scene:
    """An image and its labels, in pixels of that image. Its arrays are never written to: each step returns a new scene.

    image: uint8 (H, W, 3), BGR.
    labels: float32 (n, 5), rows [class, x1, y1, x2, y2].
    segments: one array (k, 2) of polygon points x, y for each label; k = 0 where the label is a plain box.
    margin_yx: how many pixels at top and bottom, and at left and right, are surplus: the next warp may move them into
        view, and returns a picture without such a margin. (A mosaic is made at twice the needed size.)
    """

    image: np.ndarray
    labels: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    segments: tuple[np.ndarray, ...] = ()
    margin_yx: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if len(self.segments) != len(self.labels):
            raise ValueError(f"a scene needs a segment per label, got {len(self.segments)} for {len(self.labels)}")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[:2]

    def with_image(self, image: np.ndarray) -> Scene:
        """The same labels on another image of the same size."""
        return replace(self, image=image)

    def select(self, keep: np.ndarray) -> Scene:
        """Only the labels where keep, bool (n,), is true."""
        kept = tuple(segment for segment, wanted in zip(self.segments, keep, strict=True) if wanted)
        return replace(self, labels=self.labels[keep], segments=kept)


def joined_labels(scenes: Sequence[Scene]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Labels (n, 5) and segments of several scenes, one after the other."""
    labels = [scene.labels for scene in scenes]
    return np.concatenate(labels), tuple(segment for scene in scenes for segment in scene.segments)


def scaled_labels(
    labels: np.ndarray, segments: Sequence[np.ndarray], scale_xy: Sequence[float], shift_xy: Sequence[float]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Labels (n, 5) and segments with every x and y multiplied by the scale, then moved by the shift; new arrays."""
    scale, shift = np.asarray(scale_xy, np.float32), np.asarray(shift_xy, np.float32)
    moved = labels.copy()
    moved[:, 1:] = labels[:, 1:] * np.tile(scale, 2) + np.tile(shift, 2)
    return moved, tuple(segment * scale + shift for segment in segments)
