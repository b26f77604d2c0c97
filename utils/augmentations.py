"""Letterboxing, and the random changes of training pictures. Not for composing several pictures (utils/mosaic.py) or
for the order of the changes (the pipeline of utils/datasets.py).

Each change X is made of up to three functions. `draw_X(rng, hyp, ...)` draws what to do, as a small frozen dataclass,
or None for nothing. `apply_X(scene, drawn)` does that and leaves nothing to chance. `random_X(scene, rng, hyp)` does
both: it is a step of the pipeline.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from utils.boxes import box_ioa, clip_boxes_, resample_segments, segment2box
from utils.hyp import Hyp
from utils.scene import GREY, Scene, joined_labels

# What a box must keep to survive a warp; v6.1's values.
MIN_SIDE = 2  # pixels
MIN_AREA, MIN_POLYGON_AREA = 0.10, 0.01  # share of its area before; the smaller one is for labels with a polygon
MAX_ASPECT = 100  # of the longer to the shorter side


def letterbox(
    image: np.ndarray,
    size_hw: int | tuple[int, int],
    *,
    color: int | tuple[int, int, int] = GREY,
    auto: bool = False,
    scale_fill: bool = False,
    scale_up: bool = True,
    stride: int = 32,
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """The image at the largest size that fits into size_hw without distortion, centred on a plain border.

    image: uint8 (H, W, 3), any colour order.
    auto: only as much border as is needed to make both sides multiples of the stride.
    scale_fill: no border, distorted to exactly size_hw; has no effect together with auto.
    scale_up: False: small images are not enlarged, which is better for measuring.

    Returns the new image, the ratio new/old as (width, height), and the border on one side as (width, height): a mean
    of both sides, so it ends in .5 where one of them is a pixel wider.
    """
    height, width = image.shape[:2]
    target_h, target_w = (size_hw, size_hw) if isinstance(size_hw, int) else size_hw
    ratio = min(target_h / height, target_w / width)
    if not scale_up:
        ratio = min(ratio, 1.0)
    ratio_wh = (ratio, ratio)
    inner_w, inner_h = max(round(width * ratio), 1), max(round(height * ratio), 1)  # a thin strip keeps a pixel
    border_w, border_h = target_w - inner_w, target_h - inner_h
    if auto:
        border_w, border_h = border_w % stride, border_h % stride
    elif scale_fill:
        inner_w, inner_h, border_w, border_h = target_w, target_h, 0, 0
        ratio_wh = (target_w / width, target_h / height)
    if (inner_w, inner_h) != (width, height):
        image = cv2.resize(image, (inner_w, inner_h), interpolation=cv2.INTER_LINEAR)
    color = (color,) * 3 if isinstance(color, int) else color
    left, top = border_w // 2, border_h // 2  # an odd pixel goes to the right and the bottom
    image = cv2.copyMakeBorder(image, top, border_h - top, left, border_w - left, cv2.BORDER_CONSTANT, value=color)
    return image, ratio_wh, (border_w / 2, border_h / 2)


# ---------------------------------------------------------------------------------------------------------- colour


@dataclass(frozen=True)
class HsvGain:
    """Factors for hue, saturation and value; 1 changes nothing."""

    hue: float
    saturation: float
    value: float


def draw_hsv(rng: np.random.Generator, hyp: Hyp) -> HsvGain | None:
    """Factors, each drawn evenly from 1 - h to 1 + h, where h is hyp.hsv_h, hsv_s or hsv_v. None where all three are
    0."""
    spread = np.array((hyp.hsv_h, hyp.hsv_s, hyp.hsv_v))
    if not spread.any():
        return None
    return HsvGain(*(1 + spread * rng.uniform(-1, 1, 3)).tolist())


def apply_hsv(scene: Scene, gain: HsvGain) -> Scene:
    """Multiplies hue, which wraps around after OpenCV's 180 steps, and saturation and value, which are limited to
    255."""
    levels = np.arange(256, dtype=np.float64)
    table = np.empty((1, 256, 3), np.uint8)  # one look-up for the three channels together
    table[0, :, 0] = (levels * gain.hue) % 180
    table[0, :, 1] = (levels * gain.saturation).clip(0, 255)
    table[0, :, 2] = (levels * gain.value).clip(0, 255)
    hsv = cv2.cvtColor(scene.image, cv2.COLOR_BGR2HSV)
    return scene.with_image(cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2BGR))


def random_hsv(scene: Scene, rng: np.random.Generator, hyp: Hyp) -> Scene:
    """Colour jitter; see draw_hsv."""
    gain = draw_hsv(rng, hyp)
    return scene if gain is None else apply_hsv(scene, gain)


# ----------------------------------------------------------------------------------------------------------- flips


@dataclass(frozen=True)
class Flip:
    """axis: 0 turns the picture upside down, 1 swaps left and right."""

    axis: int


def draw_flip(rng: np.random.Generator, probability: float, axis: int) -> Flip | None:
    """A flip with that probability, else None."""
    return Flip(axis) if rng.random() < probability else None


def apply_flip(scene: Scene, flip: Flip) -> Scene:
    """Mirrors image, boxes and polygons."""
    extent = scene.size_hw[flip.axis]
    low, high = (2, 4) if flip.axis == 0 else (1, 3)  # columns of y1, y2 or x1, x2
    labels = scene.labels.copy()
    labels[:, low], labels[:, high] = extent - scene.labels[:, high], extent - scene.labels[:, low]
    segments = tuple(_mirrored(segment, column=1 - flip.axis, extent=extent) for segment in scene.segments)
    return Scene(cv2.flip(scene.image, flip.axis), labels, segments, scene.margin_yx)


def _mirrored(segment: np.ndarray, column: int, extent: int) -> np.ndarray:
    """Polygon points (k, 2) with one coordinate counted from the other side of the picture."""
    mirrored = segment.copy()
    mirrored[:, column] = extent - segment[:, column]
    return mirrored


def random_flipud(scene: Scene, rng: np.random.Generator, hyp: Hyp) -> Scene:
    """Upside down with probability hyp.flipud."""
    flip = draw_flip(rng, hyp.flipud, axis=0)
    return scene if flip is None else apply_flip(scene, flip)


def random_fliplr(scene: Scene, rng: np.random.Generator, hyp: Hyp) -> Scene:
    """Left and right swapped with probability hyp.fliplr."""
    flip = draw_flip(rng, hyp.fliplr, axis=1)
    return scene if flip is None else apply_flip(scene, flip)


# ------------------------------------------------------------------------------------------------------------ warp


@dataclass(frozen=True)
class Warp:
    """How a picture is placed into its frame. The defaults leave it in the middle, as it is.

    angle_deg: counter-clockwise. scale: of the sides. perspective: per pixel of distance from the centre. translate:
    where the picture's centre goes, as a share of the frame's width and height.
    """

    perspective_x: float = 0.0
    perspective_y: float = 0.0
    angle_deg: float = 0.0
    scale: float = 1.0
    shear_x_deg: float = 0.0
    shear_y_deg: float = 0.0
    translate_x: float = 0.5
    translate_y: float = 0.5


def draw_warp(rng: np.random.Generator, hyp: Hyp) -> Warp:
    """Every parameter is drawn evenly from its neutral value, less to plus its hyperparameter."""
    spreads = (hyp.perspective,) * 2 + (hyp.degrees, hyp.scale) + (hyp.shear,) * 2 + (hyp.translate,) * 2
    neutral = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.5)
    return Warp(*(neutral + np.array(spreads) * rng.uniform(-1, 1, len(spreads))).tolist())


def warp_matrix(warp: Warp, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> np.ndarray:
    """The (3, 3) float64 matrix from pixels of the picture to pixels of the frame. In this order: the centre moves to
    the origin, perspective, rotation and scale, shear, the move to the place in the frame."""
    centre = np.eye(3)
    centre[:2, 2] = -from_hw[1] / 2, -from_hw[0] / 2
    perspective = np.eye(3)
    perspective[2, :2] = warp.perspective_x, warp.perspective_y
    cosine = warp.scale * math.cos(math.radians(warp.angle_deg))
    sine = warp.scale * math.sin(math.radians(warp.angle_deg))
    rotation = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = math.tan(math.radians(warp.shear_x_deg)), math.tan(math.radians(warp.shear_y_deg))
    place = np.eye(3)
    place[:2, 2] = warp.translate_x * to_hw[1], warp.translate_y * to_hw[0]
    return place @ shear @ rotation @ perspective @ centre


def apply_warp(scene: Scene, warp: Warp) -> Scene:
    """Image, boxes and polygons through the warp, into a frame that is smaller than the picture by the scene's margin
    on each side. Labels that are hardly visible afterwards are dropped (see visible_boxes)."""
    height, width = scene.size_hw
    to_hw = (height - 2 * scene.margin_yx[0], width - 2 * scene.margin_yx[1])
    matrix = warp_matrix(warp, scene.size_hw, to_hw)
    image = scene.image
    if to_hw != scene.size_hw or (matrix != np.eye(3)).any():
        image = _warp_image(image, matrix, to_hw)
    moved = Scene(image, *_warp_labels(scene, matrix, to_hw))
    before, polygon = scene.labels[:, 1:] * warp.scale, _is_polygon(scene)
    return moved.select(visible_boxes(before, moved.labels[:, 1:], np.where(polygon, MIN_POLYGON_AREA, MIN_AREA)))


def random_warp(scene: Scene, rng: np.random.Generator, hyp: Hyp) -> Scene:
    """Rotation, scale, shear, translation and perspective; cuts a mosaic to its final size."""
    return apply_warp(scene, draw_warp(rng, hyp))


def visible_boxes(
    before_xyxy: np.ndarray, after_xyxy: np.ndarray, min_area: float | np.ndarray = MIN_AREA, *,
    min_side: float = MIN_SIDE, max_aspect: float = MAX_ASPECT,
) -> np.ndarray:  # fmt: skip
    """Which boxes (n, 4) are still worth learning from after a warp, bool (n,).

    They are those with both sides longer than min_side pixels, more than the share min_area of their area left, and
    sides whose ratio is below max_aspect. before_xyxy: the boxes before, at the scale after.
    """
    eps = 1e-16
    width, height = (after_xyxy[:, 2:] - after_xyxy[:, :2]).T
    area_before = (before_xyxy[:, 2:] - before_xyxy[:, :2]).prod(1)
    aspect = np.maximum(width / (height + eps), height / (width + eps))
    large = (width > min_side) & (height > min_side)
    return large & (width * height / (area_before + eps) > min_area) & (aspect < max_aspect)


def _warp_image(image: np.ndarray, matrix: np.ndarray, to_hw: tuple[int, int]) -> np.ndarray:
    height, width = to_hw
    border = (GREY, GREY, GREY)
    if matrix[2, :2].any():
        return cv2.warpPerspective(image, matrix, (width, height), borderValue=border)
    return cv2.warpAffine(image, matrix[:2], (width, height), borderValue=border)


def _warp_points(points_xy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(n, 2) through a (3, 3) matrix -> (n, 2)."""
    moved = points_xy @ matrix[:, :2].T + matrix[:, 2]  # (n, 3)
    return moved[:, :2] / moved[:, 2:]


