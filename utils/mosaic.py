"""Composes four scenes and their labels into one of twice the size. Not for choosing the four or for what is done to
the result (utils/datasets.py)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.boxes import clip_boxes_
from utils.scene import GREY, Scene, joined_labels, scaled_labels

# How much of a tile's width and height lies before the mosaic's centre, all or nothing: the first tile lies left of it
# and above it, the second one right of it and above it, ...
TILES_BEFORE_CENTRE_XY = ((1, 1), (0, 1), (1, 0), (0, 0))


@dataclass(frozen=True)
class MosaicDraw:
    """Where the four tiles meet, pixels x, y of the (2 size, 2 size) canvas."""

    centre_xy: tuple[int, int]


def draw_mosaic(rng: np.random.Generator, size: int) -> MosaicDraw:
    """A centre in the middle half of the canvas, so that each tile has room."""
    low, high = size // 2, 2 * size - size // 2
    x, y = rng.integers(low, high, 2, endpoint=True)
    return MosaicDraw((int(x), int(y)))


def compose_mosaic(tiles: Sequence[Scene], draw: MosaicDraw, size: int) -> Scene:
    """Four tiles around the drawn centre, each cut where it leaves the canvas; labels are moved with them and clipped.

    tiles: top left, top right, bottom left, bottom right; any sizes.
    Returns a (2 size, 2 size) scene with a margin of size / 2 on each side, which the next warp cuts off. Boxes that
    are wholly outside of the canvas are kept, without area: that warp drops them.
    """
    canvas = np.full((2 * size, 2 * size, 3), GREY, np.uint8)
    placed = []
    for tile, before_xy in zip(tiles, TILES_BEFORE_CENTRE_XY, strict=True):
        height, width = tile.size_hw
        left = draw.centre_xy[0] - before_xy[0] * width
        top = draw.centre_xy[1] - before_xy[1] * height
        paste_(canvas, tile.image, (left, top))
        placed.append(Scene(tile.image, *scaled_labels(tile.labels, tile.segments, (1, 1), (left, top))))
    labels, segments = joined_labels(placed)
    clip_boxes_(labels[:, 1:], canvas.shape[:2])
    segments = tuple(segment.clip(0, 2 * size) for segment in segments)
    return Scene(canvas, labels, segments, margin_yx=(size // 2, size // 2))


def paste_(canvas: np.ndarray, image: np.ndarray, origin_xy: tuple[int, int]) -> None:
    """Writes the image (h, w, 3) into the canvas (H, W, 3), with its top left corner at origin_xy, which may lie
    outside of the canvas. What does not fit is cut off."""
    left, top = origin_xy
    bottom, right = min(top + image.shape[0], canvas.shape[0]), min(left + image.shape[1], canvas.shape[1])
    first_row, first_column = max(top, 0), max(left, 0)
    if bottom <= first_row or right <= first_column:
        return
    canvas[first_row:bottom, first_column:right] = image[
        first_row - top : bottom - top, first_column - left : right - left
    ]
