"""CONTRIBUTING.md's "How to add a block", done as it stands there."""

import re
from pathlib import Path

import pytest
import torch

from models import common, yolo

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL).group(1)


@pytest.fixture
def gate(monkeypatch):
    """The class and the BLOCKS row of the text, in a copy of the table. Returns the YAML row."""
    text = section("How to add a block")
    source, row = (
        re.sub(r"^ {3}", "", code, flags=re.MULTILINE) for code in re.findall(r"```python\n(.*?)```", text, re.S)
    )
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


@pytest.mark.parametrize("title", ["block", "loss term", "augmentation", "logger", "export format"])
def test_every_promised_how_to_is_there(title):
    article = "an" if title[0] in "aeiou" else "a"
    assert section(f"How to add {article} {title}").strip()
