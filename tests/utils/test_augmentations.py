"""Letterbox and augmentations: golden values, and pictures whose labels can be read off their pixels."""

import cv2
import numpy as np
import pytest

from tests.utils.still_hyp import make_hyp
from utils.augmentations import (
    CopyPaste,
    Flip,
    HsvGain,
    Mixup,
    Warp,
    apply_copy_paste,
    apply_flip,
    apply_hsv,
    apply_mixup,
    apply_warp,
    draw_copy_paste,
    draw_flip,
    draw_hsv,
    draw_mixup,
    draw_warp,
    letterbox,
    random_copy_paste,
    random_fliplr,
    random_flipud,
    random_hsv,
    random_warp,
    visible_boxes,
    warp_matrix,
)
from utils.scene import GREY, NO_POLYGON, Scene


def boxes_scene(image: np.ndarray, labels) -> Scene:
    labels = np.asarray(labels, np.float32).reshape(-1, 5)
    return Scene(image, labels, (NO_POLYGON,) * len(labels))


def spot_scene(polygon: bool = False) -> Scene:
    """A bright rectangle with its label on black."""
    image = np.zeros((80, 100, 3), np.uint8)
    image[30:50, 40:70] = 255
    points = np.array([(40, 30), (70, 30), (70, 50), (40, 50), (40, 30)], np.float32)
    return Scene(image, np.array([[3, 40, 30, 70, 50]], np.float32), (points if polygon else NO_POLYGON,))


def bright_box(image: np.ndarray) -> np.ndarray:
    """xyxy around what is bright, the slow and obvious way."""
    rows, columns = np.nonzero(image.min(2) > 128)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def assert_same_picture(got, expected):
    """Other OpenCV releases than the golden data's may round otherwise."""
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max(initial=0) <= 2


# ------------------------------------------------------------------------------------------------------------- golden


def test_letterbox_golden(golden_npz, golden_json):
    arrays = golden_npz("image")
    names = {"scaleFill": "scale_fill", "scaleup": "scale_up"}
    for name, case in golden_json("image")["letterbox"].items():
        options = {names.get(key, key): value for key, value in {"auto": True, **case["args"]}.items()}
        size = options.pop("new_shape")
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        image, ratio_wh, pad_wh = letterbox(
            arrays[f"img/{case['image']}"], tuple(size) if isinstance(size, list) else size, **options
        )
        assert_same_picture(image, arrays[f"letterbox/{name}"])
        assert ratio_wh == pytest.approx(case["ratio_wh"], abs=1e-12)
        assert pad_wh == tuple(case["pad_wh"])


def test_hsv_golden(golden_npz, golden_json):
    arrays = golden_npz("image")
    for name, case in golden_json("image")["augment_hsv"].items():
        changed = apply_hsv(Scene(arrays[f"img/{case['image']}"]), HsvGain(*case["r"]))
        assert_same_picture(changed.image, arrays[f"hsv/{name}"])


def test_warp_golden(golden_npz, golden_json):
    arrays = golden_npz("image")
    same_names = ("perspective_x", "perspective_y", "angle_deg", "scale", "shear_x_deg", "shear_y_deg")
    for name, case in golden_json("image")["random_perspective"].items():
        warp = Warp(
            **{key: case[key] for key in same_names},
            translate_x=case["translate_x_fraction"],
            translate_y=case["translate_y_fraction"],
        )
        labels = arrays[f"persp/{name}/targets_in"]
        polygons = [arrays[f"persp/{name}/segment_{i}"] for i in range(len(labels))] if case["uses_segments"] else ()
        scene = Scene(
            arrays[f"img/{case['image']}"],
            labels,
            tuple(polygons) or (NO_POLYGON,) * len(labels),
            margin_yx=tuple(-side for side in case["border"]),
        )
        warped = apply_warp(scene, warp)
        assert list(warped.size_hw) == case["out_hw"]
        assert_same_picture(warped.image, arrays[f"persp/{name}/image"])
        np.testing.assert_allclose(warped.labels, arrays[f"persp/{name}/targets_out"], atol=1e-4)
        if f"persp/{name}/M" in arrays:
            np.testing.assert_allclose(
                warp_matrix(warp, scene.size_hw, warped.size_hw), arrays[f"persp/{name}/M"], atol=1e-9
            )


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("default", {}),
        ("area_thr0.01", {"min_area": 0.01}),
        ("wh5_ar20_area0.5", {"min_side": 5, "max_aspect": 20, "min_area": 0.5}),
    ],
)
def test_visible_boxes_golden(golden_npz, name, limits):
    arrays = golden_npz("image")
    before, after = arrays["box_candidates/box1_4xn"].T, arrays["box_candidates/box2_4xn"].T
    np.testing.assert_array_equal(visible_boxes(before, after, **limits), arrays[f"box_candidates/{name}"])


