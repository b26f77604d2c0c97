"""utils/nms.py against golden detections, a slow obvious suppression, and unusable values."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils import nms
from utils.boxes import box_iou
from utils.errors import InputError
from utils.nms import MAX_SIDE, non_max_suppression, select_candidates, suppress

INPUTS = ["bus_yolov5n", "synthetic_nc3", "synthetic_nc1", "synthetic_nc10", "nothing"]
SETTINGS = ["default", "val", "multi_label_c25", "classes", "agnostic", "max_det10", "iou_0", "iou_1", "conf_high",
            "val_agnostic", "labels_prior", "labels_prior_single"]  # fmt: skip
ARGUMENTS = ("conf_thres", "iou_thres", "classes", "agnostic", "multi_label", "max_det")


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("nms")


@pytest.fixture(scope="module")
def facts(golden_json):
    return golden_json("nms")


def in_one_order(rows):
    """Rows sorted by (confidence, then the rest), for cases where equal confidences may swap."""
    return torch.tensor(sorted(rows.tolist(), key=lambda row: (-row[4], *row)))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", INPUTS)
def test_golden(golden, facts, name, setting):
    case = facts[name]["settings"][setting]
    pred = torch.from_numpy(golden[f"{name}/pred"])
    before = pred.clone()
    arguments = {key: case[key] for key in ARGUMENTS if key in case}
    if "labels" in case:
        arguments["labels"] = [torch.from_numpy(golden[f"{name}/labels_{i}"]) for i in range(len(pred))]
    detections = non_max_suppression(pred, **arguments)
    assert torch.equal(pred, before)
    for image, found in enumerate(detections):
        expected = torch.from_numpy(golden[f"{name}/{setting}/out_{image}"])
        assert found.shape == expected.shape
        if "labels" in case:
            found, expected = in_one_order(found), in_one_order(expected)
        if len(expected):
            torch.testing.assert_close(found[:, 5], expected[:, 5], atol=0, rtol=0)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("multi_label", [False, True])
def test_nothing_in(batch, multi_label):
    detections = non_max_suppression(torch.zeros(batch, 0, 8), multi_label=multi_label)
    assert [tuple(rows.shape) for rows in detections] == [(0, 6)] * batch


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ([50, 50, 20, 20, 0.9, 0.9], True),
        ([50, 50, 1.9, 20, 0.9, 0.9], False),
        ([50, 50, 2, 7680, 0.9, 0.9], True),
        ([50, 50, 2, 7681, 0.9, 0.9], False),
        ([float("nan"), 50, 20, 20, 0.9, 0.9], False),
        ([50, float("inf"), 20, 20, 0.9, 0.9], False),
        ([50, 50, float("nan"), 20, 0.9, 0.9], False),
        ([50, 50, 20, 20, float("nan"), 0.9], False),
        ([50, 50, 20, 20, float("inf"), 0.9], False),
        ([50, 50, 20, 20, 0.9, float("nan")], False),
        ([50, 50, 20, 20, 0.25, 1], False),  # the threshold itself does not count
    ],
)
def test_what_is_a_candidate(row, kept):
    assert len(non_max_suppression(torch.tensor([[row]]))[0]) == kept
    assert len(select_candidates(torch.tensor([row]), 0.25)) == kept


def slow_suppression(detections, iou_thres, max_det):
    """The definition: walk down the confidences, keep what no kept box of the class overlaps."""
    kept = []
    for row in sorted(detections, key=lambda row: -row[4].item()):
        same = [other for other in kept if other[5] == row[5]]
        if not same or box_iou(row[None, :4], torch.stack(same)[:, :4]).max() <= iou_thres:
            kept.append(row)
    return torch.stack(kept[:max_det])


@pytest.mark.parametrize("max_det", [1, 3, 300])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_definition(seed, max_det):
    generator = torch.Generator().manual_seed(seed)
    low, size = torch.rand(200, 2, generator=generator) * 60, torch.rand(200, 2, generator=generator) * 40 + 5
    scores, labels = torch.rand(200, 1, generator=generator), torch.randint(0, 3, (200, 1), generator=generator)
    detections = torch.cat((low, low + size, scores, labels), 1)
    found = suppress(detections, 0.45, agnostic=False, max_det=max_det)
    torch.testing.assert_close(found, slow_suppression(detections, 0.45, max_det))


def test_later_rounds_are_reached():
    """500 copies of one box come first, so that the second box lies beyond the first round of max_det 2."""
    copies = torch.tensor([[0.0, 0, 10, 10, 0.9, 0]]).repeat(500, 1)
    other = torch.tensor([[50.0, 50, 60, 60, 0.5, 0]])
    found = suppress(torch.cat((other, copies)), 0.45, agnostic=False, max_det=2)
    torch.testing.assert_close(found, torch.cat((copies[:1], other)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_many_classes_in_half_precision(dtype):
    """Offsets of 7680 x class pass float16's range: two boxes of class 70 must still suppress each other."""
    row = torch.zeros(85)
    row[:5], row[75] = torch.tensor([50, 50, 20, 20, 0.9]), 0.9
    found = non_max_suppression(torch.stack((row, row))[None].to(dtype))[0]
    assert found.dtype == torch.float32
    assert found[:, 5].tolist() == [70]
    assert torch.finfo(torch.float16).max < 70 * MAX_SIDE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pred": torch.zeros(1, 1, 6), "conf_thres": 1.1}, "conf_thres must be in 0..1, got 1.1"),
        ({"pred": torch.zeros(1, 1, 6), "iou_thres": -0.1}, "iou_thres must be in 0..1"),
        ({"pred": torch.zeros(1, 6)}, r"pred: \(batch, boxes, 5 \+ classes\) was expected, got \(1, 6\)"),
    ],
)
def test_unusable_input(arguments, message):
    with pytest.raises(InputError, match=message):
        non_max_suppression(**arguments)


IN_A_NEW_PROCESS = """
import sys, torch
from utils import nms
{before}
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [50, 50, 60, 60]]), torch.tensor([0.7, 0.8, 0.9]), 0.5
kept = nms.torchvision_operators().nms(*boxes).tolist()
print(kept, "torchvision" in sys.modules)
import torchvision
print(torchvision.ops.nms(*boxes).tolist() == kept)
"""
NOT_FOUND = "nms.find_spec = lambda name: None"
NOT_LOADED = """
def fail(path):
    torch.ops.load_library = load
    raise OSError("a library that it needs is missing")
load, torch.ops.load_library = torch.ops.load_library, fail
"""


@pytest.mark.parametrize(
    ("before", "is_loaded"),
    [
        pytest.param("", False, id="the library alone"),
        pytest.param(NOT_FOUND, True, id="no library"),
        pytest.param(NOT_LOADED, True, id="a library that does not load"),
    ],
)
def test_suppression_loads_torchvision_only_where_its_library_does_not_do(before, is_loaded):
    code, root = IN_A_NEW_PROCESS.format(before=before), Path(nms.__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert answer.stdout.splitlines() == [f"[2, 1] {is_loaded}", "True"], answer.stderr
