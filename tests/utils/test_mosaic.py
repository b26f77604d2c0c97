"""The mosaic against golden values and against pixels placed one by one."""

import numpy as np
import pytest

from utils.augmentations import Warp, apply_warp
from utils.boxes import xywhn2xyxy
from utils.mosaic import MosaicDraw, compose_mosaic, draw_mosaic, paste_
from utils.scene import GREY, NO_POLYGON, Scene


def labelled(image, labels) -> Scene:
    labels = np.asarray(labels, np.float32).reshape(-1, 5)
    return Scene(image, labels, (NO_POLYGON,) * len(labels))


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_mosaic_golden(golden_npz, golden_json, name):
    arrays, case = golden_npz("mosaic"), golden_json("mosaic")[name]
    tiles = []
    for i in range(4):
        image, rows = arrays[f"{name}/tile_{i}"], arrays[f"{name}/tile_{i}_labels_xywhn"]
        tiles.append(labelled(image, np.concatenate((rows[:, :1], xywhn2xyxy(rows[:, 1:], image.shape[:2])), 1)))
    centre_y, centre_x = case["center_yx"]
    mosaic = compose_mosaic(tiles, MosaicDraw((centre_x, centre_y)), case["img_size"])
    np.testing.assert_array_equal(mosaic.image, arrays[f"{name}/canvas"])
    np.testing.assert_allclose(mosaic.labels, arrays[f"{name}/labels_cls_xyxy_px"], atol=1e-4)
    final = apply_warp(mosaic, Warp())
    np.testing.assert_array_equal(final.image, arrays[f"{name}/final_image_identity_affine"])
    np.testing.assert_allclose(final.labels, arrays[f"{name}/final_labels"], atol=1e-4)


def test_draw_is_in_the_middle_half():
    rng = np.random.default_rng(0)
    centres = np.array([draw_mosaic(rng, 64).centre_xy for _ in range(2000)])
    assert centres.min(0).tolist() == [32, 32]
    assert centres.max(0).tolist() == [96, 96]


def test_four_tiles_without_labels():
    mosaic = compose_mosaic([Scene(np.full((64, 64, 3), i, np.uint8)) for i in range(4)], MosaicDraw((64, 64)), 64)
    assert mosaic.labels.shape == (0, 5)
    assert mosaic.margin_yx == (32, 32)
    assert [mosaic.image[y, x, 0] for y, x in ((0, 0), (0, 127), (127, 0), (127, 127))] == [0, 1, 2, 3]


@pytest.mark.parametrize("centre_xy", [(16, 16), (48, 20), (32, 32)])
def test_labels_stay_on_their_pixels(centre_xy):
    """Each tile has one rectangle of its own grey; what of it is left on the canvas is what the label says."""
    tiles = []
    for i, (height, width) in enumerate(((32, 20), (25, 32), (32, 32), (10, 32))):
        image = np.zeros((height, width, 3), np.uint8)
        image[2:9, 4:18] = 200 + i
        tiles.append(labelled(image, [(i, 4, 2, 18, 9)]))
    mosaic = compose_mosaic(tiles, MosaicDraw(centre_xy), 32)
    assert mosaic.labels[:, 0].tolist() == [0, 1, 2, 3]
    for i, (_, x1, y1, x2, y2) in enumerate(mosaic.labels.astype(int)):
        expected = np.zeros((64, 64), bool)
        expected[y1:y2, x1:x2] = True
        np.testing.assert_array_equal(mosaic.image[..., 0] == 200 + i, expected)


def test_polygons_move_with_their_tile_and_are_clipped():
    polygon = np.array([(1, 2), (30, 2), (30, 20)], np.float32)
    tile = Scene(np.zeros((32, 32, 3), np.uint8), np.array([[0, 1, 2, 30, 20]], np.float32), (polygon,))
    mosaic = compose_mosaic([tile] * 4, MosaicDraw((40, 20)), 32)
    assert mosaic.segments[0].tolist() == [[9, 0], [38, 0], [38, 8]]
    assert mosaic.segments[3].tolist() == [[41, 22], [64, 22], [64, 40]]
    assert polygon.tolist() == [[1, 2], [30, 2], [30, 20]]


@pytest.mark.parametrize("origin_xy", [(0, 0), (-3, 2), (6, -2), (7, 7), (8, 0), (0, -5), (-40, -40)])
def test_paste_places_pixel_by_pixel(origin_xy):
    image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    canvas, expected = np.full((8, 8, 3), GREY, np.uint8), np.full((8, 8, 3), GREY, np.uint8)
    for y in range(5):
        for x in range(4):
            at_x, at_y = origin_xy[0] + x, origin_xy[1] + y
            if 0 <= at_x < 8 and 0 <= at_y < 8:
                expected[at_y, at_x] = image[y, x]
    paste_(canvas, image, origin_xy)
    np.testing.assert_array_equal(canvas, expected)
