"""Whatever the input: readers return, or refuse in one sentence; boxes survive round trips; suppression keeps its
promises. The examples are the same in each run."""

import numpy as np
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.model_yaml import read_model_yaml
from tests.hostile.test_yamls import HYP, SMALL, result
from utils.augmentations import letterbox
from utils.boxes import scale_boxes, xywhn2xyxy, xyxy2xywhn
from utils.data_config import load_data_config
from utils.hyp import load_hyp
from utils.label_files import LabelFault, parse_labels
from utils.nms import non_max_suppression

bounded = settings(
    max_examples=60, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
words = st.floats(0, 1).map(str) | st.integers(-1, 3).map(str) | st.sampled_from(["nan", "inf", "1e308", "a", "\0"])


@bounded
@given(st.text(max_size=200) | st.lists(st.lists(words, max_size=11).map(" ".join), max_size=5).map("\n".join))
def test_label_texts(text):
    try:
        rows, segments = parse_labels(text)
    except LabelFault:
        return
    assert rows.shape == (len(rows), 5)
    assert len(segments) in (0, len(rows))
    assert np.isfinite(rows).all()
    assert ((rows[:, 1:] >= 0) & (rows[:, 1:] <= 1)).all()
    assert (rows[:, 0] % 1 == 0).all()


@bounded
@given(st.sampled_from([*HYP, "else"]), values)
def test_hyperparameters(key, value):
    result(load_hyp, {**HYP, key: value})


@bounded
@given(st.sampled_from([*SMALL, "else"]), values)
def test_model_descriptions(key, value):
    result(read_model_yaml, {**SMALL, key: value})


@bounded
@given(st.dictionaries(st.sampled_from(["path", "train", "val", "nc", "names", "hyp", "imgsz"]), values))
def test_data_yamls(tmp_path, content):
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    result(load_data_config, tmp_path / "data.yaml")


@bounded
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_as_yamls(tmp_path, content):
    (tmp_path / "any.yaml").write_bytes(content)
    for reader in (load_data_config, load_hyp, read_model_yaml):
        result(reader, tmp_path / "any.yaml")


sides = st.integers(1, 400)


@bounded
@given(sides, sides, st.integers(1, 10), st.booleans(), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_letterbox_and_back(height, width, cells, auto, corners):
    size = 32 * cells
    image, ratio_wh, pad_wh = letterbox(np.zeros((height, width, 3), np.uint8), size, auto=auto)
    assert max(image.shape[:2]) <= size
    left, right = sorted(corners[:2])
    top, bottom = sorted(corners[2:])
    original = np.array([[left * width, top * height, right * width, bottom * height]])
    placed = original * [*ratio_wh, *ratio_wh] + [*pad_wh, *pad_wh]
    back = scale_boxes(placed, from_hw=image.shape[:2], to_hw=(height, width), ratio_pad=(ratio_wh, pad_wh))
    np.testing.assert_allclose(back, original, atol=1e-6 * size + 1e-3)


@bounded
@given(sides, sides, st.lists(st.floats(0.25, 0.75), min_size=4, max_size=4))
def test_normalised_boxes_and_back(height, width, numbers):
    xywhn = np.array([[*numbers[:2], *(side / 2 for side in numbers[2:])]])
    back = xyxy2xywhn(xywhn2xyxy(xywhn, (height, width)), (height, width))
    np.testing.assert_allclose(back, xywhn, atol=1e-6)


numbers = st.floats(width=32) | st.sampled_from([float("nan"), float("inf"), -float("inf"), 3e38, 0.9, 100.0])


@bounded
@given(st.lists(st.lists(numbers, min_size=7, max_size=7), max_size=8), st.booleans(), st.booleans())
def test_suppression_of_anything(rows, multi_label, agnostic):
    predictions = torch.tensor(rows, dtype=torch.float32).reshape(1, -1, 7)
    before = predictions.clone()
    (kept,) = non_max_suppression(predictions, 0.1, 0.5, multi_label=multi_label, agnostic=agnostic, max_det=5)
    assert kept.shape[1] == 6
    assert len(kept) <= 5
    assert not kept.isnan().any()
    assert (kept[:, 4].diff() <= 0).all()
    assert torch.equal(predictions.nan_to_num(), before.nan_to_num())
