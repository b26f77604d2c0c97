"""Starts dynamic convolutions from static weights: the kernel of a static convolution is spread over the K kernels of
the dynamic one in its place. Not for reading files and copying tensors into a model: that is models/weights.py."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.blocks_conv import scale_and_shift
from models.common import Dynamic_conv2d, dynamic_layers
from utils.log import LOGGER

EPS = 1e-3  # of every batch normalisation in a YOLOv5 network; files of weights do not say it
NORM = ("weight", "bias", "running_mean", "running_var")


class Static(NamedTuple):
    """A static convolution, as a dynamic one can take it over."""

    kernel: Tensor  # (O, C / groups, k, k)
    bias: Tensor | None  # (O,)
    bare: bool = False  # Conv's kernel and normalisation in one, for a layer that lacks Conv's SiLU


def spread_kernels(
    model: nn.Module, state: Mapping[str, Tensor], *, noise: float, rng: np.random.Generator
) -> dict[str, Tensor]:
    """A copy of `state` (a network's state dict) that also holds K kernels for each dynamic convolution of the model
    where the network has a static convolution of the same shape in that place. Logs which these are.

    In a DyConv the network computes at first what it did, up to the noise: its batch normalisation is in `state` under
    its own name. A bare Dynamic_conv2d gets the kernel and bias of convolution and normalisation in one, but it has no
    activation where Conv has SiLU, so its network starts from other outputs. The attention is in no static state dict
    and stays as it is.

    Differs from v6.1: (the published layer) there dynamic layers start from random kernels whatever the weights.
    """
    added: dict[str, Tensor] = {}
    names: dict[int, list[str]] = defaultdict(list)  # by K
    bare: list[str] = []
    for name, layer in dynamic_layers(model):
        static = static_convolution(name, layer, state)
        if static is None:
            continue
        added[f"{name}.weight"] = perturbed_copies(static.kernel, layer.K, noise=noise, rng=rng)
        if layer.bias is not None:
            bias = torch.zeros(layer.out_planes) if static.bias is None else static.bias
            added[f"{name}.bias"] = bias.float().repeat(layer.K, 1)  # (K, O)
        names[layer.K].append(name.removesuffix(".conv"))
        bare += [name] * static.bare
    for kernels, found in names.items():
        LOGGER.info(f"Spread static kernels over K={kernels} in layers {', '.join(found)} (noise {noise:g})")
    if bare:
        LOGGER.info(f"Bare layers {', '.join(bare)}: batch normalisation is folded in, the SiLU after it is gone")
    return {**state, **added}


def static_convolution(name: str, layer: Dynamic_conv2d, state: Mapping[str, Tensor]) -> Static | None:
    """What `state` has in the place of the dynamic convolution `name`: a convolution under the same name, or a Conv
    (fused or not) where the layer is bare. None where there is neither, or one of another shape."""
    shape = layer.weight.shape[1:]  # (O, C / groups, k, k)
    kernel = state.get(f"{name}.weight")
    if kernel is not None:
        return Static(kernel, state.get(f"{name}.bias")) if kernel.shape == shape else None
    kernel, norm = state.get(f"{name}.conv.weight"), [state.get(f"{name}.bn.{key}") for key in NORM]
    if kernel is None or kernel.shape != shape:
        return None
    if any(values is None or values.shape != shape[:1] for values in norm):
        return Static(kernel, state.get(f"{name}.conv.bias"), bare=True)
    bn = nn.BatchNorm2d(layer.out_planes, eps=EPS)
    bn.load_state_dict(dict(zip(NORM, norm, strict=True)), strict=False)
    scale, shift = scale_and_shift(bn)
    return Static(kernel * scale[:, None, None, None], shift, bare=True)


def perturbed_copies(kernel: Tensor, count: int, *, noise: float, rng: np.random.Generator) -> Tensor:
    """W_k = W + noise * std(W) * e_k for k = 1..count, (count, *kernel.shape), float32. Each e_k is unit normal, and
    they sum to 0: under an even attention the noise cancels. With one copy there is none."""
    exact = kernel.double()
    unit = torch.from_numpy(rng.standard_normal((count, *kernel.shape)))
    unit = unit - unit.mean(0)
    if count > 1:  # taking the mean out took a part 1 / count of the variance
        unit = unit * math.sqrt(count / (count - 1))
    return (exact + noise * exact.std(correction=0) * unit).float()
