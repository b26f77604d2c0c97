"""Networks replayed in TensorFlow, operation by operation, where it is installed."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from models.fixed_size import FixedSizeNetwork
from models.model_yaml import read_model_yaml
from models.yolo import DetectionModel
from utils.errors import InputError
from utils.files import ROOT

pytestmark = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="needs tensorflow: pip install -r requirements-tensorflow.txt"
)
HUB = sorted(path.name for path in (ROOT / "models" / "hub").glob("yolo*.yaml"))


def replayed(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    from models.tensorflow_ops import Value, replay, tf

    program = torch.export.export(module.eval(), (inputs,))
    return torch.from_numpy(replay(program, Value(tf.constant(inputs.numpy()))).numpy())


class Shapes(nn.Module):
    """What turns tensors around, of images and of others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.cat((x[:, 1:], x[:, :1], x[:, 0:3:2]), 1)[..., 1::2, :]
        b = a.transpose(1, 3).flatten(1, 2)
        one, other = b.chunk(2, dim=1)
        return (one - other).view(x.shape[0], -1) / 3


@pytest.mark.parametrize(
    "module",
    [
        Shapes(),
        nn.Conv2d(4, 6, (3, 1), stride=(1, 2), padding=(2, 0), dilation=(2, 1), groups=2),
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.SiLU(), nn.MaxPool2d(3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(2), nn.Upsample(None, 3, "nearest"), nn.ZeroPad2d((0, 1, 2, 3)), nn.Sigmoid()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.Softmax(1)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_operations(module):
    torch.manual_seed(0)
    inputs = torch.randn(2, 4, 8, 12)
    torch.testing.assert_close(replayed(module, inputs), module(inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (nn.Tanh(), "aten.tanh.default is not among"),
        (nn.AdaptiveAvgPool2d(2), "not one of size"),
        (nn.ReflectionPad2d(1), "not reflect"),
    ],
)
def test_what_it_cannot_do_is_told(module, told):
    with pytest.raises(InputError, match=told):
        replayed(module, torch.randn(1, 3, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("cfg", HUB)
def test_every_shipped_network(cfg):
    torch.manual_seed(0)
    shape = {"depth_multiple": 0.33, "width_multiple": 0.125}
    model = DetectionModel({**read_model_yaml(f"hub/{cfg}"), **shape}, nc=2).eval().fuse().requires_grad_(False)
    images = torch.rand(1, 128, 256, 3)
    found = replayed(FixedSizeNetwork(model, (128, 256), channels_last=True), images)
    torch.testing.assert_close(found, model(images.permute(0, 3, 1, 2))[0], atol=1e-2, rtol=1e-4)
