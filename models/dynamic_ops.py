"""Formulations of dynamic convolution, as pure functions: K kernels mixed per sample, then one convolution per sample.

"Dynamic Convolution: Attention over Convolution Kernels", Chen et al., CVPR 2020, arXiv:1912.03458. All formulations
take the same and agree: x (B, C, H, W), weight (K, O, C / groups, k, k), bias (K, O) or None, attention (B, K); they
return (B, O, H', W'). Not for the attention itself, nor for parameters: those are in models/blocks_dynamic.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.torch_utils import is_traced

# Limits that benchmarks/dynamic_conv.py found, above which another formulation is faster
CACHE = 16e6  # bytes in the mixed kernels of a batch: above, a CPU is faster sample by sample
MANY_PRODUCTS = (
    20e6  # multiplications for a sample of a 1x1: above, convolution beats matrix product on a CPU (float32)
)
KERNEL_HEAVY = 4  # numbers in a kernel for each number in an image: above, copying the image costs less than the kernel


@dataclass(frozen=True)
class Geometry:
    """How the kernel moves over the image: what torch's conv2d takes, as pairs (vertical, horizontal)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def mix(parameters: Tensor, attention: Tensor) -> Tensor:
    """Sum over k of attention[b, k] * parameters[k]. parameters (K, ...), attention (B, K). Returns (B, ...)."""
    mixed = attention.to(parameters.dtype) @ parameters.flatten(1)  # (B, K) @ (K, P)
    return mixed.view(attention.shape[0], *parameters.shape[1:])