@pytest.mark.parametrize("ratio", [0.5, 0.37, 0.612])
def test_mixup_golden(golden_npz, ratio):
    arrays = golden_npz("image")
    first, second = (Scene(arrays[f"mixup/im{i}"]) for i in (1, 2))
    assert_same_picture(apply_mixup(first, second, Mixup(ratio)).image, arrays[f"mixup/r{ratio}"])


@pytest.mark.parametrize(("name", "picks"), [("pick_0", (0,)), ("pick_both", (0, 1))])
def test_copy_paste_golden(golden_npz, name, picks):
    arrays = golden_npz("mosaic")
    polygons = tuple(arrays[f"copy_paste/segment_{i}"] for i in range(2))
    scene = Scene(arrays["copy_paste/image_in"], arrays["copy_paste/labels_in"], polygons)
    pasted = apply_copy_paste(scene, CopyPaste(picks))
    np.testing.assert_array_equal(pasted.image, arrays[f"copy_paste/{name}/image"])
    np.testing.assert_allclose(pasted.labels, arrays[f"copy_paste/{name}/labels"], atol=1e-5)
    assert len(pasted.segments) == arrays[f"copy_paste/{name}/n_segments"]


# ---------------------------------------------------------------------------------------------------------- letterbox


@pytest.mark.parametrize(
    ("size_hw", "target", "options", "out_hw", "ratio", "pad_wh"),
    [
        ((1, 1), 32, {}, (32, 32), 32, (0, 0)),
        ((1, 1), 32, {"scale_up": False}, (32, 32), 1, (15.5, 15.5)),
        ((60, 80), (60, 80), {}, (60, 80), 1, (0, 0)),
        ((480, 640), 640, {}, (640, 640), 1, (0, 80)),
        ((480, 640), 640, {"auto": True}, (480, 640), 1, (0, 0)),
        ((470, 640), 640, {"auto": True}, (480, 640), 1, (0, 5)),
        ((640, 480), (320, 320), {}, (320, 320), 0.5, (40, 0)),
        ((33, 64), 64, {}, (64, 64), 1, (0, 15.5)),
    ],
)
def test_letterbox_geometry(size_hw, target, options, out_hw, ratio, pad_wh):
    image, ratio_wh, pad = letterbox(np.full((*size_hw, 3), 255, np.uint8), target, **options)
    assert (image.shape, image.dtype, pad) == ((*out_hw, 3), np.uint8, pad_wh)
    assert ratio_wh == (ratio, ratio)
    inner = bright_box(image)
    assert inner.tolist() == [int(pad_wh[0]), int(pad_wh[1]), *(inner[:2] + np.array(size_hw[::-1]) * ratio)]
    assert (np.delete(image, slice(inner[1], inner[3]), 0) == GREY).all()


# ------------------------------------------------------------------------------------------------------------- changes


def test_hsv_of_neutral_factors_keeps_pure_colours():
    image = np.array([[(0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 0), (255, 0, 0)]], np.uint8)
    np.testing.assert_array_equal(apply_hsv(Scene(image), HsvGain(1, 1, 1)).image, image)


def test_hsv_value_scales_grey():
    image = np.full((2, 2, 3), 100, np.uint8)
    assert (apply_hsv(Scene(image), HsvGain(1, 1, 1.5)).image == 150).all()
    assert (apply_hsv(Scene(image), HsvGain(1, 1, 9)).image == 255).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("polygon", [False, True])
