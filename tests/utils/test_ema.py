import pytest
import torch
from torch import nn

from utils.ema import ModelEma


def test_a_model_without_parameters():
    ema = ModelEma(nn.Identity())
    ema.update(nn.Identity())
    assert ema.updates == 1


def test_decay_agrees_with_the_reference(golden_json):
    table = golden_json("schedule")["ema_decay"]
    for updates, decay in table["values"].items():
        ema = ModelEma(nn.Identity(), table["base_decay"], table["tau"], updates=int(updates))
        assert ema.decay == pytest.approx(decay, abs=1e-9)


def test_trace_agrees_with_the_reference(golden_json, golden_npz):
    arrays = golden_npz("schedule")
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).double()

    def stored(prefix: str) -> dict:
        return {key.removeprefix(prefix): torch.from_numpy(arrays[key]) for key in arrays if key.startswith(prefix)}

    model.load_state_dict(stored("ema/model_0/"))
    ema = ModelEma(model)
    for step in range(1, 6):
        model.load_state_dict(stored(f"ema/model_{step}/"))
        ema.update(model)
        expected, got = stored(f"ema/ema_{step}/"), ema.ema.state_dict()
        assert expected.keys() == got.keys()
        for key in expected:
            torch.testing.assert_close(got[key], expected[key], rtol=0, atol=1e-9)
    assert ema.updates == golden_json("schedule")["ema_trace"]["updates_after"]


def test_temperatures_are_copied_and_the_model_is_left_alone():
    model = nn.Linear(2, 1)
    model.register_buffer("temperature", torch.tensor(34.0))
    model.train()
    ema = ModelEma(model)
    model.temperature.fill_(1.0)
    with torch.no_grad():
        model.weight.add_(1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ema.update(model)
    assert ema.ema.temperature == 1
    assert not torch.equal(ema.ema.weight, model.weight)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert model.weight.requires_grad
    assert not ema.ema.training
    assert not ema.ema.weight.requires_grad


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_agrees_with_the_formula_in_float32(layout):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)).to(memory_format=layout)
    ema = ModelEma(model, updates=5000)
    expected = {key: value.double() for key, value in model.state_dict().items()}
    for _ in range(3):
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape))
        ema.update(model)
        for key, value in model.state_dict().items():
            expected[key] = expected[key] * ema.decay + value.double() * (1 - ema.decay)
    for key, value in ema.ema.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[key], rtol=1e-6, atol=1e-6)
