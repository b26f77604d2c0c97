"""docs/python.md, done literally."""

import re
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageShow

from models.weights import save_checkpoint
from models.yolo import DetectionModel
from tests.conftest import ROOT

DOCUMENT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def lay_out_untrained(folder, shared):
    """Weights that know nothing, and pictures of nothing."""
    save_checkpoint(folder / "best.pt", model=DetectionModel("yolov5n.yaml"), epoch=0)
    (folder / "yolov5n.pt").symlink_to("best.pt")
    for name, size_wh in (("bus.jpg", (81, 108)), ("zidane.jpg", (128, 72))):
        Image.new("RGB", size_wh, (90, 120, 60)).save(folder / name)


def lay_out_published(folder, shared):
    """The published weights and photographs."""
    for name in ("best.pt", "yolov5n.pt"):
        (folder / name).symlink_to(shared("weights/yolov5n.pt"))
    for name in ("bus.jpg", "zidane.jpg"):
        (folder / name).symlink_to(shared(f"images/{name}"))


@pytest.fixture(params=[lay_out_untrained, lay_out_published])
def directory(request, tmp_path, monkeypatch, shared):
    """The directory that the document speaks of, as working directory."""
    request.param(tmp_path, shared)
    (tmp_path / "yolov5-dynamic").symlink_to(ROOT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


class FakeDetections:
    """Stands for supervision's, whether that is here or not."""

    def __init__(self, xyxy, confidence, class_id, data):
        self.count, self.data = len(xyxy), data

    def __len__(self):
        return self.count


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    """A viewer of images that shows nothing, and the package supervision."""
    monkeypatch.setattr(ImageShow, "show", lambda image, title: True)
    package = ModuleType("supervision")
    package.Detections = FakeDetections
    monkeypatch.setitem(sys.modules, "supervision", package)


def test_every_block_runs_after_those_before_it(directory, capsys):
    assert len(BLOCKS) > 8
    names = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert sorted(file.name for file in (directory / "runs/detect/exp").iterdir()) == ["bus.jpg", "zidane.jpg"]
    assert (directory / "holiday" / "bus.jpg").exists()
    assert names["decoded"].shape[2] == 10
    assert np.asarray(names["arrays"][0]).shape == np.asarray(Image.open("bus.jpg")).shape
    told = capsys.readouterr()
    if names["table"].size:
        assert "bus.jpg person 0.8" in told.out
        assert "4 persons, 1 bus" in told.err
