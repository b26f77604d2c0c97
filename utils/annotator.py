"""Draws boxes with readable labels on a picture and cuts crops out of it. Not for grids or charts: utils/plots.py."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.fonts import font_for

Rgb = tuple[int, int, int]
Rect = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels

# Seven colours chosen by eye, then each next one the saturated colour, neither dark nor pale, farthest in CIELAB from
# all before it: any two of the twenty are at least 34 apart (a difference of 2.3 can just be seen).
PALETTE_HEX = (
    "#e6194b", "#0a84ff", "#ffb000", "#12b886", "#8f3fff", "#ff6fb5", "#2ee62e",
    "#4bd2ff", "#78691e", "#c3e169", "#ffa587", "#ff5a00", "#ff1ee1", "#d2b4ff",
    "#1e8700", "#964bb4", "#a54b5a", "#2d69a5", "#b4f000", "#b44b1e",
)  # fmt: skip
PALETTE: tuple[Rgb, ...] = tuple((int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)) for code in PALETTE_HEX)
SMALLEST_FONT, USUAL_FONT = 9, 11  # px; below the first the default font's letters run together
CROP_GAIN, CROP_PAD = 1.02, 10  # a crop is a box times the gain, and so many pixels more in width and height; as v6.1
MOST_HIDDEN = 0.4  # share of a picture that labels may hide: on thumbnails the boxes must still be seen


def class_colour(index: int) -> Rgb:
    """RGB 0..255 of a class; the palette repeats after 20 classes."""
    return PALETTE[int(index) % len(PALETTE)]


def class_hex(index: int) -> str:
    """class_colour as charts take it, "#rrggbb"."""
    return PALETTE_HEX[int(index) % len(PALETTE_HEX)]


def readable_on(colour: Rgb) -> Rgb:
    """Black or white, whichever stands out more from an RGB background. Luminance weights: ITU-R BT.601."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else (255, 255, 255)


@lru_cache(maxsize=2048)
def _text_width(text: str, font_size: int) -> int:
    return int(np.ceil(font_for(text, font_size).getlength(text)))


