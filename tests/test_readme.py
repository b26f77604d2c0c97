"""What README tells to do, done literally."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from models.common import dynamic_layers
from models.model_yaml import read_model_yaml
from models.yolo import DetectionModel
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(heading: str, kind: str) -> str:
    """The first block of a kind (bash, python, yaml) below a heading of README."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL)[1]


COMMANDS, ROWS = (block("From a tutorial's dynamic convolution to ours", kind) for kind in ("bash", "yaml"))


@pytest.mark.skipif(shutil.which("sed") is None, reason="the command needs sed")
def test_the_command_puts_a_dynamic_layer_into_a_model(tmp_path):
    command = COMMANDS.split("\n")[0].replace("> my_model.yaml", f"> {tmp_path}/my_model.yaml")
    subprocess.run(["sh", "-c", command], cwd=ROOT, check=True)
    model = DetectionModel(tmp_path / "my_model.yaml")
    assert [name for name, _ in dynamic_layers(model)] == ["model.10.conv"]


@pytest.mark.parametrize("row", yaml.safe_load(ROWS), ids=str)
def test_each_row_makes_a_layer_that_is_trained(row):
    cfg = read_model_yaml("yolov5n.yaml") | {"anchors": [[10, 13]]}
    cfg["backbone"] = [[-1, 1, "Conv", [64, 6, 2, 2]], row]
    cfg["head"] = [[[1], 1, "Detect", ["nc", "anchors"]]]
    model = DetectionModel(cfg)
    layers = dynamic_layers(model)
    assert layers
    sum(level.sum() for level in model(torch.rand(2, 3, 64, 64))).backward()
    assert all(layer.weight.grad.abs().sum() > 0 for _, layer in layers)


def done(arguments: list[str], clone: Path) -> str:
    """What the program says; its exit code must be 0. `python` is this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "TORCH_HOME": str(clone.parent)}
    answer = subprocess.run(arguments, cwd=clone, env=environment, capture_output=True, text=True, timeout=900)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer.stdout + answer.stderr


@pytest.mark.slow
def test_the_five_commands_and_the_python_api(clone):
    """In a fresh clone, one after the other, as they stand."""
    pytest.importorskip("onnxruntime", reason="the export needs requirements-export.txt")
    commands = block("Five commands", "bash").splitlines()
    assert len(commands) == 5
    told = [done(["sh", "-c", command], clone) for command in commands]
    weights = clone / "runs" / "train" / "exp" / "weights"
    assert {file.name for file in weights.iterdir()} >= {"best.pt", "last.pt", "best.onnx"}
    scores = [re.search(r"^ +all +200 +\d+ +(.*)$", told[number], re.M)[1].split() for number in (1, 4)]
    maps, exported_maps = ([float(cell) for cell in cells[2:]] for cells in scores)
    assert exported_maps == pytest.approx(maps, abs=5e-3)  # not on the same border: the file takes squares alone
    assert len(list((clone / "runs" / "detect" / "exp").glob("*.jpg"))) == 3
    lines = block("From Python", "python")
    assert len(lines.splitlines()) <= 12
    assert "confidence" in done([sys.executable, "-c", lines], clone)
    assert len(list((clone / "runs" / "detect" / "exp2").glob("*.jpg"))) == 2


def code_blocks(page: str) -> list[tuple[str, str]]:
    """(kind, code without its comments) of each block."""
    blocks = re.findall(r"^ *```(\w+)\n(.*?)^ *```", page, re.M | re.S)
    return [(kind, re.sub(r"(?:^|(?<=\s))#.*$", "", code, flags=re.M).replace(" ", "")) for kind, code in blocks]


def test_the_chinese_readme_has_the_same_commands():
    chinese = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    assert code_blocks(README)
    assert code_blocks(chinese) == code_blocks(README)
    links = [sorted(set(re.findall(r"\]\((docs/[\w./-]+|\w+\.\w+)", page))) for page in (README, chinese)]
    differing = {"README.md", "README.zh-CN.md", "docs/dynamic.zh-CN.md", "README.zh"}
    assert [link for link in links[1] if link not in differing] == [link for link in links[0] if link not in differing]
