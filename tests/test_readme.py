"""README's section on dynamic convolution, done literally."""

import re
import shutil
import subprocess

import pytest
import torch
import yaml

from models.common import dynamic_layers
from models.model_yaml import read_model_yaml
from models.yolo import DetectionModel
from tests.conftest import ROOT

SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("in your own YAML\n")[2].partition("\n## ")[0]
COMMANDS, ROWS = (re.search(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL)[1] for kind in ("bash", "yaml"))


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