def _warp_labels(scene: Scene, matrix: np.ndarray, to_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """A plain box becomes the box around its four warped corners, clipped; a polygon is warped itself, its box is the
    one around its points inside the frame.

    Differs from v6.1: each label is treated by itself. There one polygon in a mosaic makes it take all labels for
    polygons, and boxes get the polygons of others.
    """
    labels = scene.labels.copy()
    corners = _warp_points(scene.labels[:, [1, 2, 3, 4, 1, 4, 3, 2]].reshape(-1, 2), matrix).reshape(-1, 4, 2)
    labels[:, 1:] = np.concatenate((corners.min(1), corners.max(1)), 1)
    clip_boxes_(labels[:, 1:], to_hw)
    segments = list(scene.segments)
    for i in np.flatnonzero(_is_polygon(scene)):
        segments[i] = _warp_points(resample_segments(scene.segments[i : i + 1])[0], matrix)
        labels[i, 1:] = segment2box(segments[i], to_hw)
    return labels, tuple(segments)


def _is_polygon(scene: Scene) -> np.ndarray:
    """Which labels have a polygon, bool (n,)."""
    return np.array([len(segment) > 0 for segment in scene.segments], bool)


# ----------------------------------------------------------------------------------------------- mixup, copy-paste


@dataclass(frozen=True)
class Mixup:
    """ratio: share of the first picture, in (0, 1)."""

    ratio: float


def draw_mixup(rng: np.random.Generator, hyp: Hyp) -> Mixup | None:
    """With probability hyp.mixup, a share near one half: Beta(32, 32)."""
    return Mixup(float(rng.beta(32.0, 32.0))) if rng.random() < hyp.mixup else None


def apply_mixup(first: Scene, second: Scene, mixup: Mixup) -> Scene:
    """Blends two scenes of the same size, and keeps the labels of both. arXiv:1710.09412.

    Differs from v6.1: levels are rounded to whole numbers, there they are cut off: a difference of 1 at most.
    """
    image = cv2.addWeighted(first.image, mixup.ratio, second.image, 1 - mixup.ratio, 0)
    return Scene(image, *joined_labels((first, second)), first.margin_yx)


@dataclass(frozen=True)
class CopyPaste:
    """picks: numbers of the labels to paste, in this order; each has a polygon."""

    picks: tuple[int, ...]


def draw_copy_paste(rng: np.random.Generator, hyp: Hyp, scene: Scene) -> CopyPaste | None:
    """Picks the share hyp.copy_paste of the labels with polygons, at random; None where that rounds to no label."""
    candidates = np.flatnonzero(_is_polygon(scene))
    count = round(hyp.copy_paste * len(candidates))
    return CopyPaste(tuple(rng.choice(candidates, count, replace=False).tolist())) if count else None


def apply_copy_paste(scene: Scene, draw: CopyPaste) -> Scene:
    """Cuts objects out along their polygons and pastes them, mirrored, on the other side of the picture. An object is
    left out where it would cover 30 % or more of a label's box. arXiv:2012.07177."""
    width = scene.size_hw[1]
    labels, segments = [scene.labels], list(scene.segments)
    mask = np.zeros(scene.size_hw, np.uint8)
    for pick in draw.picks:
        category, x1, y1, x2, y2 = scene.labels[pick]
        pasted = np.array([[category, width - x2, y1, width - x1, y2]], np.float32)
        if (box_ioa(pasted[0, 1:], np.concatenate(labels)[:, 1:]) >= 0.30).any():
            continue
        labels.append(pasted)
        segments.append(_mirrored(scene.segments[pick], column=0, extent=width))
        cv2.drawContours(mask, [scene.segments[pick].astype(np.int32)], -1, 255, cv2.FILLED)
    if len(labels) == 1:
        return scene
    cutout = cv2.flip(cv2.bitwise_and(scene.image, scene.image, mask=mask), 1)
    image = np.where(cutout > 0, cutout, scene.image)  # black is transparent, as in v6.1
    return Scene(image, np.concatenate(labels), tuple(segments), scene.margin_yx)


def random_copy_paste(scene: Scene, rng: np.random.Generator, hyp: Hyp) -> Scene:
    """Copy-paste; see draw_copy_paste and apply_copy_paste."""
    draw = draw_copy_paste(rng, hyp, scene)
    return scene if draw is None else apply_copy_paste(scene, draw)
