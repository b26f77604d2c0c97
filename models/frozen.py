"""A dynamic network's static twin: each dynamic convolution as one plain convolution, its kernels mixed once and for
all. Not for what that costs: engine/attention_freezer.py."""

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn

from models.blocks_dynamic import Dynamic_conv2d, dynamic_layers
from models.dynamic_ops import mix

ROW = ("i", "f", "type", "np")  # what parse_model says of a layer that is a row of the YAML
M = TypeVar("M", bound=nn.Module)


def frozen_copy(model: M, attention: Mapping[str, Tensor]) -> M:
    """A copy of the model with an nn.Conv2d in place of each Dynamic_conv2d: the mixture of its kernels and biases
    under attention[qualified name], (K,), which sums to 1. The model itself stays as it is. Raises KeyError where a
    layer's attention is missing."""
    twin = deepcopy(model)
    for name, layer in dynamic_layers(twin):
        parent, _, attribute = name.rpartition(".")
        conv = mixed_convolution(layer, attention[name])
        vars(conv).update({key: value for key, value in vars(layer).items() if key in ROW})
        setattr(twin.get_submodule(parent), attribute, conv)
    return twin


def mixed_convolution(layer: Dynamic_conv2d, attention: Tensor) -> nn.Conv2d:
    """The plain convolution that the layer is for every sample whose attention is the given one, (K,)."""
    conv = nn.Conv2d(
        layer.in_planes,
        layer.out_planes,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias is not None,
    ).to(layer.weight)
    row = attention.to(layer.weight).unsqueeze(0)  # (1, K)
    conv.weight.data = mix(layer.weight.detach(), row)[0]
    if layer.bias is not None and conv.bias is not None:
        conv.bias.data = mix(layer.bias.detach(), row)[0]
    return conv.train(layer.training).requires_grad_(layer.weight.requires_grad)
