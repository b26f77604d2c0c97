"""Limits for networks that strangers' YAMLs describe: how many parameters they may have, and how much memory and work
the first forward may take. Not for what a YAML may say, which models/model_yaml.py checks."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

MOST_PARAMETERS = 6 * 10**8  # 2.4 GB in float32; YOLOv5x6 has 140 million, four times as many with dynamic layers
MOST_TENSORS = 10_000  # YOLOv5x6 has 1,000
MOST_ELEMENTS = 2**26  # of the maps that a layer takes or gives at once: 256 MB
MOST_PRODUCTS = 2 * 10**11  # multiplications of a forward, which take seconds; YOLOv5x6 has 4e9 at 128 pixels


@contextmanager
def limited_parameters() -> Iterator[None]:
    """Raises RuntimeError inside as soon as the modules made there register too many parameters, before these are
    filled."""
    total = count = 0

    def add(_module: nn.Module, _name: str, parameter: Tensor | None) -> None:
        nonlocal total, count
        total, count = total + (0 if parameter is None else parameter.numel()), count + 1
        if total > MOST_PARAMETERS or count > MOST_TENSORS:
            raise RuntimeError(f"the network has more than {MOST_PARAMETERS:,} parameters or {MOST_TENSORS:,} layers")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def limited_forward(model: nn.Module) -> Iterator[None]:
    """Raises RuntimeError in a forward of the model inside, before a layer whose inputs or outputs would be too large
    or with which the work would be too much."""
    work = 0

    def check(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal work
        features = _maps(inputs)
        elements = sum(math.prod(_output_shape(module, item)) for item in features)
        work += sum(_products(module, item) for item in features)
        if max(elements, sum(item.numel() for item in features)) > MOST_ELEMENTS or work > MOST_PRODUCTS:
            raise RuntimeError("its maps are too large, or they take too long to compute")

    hooks = [module.register_forward_pre_hook(check) for module in model.modules()]
    try:
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _maps(inputs: tuple[Any, ...]) -> list[Tensor]:
    """The tensors among a layer's inputs, and in the lists among them."""
    listed = [item for given in inputs for item in (given if isinstance(given, list | tuple) else [given])]
    return [item for item in listed if isinstance(item, Tensor)]


def _largest(value: Any) -> int:
    """The largest absolute value of a number or of several, rounded up; 0 where it is neither."""
    numbers = value if isinstance(value, list | tuple) else [value]
    return math.ceil(max((abs(number) for number in numbers if isinstance(number, int | float)), default=0))


def _output_shape(module: nn.Module, features: Tensor) -> tuple[int, ...]:
    """The shape that the layer gives, or a larger one: told from the attributes that torch's layers have, without a
    forward."""
    if features.ndim != 4:
        return tuple(features.shape)
    batch, channels, *sides = features.shape
    border = 2 * _largest(getattr(module, "padding", 0))
    scale = max(_largest(getattr(module, "scale_factor", 1)), 1)
    if getattr(module, "transposed", False):
        scale, border = _largest(module.stride), _largest(module.kernel_size) * _largest(module.dilation)
    size = max(_largest(getattr(module, name, 0)) for name in ("size", "output_size"))
    sides = [max((side + border) * scale, size) for side in sides]
    if isinstance(module, nn.Linear):
        sides[-1] = module.out_features
    return (batch, getattr(module, "out_channels", channels), *sides)


def _products(module: nn.Module, features: Tensor) -> int:
    """The multiplications of a layer with weights, about; 0 for others."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2 or features.ndim != 4:
        return 0
    stride = 1 if getattr(module, "transposed", False) else max(_largest(getattr(module, "stride", 1)), 1)
    return weight.numel() * math.prod(_output_shape(module, features)[2:]) // stride**2
