import pytest
import torch

from models.attention_probe import AttentionProbe
from models.common import DyConv, Dynamic_conv2d, set_temperature
from models.yolo import DetectionModel


def pair():
    """Two dynamic layers with 4 and 2 kernels."""
    return torch.nn.Sequential(Dynamic_conv2d(8, 6, 1), DyConv(6, 4, 3, K=2)).eval()


def test_a_static_model_has_nothing_to_record():
    model = torch.nn.Conv2d(3, 4, 1)
    with AttentionProbe(model) as probe:
        model(torch.rand(1, 3, 4, 4))
    assert (probe.layers, probe.take(), probe.kernels(), probe.temperatures()) == ({}, {}, {}, {})


@pytest.mark.parametrize("batches", [[], [1], [2, 3]])
def test_all_samples_are_recorded_in_order(batches):
    model = pair()
    inputs = [torch.randn(size, 8, 5, 5) for size in batches]
    with AttentionProbe(model) as probe, torch.inference_mode():
        for x in inputs:
            model(x)
    taken = probe.take()
    assert [tuple(rows.shape) for rows in taken.values()] == [(sum(batches), 4), (sum(batches), 2)]
    if inputs:
        torch.testing.assert_close(taken["0"], model[0].attention(torch.cat(inputs)))
    assert len(probe.take()["0"]) == 0  # what was taken is forgotten


def test_the_model_is_left_as_it_was():
    model, x = pair(), torch.randn(2, 8, 5, 5)
    before = model(x)
    probe = AttentionProbe(model)
    with probe:
        torch.testing.assert_close(model(x), before, rtol=0, atol=0)
        with pytest.raises(RuntimeError, match="attached already"):
            probe.attach()
    model(x)
    assert len(probe.take()["0"]) == 2
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ZeroDivisionError), probe:
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())


def test_kernels_and_temperatures():
    model = pair()
    set_temperature(model, 7)
    probe = AttentionProbe(model)
    assert probe.temperatures() == {"0": 7, "1.conv": 7}
    kernels = probe.kernels()
    assert {name: tuple(rows.shape) for name, rows in kernels.items()} == {"0": (4, 48), "1.conv": (2, 216)}
    torch.testing.assert_close(kernels["0"][2], model[0].weight[2].flatten())


def test_half_precision_is_recorded_as_float32():
    layer = Dynamic_conv2d(8, 6, 1).bfloat16()
    with AttentionProbe(layer) as probe:
        layer(torch.randn(2, 8, 5, 5).bfloat16())
    assert probe.take()[""].dtype == torch.float32


def test_the_layers_of_a_yaml():
    model = DetectionModel("yolov5n_dyconv.yaml", nc=2).eval().fuse()
    with AttentionProbe(model) as probe:
        model(torch.rand(2, 3, 64, 64))
    taken = probe.take()
    assert list(taken) == ["model.10.conv", "model.14.conv"]
    for rows in taken.values():
        torch.testing.assert_close(rows.sum(1), torch.ones(2))
