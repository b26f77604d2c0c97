"""The table of formats: which rows it has, and that it is measured to the end."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from benchmarks.formats import HEAD, PYTORCH, parse_opt, table, variants
from engine import comparer
from models.weights import save_checkpoint
from models.yolo import DetectionModel


def test_rows_of_the_wanted_formats(capsys):
    assert [variant.label for variant in variants(["torchscript"])] == [PYTORCH, f"{PYTORCH} --half", "torchscript"]
    assert "left out" not in capsys.readouterr().err


def test_formats_that_cannot_be_made_here_are_told(monkeypatch, capsys):
    from utils import extras

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert "onnx" not in [variant.format for variant in variants([])]
    assert "onnx is left out: --include onnx needs onnx and onnxruntime" in capsys.readouterr().err


def test_a_whole_table(tmp_path: Path, monkeypatch):
    for name, value in {"WARMUP_ROUNDS": 1, "ROUNDS": 2, "FEWEST_ROUNDS": 1}.items():
        monkeypatch.setattr(comparer, name, value)
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images" / "val" / "0.png"), np.full((48, 64, 3), 60, np.uint8))
    (tmp_path / "labels" / "val" / "0.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    data = tmp_path / "my.yaml"
    data.write_text(yaml.safe_dump({"path": str(tmp_path), "val": "images/val", "nc": 2, "names": ["a", "b"]}))
    save_checkpoint(tmp_path / "best.pt", model=DetectionModel("yolov5n.yaml", nc=2, names=["a", "b"]))
    command = ["--weights", str(tmp_path / "best.pt"), "--data", str(data), "--imgsz", "64", "--rounds", "3"]
    lines = table(parse_opt([*command, "--include", "torchscript"]), tmp_path).splitlines()
    assert lines[:2] == HEAD.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[0] for row in cells] == [PYTORCH, f"{PYTORCH} --half", "torchscript"]
    assert cells[0][5] == "1.00 (1.00-1.00)"
    assert float(cells[2][1]) == pytest.approx(
        (tmp_path / "torchscript" / "best.torchscript").stat().st_size / 1e6, abs=0.05
    )
    assert cells[0][2] == cells[2][2]  # mAP
