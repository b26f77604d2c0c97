"""utils/boxes.py against golden numbers, itself (inverses) and hand-made boxes."""

import numpy as np
import pytest
import torch

from utils.boxes import (
    bbox_iou,
    box_ioa,
    box_iou,
    clip_boxes_,
    resample_segments,
    scale_boxes,
    segment2box,
    segments2boxes,
    xyn2xy,
    xywh2xyxy,
    xywhn2xyxy,
    xyxy2xywh,
    xyxy2xywhn,
)

BOTH = pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("metrics")


@pytest.mark.parametrize("shape", [(0, 4), (4,), (1, 4), (2, 5, 4)])
@BOTH
def test_formats_are_inverse(kind, shape):
    xywh = np.random.default_rng(0).uniform(1, 9, shape).astype(np.float32)
    back = xyxy2xywh(xywh2xyxy(kind(xywh)))
    assert type(back) is type(kind(xywh))
    assert back.dtype == kind(xywh).dtype
    np.testing.assert_allclose(back, xywh, atol=1e-5)
    pixels = xywhn2xyxy(kind(xywh / 10), (48, 64))
    np.testing.assert_allclose(xyxy2xywhn(pixels, (48, 64)), xywh / 10, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "source", "convert"),
    [
        ("xyxy2xywh", "xyxy", xyxy2xywh),
        ("xywh2xyxy(xyxy2xywh)", "xyxy2xywh", xywh2xyxy),
        ("xywhn2xyxy_w640_h480", "xywhn", lambda b: xywhn2xyxy(b, (480, 640))),
        ("xywhn2xyxy_w500_h333_padw12.5_padh7", "xywhn", lambda b: xywhn2xyxy(b, (333, 500), (12.5, 7))),
        ("xyxy2xywhn_w640_h480_noclip", "xyxy", lambda b: xyxy2xywhn(b, (480, 640))),
        ("xyxy2xywhn_w640_h480_clip_eps0", "xyxy", lambda b: xyxy2xywhn(b, (480, 640), clip=True)),
        ("xyxy2xywhn_w640_h480_clip_eps1e-3", "xyxy", lambda b: xyxy2xywhn(b, (480, 640), clip=True, eps=1e-3)),
        ("torch_xyxy2xywhn_w640_h480_clip_eps1e-3", "xyxy", lambda b: xyxy2xywhn(b, (480, 640), clip=True, eps=1e-3)),
    ],
)
@BOTH
def test_converters_golden(golden, kind, key, source, convert):
    given = golden[f"conv/{source}"].copy()
    np.testing.assert_allclose(convert(kind(given)), golden[f"conv/{key}"], atol=1e-4, rtol=0)
    np.testing.assert_array_equal(given, golden[f"conv/{source}"])  # untouched


@pytest.mark.parametrize(
    ("key", "size_hw"),
    [
        ("input_after_clip_eps0", (480, 640)),
        ("input_after_clip_eps1e-3", (480 - 1e-3, 640 - 1e-3)),
        ("clip_coords_h300_w500", (300, 500)),
    ],
)
@BOTH
def test_clip_golden(golden, kind, key, size_hw):
    boxes = kind(golden["conv/xyxy"].copy())
    clip_boxes_(boxes, size_hw)
    np.testing.assert_allclose(boxes, golden[f"conv/{key}"], atol=1e-4)


@BOTH
def test_clip_leaves_further_columns(kind):
    rows = kind(np.array([[-5.0, -5, 900, 900, 700, -3]], np.float32))
    clip_boxes_(rows, (480, 640))
    assert rows.tolist() == [[0, 0, 640, 480, 700, -3]]


@pytest.mark.parametrize("case", ["noratio", "noratio2", "ratiopad", "ratiopad2"])
@BOTH
def test_scale_boxes_golden(golden, golden_json, kind, case):
    facts = golden_json("metrics")["scalars"][f"scale_coords/{case}"]
    given = golden["conv/xyxy"].copy()
    scaled = scale_boxes(
        kind(given), from_hw=facts["img1_shape"], to_hw=facts["img0_shape"], ratio_pad=facts["ratio_pad"]
    )
    np.testing.assert_allclose(scaled, golden[f"scale_coords/{case}"], atol=1e-4)
    np.testing.assert_array_equal(given, golden["conv/xyxy"])


@pytest.mark.parametrize("original_hw", [(1, 1), (480, 640), (1080, 810), (333, 500)])
def test_scale_boxes_undoes_a_letterbox(original_hw):
    height, width = original_hw
    ratio = min(640 / height, 640 / width)
    pad_x, pad_y = (640 - width * ratio) / 2, (640 - height * ratio) / 2
    xyxy = torch.tensor([[0.1, 0.2, 0.6, 0.9]], dtype=torch.float64) * torch.tensor([width, height] * 2)
    boxed = xyxy * ratio + torch.tensor([pad_x, pad_y, pad_x, pad_y])
    torch.testing.assert_close(scale_boxes(boxed, from_hw=(640, 640), to_hw=original_hw), xyxy)