def loop(x: Tensor, weight: Tensor, bias: Tensor | None, attention: Tensor, geometry: Geometry) -> Tensor:
    """One convolution for each sample, one after the other; at least one sample. This is the definition, against which
    the other formulations are tested, and sometimes the fastest (`fitting_formulation`)."""
    if _is_channels_last(x) and weight[0].numel() > KERNEL_HEAVY * x.shape[1:].numel():
        x = x.contiguous()  # otherwise torch puts each kernel into channels_last order, which is more to copy
    weights = mix(weight, attention).unbind()  # B of (O, C / groups, k, k)
    biases = [None] * len(x) if bias is None else mix(bias, attention).unbind()
    # split and unbind, because the gradient of x[b] would be as large as the whole batch, for each sample
    samples = zip(x.split(1), weights, biases, strict=True)
    outputs = [F.conv2d(sample, kernel, offset, **vars(geometry)) for sample, kernel, offset in samples]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, attention: Tensor, geometry: Geometry) -> Tensor:
    """For 1x1 kernels: one batched matrix product, a matrix for each sample. A trace of it takes any batch and image
    size."""
    if geometry.padding != (0, 0):
        x = F.pad(x, (geometry.padding[1], geometry.padding[1], geometry.padding[0], geometry.padding[0]))
    if geometry.stride != (1, 1):
        x = x[:, :, :: geometry.stride[0], :: geometry.stride[1]]
    weights = mix(weight, attention).flatten(2)  # (B, O, C / groups)
    if geometry.groups == 1 and _is_channels_last(x):
        return _matmul_pixels_first(x, weights, None if bias is None else mix(bias, attention))
    (batch, channels, height, width), outputs, groups = x.shape, weight.shape[1], geometry.groups
    pixels = x.reshape(batch * groups, channels // groups, height * width)
    weights = weights.reshape(batch * groups, outputs // groups, channels // groups)
    if bias is None:
        out = torch.bmm(weights, pixels)
    else:
        biases = mix(bias, attention).reshape(batch * groups, outputs // groups, 1)
        out = torch.baddbmm(biases, weights, pixels)
    return out.reshape(batch, outputs, height, width)


def _matmul_pixels_first(x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
    """`matmul` without groups for channels_last memory, which needs no copy in or out."""
    batch, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)  # a view
    if biases is None:
        out = torch.bmm(pixels, weights.transpose(1, 2))
    else:
        out = torch.baddbmm(biases.unsqueeze(1), pixels, weights.transpose(1, 2))
    return out.reshape(batch, height, width, weights.shape[1]).permute(0, 3, 1, 2)


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, attention: Tensor, geometry: Geometry) -> Tensor:
    """One grouped convolution in which each sample is a group. A trace of it takes this batch size alone."""
    batch, channels, height, width = x.shape
    weights = mix(weight, attention).flatten(0, 1)  # (B * O, C / groups, k, k)
    biases = None if bias is None else mix(bias, attention).flatten()  # (B * O)
    as_one = x.reshape(1, batch * channels, height, width)
    merged = Geometry(geometry.stride, geometry.padding, geometry.dilation, batch * geometry.groups)
    out = F.conv2d(as_one, weights, biases, **vars(merged))  # (1, B * O, H', W')
    return out.reshape(batch, weight.shape[1], *out.shape[2:])


def stacked(x: Tensor, weight: Tensor, bias: Tensor | None, attention: Tensor, geometry: Geometry) -> Tensor:
    """Convolves the whole batch with each of the K kernels, and mixes the K results. That is K times the work, but the
    kernels are constants and a trace takes any batch and image size: for tracing and export of kernels larger than
    1x1."""

    def weighted(k: int) -> Tensor:
        response = F.conv2d(x, weight[k], None if bias is None else bias[k], **vars(geometry))  # (B, O, H', W')
        return response * attention[:, k].to(response.dtype).view(-1, 1, 1, 1)

    mixed = weighted(0)
    for k in range(1, weight.shape[0]):
        mixed = mixed + weighted(k)
    return mixed


Formulation = Callable[[Tensor, Tensor, Tensor | None, Tensor, Geometry], Tensor]
FORMULATIONS: dict[str, Formulation] = {"loop": loop, "matmul": matmul, "grouped": grouped, "stacked": stacked}


def dynamic_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    attention: Tensor,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    formulation: str | None = None,
) -> Tensor:
    """Convolves each sample b with sum_k attention[b, k] weight[k], and adds sum_k attention[b, k] bias[k].

    Shapes as at the top of this file; the memory format of x is kept. formulation: a name in FORMULATIONS, or None for
    the fastest that fits (fitting_formulation).
    """
    geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
    name = formulation or fitting_formulation(x, weight)
    channels_last = _is_channels_last(x)
    out = FORMULATIONS[name](x, weight, bias, attention, geometry)
    return out.contiguous(memory_format=torch.channels_last) if channels_last else out


def fitting_formulation(x: Tensor, weight: Tensor) -> str:
    """The name of the fastest formulation for x (B, C, H, W) and weight (K, O, C / groups, k, k), as
    benchmarks/dynamic_conv.py measured them. For an empty batch and while the call is traced or exported, only "matmul"
    (1x1) and "stacked" (larger kernels) work."""
    is_pointwise = weight.shape[-2:] == (1, 1)
    if is_traced() or torch.compiler.is_exporting() or x.shape[0] == 0:
        return "matmul" if is_pointwise else "stacked"
    if is_pointwise:
        return "loop" if _has_many_products(x, weight) else "matmul"
    kernels = x.shape[0] * weight[0].numel() * x.element_size()  # bytes: under autocast, x has the type of the product
    beyond_cache = x.device.type == "cpu" and kernels > CACHE
    return "loop" if x.shape[0] == 1 or beyond_cache else "grouped"


def _has_many_products(x: Tensor, weight: Tensor) -> bool:
    """Whether a 1x1 is large enough for a CPU's float32 convolution to beat its batched matrix product."""
    products = weight[0].numel() * x.shape[2] * x.shape[3]  # of one sample
    return x.device.type == "cpu" and x.dtype == torch.float32 and products > MANY_PRODUCTS


def _is_channels_last(x: Tensor) -> bool:
    """True where the channels lie next to each other and that is not also the plain order (1 channel, 1 pixel)."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