def _margin(font_size: int) -> int:
    """Pixels left and right of a label's text."""
    return max(font_size // 4, 2)


@lru_cache(maxsize=1024)
def label_tile(text: str, font_size: int, background: Rgb) -> np.ndarray:
    """The text on a plate of the background colour: uint8 (h, w, 3) BGR, just large enough. The array is cached and
    given to the next caller, too: do not write into it."""
    font = font_for(text, font_size)
    ascent, descent = font.getmetrics()
    margin = _margin(font_size)
    plate = Image.new("RGB", (_text_width(text, font_size) + 2 * margin, ascent + descent + margin), background)
    ImageDraw.Draw(plate).text((margin, margin // 2), text, fill=readable_on(background), font=font)
    return np.ascontiguousarray(np.asarray(plate)[..., ::-1])


def fit_label(text: str, font_size: int, max_width: int) -> tuple[str, int]:
    """(text, font size) of a label that is at most max_width pixels wide. What is too wide gets a smaller font, down to
    SMALLEST_FONT; then it loses its last word (of "person 0.87" the confidence), then letter after letter."""

    def fits(candidate: str, size: int) -> bool:
        return _text_width(candidate, size) + 2 * _margin(size) <= max_width

    smallest = min(font_size, SMALLEST_FONT)
    for size in range(font_size, smallest - 1, -1):
        if fits(text, size):
            return text, size
    for length in (text.rfind(" "), *range(len(text) - 1, 0, -1)):
        if length > 0 and fits(shortened := f"{text[:length].rstrip()}…", smallest):
            return shortened, smallest
    return text[:1], smallest


def automatic_line_width(mean_side: float) -> int:
    """Pixels, for a picture whose width and height are mean_side on average: 3 in the usual sizes, 1 on thumbnails,
    more on huge pictures."""
    return max(round(mean_side * 0.003), min(3, round(mean_side * 0.007)), 1)


def automatic_font_size(mean_side: float) -> int:
    """Pixels, for a picture whose width and height are mean_side on average: USUAL_FONT in small pictures, less on
    thumbnails, more in large ones."""
    return max(round(mean_side * 0.022), min(USUAL_FONT, round(mean_side * 0.08)), SMALLEST_FONT)


class Annotator:
    """Draws on a copy of one BGR picture, uint8 (h, w, 3).

    Boxes are drawn at once, labels when `result` is called: so no box cuts through a label, and labels keep off each
    other where there is room. The label of the box that was added last chooses its place first: add the most confident
    box last. Where labels would hide more than MOST_HIDDEN of the picture, those that choose last are left out, but for
    the first.

    Differs from v6.1: the font is Pillow's own, or one of this computer that has the letters, at a size that follows
    the picture's; nothing is downloaded; long labels shrink and are shortened rather than leave the picture; thumbnails
    are not hidden by labels.
    """

    def __init__(self, image: np.ndarray, *, line_width: int | None = None, font_size: int | None = None) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected a BGR picture, uint8 (h, w, 3), got {image.dtype} {image.shape}")
        self.image = np.array(image, order="C")
        mean_side = (image.shape[0] + image.shape[1]) / 2
        self.line_width = line_width or automatic_line_width(mean_side)
        self.font_size = font_size or automatic_font_size(mean_side)
        self._labels: list[tuple[Rect, str, Rgb]] = []

    def box(self, xyxy: Sequence[float], label: str = "", colour: Rgb = (128, 128, 128)) -> None:
        """Adds one box, [x1, y1, x2, y2] in pixels, and its label (none where empty). The colour is RGB."""
        height, width = self.image.shape[:2]
        x1, y1, x2, y2 = (round(float(side)) for side in xyxy)
        rect = (min(max(x1, 0), width - 1), min(max(y1, 0), height - 1), min(x2, width - 1), min(y2, height - 1))
        cv2.rectangle(self.image, rect[:2], rect[2:], colour[::-1], self.line_width, cv2.LINE_AA)
        if label:
            self._labels.append((rect, label, colour))

    def result(self) -> np.ndarray:
        """The finished picture, BGR uint8 (h, w, 3)."""
        taken: list[Rect] = []
        placed = []
        height, width = self.image.shape[:2]
        room = MOST_HIDDEN * height * width  # px that labels may still hide
        for rect, label, colour in reversed(self._labels):
            tile = label_tile(*fit_label(label, self.font_size, width), colour)
            room -= tile.shape[0] * tile.shape[1]
            if room < 0 and taken:
                break
            place = self._place(rect, tile, taken)
            taken.append(place)
            placed.append((place, tile))
        for place, tile in reversed(placed):  # the first to choose lies on top
            _paste_(self.image, place, tile)
        self._labels.clear()
        return self.image

    def _place(self, box: Rect, tile: np.ndarray, taken: list[Rect]) -> Rect:
        """Of the usual places (above the box, inside its top, below it, inside its bottom; aligned left, then right)
        the first that is free. Where none is free, the one that hides least of other labels."""
        height, width = self.image.shape[:2]
        tile_h, tile_w = tile.shape[:2]
        x1, y1, x2, y2 = box
        outer = self.line_width // 2
        tops = (y1 - outer - tile_h, y1, y2 + outer, y2 - tile_h)
        left = min(max(x1 - outer, 0), max(width - tile_w, 0))
        right = min(max(x2 + outer - tile_w, 0), max(width - tile_w, 0))
        in_picture = [
            (start, top, start + tile_w, top + tile_h)
            for start in (left, right)
            for top in tops
            if 0 <= top <= height - tile_h
        ]
        if not in_picture:  # the label is higher than the picture
            return left, 0, left + tile_w, tile_h
        return min(in_picture, key=lambda place: sum(_overlap(place, other) for other in taken))


def _overlap(a: Rect, b: Rect) -> int:
    """Pixels that both cover."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def _paste_(image: np.ndarray, place: Rect, tile: np.ndarray) -> None:
    """Writes the tile into the image at place, in place; what lies outside is cut off."""
    x1, y1, x2, y2 = place
    target = image[y1:y2, x1:x2]
    target[:] = tile[: target.shape[0], : target.shape[1]]


def crop_box(image: np.ndarray, xyxy: Sequence[float]) -> np.ndarray:
    """A copy of the part of the picture (h, w, 3) inside a box [x1, y1, x2, y2] in pixels, with a little around it
    (CROP_GAIN, CROP_PAD). What lies outside the picture is cut off: the copy is empty only where the box does not touch
    it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(side) for side in xyxy)
    half_w, half_h = (((end - start) * CROP_GAIN + CROP_PAD) / 2 for start, end in ((x1, x2), (y1, y2)))
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    left, right = (int(min(max(x, 0), width)) for x in (centre_x - half_w, centre_x + half_w))
    top, bottom = (int(min(max(y, 0), height)) for y in (centre_y - half_h, centre_y + half_h))
    return image[top:bottom, left:right].copy()
