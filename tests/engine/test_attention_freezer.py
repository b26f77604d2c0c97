"""The static twin of a dynamic network: its attention is the images' mean, and its cost is told."""

from pathlib import Path

import pytest
import torch

from engine import attention_freezer
from engine.attention_freezer import frozen_twin
from models.common import dynamic_layers, set_temperature
from models.weights import inference_model, read_checkpoint
from models.yolo import DetectionModel
from utils.data_config import load_data_config
from utils.errors import InputError


@pytest.fixture
def model(data):
    """The tiny dynamic model, untrained."""
    torch.manual_seed(0)
    model = DetectionModel(data["cfg"], names=["square", "bar"]).eval()
    set_temperature(model, 1)
    return model


def freeze(model, data, **options):
    config = load_data_config(data["data"])
    return frozen_twin(model, config, imgsz=64, batch_size=4, workers=0, file=Path("best.pt"), **options)


def test_an_attention_that_never_changes_costs_nothing(model, data, capsys):
    for _, layer in dynamic_layers(model):
        layer.attention.fc2.weight.data.zero_()  # even, whatever the image
    twin = freeze(model, data)
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(twin.model(images)[0], model(images)[0], atol=1e-3, rtol=1e-4)
    assert not dynamic_layers(twin.model)
    assert twin.facts()["map_dynamic"] == twin.facts()["map_frozen"]
    assert twin.images == 8
    told = capsys.readouterr().err
    assert "Frozen attention, mean of 8 training images of data.yaml: mAP50-95 " in told
    assert "no difference shown (95 % of 1000 resamples of 4 images)" in told


def test_it_is_the_mean_over_the_images(model, data, monkeypatch):
    alone = freeze(model, data)
    monkeypatch.setattr(attention_freezer, "CALIBRATION_IMAGES", 8)
    same = freeze(model, data)
    monkeypatch.setattr(attention_freezer, "CALIBRATION_IMAGES", 3)
    fewer = freeze(model, data)
    (weight, same_weight, fewer_weight) = (twin.model.model[4].weight for twin in (alone, same, fewer))
    assert isinstance(alone.model.model[4], torch.nn.Conv2d)
    torch.testing.assert_close(weight, same_weight)
    assert not torch.equal(weight, fewer_weight)
    assert fewer.images == 3


def test_the_cost_is_that_of_a_trained_model(tiny, data):
    weights = tiny(epochs=3) / "weights" / "best.pt"
    model = inference_model(read_checkpoint(weights))
    twin = freeze(model, data)
    first, second = twin.scores.first, twin.scores.second
    assert (first.images, second.images) == (4, 4)
    assert twin.scores.change.map.value == pytest.approx(second.map - first.map, abs=1e-9)


def test_what_cannot_be_frozen_is_told(model, data, tmp_path):
    with pytest.raises(InputError, match=r"best\.pt has no dynamic layer"):
        freeze(DetectionModel("yolov5n.yaml", nc=2), data)
    other = tmp_path / "data.yaml"
    other.write_text(Path(data["data"]).read_text().replace("nc: 2", "nc: 1").replace("- bar\n", ""))
    with pytest.raises(InputError, match=r"best\.pt knows 2 classes"):
        freeze(model, {"data": other})
