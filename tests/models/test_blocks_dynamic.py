import copy

import pytest
import torch
from torch import nn

from models.common import DyConv, Dynamic_conv2d, attention2d, dynamic_layers, set_temperature
from utils.errors import InputError

GOLDEN = [
    "k1_yaml_style",
    "k1_default",
    "k3_pad1",
    "k3_s2_pad1_nobias_K8",
    "k5_pad2_K2_t31",
    "k3_dil2_pad2_t1_ratio1",
    "in3_special",
    "in3_special_K2_ratio1",
    "groups2_k3_pad1",
    "groups4_k1_ratio1_nobias",
    "depthwise_k3_s2",
    "batch1_k3",
]
GRADIENTS = {"weight": "weight", "bias": "bias", "attention.fc1.weight": "fc1", "attention.fc2.weight": "fc2"}


def test_every_golden_case_is_listed(golden_json):
    assert list(golden_json("dynamic_conv2d")) == GOLDEN


def golden_layer(case, golden_json, golden_npz):
    facts, arrays = golden_json("dynamic_conv2d")[case], golden_npz("dynamic_conv2d")
    stored = {key.removeprefix(f"{case}/"): torch.from_numpy(array) for key, array in arrays.items()}
    layer = Dynamic_conv2d(**facts["args"])
    weights = {name: stored.get(name, stored.get(f"sd/{name}")) for name in facts["param_shapes"]}
    layer.load_state_dict(weights)  # strict, and a published state dict knows no temperature
    return layer, stored


