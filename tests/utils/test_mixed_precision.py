"""Whether 16 bits are told from arithmetic that has gone wrong, and what the question leaves untouched."""

import pytest
import torch
from torch import Tensor, nn

from models.weights import build_model, read_checkpoint
from models.yolo import DetectionModel
from tests.tiny import CFG
from utils import mixed_precision
from utils.mixed_precision import TOLERANCE, checked_amp_dtype, disagreement, sample_images

HALVES = [torch.bfloat16, torch.float16]


class Layers(nn.Module):
    """A network of the given layers, as DetectionModel has them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class WrongInHalf(nn.Conv2d):
    """A convolution that autocast makes wrong, as a faulty kernel of a device would."""

    fault = 0.0

    def forward(self, x: Tensor) -> Tensor:
        result = super().forward(x)
        return result * (1 + self.fault) if torch.is_autocast_enabled("cpu") else result


def wrong(fault: float) -> Layers:
    torch.manual_seed(0)
    layer = WrongInHalf(3, 8, 3)
    layer.fault = fault
    return Layers(nn.Conv2d(3, 3, 3), layer, nn.Conv2d(8, 4, 1))


def network(name: str, shared) -> nn.Module:
    if name.endswith(".pt"):
        return build_model(read_checkpoint(shared(f"weights/{name}")))
    torch.manual_seed(0)
    return DetectionModel(CFG if name == "tiny" else name, nc=3)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", ["tiny", "yolov5n_dyconv.yaml", "yolov5n6.yaml", "yolov5n.pt"])
def test_rounding_is_tolerated_with_room_to_spare(name, dtype, shared):
    epsilons = disagreement(network(name, shared), sample_images(), dtype) / torch.finfo(dtype).eps
    assert 0 < epsilons < TOLERANCE / 2


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    ("fault", "low", "high"),
    [(0.0, 0.0, 0.01), (0.2, 0.15, 0.25), (-1.0, 0.95, 1.05), (float("inf"),) * 3, (float("nan"), *[float("inf")] * 2)],
)
def test_a_faulty_layer_is_measured(fault, low, high, dtype):
    assert low <= disagreement(wrong(fault), sample_images(), dtype) <= high


def test_what_float16_cannot_hold_is_infinitely_far_off():
    model = Layers(nn.Conv2d(3, 1, 1, bias=False))
    nn.init.constant_(model.model[0].weight, 1e5)  # beyond float16's 65504
    assert disagreement(model, sample_images(), torch.float16) == float("inf")
    assert disagreement(model, sample_images(), torch.bfloat16) < 0.01


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.Identity(), nn.Threshold(2.0, 0.0)], ids=str)
def test_neither_chance_nor_zeros_are_a_fault(layer):
    assert disagreement(Layers(layer), sample_images(), torch.bfloat16) == 0


def test_the_model_and_the_generators_are_left_alone():
    model = DetectionModel(CFG).eval()
    model(torch.zeros(1, 3, 64, 64))[0].sum().backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    disagreement(model, sample_images(), torch.bfloat16)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert gradients
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(map(torch.equal, gradients, after))
    assert not model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_the_sample_is_the_same_picture_each_time():
    images = sample_images()
    assert images.shape == (2, 3, 256, 256)
    assert torch.equal(images, sample_images())
    assert (images.min() >= 0, images.max() <= 1) == (True, True)


@pytest.mark.parametrize(
    ("dtype", "fault", "chosen", "told"),
    [
        (None, 0.2, None, ""),
        (torch.bfloat16, 0.0, torch.bfloat16, ""),
        (torch.bfloat16, 0.2, None, "Training in float32: in bfloat16 a layer's results are 0.2 of their size away"),
        (torch.float16, float("nan"), None, "Training in float32: in float16 a layer's results are inf of their size"),
    ],
)
def test_a_device_that_computes_wrongly_trains_in_float32(dtype, fault, chosen, told, monkeypatch, capfd):
    monkeypatch.setattr(mixed_precision, "amp_dtype", lambda device: dtype)
    assert checked_amp_dtype(wrong(fault)) == chosen
    log = capfd.readouterr().err
    assert told in log
    assert bool(log) == bool(told)
