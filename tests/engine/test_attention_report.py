"""The report against a network whose attention is known."""

import csv

import numpy as np
import pytest
import torch
from torch import nn

from engine.attention_report import AttentionReport
from engine.validator import validate
from models.common import Dynamic_conv2d
from models.runtime_torch import TorchBackend
from utils.callbacks import Callbacks
from utils.dataloaders import Batch
from utils.errors import InputError

NAMES = {0: "dark", 1: "light"}


class Bright(nn.Module):
    """Detects nothing; its one dynamic layer turns to kernel 0 in light images and to kernel 1 in dark ones. passes:
    how often an image goes through it."""

    names = NAMES
    stride = torch.tensor([32.0])

    def __init__(self, passes=1):
        super().__init__()
        self.layer, self.passes = Dynamic_conv2d(3, 2, 1, K=2, temperature=1), passes
        self.layer.attention.fc1.weight.data = torch.ones(2, 3, 1, 1)
        self.layer.attention.fc2.weight.data = torch.tensor([[2.0, 2], [-2, -2]])[..., None, None]

    def forward(self, images):
        for number in range(self.passes):
            self.layer(images - 0.5 * (number > 0))
        return torch.zeros(len(images), 1, 7), []


def batch(*greys):
    """Grey images with a label each, of class 1 where they are light."""
    images = torch.stack([torch.full((3, 32, 32), grey, dtype=torch.uint8) for grey in greys])
    targets = torch.tensor([[i, float(grey > 99), 0.5, 0.5, 0.5, 0.5] for i, grey in enumerate(greys)]).reshape(-1, 6)
    shapes = tuple(((32, 32), ((1.0, 1.0), (0.0, 0.0))) for _ in greys)
    return Batch(images, targets, tuple(f"{i}.jpg" for i in range(len(greys))), shapes)


def reported(model, batches):
    report, callbacks = AttentionReport(model, NAMES), Callbacks()
    callbacks.register_all(report)
    validate(TorchBackend(model), batches, names=NAMES, callbacks=callbacks)
    return report


def test_a_static_model_is_told():
    with pytest.raises(InputError, match="has no dynamic layer"):
        AttentionReport(nn.Conv2d(3, 3, 1), NAMES)


@pytest.mark.parametrize("passes", [1, 2])
def test_each_image_is_recorded_once(passes):
    model = Bright(passes)
    (layer,) = reported(model, [batch(0, 255), batch(0)]).layers()
    lightness = torch.tensor([0.0, 1, 0])
    logits = torch.stack((lightness, -lightness), 1) * 4 * 3  # two hidden units, each the sum of three channels
    np.testing.assert_allclose(layer.attention, torch.softmax(logits, 1), atol=1e-6)
    assert layer.name == "layer"
    assert not any(module._forward_hooks for module in model.modules())


def test_files_and_log(tmp_path, capsys):
    model = Bright()
    reported(model, [batch(*([0, 255] * 5)), batch(0, 255)]).write(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"attention.png", "attention.csv"}
    with open(tmp_path / "attention.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    means = {(row["name"], row["kernel"]): float(row["mean"]) for row in rows}
    assert means["light", "0"] == pytest.approx(1, abs=1e-6)
    assert means["dark", "0"] == pytest.approx(0.5)
    told = capsys.readouterr().err
    assert "layer layer: entropy 0.50 of 1, " in told  # one half of the images has 1, the other 0
    assert "(100 % of it with the classes): specialised" in told
    assert "temperature" not in told


def test_a_high_temperature_is_told(tmp_path, capsys):
    model = Bright()
    model.layer.attention.set_temperature(34)
    reported(model, [batch(0, 255)]).write(tmp_path)
    assert "temperature is 34" in capsys.readouterr().err


def test_no_image(tmp_path):
    reported(Bright(), []).write(tmp_path)
    assert (tmp_path / "attention.png").exists()
