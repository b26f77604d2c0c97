"""A frozen network is the dynamic one, seen under one attention."""

import pytest
import torch

from models.attention_probe import AttentionProbe
from models.blocks_dynamic import Dynamic_conv2d
from models.common import dynamic_layers
from models.frozen import frozen_copy, mixed_convolution
from models.yolo import DetectionModel


def test_a_static_model_is_copied_as_it_is():
    model = DetectionModel("yolov5n.yaml", nc=2).eval()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(frozen_copy(model, {})(images)[0], model(images)[0])


@pytest.mark.parametrize(
    ("options", "x_shape"),
    [
        ({"kernel_size": 1}, (1, 6, 5, 4)),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, (1, 6, 8, 8)),
        ({"kernel_size": 3, "dilation": 2, "groups": 2, "bias": False}, (1, 6, 9, 9)),
        ({"kernel_size": 1, "K": 3}, (1, 6, 1, 1)),
    ],
)
def test_a_layer_frozen_at_a_sample_s_attention_treats_it_alike(options, x_shape):
    torch.manual_seed(0)
    layer = Dynamic_conv2d(6, 8, ratio=1, temperature=1, **options)
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    x = torch.rand(x_shape)
    with torch.no_grad():
        plain = mixed_convolution(layer, layer.attention(x)[0])
        torch.testing.assert_close(plain(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cfg", ["yolov5n_dynamic.yaml", "yolov5n_dyconv.yaml", "yolov5n_c3dy.yaml"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_network_frozen_at_an_image_s_attention_sees_it_alike(cfg, fused):
    torch.manual_seed(0)
    model = DetectionModel(cfg, nc=2).eval()
    model = model.fuse() if fused else model
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), AttentionProbe(model) as probe:
        expected = model(images)[0]
        twin = frozen_copy(model, {name: rows[0] for name, rows in probe.take().items()})
        torch.testing.assert_close(twin(images)[0], expected, atol=1e-3, rtol=1e-4)
    assert not dynamic_layers(twin)
    assert dynamic_layers(model)


def test_a_missing_attention_is_an_error():
    with pytest.raises(KeyError):
        frozen_copy(DetectionModel("yolov5n_dynamic.yaml", nc=2), {})
