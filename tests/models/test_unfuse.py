"""Files of fused networks: what they compute stays, with and without dynamic layers in the place of static ones."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.spread import spread_kernels
from models.unfuse import unfused
from models.weights import Checkpoint, build_model, transfer_weights
from models.yolo import DetectionModel
from tests.models.test_spread import with_random_statistics


@pytest.fixture(scope="module")
def static() -> DetectionModel:
    """A yolov5n whose normalisations do something."""
    torch.manual_seed(0)
    return with_random_statistics(DetectionModel("yolov5n.yaml", nc=2)).eval()


def fused_file(model: DetectionModel) -> Checkpoint:
    return Checkpoint(Path("fused.pt"), "v6", model.yaml, model.names, deepcopy(model).fuse().state_dict())


@torch.no_grad()
def outputs(model: DetectionModel) -> Tensor:
    return model.eval()(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))[0]


@pytest.mark.parametrize("cfg", ["yolov5n.yaml", "yolov5n_dyconv.yaml", "yolov5n_c3dy.yaml", "yolov5n_c3dylast.yaml"])
def test_a_fused_static_network_starts_every_model_where_it_is(cfg, static, capfd):
    start, model = fused_file(static), DetectionModel(cfg, nc=2)
    spread = spread_kernels(model, start.state, noise=0, rng=np.random.default_rng(0))
    transfer_weights(model, Checkpoint(start.file, "v6", {}, {}, spread))
    torch.testing.assert_close(outputs(model), outputs(static), rtol=1e-5, atol=1e-4)
    assert "57 convolutions were saved without their batch normalisations" in capfd.readouterr().err


@pytest.mark.parametrize("cfg", ["yolov5n.yaml", "yolov5n_dyconv.yaml", "yolov5n_dynamic.yaml"])
def test_a_fused_network_can_be_built_again(cfg):
    model = DetectionModel(cfg, nc=2)
    torch.testing.assert_close(outputs(build_model(fused_file(model))), outputs(model), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("cfg", ["yolov5n.yaml", "yolov5n_dyconv.yaml", "yolov5s.yaml"])
def test_what_is_not_fused_or_does_not_fit_stays(cfg, static, capfd):
    model = DetectionModel(cfg, nc=2)
    for state in ({}, model.state_dict(), static.state_dict(), DetectionModel("yolov5m.yaml").fuse().state_dict()):
        same = unfused(state, model)
        assert list(same) == list(state)
        assert all(same[name] is state[name] for name in state)
    assert "fuse()" not in capfd.readouterr().err