@pytest.mark.parametrize("name", ["IoU", "GIoU", "DIoU", "CIoU"])
def test_paired_overlap_golden(golden, name):
    kind = name.lower()
    tensors = {
        key: torch.from_numpy(golden[f"iou/{key}"]) for key in ("box1_xyxy", "box2_xyxy", "box1_xywh", "box2_xywh")
    }
    corners = bbox_iou(tensors["box1_xyxy"], tensors["box2_xyxy"], xywh=False, kind=kind)
    np.testing.assert_allclose(corners, golden[f"iou/{name}_xyxy"], atol=1e-6)
    centres = bbox_iou(tensors["box1_xywh"], tensors["box2_xywh"], kind=kind)
    np.testing.assert_allclose(centres, golden[f"iou/{name}_xywh"], atol=1e-6)
    one_to_many = bbox_iou(tensors["box1_xyxy"][:1], tensors["box2_xyxy"], xywh=False, kind=kind)
    np.testing.assert_allclose(one_to_many, golden[f"iou/{name}_one_vs_many_xyxy"], atol=1e-6)


@pytest.mark.parametrize("name", ["IoU", "GIoU", "DIoU", "CIoU"])
def test_overlap_gradient_golden(golden, name):
    box1 = torch.from_numpy(golden["iou/box1_xywh"]).requires_grad_()
    keep = torch.tensor([row not in (10, 11) for row in range(len(box1))])
    bbox_iou(box1, torch.from_numpy(golden["iou/box2_xywh"]), kind=name.lower())[keep].sum().backward()
    expected = golden[f"iou/{name}_xywh_grad_box1_rows_except_10_11"]
    np.testing.assert_allclose(box1.grad[keep], expected[keep.numpy()], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
@pytest.mark.parametrize("rows", [0, 1])
def test_overlap_of_equal_boxes_is_one(kind, rows):
    boxes = torch.tensor([[5.0, 6, 3, 2]])[:rows]
    torch.testing.assert_close(bbox_iou(boxes, boxes, kind=kind), torch.ones(rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_matrix_overlap_shapes(n, m):
    assert box_iou(torch.rand(n, 4), torch.rand(m, 4)).shape == (n, m)


def test_matrix_overlap_golden(golden):
    matrix = box_iou(torch.from_numpy(golden["iou/box1_xyxy"]), torch.from_numpy(golden["iou/box2_xyxy"]))
    np.testing.assert_allclose(matrix, golden["iou/box_iou_matrix"], atol=1e-6)  # one NaN, on both sides


def test_matrix_overlap_of_sizes_golden(golden):
    """Boxes at one corner: the overlap of their sizes alone."""
    first, second = (
        torch.cat((torch.zeros(len(wh), 2), torch.from_numpy(wh)), 1) for wh in (golden["iou/wh1"], golden["iou/wh2"])
    )
    np.testing.assert_allclose(box_iou(first, second), golden["iou/wh_iou"], atol=1e-6)


def test_ioa_golden(golden):
    shares = box_ioa(golden["iou/box1_xyxy"][0], golden["iou/box2_xyxy"])
    np.testing.assert_allclose(shares, golden["iou/bbox_ioa_box1row0_vs_box2"], atol=1e-6)
    assert box_ioa(np.zeros(4), np.zeros((0, 4))).shape == (0,)


def test_segments_golden(golden):
    np.testing.assert_allclose(
        xyn2xy(golden["seg/segment_n"], (480, 640), (3, 4.5)), golden["seg/xyn2xy_w640_h480_padw3_padh4.5"], atol=1e-4
    )
    np.testing.assert_allclose(xyn2xy(golden["seg/segment_n"], (640, 640)), golden["seg/xyn2xy_default640"], atol=1e-4)
    np.testing.assert_allclose(
        segment2box(golden["seg/segment_px"], (480, 640)), golden["seg/segment2box_w640_h480"], atol=1e-4
    )
    polygons = [golden[f"seg/list_{i}"] for i in range(3)]
    np.testing.assert_allclose(segments2boxes(polygons), golden["seg/segments2boxes_xywh"], atol=1e-4)
    for i, points in enumerate(resample_segments(polygons, 50)):
        np.testing.assert_allclose(points, golden[f"seg/resampled_n50_{i}"], atol=1e-6)
    np.testing.assert_allclose(resample_segments(polygons)[0], golden["seg/resampled_default_0"], atol=1e-6)


@pytest.mark.parametrize("points", [np.zeros((0, 2)), np.array([[-1.0, 5.0]]), np.array([[5.0, 481.0], [641.0, 3.0]])])
def test_segment_outside_is_an_empty_box(points):
    assert segment2box(points, (480, 640)).tolist() == [0, 0, 0, 0]
    assert segments2boxes([]).shape == (0, 4)
    assert resample_segments([]) == []
