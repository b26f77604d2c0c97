import cv2
import numpy as np
import pytest

from utils.annotator import (
    MOST_HIDDEN,
    PALETTE,
    SMALLEST_FONT,
    Annotator,
    automatic_font_size,
    automatic_line_width,
    class_colour,
    crop_box,
    fit_label,
    label_tile,
    readable_on,
)


def _lab(colours: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.float32(colours).reshape(1, -1, 3) / 255, cv2.COLOR_RGB2LAB)[0]


def test_palette_has_twenty_colours_that_nobody_confuses():
    lab = _lab(np.array(PALETTE))
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert len(PALETTE) == 20
    assert distance[~np.eye(20, dtype=bool)].min() > 34
    assert class_colour(21) == PALETTE[1]


@pytest.mark.parametrize("colour", PALETTE)
def test_text_is_readable_on_every_palette_colour(colour):
    lightness = _lab(np.array([colour, readable_on(colour)]))[:, 0]
    assert abs(lightness[0] - lightness[1]) > 30


def test_no_boxes_leave_the_picture_as_it_was():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    result = Annotator(image).result()
    assert np.array_equal(result, image)
    assert result is not image


@pytest.mark.parametrize(
    ("size_hw", "xyxy"),
    [
        ((1, 1), (0, 0, 1, 1)),
        ((8, 300), (0, 0, 300, 8)),
        ((300, 8), (0, 0, 8, 300)),
        ((100, 100), (-50, -50, 300, 300)),
        ((100, 100), (50.4, 50.4, 50.4, 50.4)),
        ((100, 100), (150, 150, 180, 180)),
        ((3000, 4000), (10, 2900, 3990, 2999)),
    ],
)
def test_any_box_on_any_size_is_drawn_inside(size_hw, xyxy):
    image = np.full((*size_hw, 3), 7, np.uint8)
    annotator = Annotator(image)
    annotator.box(xyxy, "a long class name 0.99", (255, 0, 0))
    result = annotator.result()
    assert result.shape == image.shape
    assert (result != 7).any()
    assert (image == 7).all()  # the given picture is not written into


def test_colours_are_rgb_and_the_picture_is_bgr():
    annotator = Annotator(np.zeros((50, 50, 3), np.uint8), line_width=2)
    annotator.box((10, 10, 40, 40), colour=(255, 10, 0))
    assert annotator.result()[10, 25].tolist() == [0, 10, 255]


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="uint8"):
        Annotator(image)


def test_labels_of_neighbours_do_not_hide_each_other():
    annotator = Annotator(np.zeros((300, 300, 3), np.uint8))
    for shift in range(3):
        annotator.box((50 + shift, 100 + shift, 250, 200), f"name {shift}", PALETTE[shift])
    result = annotator.result()
    for shift in range(3):
        tile = label_tile(f"name {shift}", annotator.font_size, PALETTE[shift])
        assert cv2.matchTemplate(result, tile, cv2.TM_SQDIFF).min() < 1000  # sums of squares, by FFT


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("", 50, ("", 20)), ("cat", 500, ("cat", 20))],
)
def test_short_labels_keep_their_size(text, width, expected):
    assert fit_label(text, 20, width) == expected


def test_long_labels_shrink_first_and_are_shortened_then():
    text, size = fit_label("traffic light 0.87", 20, 120)
    assert text == "traffic light 0.87"
    assert SMALLEST_FONT <= size < 20
    assert fit_label("traffic light 0.87", 20, 70) == ("traffic light…", SMALLEST_FONT)
    text, size = fit_label("traffic light 0.87", 20, 40)
    assert text.endswith("…")
    assert size == SMALLEST_FONT
    assert label_tile(text, size, (0, 0, 0)).shape[1] <= 40
    assert fit_label("traffic", 20, 1) == ("t", SMALLEST_FONT)


@pytest.mark.parametrize(("mean_side", "width"), [(1, 1), (64, 1), (128, 1), (640, 3), (1000, 3), (4000, 12)])
def test_line_width_follows_the_picture(mean_side, width):
    assert automatic_line_width(mean_side) == width


@pytest.mark.parametrize(("mean_side", "size"), [(1, 9), (32, 9), (128, 10), (480, 11), (1080, 24), (6000, 132)])
def test_font_size_follows_the_picture(mean_side, size):
    assert automatic_font_size(mean_side) == size


@pytest.mark.parametrize(("side", "fewest"), [(16, 1), (32, 1), (64, 2), (640, 9)])
def test_thumbnails_are_not_hidden_by_labels(side, fewest):
    annotator, bare = (Annotator(np.zeros((side, side, 3), np.uint8)) for _ in range(2))
    rng = np.random.default_rng(0)
    for index, start in enumerate(rng.integers(0, side // 2, (10, 2))):
        box = (*start, *(start + side // 3))
        annotator.box(box, f"cat {index}", PALETTE[index])
        bare.box(box, colour=PALETTE[index])
    changed = (annotator.result() != bare.result()).any(axis=2)
    tile = label_tile(*fit_label("cat 9", annotator.font_size, side), PALETTE[9])
    area = tile.shape[0] * tile.shape[1]
    assert changed.sum() <= max(MOST_HIDDEN * side * side, area)
    assert changed.sum() > (fewest - 0.5) * area  # labels, less the boxes' lines below them
    assert cv2.matchTemplate(annotator.image, tile[:side, :side], cv2.TM_SQDIFF).min() < 1000  # the last one added


@pytest.mark.parametrize(
    ("xyxy", "top_left", "size_hw"),
    [
        ((50, 40, 50, 40), (35, 45), (10, 10)),
        ((20, 10, 40, 60), (4, 14), (61, 31)),  # 20 x 1.02 + 10 = 30.4 pixels around 30, 50 x 1.02 + 10 = 61 around 35
        ((0, 0, 100, 80), (0, 0), (80, 100)),
        ((90, -10, 130, 20), (0, 84), (25, 16)),
        ((120, 20, 140, 40), None, (31, 0)),
        ((-60, 20, -30, 40), None, (31, 0)),
    ],
)
def test_crops(xyxy, top_left, size_hw):
    image = np.arange(80 * 100 * 3, dtype=np.int64).reshape(80, 100, 3)
    crop = crop_box(image, xyxy)
    assert crop.shape == (*size_hw, 3)
    if top_left is None:
        return
    assert np.array_equal(crop[0, 0], image[top_left])
    crop[:] = 0
    assert image[top_left].any()  # a copy
