from collections.abc import Mapping
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.common import Dynamic_conv2d, dynamic_layers, set_temperature
from models.model_yaml import read_model_yaml
from models.spread import EPS, perturbed_copies, spread_kernels, static_convolution
from models.weights import Checkpoint, read_checkpoint, transfer_weights
from models.yolo import DetectionModel

STATIC = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 16, 30], [33, 23, 30, 61]],
    "backbone": [
        [-1, 1, "Conv", [8, 3, 4]],
        [-1, 2, "C3", [8]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "nn.Conv2d", [16, 16, 1]],
    ],
    "head": [[-1, 1, "Conv", [16, 3, 2]], [[3, 4], 1, "Detect", ["nc", "anchors"]]],
}


def with_rows(description: dict, changes: Mapping[int, tuple[str, list | None]]) -> dict:
    """The description with other blocks, and arguments where given, in some of its layers."""
    changed = deepcopy(description)
    rows = changed["backbone"] + changed["head"]
    for index, (block, arguments) in changes.items():
        rows[index][2] = block
        rows[index][3] = rows[index][3] if arguments is None else arguments
    return changed


def with_random_statistics(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def started(model: nn.Module, state: Mapping[str, Tensor], *, noise: float, seed: int = 0) -> nn.Module:
    """The model in eval mode with all that it can take from the state dict."""
    spread = spread_kernels(model, state, noise=noise, rng=np.random.default_rng(seed))
    transfer_weights(model, Checkpoint("static", "tensors", {}, {}, spread))
    return model.eval()


@pytest.fixture
def static() -> DetectionModel:
    torch.manual_seed(0)
    return with_random_statistics(DetectionModel(deepcopy(STATIC))).eval()


@pytest.fixture
def told(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("models.spread.LOGGER", SimpleNamespace(info=lines.append))
    return lines


@torch.no_grad()
def outputs(model: DetectionModel, side: int = 64) -> Tensor:
    return model(torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1)))[0]


DYNAMIC = {  # layers -> what they are called in the log
    "none": ({}, []),
    "dyconv": ({2: ("DyConv", None)}, ["model.2"]),
    "dyconv_last": ({4: ("DyConv", None)}, ["model.4"]),
    "c3dy": ({1: ("C3Dy", None)}, ["model.1.m.0.cv2", "model.1.m.1.cv2"]),
    "both": ({1: ("C3Dy", None), 2: ("DyConv", None)}, ["model.1.m.0.cv2", "model.1.m.1.cv2", "model.2"]),
    "for_a_bare_convolution": ({3: ("Dynamic_conv2d", [16, 1])}, ["model.3"]),
}