def test_flip_moves_label_with_its_pixels_and_back(axis, polygon):
    scene = spot_scene(polygon)
    flipped = apply_flip(scene, Flip(axis))
    assert flipped.labels[0, 1:].tolist() == bright_box(flipped.image).tolist()
    if polygon:
        assert flipped.segments[0].min(0).tolist() == flipped.labels[0, 1:3].tolist()
    back = apply_flip(flipped, Flip(axis))
    np.testing.assert_array_equal(back.image, scene.image)
    np.testing.assert_array_equal(back.labels, scene.labels)
    np.testing.assert_array_equal(back.segments[0], scene.segments[0])


@pytest.mark.parametrize("polygon", [False, True])
@pytest.mark.parametrize(
    ("warp", "loose"),
    [
        (Warp(), 0),
        (Warp(translate_x=0.6, translate_y=0.45), 1),
        (Warp(scale=1.3), 1),
        (Warp(scale=0.6, translate_x=0.4), 1),
        (Warp(angle_deg=90), 1),
        (Warp(angle_deg=20, scale=0.9), 2),
        (Warp(shear_x_deg=15, shear_y_deg=-10), 2),
        (Warp(perspective_x=0.002, perspective_y=-0.001), 2),
    ],
)
def test_warp_moves_label_with_its_pixels(warp, loose, polygon):
    warped = apply_warp(spot_scene(polygon), warp)
    assert warped.labels[0, 0] == 3
    np.testing.assert_allclose(warped.labels[0, 1:], bright_box(warped.image), atol=loose)


def test_warp_cuts_the_margin_away():
    scene = spot_scene()
    warped = apply_warp(Scene(scene.image, scene.labels, scene.segments, margin_yx=(10, 20)), Warp())
    np.testing.assert_array_equal(warped.image, scene.image[10:-10, 20:-20])
    assert warped.labels.tolist() == [[3, 20, 20, 50, 40]]
    assert warped.margin_yx == (0, 0)


def test_warp_reads_boxes_and_polygons_side_by_side():
    """A plain box before a polygon: each keeps its own geometry (v6.1 pairs them wrongly)."""
    box, polygon = spot_scene(), spot_scene(polygon=True)
    both = Scene(box.image, np.concatenate((box.labels, polygon.labels)), box.segments + polygon.segments)
    warp = Warp(angle_deg=20)
    expected = [apply_warp(scene, warp).labels[0] for scene in (box, polygon)]
    np.testing.assert_allclose(apply_warp(both, warp).labels, expected, atol=1e-4)


def test_warp_drops_what_is_hardly_visible():
    image = np.zeros((100, 100, 3), np.uint8)
    scene = boxes_scene(image, [(0, 10, 10, 50, 50), (1, 80, 10, 99, 50), (2, 40, 40, 60, 41)])
    assert apply_warp(scene, Warp(translate_x=0.68)).labels[:, 0].tolist() == [0]


@pytest.mark.parametrize(
    ("before", "after", "keep"),
    [
        (np.zeros((0, 4)), np.zeros((0, 4)), []),
        ([(0, 0, 10, 10)], [(0, 0, 10, 10)], [True]),
        ([(0, 0, 10, 10)], [(0, 0, 2, 10)], [False]),  # a side of 2 px
        ([(0, 0, 10, 10)], [(0, 0, 3, 3)], [False]),  # 9 % of the area left
        ([(0, 0, 300, 3)], [(0, 0, 300, 2.9)], [False]),  # more than 100 : 1
        ([(5, 5, 5, 5)], [(5, 5, 5, 5)], [False]),
    ],
)
def test_visible_boxes(before, after, keep):
    assert visible_boxes(np.asarray(before, float), np.asarray(after, float)).tolist() == keep


def test_mixup_keeps_the_labels_of_both():
    first, second = spot_scene(), spot_scene(polygon=True)
    mixed = apply_mixup(first, second.with_image(np.full_like(first.image, 100)), Mixup(0.5))
    assert len(mixed.labels) == len(mixed.segments) == 2
    assert (mixed.image[0, 0] == 50).all()


