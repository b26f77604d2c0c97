"""utils/metrics.py against golden scores and a slow obvious matching."""

import numpy as np
import pytest
import torch

from utils.boxes import box_iou
from utils.metrics import (
    ConfusionMatrix,
    ap_per_class,
    class_weights,
    compute_ap,
    fitness,
    image_weights,
    match_detections,
    pair_up,
)

AP_CASES = ["nc5", "nc3_missing_pred", "nc6_extra_pred", "nc1", "no_tp", "perfect", "single_iou", "one_detection"]
CONFUSION = [
    ("nc5_a_b_one_det_one_label_far", ["a", "b", "one_det", "one_label", "far"], {"nc": 5}),
    ("nc3_a", ["a"], {"nc": 3}),
    ("nc1_one_label", ["one_label"], {"nc": 1}),
    ("nc2_far", ["far"], {"nc": 2}),
    ("nc5_b_conf0.5_iou0.6", ["b"], {"nc": 5, "conf": 0.5, "iou": 0.6}),
]


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("metrics")


@pytest.mark.parametrize("case", AP_CASES)
def test_ap_golden(golden, golden_json, case):
    inputs = [golden[f"ap/{case}/in_{key}"] for key in ("tp", "conf", "pred_cls", "target_cls")]
    scores = ap_per_class(*inputs)
    for key, found in {
        "tp": scores.tp,
        "fp": scores.fp,
        "p": scores.precision,
        "r": scores.recall,
        "f1": scores.f1,
        "ap": scores.ap,
        "ap_class": scores.classes,
    }.items():
        np.testing.assert_allclose(found, golden[f"ap/{case}/out_{key}"], atol=1e-6, err_msg=key)
    means = golden_json("metrics")["ap_per_class"][case]
    found = (scores.mean_precision, scores.mean_recall, scores.map50, scores.map)
    assert found == pytest.approx([means[key] for key in ("mp", "mr", "map50", "map")], abs=1e-6)


@pytest.mark.parametrize(("detections", "labels"), [(0, 0), (0, 3), (3, 0)])
def test_ap_of_nothing(detections, labels):
    scores = ap_per_class(np.zeros((detections, 10), bool), np.ones(detections), np.zeros(detections), np.zeros(labels))
    assert (scores.map50, scores.map, scores.mean_precision, scores.mean_recall) == (0, 0, 0, 0)
    assert len(scores.classes) == len(scores.curves.f1) == min(labels, 1)


def test_rows_of_the_curves_are_the_classes():
    """Class 1 of three has no detections: its row is there, and class 2's stays its own."""
    scores = ap_per_class(np.ones((2, 1), bool), np.array([0.9, 0.8]), np.array([0, 2]), np.array([0, 1, 2]))
    assert scores.classes.tolist() == [0, 1, 2]
    assert scores.curves.precision_at_recall.max(1).tolist() == [1, 0, 1]
    assert scores.ap[:, 0] == pytest.approx([0.995, 0, 0.995])


@pytest.mark.parametrize("case", range(4))
def test_compute_ap_golden(golden, case):
    inputs = golden[f"compute_ap/{case}/recall"], golden[f"compute_ap/{case}/precision"]
    area, envelope, recall = compute_ap(*inputs)
    assert area == pytest.approx(float(golden[f"compute_ap/{case}/ap"]), abs=1e-9)
    np.testing.assert_allclose(envelope, golden[f"compute_ap/{case}/mpre"])
    np.testing.assert_allclose(recall, golden[f"compute_ap/{case}/mrec"])


@pytest.mark.parametrize("case", ["a", "b", "one_det", "one_label", "far", "order_quirk"])
def test_match_detections_golden(golden, case):
    detections, labels = (torch.from_numpy(golden[f"process_batch/{case}/{key}"]) for key in ("detections", "labels"))
    correct = match_detections(detections, labels, torch.from_numpy(golden["process_batch/iouv"]))
    np.testing.assert_array_equal(correct, golden[f"process_batch/{case}/correct"])


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 2), (2, 0)])
def test_match_nothing(n, m):
    correct = match_detections(torch.rand(n, 6), torch.rand(m, 5), torch.linspace(0.5, 0.95, 10))
    assert correct.shape == (n, 10)
    assert not correct.any()