@pytest.mark.parametrize("fuse", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("case", DYNAMIC)
def test_without_noise_the_network_starts_as_the_static_one(case, fuse, static, told):
    changes, layers = DYNAMIC[case]
    model = started(DetectionModel(with_rows(STATIC, changes)), static.state_dict(), noise=0)
    expected = outputs(static)
    if fuse:
        model.fuse()
    torch.testing.assert_close(outputs(model), expected, rtol=0, atol=1e-4)
    assert told == ([f"Spread static kernels over K=4 in layers {', '.join(layers)} (noise 0)"] if layers else [])


@pytest.mark.parametrize("fuse", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("variant", ["dyconv", "c3dy"])
def test_official_weights_start_a_dynamic_network_where_they_are(variant, fuse, shared):
    state = read_checkpoint(shared("weights/yolov5n.pt")).state
    static = DetectionModel("models/yolov5n.yaml")
    static.load_state_dict(state)
    c3 = {index: ("C3Dy", None) for index in (6, 8)}
    cfg = {"dyconv": "models/yolov5n_dyconv.yaml", "c3dy": with_rows(read_model_yaml("models/yolov5n.yaml"), c3)}
    model = started(DetectionModel(cfg[variant]), state, noise=0)
    if fuse:
        model.fuse()
    expected, got = outputs(static.eval(), 128), outputs(model, 128)
    torch.testing.assert_close(got[..., 4:], expected[..., 4:], rtol=0, atol=1e-4)
    torch.testing.assert_close(got[..., :4], expected[..., :4], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("fused", [False, True], ids=["unfused source", "fused source"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_bare_layer_is_convolution_and_normalisation_without_activation(bias, fused, static, told):
    arguments = [16, 3, 0.25, 2, 1, 1, 1, bias]
    source = deepcopy(static).fuse() if fused else static
    model = DetectionModel(with_rows(STATIC, {2: ("Dynamic_conv2d", arguments)}))
    started(model, source.state_dict(), noise=0)
    x = torch.randn(2, 8, 9, 7)
    conv = source.model[2]
    with torch.no_grad():
        expected = conv._normalise(conv.conv(x))
        if not bias:
            shift = conv._normalise(conv.conv(torch.zeros(2, 8, 3, 3)))[:1, :, 1:, 1:]  # of no input
            expected = expected - shift
        torch.testing.assert_close(model.model[2](x), expected, rtol=0, atol=1e-4)
    assert told == [
        "Spread static kernels over K=4 in layers model.2 (noise 0)",
        "Bare layers model.2: batch normalisation is folded in, the SiLU after it is gone",
    ]


def test_an_even_attention_cancels_the_noise(static):
    model = DetectionModel(with_rows(STATIC, {1: ("C3Dy", None), 2: ("DyConv", None)}))
    set_temperature(model, 1)
    started(model, static.state_dict(), noise=0.1)
    expected = outputs(static)
    uneven = (outputs(model) - expected).abs().max()
    set_temperature(model, 1e6)
    assert (outputs(model) - expected).abs().max() < 1e-3 < uneven


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_copies(count):
    kernel = torch.randn(64, 32, 3, 3) * 0.2 + 0.1
    copies = perturbed_copies(kernel, count, noise=0.1, rng=np.random.default_rng(0))
    assert copies.shape == (count, 64, 32, 3, 3)
    assert copies.dtype == torch.float32
    torch.testing.assert_close(copies.mean(0), kernel, rtol=0, atol=1e-6)
    deviation = 0.1 * float(kernel.std()) if count > 1 else 0.0
    assert (copies - kernel).flatten(1).std(1).tolist() == pytest.approx([deviation] * count, rel=0.02)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 2, 1, 1)])
def test_copies_of_what_does_not_vary_are_equal(shape):
    copies = perturbed_copies(torch.ones(shape), 4, noise=0.1, rng=np.random.default_rng(0))
    assert torch.equal(copies, torch.ones(4, *shape))


def test_the_generator_decides_the_noise(static):
    description = with_rows(STATIC, {1: ("C3Dy", None)})
    first, same, other = (
        started(DetectionModel(description), static.state_dict(), noise=0.1, seed=seed) for seed in (0, 0, 1)
    )
    kernels = [[layer.weight for _, layer in dynamic_layers(model)] for model in (first, same, other)]
    assert all(map(torch.equal, kernels[0], kernels[1]))
    assert not any(map(torch.equal, kernels[0], kernels[2]))
    assert not torch.equal(kernels[0][0], kernels[0][1]), "each layer has noise of its own"


def test_the_attention_and_the_given_state_stay(static):
    model = DetectionModel(with_rows(STATIC, {2: ("DyConv", None)}))
    attention = deepcopy(model.model[2].conv.attention.state_dict())
    state = static.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    started(model, state, noise=0.1)
    assert all(map(torch.equal, attention.values(), model.model[2].conv.attention.state_dict().values()))
    assert list(state) == list(before)
    assert all(map(torch.equal, state.values(), before.values()))


def test_spread_tensors_are_counted(static):
    model = DetectionModel(with_rows(STATIC, {2: ("Dynamic_conv2d", [16, 3, 0.25, 2, 1])}))
    spread = spread_kernels(model, static.state_dict(), noise=0, rng=np.random.default_rng(0))
    taken, total = transfer_weights(model, Checkpoint("static", "tensors", {}, {}, spread))
    assert total - taken == 3  # fc1, fc2, temperature


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({2: ("DyConv", [16, 5, 2])}, {}),  # another kernel size
        ({2: ("DyConv", [24, 3, 2]), 3: ("nn.Conv2d", [24, 16, 1])}, {}),  # another width
        ({2: ("Dynamic_conv2d", [16, 3, 0.25, 2, 1])}, {2: ("DyConv", None)}),  # the source is dynamic too
        ({2: ("DyConv", None)}, {2: ("Dynamic_conv2d", [16, 3, 0.25, 2, 1])}),
    ],
)
def test_what_does_not_fit_is_not_spread(changes, source, told):
    state = DetectionModel(with_rows(STATIC, source)).state_dict()
    model = DetectionModel(with_rows(STATIC, changes))
    assert spread_kernels(model, state, noise=0.1, rng=np.random.default_rng(0)).keys() == state.keys()
    assert told == []


def test_a_dynamic_network_is_transferred_as_it_is(told):
    description = with_rows(STATIC, {1: ("C3Dy", None), 2: ("DyConv", None)})
    source = DetectionModel(description).eval()
    state = source.state_dict()
    spread = spread_kernels(DetectionModel(description), state, noise=0.1, rng=np.random.default_rng(0))
    assert all(spread[name] is state[name] for name in spread)
    torch.testing.assert_close(outputs(started(DetectionModel(description), state, noise=0.1)), outputs(source))
    assert told == []


def test_other_numbers_of_kernels_are_named(static, told):
    eight = [16, 3, 2, None, 1, True, 8]
    started(DetectionModel(with_rows(STATIC, {1: ("C3Dy", None), 2: ("DyConv", eight)})), static.state_dict(), noise=0)
    assert told == [
        "Spread static kernels over K=4 in layers model.1.m.0.cv2, model.1.m.1.cv2 (noise 0)",
        "Spread static kernels over K=8 in layers model.2 (noise 0)",
    ]


def test_groups_are_kept():
    layer, source = Dynamic_conv2d(8, 8, 3, groups=4), nn.Conv2d(8, 8, 3, groups=4)
    state = {f"a.{name}": tensor for name, tensor in source.state_dict().items()}
    found = static_convolution("a", layer, state)
    assert torch.equal(found.kernel, source.weight)
    assert torch.equal(found.bias, source.bias)
    assert static_convolution("a", Dynamic_conv2d(8, 8, 3), state) is None


def test_the_normalisations_of_a_network_have_the_constant_that_is_folded(static):
    assert {module.eps for module in static.modules() if isinstance(module, nn.BatchNorm2d)} == {EPS}
