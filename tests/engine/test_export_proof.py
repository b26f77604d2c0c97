"""The comparison of an exported file with PyTorch, on networks that say what a test wants them to say."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import comparer, export_proof
from engine.export_proof import EVERYDAY, TOLERANCES, Case, compared, faults_of, limited, prove, sizes
from models.backend import Backend
from models.export_options import Suppression

NC = 2
IMAGES = [np.full((50, 70, 3), level, np.uint8) for level in (10, 60, 110)]
BOXES = torch.tensor(  # x, y, w, h, objectness, classes
    [[20.0, 20, 20, 10, 0.9, 0.9, 0.1], [50, 40, 10, 20, 0.8, 0.2, 0.9], [90, 30, 30, 30, 0.6, 0.6, 0.1]]
)


class Saying(Backend):
    """Predicts the given rows for each image."""

    def __init__(self, rows: torch.Tensor, **fixed) -> None:
        super().__init__({0: "a", 1: "b"}, 32, torch.device("cpu"), **fixed)
        self.rows = rows
        self.shapes: list[tuple[int, ...]] = []

    def _infer(self, images):
        self.shapes.append(tuple(images.shape))
        return self.rows.expand(len(images), -1, -1).clone()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, value in {"WARMUP_ROUNDS": 1, "ROUNDS": 3, "FEWEST_ROUNDS": 1}.items():
        monkeypatch.setattr(comparer, name, value)


def proof(theirs: torch.Tensor, ours: torch.Tensor = BOXES, precision: str = "float32", **options):
    return prove(Saying(ours), Saying(theirs), IMAGES, size_hw=(64, 96), precision=precision, **options)


def moved(pixels: float = 0.0, score: float = 0.0) -> torch.Tensor:
    rows = BOXES.clone()
    rows[0, 0] += pixels
    rows[1, 4] += score
    return rows


def test_the_same_predictions_are_accepted():
    result = proof(BOXES)
    assert result.faults == ()
    assert result.cases == tuple(
        Case(batch, *hw, detections=3 * 3, lost=0, gained=0, box_px=0, score=0)
        for hw in ((64, 96), (32, 64))
        for batch in (1, 4)
    )
    assert result.images == 3
    assert min(result.latency_ms, result.torch_ms, result.speedup) > 0


@pytest.mark.parametrize(
    ("theirs", "precision", "faults"),
    [
        (moved(pixels=0.05), "float32", []),
        (moved(pixels=0.5), "float32", ["boxes differ by 0.5 px at batch 1, 64x96 (0.1 allowed)"]),
        (moved(pixels=0.5), "half", []),
        (moved(score=0.01), "float32", ["scores differ by 0.009 at batch 1, 64x96 (0.002 allowed)"]),
        (moved(score=0.01), "half", []),
        (moved(score=0.01), "int8", []),
        (BOXES[:2], "float32", ["of 9 detections 3 are lost, 0 gained at batch 1, 64x96"]),
        (BOXES[:2], "int8", []),
        (BOXES[:1], "int8", ["of 9 detections 6 are lost, 0 gained at batch 1, 64x96"]),
        (BOXES[[0, 1, 2, 2]] + torch.tensor([[0.0], [0], [0], [1]]) * 60 * torch.eye(7)[0], "float32",
         ["of 9 detections 0 are lost, 3 gained at batch 1, 64x96"]),
        (BOXES[:, [0, 1, 2, 3, 4, 6, 5]], "half", ["of 9 detections 9 are lost, 9 gained at batch 1, 64x96"]),
        (BOXES * torch.nan, "half", ["of 9 detections 9 are lost, 0 gained at batch 1, 64x96"]),
        (torch.zeros(3, 7), "half", ["of 9 detections 9 are lost, 0 gained at batch 1, 64x96"]),
    ],
)  # fmt: skip
def test_what_differs_is_told(theirs, precision, faults):
    result = proof(theirs, precision=precision)
    assert [fault for fault in result.faults if "batch 1, 64x96" in fault] == faults
    assert len(result.faults) == 4 * len(faults)  # at each size


def test_a_detection_at_the_threshold_is_neither_lost_nor_gained():
    at = BOXES.clone()
    at[2, 4] = 0.25 / 0.6  # confidence .25, to a rounding
    above, below = at.clone(), at.clone()
    above[2, 4] += 1e-3
    below[2, 4] -= 1e-3
    for ours, theirs in ((above, below), (below, above)):
        result = proof(theirs, ours)
        assert (result.cases[0].lost, result.cases[0].gained, result.faults) == (0, 0, ())
        assert result.cases[0].score == pytest.approx(0.0012, abs=1e-5)


NOTHING = torch.tensor([[20.0, 20, 20, 10, 0.01, 0.9, 0.1], [50, 40, 10, 20, 0.02, 0.2, 0.9]])


@pytest.mark.parametrize(
    ("theirs", "faulty"),
    [
        (NOTHING, False),
        (NOTHING + 0.5 * torch.eye(7)[0], True),
        (NOTHING + 0.5 * torch.eye(7)[6], True),
        (NOTHING * torch.nan, True),
        (NOTHING.flip(0), True),
    ],
)
def test_where_nothing_is_detected_the_predictions_are_compared(theirs, faulty):
    result = proof(theirs, NOTHING)
    assert bool(result.faults) == faulty
    assert result.note == "nothing is detected on the images, so all predictions are compared"


def test_detections_where_there_should_be_none_are_told():
    assert proof(BOXES, NOTHING).faults


def test_a_file_with_suppression_is_held_against_the_same():
    settings = Suppression(conf_thres=0.5, topk_all=1)
    result = proof(BOXES[:1], nms=settings)
    assert (result.faults, result.cases[0].detections) == ((), 3)
    assert proof(BOXES, nms=settings).faults == ()  # as the same limits hold
    empty = proof(NOTHING, NOTHING, nms=settings)
    assert "nothing is detected" in empty.note
    assert empty.is_empty
    assert not proof(NOTHING, NOTHING).is_empty


def test_below_the_everyday_confidence_boxes_may_take_each_other_s_place():
    settings = Suppression(conf_thres=0.001, iou_thres=0.6)
    weak = BOXES.clone()
    weak[:, 4] = 0.1
    assert proof(moved(pixels=0), nms=settings).faults == ()
    assert proof(weak[:1], weak, nms=settings).faults == ()


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ({}, [(1, (64, 96)), (4, (64, 96)), (1, (32, 64)), (4, (32, 64))]),
        ({"fixed_hw": (64, 96), "fixed_batch": 2}, [(2, (64, 96))]),
        ({"fixed_hw": (64, 96)}, [(1, (64, 96)), (4, (64, 96))]),
        ({"fixed_batch": 1}, [(1, (64, 96)), (1, (32, 64))]),
    ],
)
def test_sizes_that_a_file_takes(fixed, expected):
    assert list(sizes(Saying(BOXES, **fixed), (64, 96))) == expected


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (EVERYDAY, [0, 1, 2, 3, 4]),
        (replace(EVERYDAY, topk_per_class=1), [0, 1]),
        (replace(EVERYDAY, topk_per_class=2, topk_all=3), [0, 1, 2]),
        (replace(EVERYDAY, topk_per_class=1, agnostic=True), [0, 1, 2, 3, 4]),
        (replace(EVERYDAY, topk_all=1), [0]),
    ],
)
def test_limits(settings, kept):
    rows = torch.zeros(5, 6)
    rows[:, 4], rows[:, 5] = torch.linspace(0.9, 0.5, 5), torch.tensor([0, 1, 0, 0, 1])
    assert limited(rows, settings).tolist() == rows[kept].tolist()
    assert limited(rows[:0], settings).shape == (0, 6)


def test_no_images_are_no_detections():
    assert compared([], 1, (32, 32), settings=EVERYDAY, margin=0.1) == Case(1, 32, 32, 0, 0, 0, 0, 0)


def test_a_number_that_is_none_is_a_fault():
    case = Case(1, 32, 32, 5, 0, 0, float("nan"), float("nan"))
    assert len(list(faults_of(case, TOLERANCES["int8"]))) == 2


def test_it_is_written_and_shown(tmp_path):
    result = proof(moved(pixels=0.5))
    result.write(tmp_path / "a.onnx.proof.json", {"map": 0.5})
    content = json.loads((tmp_path / "a.onnx.proof.json").read_text())
    assert content["precision"] == "float32"
    assert content["cases"][0] == vars(result.cases[0])
    assert content["faults"] == list(result.faults)
    head, first, *_, speed = result.table().splitlines()
    assert head.split() == ["batch", "image", "detections", "lost", "gained", "box", "px", "score"]
    assert first.split() == ["1", "64x96", "9", "0", "0", "0.5", "0"]
    assert "PyTorch" in speed


def test_the_speed_is_that_of_one_batch(monkeypatch):
    given = []
    monkeypatch.setattr(
        export_proof,
        "interleaved_ms",
        lambda backends, images: given.append(images) or np.array([[20.0, 10], [40, 10]]),
    )
    result = prove(
        Saying(BOXES), Saying(BOXES, fixed_hw=(64, 96), fixed_batch=3), IMAGES, size_hw=(64, 96), precision="float32"
    )
    assert given[0].shape == (3, 3, 64, 96)
    assert (result.torch_ms, result.latency_ms, result.speedup) == (30, 10, 3)