@pytest.mark.parametrize("case", GOLDEN)
def test_published_layer_in_float64(case, golden_json, golden_npz):
    layer, stored = golden_layer(case, golden_json, golden_npz)
    layer.double()
    x = stored["x"].double().requires_grad_()
    out = layer(x)
    torch.testing.assert_close(out, stored["out64"], rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.attention(x), stored["attention64"], rtol=0, atol=1e-10)
    (out * stored["cotangent"].double()).sum().backward()
    torch.testing.assert_close(x.grad, stored["grad64_x"], rtol=0, atol=1e-10)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, stored[f"grad64_{GRADIENTS[name]}"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", GOLDEN)
def test_published_layer_in_float32(case, golden_json, golden_npz):
    layer, stored = golden_layer(case, golden_json, golden_npz)
    torch.testing.assert_close(layer(stored["x"]), stored["out32"], rtol=0, atol=1e-4)
    torch.testing.assert_close(layer.attention(stored["x"]), stored["attention32"], rtol=0, atol=1e-5)


# in_planes, ratio, K -> hidden
HIDDEN = [
    (1, 0.25, 4, 1),
    (3, 0.25, 4, 4),
    (3, 1, 2, 2),
    (2, 0.25, 4, 1),
    (16, 0.25, 4, 4),
    (16, 1, 4, 16),
    (10, 0.25, 4, 2),
]


@pytest.mark.parametrize(("in_planes", "ratio", "kernels", "hidden"), HIDDEN)
def test_hidden_width(in_planes, ratio, kernels, hidden):
    attention = attention2d(in_planes, ratio, kernels, 34)
    assert attention.fc1.weight.shape == (hidden, in_planes, 1, 1)
    assert attention.fc2.weight.shape == (kernels, hidden, 1, 1)
    assert attention.fc1.bias is None
    assert attention.fc2.bias is None


def test_start_values():
    torch.manual_seed(0)
    layer = Dynamic_conv2d(64, 32, 3)
    assert layer.bias.abs().max() == 0
    fan_in_bound = (6 / (64 * 9)) ** 0.5  # Kaiming uniform of each kernel
    assert 0.95 * fan_in_bound < layer.weight.abs().max() <= fan_in_bound
    assert float(layer.attention.fc1.weight.detach().std()) == pytest.approx(
        (2 / 16) ** 0.5, rel=0.1
    )  # Kaiming normal, fan out
    assert layer.attention.temperature == 34


def test_without_start_values_kernels_are_standard_normal():
    layer = Dynamic_conv2d(8, 4, 3, init_weight=False)
    assert float(layer.weight.detach().std()) == pytest.approx(1, rel=0.2)


def test_one_kernel_is_a_plain_convolution():
    layer = Dynamic_conv2d(6, 4, 3, padding=1, K=1)
    x = torch.randn(2, 6, 5, 5)
    expected = torch.nn.functional.conv2d(x, layer.weight[0], layer.bias[0], padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("c1", "c2", "groups"), [(6, 4, 4), (4, 6, 4)])
def test_groups_that_do_not_divide(c1, c2, groups):
    with pytest.raises(InputError, match=f"groups={groups}"):
        Dynamic_conv2d(c1, c2, 1, groups=groups)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_a_float32_softmax(dtype):
    torch.manual_seed(0)
    layer = Dynamic_conv2d(16, 8, 1, temperature=1)
    x = torch.randn(2, 16, 4, 4)
    expected = layer(x)
    low, low_x = copy.deepcopy(layer).to(dtype), x.to(dtype)
    attention = low.attention(low_x)
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention.sum(1), torch.ones(2), rtol=0, atol=1e-6)
    assert low(low_x).dtype == dtype
    torch.testing.assert_close(low(low_x).float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("k", [1, 3])
def test_autocast(k):
    torch.manual_seed(0)
    layer = Dynamic_conv2d(16, 8, k, padding=k // 2)
    x = torch.randn(2, 16, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        assert layer.attention(x).dtype == torch.float32
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("k", [1, 3])
def test_channels_last_model_and_image(k):
    layer = Dynamic_conv2d(8, 6, k, padding=k // 2)
    x = torch.randn(2, 8, 5, 7)
    expected = layer(x)
    layer.to(memory_format=torch.channels_last)
    assert layer.weight.shape == (4, 6, 8, k, k)
    out = layer(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


def test_a_deep_copy_is_independent():
    layer = Dynamic_conv2d(8, 6, 1)
    twin = copy.deepcopy(layer)
    twin.update_temperature()
    with torch.no_grad():
        twin.weight.zero_()
    assert layer.attention.temperature == 34
    assert twin.attention.temperature == 31
    assert layer.weight.abs().sum() > 0


def test_temperature_is_saved_and_loaded():
    layer = Dynamic_conv2d(8, 6, 1)
    set_temperature(layer, 7)
    state = layer.state_dict()
    assert state["attention.temperature"] == 7
    fresh = Dynamic_conv2d(8, 6, 1)
    fresh.load_state_dict(state)
    assert fresh.attention.temperature == 7


@pytest.mark.parametrize("missing", ["weight", "attention.fc1.weight"])
def test_only_the_temperature_may_be_missing(missing):
    layer = Dynamic_conv2d(8, 6, 1, temperature=10)
    state = {key: value for key, value in layer.state_dict().items() if "temperature" not in key}
    layer.load_state_dict(state)
    assert layer.attention.temperature == 10
    del state[missing]
    with pytest.raises(RuntimeError, match=missing):
        layer.load_state_dict(state)


def test_loading_leaves_the_state_dict_alone():
    layer = nn.Sequential(Dynamic_conv2d(8, 6, 1))
    state = {key: value for key, value in layer.state_dict().items() if "temperature" not in key}
    keys = list(state)
    layer.load_state_dict(state)
    assert list(state) == keys


def test_steps_of_the_temperature():
    attention = attention2d(8, 0.25, 4, 34)
    seen = []
    for _ in range(13):
        seen.append(float(attention.temperature))
        attention.update_temperature()
    assert seen == [34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1, 1]


def test_a_step_stops_at_one():
    attention = attention2d(8, 0.25, 4, 2.5)
    attention.update_temperature()
    assert attention.temperature == 1


@pytest.mark.parametrize("value", [0, -3, float("nan")])
def test_impossible_temperatures(value):
    with pytest.raises(InputError, match="temperature"):
        set_temperature(Dynamic_conv2d(8, 6, 1), value)


def test_temperature_evens_out_the_attention():
    torch.manual_seed(0)
    attention, x = attention2d(16, 1, 4, 1), torch.randn(2, 16, 3, 3) * 4
    sharp = attention(x).amax(1)
    attention.set_temperature(1e6)
    assert (attention(x).amax(1) < sharp).all()
    torch.testing.assert_close(attention(x), torch.full((2, 4), 0.25), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "names"),
    [(nn.Conv2d(1, 1, 1), []), (Dynamic_conv2d(8, 6, 1), [""]), (nn.Sequential(DyConv(8, 8), nn.ReLU()), ["0.conv"])],
)
def test_finding_dynamic_layers(model, names):
    assert [name for name, _ in dynamic_layers(model)] == names
    set_temperature(model, 5)
    assert all(layer.attention.temperature == 5 for _, layer in dynamic_layers(model))


def test_its_text_names_the_shape():
    assert "8, 6, kernel_size=3, stride=2, padding=1" in repr(Dynamic_conv2d(8, 6, 3, stride=2, padding=1))
