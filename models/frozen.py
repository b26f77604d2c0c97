"""A dynamic network's static twin: each dynamic convolution becomes one plain convolution, whose kernel is a fixed
mixture. Not for which mixture that is and what it costs: engine/attention_freezer.py."""

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn

from models.blocks_dynamic import Dynamic_conv2d, dynamic_layers
from models.dynamic_ops import mix

ROW = ("i", "f", "type", "np")  # what parse_model adds to a layer that is a row of the YAML by itself
M = TypeVar("M", bound=nn.Module)


def frozen_copy(model: M, attention: Mapping[str, Tensor]) -> M:
    """A copy of the model with an nn.Conv2d in place of each Dynamic_conv2d.

    attention: {qualified name of the layer: (K,), summing to 1}, the weights with which its kernels and biases are
    mixed. Raises KeyError where a layer's is missing.
    """
    twin = deepcopy(model)
    for name, layer in dynamic_layers(twin):
        replace_layer_(twin, name, mixed_convolution(layer, attention[name]))
    return twin


def replace_layer_(model: nn.Module, name: str, replacement: nn.Module) -> None:
    """Puts another layer in the place of the one of that qualified name, in place. It takes over what parse_model has
    added to a layer."""
    layer = model.get_submodule(name)
    vars(replacement).update({key: value for key, value in vars(layer).items() if key in ROW})
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, replacement)


def mixed_convolution(layer: Dynamic_conv2d, attention: Tensor) -> nn.Conv2d:
    """The plain convolution that computes what the layer does for a sample with this attention, (K,)."""
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