def test_copy_paste_puts_a_mirrored_object_on_the_other_side():
    image = np.full((40, 100, 3), 9, np.uint8)
    image[10:30, 5:20] = (200, 100, 50)
    polygon = np.array([(5, 10), (19, 10), (19, 29), (5, 29)], np.float32)
    scene = Scene(image, np.array([[7, 5, 10, 20, 30]], np.float32), (polygon,))
    pasted = apply_copy_paste(scene, CopyPaste((0,)))
    assert pasted.labels.tolist() == [[7, 5, 10, 20, 30], [7, 80, 10, 95, 30]]
    np.testing.assert_array_equal(pasted.image, np.maximum(image, image[:, ::-1]))


def test_copy_paste_leaves_covered_places_alone():
    scene = spot_scene(polygon=True)  # in the middle: its mirror image would cover it
    assert apply_copy_paste(scene, CopyPaste((0,))) is scene


# ---------------------------------------------------------------------------------------------------------- the draws


def test_draws_of_neutral_hyperparameters_change_nothing():
    rng, hyp, scene = np.random.default_rng(0), make_hyp(), spot_scene(polygon=True)
    for step in (random_hsv, random_flipud, random_fliplr, random_copy_paste):
        assert step(scene, rng, hyp) is scene
    assert draw_warp(rng, hyp) == Warp()
    assert draw_mixup(rng, hyp) is None
    assert random_warp(scene, rng, hyp).image is scene.image


def test_draws_stay_in_their_ranges_and_fill_them():
    rng = np.random.default_rng(0)
    hyp = make_hyp(
        hsv_h=0.1, hsv_s=0.7, hsv_v=0.4, degrees=10, translate=0.1, scale=0.5, shear=5, perspective=0.001, mixup=1
    )
    warps = np.array([list(vars(draw_warp(rng, hyp)).values()) for _ in range(500)])
    middle, spread = np.array((0, 0, 0, 1, 0, 0, 0.5, 0.5)), np.array((0.001, 0.001, 10, 0.5, 5, 5, 0.1, 0.1))
    unit = (warps - middle) / spread
    assert (np.abs(unit) <= 1).all()
    assert (np.ptp(unit, 0) > 1.9).all()
    gains = np.array([list(vars(draw_hsv(rng, hyp)).values()) for _ in range(500)])
    assert (np.abs(gains - 1) <= (0.1, 0.7, 0.4)).all()
    ratios = [draw_mixup(rng, hyp).ratio for _ in range(200)]
    assert 0.2 < min(ratios) < 0.5 < max(ratios) < 0.8
    assert 150 < sum(draw_flip(rng, 0.4, 1) is not None for _ in range(500)) < 250


def test_copy_paste_draws_a_share_of_the_polygons():
    box, polygon = spot_scene(), spot_scene(polygon=True)
    scene = Scene(box.image, np.tile(box.labels, (5, 1)), box.segments + polygon.segments * 4)
    draw = draw_copy_paste(np.random.default_rng(0), make_hyp(copy_paste=0.5), scene)
    assert len(set(draw.picks)) == 2
    assert 0 not in draw.picks
    assert draw_copy_paste(np.random.default_rng(0), make_hyp(copy_paste=1), box) is None


@pytest.mark.parametrize("empty", [True, False])
def test_steps_write_into_nothing(empty):
    """Cached pictures pass through them."""
    rng = np.random.default_rng(1)
    scene = Scene(cv2.randu(np.zeros((40, 60, 3), np.uint8), 0, 255)) if empty else spot_scene(polygon=True)
    for array in (scene.image, scene.labels, *scene.segments):
        array.flags.writeable = False
    hyp = make_hyp(hsv_h=0.1, hsv_s=0.5, hsv_v=0.5, degrees=5, scale=0.2, flipud=1, fliplr=1, copy_paste=1)
    for step in (random_copy_paste, random_warp, random_hsv, random_flipud, random_fliplr):
        after = step(scene, rng, hyp)
        assert after.labels.shape == (len(after.segments), 5)
        assert after.labels.dtype == np.float32
        assert after.image.dtype == np.uint8
