"""CONTRIBUTING.md's how-to sections, done as they are written there."""

import dataclasses
import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models import common, yolo
from tests.conftest import ROOT
from utils import label_files, labels, loss
from utils.hyp import FIELDS, Hyp, load_hyp

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL).group(1)


def code_blocks(title: str) -> list[str]:
    """The Python in a section, without its indentation."""
    found = re.findall(r"```python\n(.*?)```", section(title), re.S)
    return [re.sub(r"^ {3}", "", code, flags=re.MULTILINE) for code in found]


@pytest.fixture
def gate(monkeypatch):
    """The class and the BLOCKS row of the text, in a copy of the table. Returns the YAML row."""
    text = section("How to add a block")
    source, row = code_blocks("How to add a block")
    namespace = {**vars(common), "BLOCKS": dict(yolo.BLOCKS), "Spec": yolo.Spec, "common": common}
    exec(compile(source, "CONTRIBUTING.md", "exec"), namespace)
    monkeypatch.setattr(common, "Gate", namespace["Gate"], raising=False)
    exec(compile(row, "CONTRIBUTING.md", "exec"), namespace)
    monkeypatch.setattr(yolo, "BLOCKS", namespace["BLOCKS"])
    return re.search(r"`\[-1, 1, (Gate), \[(\d+)\]\]`", text)


def test_a_block_is_added_as_the_text_says(gate):
    name, channels = gate.group(1), int(gate.group(2))
    cfg = {
        "nc": 2,
        "depth_multiple": 1.0,
        "width_multiple": 0.25,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [[-1, 1, "Conv", [channels, 3, 8]], [-1, 1, name, [channels]]],
        "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
    }
    model = yolo.DetectionModel(cfg)
    assert model.rows[1].type == name
    assert model.model[1].cv.conv.out_channels == channels // 4
    decoded, _ = model.eval()(torch.zeros(1, 3, 64, 64))
    assert decoded.shape == (1, 8 * 8 * 2, 7)
    assert torch.allclose(model.fuse()(torch.zeros(1, 3, 64, 64))[0], decoded, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- a loss term
@pytest.fixture
def loss_with_size():
    """utils/loss.py with the function of the text, and its line where the text puts it."""
    function, line = code_blocks("How to add a loss term")
    source = Path(loss.__file__).read_text(encoding="utf-8")
    before = re.search(r"^( +)box_loss.*\(1 - ciou\).*\n", source, re.M)
    changed = source[: before.end()] + before[1] + line + source[before.end() :] + "\n\n" + function
    namespace = {"__name__": loss.__name__}
    exec(compile(changed, "utils/loss.py", "exec"), namespace)
    return namespace["DetectionLoss"]


@pytest.mark.parametrize(("gain", "labels"), [(0.0, 1), (2.0, 0), (2.0, 1)])
def test_a_loss_term_is_added_as_the_text_says(gain, labels, loss_with_size):
    hyp = dataclasses.replace(load_hyp(ROOT / "data/hyps/hyp.scratch-low.yaml"), anchor_t=8.0)
    size = dataclasses.field(default=0.0, metadata=FIELDS["box"].metadata)
    sized = dataclasses.make_dataclass("SizedHyp", [("size", float, size)], bases=(Hyp,), frozen=True, kw_only=True)
    settings = {"nc": 2, "strides": torch.tensor([8.0])}
    anchors = torch.ones(1, 1, 2)  # cells
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.25]])[:labels]  # 4 x 2 cells of 8 x 8
    raw = [torch.zeros(1, 1, 8, 8, 7)]  # a sigmoid of 0.5 is a side of 1 anchor
    _, without = loss.DetectionLoss(anchors, hyp=hyp, **settings)(raw, targets)
    _, parts = loss_with_size(anchors, hyp=sized(**vars(hyp), size=gain), **settings)(raw, targets)
    expected = hyp.box * gain * labels * (math.log(4) + math.log(2)) / 2
    assert (parts - without).tolist() == pytest.approx([expected, 0, 0], abs=1e-6)


# ---------------------------------------------------------------------------------------------------- a data set format
@pytest.fixture
def json_labels(monkeypatch):
    """The parser of the text in the place of the one for text files, and label files with the suffix .json."""
    (source,) = code_blocks("How to add a data set format")
    namespace = {**vars(label_files), "json": json}
    exec(compile(source, "CONTRIBUTING.md", "exec"), namespace)
    monkeypatch.setattr(label_files, "parse_labels", namespace["parse_json"])
    monkeypatch.setattr(labels, "label_path", lambda image: str(Path(image).with_suffix(".json")))


def test_a_data_set_format_is_added_as_the_text_says(json_labels, tmp_path):
    for name, text in {"a": "[]", "b": "[[1, 0.5, 0.5, 0.2, 0.3]]", "c": "no JSON", "d": "[[0, 9, 0, 1, 1]]"}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((20, 20, 3), np.uint8))
        (tmp_path / f"{name}.json").write_text(text)
    index = labels.index_labels(labels.image_files(tmp_path), nc=2)
    assert index.rows.tolist() == [pytest.approx([1, 0.5, 0.5, 0.2, 0.3])]
    assert index.report.counts == label_files.Counts(found=4, empty=1, corrupt=2)
    assert "c.json: expected [[class, x, y, w, h], ...] in JSON" in index.summary()["unreadable label file"]
    assert "d.json: expected coordinates" in index.summary()["coordinates out of range"]


def test_what_the_steps_name_is_there():
    """Files that are there, and names of functions, classes and fields that are in one of these files."""
    for title in ("loss term", "data set format"):
        text = re.sub(r"```.*?```|`results.csv`", "", section(f"How to add a {title}"), flags=re.S)
        files = re.findall(r"`((?:utils|tests|docs)/[\w/]+\.\w+)`", text)
        assert files
        assert [name for name in files if not (ROOT / name).is_file()] == []
        sources = "".join((ROOT / name).read_text(encoding="utf-8") for name in files if name.endswith(".py"))
        names = [part for name in re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)`", text) for part in name.split(".")]
        assert len(names) > 3
        assert [name for name in names if not re.search(rf"\b{name}\b", sources)] == []


@pytest.mark.parametrize("title", ["block", "loss term", "data set format", "augmentation", "logger", "export format"])
def test_every_promised_how_to_is_there(title):
    article = "an" if title[0] in "aeiou" else "a"
    assert section(f"How to add {article} {title}").strip()
