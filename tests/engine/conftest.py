"""A tiny dynamic model and tiny pictures that whole trainings run on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import train
from tests.tiny import CFG


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """Eight training and four validation pictures of 64 px with a bright square (class 0) or bar (class 1) each."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for number in range(count):
            cls, (x, y) = number % 2, rng.integers(4, 30, 2)
            w, h = ((20, 20), (28, 10))[cls]
            picture = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            picture[y : y + h, x : x + w] = 220
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), picture)
            row = f"{cls} {(x + w / 2) / 64} {(y + h / 2) / 64} {w / 64} {h / 64}\n"
            (root / "labels" / split / f"{number}.txt").write_text(row)
    described = {"path": str(root), "train": "images/train", "val": "images/val", "nc": 2, "names": ["square", "bar"]}
    (root / "data.yaml").write_text(yaml.safe_dump(described))
    (root / "model.yaml").write_text(yaml.safe_dump(CFG))
    return {"data": str(root / "data.yaml"), "cfg": str(root / "model.yaml")}


@pytest.fixture
def tiny(data, tmp_path):
    """tiny(epochs=1, ...) trains on the shapes into a fresh directory and returns that directory."""

    def run(**options) -> Path:
        defaults = {"imgsz": 64, "batch_size": 4, "epochs": 1, "workers": 0, "device": "cpu", "noplots": True}
        project = tmp_path / "runs"
        train.run(**{**data, **defaults, "project": str(project), "name": "exp", "exist_ok": True, **options})
        return project / options.get("name", "exp")

    return run
