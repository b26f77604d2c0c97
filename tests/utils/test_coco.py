"""COCO results: ids, boxes, and the score against annotations made by hand."""

import json
import sys

import pytest
import torch

from utils.coco import COCO_CATEGORIES, CocoResults, annotation_ids, category_ids, find_annotations, is_coco
from utils.errors import InputError

COCO_NAMES = {0: "person", **{i: f"class{i}" for i in range(1, 79)}, 79: "toothbrush"}
NONE = torch.zeros(0, 6)


def annotate(folder, boxes, categories, *, file="instances_val2017.json"):
    """An annotation file; boxes: {file name: [(category id, x, y, w, h)]}."""
    rows, images = [], []
    for number, (name, image_boxes) in enumerate(boxes.items(), 100):
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
        for category, *xywh in image_boxes:
            row = {"id": len(rows) + 1, "image_id": number, "category_id": category, "bbox": xywh, "iscrowd": 0}
            rows.append({**row, "area": xywh[2] * xywh[3]})
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [{"id": number, "name": name} for name, number in categories.items()]
    (folder / file).write_text(json.dumps({"images": images, "annotations": rows, "categories": kinds}))
    return folder / file


@pytest.mark.parametrize(
    ("names", "annotated", "ids"),
    [
        ({}, None, ()),
        ({0: "cat", 1: "dog"}, None, (0, 1)),
        ({0: "cat", 1: "dog"}, {"dog": 4, "cat": 9, "cow": 1}, (9, 4)),
        ({0: "cat", 1: "dog"}, {"dog": 4}, (0, 1)),  # not all are there
        (COCO_NAMES, None, COCO_CATEGORIES),
    ],
)
def test_category_ids(names, annotated, ids):
    assert category_ids(names, annotated) == ids


def test_coco_numbers():
    assert len(COCO_CATEGORIES) == 80
    # stop sign, parking meter (12 is unused), toothbrush
    assert (COCO_CATEGORIES[11], COCO_CATEGORIES[12], COCO_CATEGORIES[79]) == (13, 14, 90)
    assert is_coco(COCO_NAMES)
    assert not is_coco({0: "person"})


def test_rows(tmp_path):
    results = CocoResults({0: "cat", 1: "dog"})
    results.add("a/000000000042.jpg", NONE)
    results.add("a/000000000049.jpg", torch.tensor([[1.0, 2, 11, 22, 0.123456, 1]]))
    results.add("a/x.jpg", torch.tensor([[0.0, 0, 1, 1, 1, 0]]))
    results.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == [
        {"image_id": 49, "category_id": 1, "bbox": [1, 2, 10, 20], "score": 0.12346},
        {"image_id": "x", "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1},
    ]
    assert results.images == [42, 49, "x"]


def test_annotations_are_found_by_split(tmp_path):
    assert find_annotations(tmp_path, "val") is None
    file = annotate(tmp_path / "annotations", {"x.jpg": []}, {"cat": 1})
    assert find_annotations(tmp_path, "val") == file
    assert find_annotations(tmp_path, "test") is None
    assert annotation_ids(file) == ({"x": 100}, {"cat": 1})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [{}]}'])
def test_what_is_no_annotation_file_is_told(tmp_path, text):
    file = tmp_path / "instances_val.json"
    file.write_text(text)
    with pytest.raises(InputError, match=str(file)):
        annotation_ids(file)


@pytest.mark.parametrize(
    ("detections", "map50_95", "map50"),
    [
        (NONE, 0, 0),
        (torch.tensor([[10.0, 10, 30, 30, 0.9, 1]]), 0, 0),  # wrong class
        (torch.tensor([[10.0, 10, 30, 30, 0.9, 0]]), 1, 1),
        (torch.tensor([[10.0, 10, 30, 25, 0.9, 0]]), 0.6, 1),  # IoU .75: right at six of ten thresholds
    ],
)
def test_score(tmp_path, detections, map50_95, map50):
    pytest.importorskip("faster_coco_eval", reason="needs the optional package faster-coco-eval")
    file = annotate(tmp_path, {"x.jpg": [(1, 10, 10, 20, 20)], "y.jpg": [(1, 0, 0, 5, 5)]}, {"cat": 1, "dog": 2})
    results = CocoResults({0: "cat", 1: "dog"}, file)
    results.add("x.jpg", detections)  # y.jpg was not looked at and does not count
    assert results.score() == pytest.approx((map50_95, map50), abs=1e-3)


def test_score_tells_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="annotations"):
        CocoResults({0: "cat"}).score()
    file = annotate(tmp_path, {"x.jpg": []}, {"cat": 1})
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(InputError, match="pip install faster-coco-eval"):
        CocoResults({0: "cat"}, file).score()
