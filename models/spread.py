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
    """A static convolution, as the dynamic one in its place takes it over.

    Attributes:
        kernel: (O, C / groups, k, k).
        bias: (O,).
        folded: the batch normalisation of a Conv is in kernel and bias, for a bare Dynamic_conv2d, which has none.
    """

    kernel: Tensor
    bias: Tensor | None
    folded: bool = False


def spread_kernels(
    model: nn.Module, state: Mapping[str, Tensor], *, noise: float, rng: np.random.Generator
) -> dict[str, Tensor]:
    """A copy of `state`, the state dict of a static network, in which the kernel of a static convolution is spread over
    the K kernels of each dynamic convolution of the model that has its place and shape. Logs which these are.

    With DyConv in place of Conv the model computes at first what the static network does, but for the noise; the batch
    normalisation has the same name in both. A bare Dynamic_conv2d in place of a Conv has no normalisation, which is
    therefore folded into its kernels, and no SiLU: that model starts from other outputs. No static network has an
    attention to copy: the model's stays as it is.

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
        if static.folded:
            bare.append(name)
    for kernels, found in names.items():
        LOGGER.info(f"Spread static kernels over K={kernels} in layers {', '.join(found)} (noise {noise:g})")
    if bare:
        LOGGER.info(f"Bare layers {', '.join(bare)}: batch normalisation is folded in, the SiLU after it is gone")
    return {**state, **added}


def static_convolution(name: str, layer: Dynamic_conv2d, state: Mapping[str, Tensor]) -> Static | None:
    """The convolution that `state` has in the place of the dynamic convolution `name`. It has the same name, or where
    the layer is bare it is that of a Conv, fused or not. None where there is neither, or one of another shape."""
    shape = layer.weight.shape[1:]  # (O, C / groups, k, k)
    kernel = state.get(f"{name}.weight")
    if kernel is not None:
        return Static(kernel, state.get(f"{name}.bias")) if kernel.shape == shape else None
    kernel, norm = state.get(f"{name}.conv.weight"), [state.get(f"{name}.bn.{key}") for key in NORM]
    if kernel is None or kernel.shape != shape:
        return None
    if any(values is None or values.shape != shape[:1] for values in norm):
        return Static(kernel, state.get(f"{name}.conv.bias"), folded=True)
    bn = nn.BatchNorm2d(layer.out_planes, eps=EPS)
    bn.load_state_dict(dict(zip(NORM, norm, strict=True)), strict=False)
    scale, shift = scale_and_shift(bn)
    return Static(kernel * scale[:, None, None, None], shift, folded=True)


def perturbed_copies(kernel: Tensor, count: int, *, noise: float, rng: np.random.Generator) -> Tensor:
    """W_k = W + noise * std(W) * e_k for k = 1..count, as (count, *kernel.shape), float32. Each e_k is of the standard
    normal distribution, and together they are 0, so that an even attention gives W. One copy has no noise."""
    exact = kernel.double()
    unit = torch.from_numpy(rng.standard_normal((count, *kernel.shape)))
    unit = unit - unit.mean(0)
    if count > 1:  # without their mean, they have only (count - 1) / count of their variance
        unit = unit * math.sqrt(count / (count - 1))
    return (exact + noise * exact.std(correction=0) * unit).float()