def slow_pairs(overlaps, by_overlap):
    """The rule in words: every detection goes to its best label, every label takes its best or its first comer."""
    comers = {}
    for detection in range(overlaps.shape[1]):
        label = max(range(len(overlaps)), key=lambda row: overlaps[row, detection])
        if overlaps[label, detection] >= 0:
            comers.setdefault(label, []).append(detection)
    if by_overlap:
        return {(label, max(several, key=lambda d: overlaps[label, d])) for label, several in comers.items()}
    return {(label, min(several)) for label, several in comers.items()}


@pytest.mark.parametrize("by_overlap", [False, True])
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (4, 30), (30, 4), (20, 20)])
def test_pairs_agree_with_the_rule(shape, by_overlap):
    overlaps = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    overlaps = overlaps.where(overlaps > 0.6, -1)
    label, detection = pair_up(overlaps, by_overlap=by_overlap)
    expected = slow_pairs(overlaps, by_overlap) if overlaps.numel() else set()
    assert set(zip(label.tolist(), detection.tolist(), strict=True)) == expected


@pytest.mark.parametrize(("name", "images", "arguments"), CONFUSION)
def test_confusion_golden(golden, name, images, arguments):
    confusion = ConfusionMatrix(**arguments)
    for image in images:
        confusion.update(
            *(torch.from_numpy(golden[f"process_batch/{image}/{key}"]) for key in ("detections", "labels"))
        )
    np.testing.assert_array_equal(confusion.matrix, golden[f"confusion/{name}/matrix"])


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 2), (2, 0)])
def test_confusion_passes_over_empty_images(n, m):
    confusion = ConfusionMatrix(3)
    confusion.update(torch.ones(n, 6), torch.ones(m, 5))
    assert confusion.matrix.shape == (4, 4)
    assert not confusion.matrix.any()


def test_boxes_without_area_match_nothing():
    """Their overlap is 0 / 0."""
    point = torch.tensor([[5.0, 5, 5, 5, 0.9, 0]])
    assert box_iou(point[:, :4], point[:, :4]).isnan().all()
    label = torch.tensor([[0.0, 5, 5, 5, 5]])
    assert not match_detections(point, label, torch.tensor([0.5])).any()
    confusion = ConfusionMatrix(1)
    confusion.update(point, label)
    assert confusion.matrix.tolist() == [[0, 0], [1, 0]]


def test_fitness_golden(golden):
    found = [fitness(*row[:4]) for row in golden["fitness/in"]]
    assert found == pytest.approx(golden["fitness/out"].tolist(), abs=1e-9)


def test_sampling_weights_golden(golden_json):
    scalars = golden_json("metrics")["scalars"]
    case = scalars["labels_to_class_weights"]
    rows = [np.array(labels).reshape(-1, 5) for labels in case["labels"]]
    classes, offsets = np.concatenate(rows)[:, 0], np.cumsum([0] + [len(labels) for labels in rows])
    assert class_weights(classes, case["nc"]).tolist() == pytest.approx(case["out"])
    case = scalars["labels_to_image_weights"]
    found = image_weights(classes, offsets, np.array(case["class_weights"]))
    assert found.tolist() == pytest.approx(case["out"])


def test_sampling_weights_of_nothing():
    assert class_weights(np.zeros(0), 2).tolist() == [0.5, 0.5]
    assert image_weights(np.zeros(0), np.array([0, 0, 0]), np.ones(2)).tolist() == [0, 0]
    assert image_weights(np.zeros(0), np.array([0]), np.ones(2)).shape == (0,)
