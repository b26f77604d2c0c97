"""What a model consists of and what it costs: the printed table of layers, parameters, GFLOPs, dynamic layers."""

import contextlib
import io
import math
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.common import Dynamic_conv2d, dynamic_layers
from models.yolo import DetectionModel
from utils.log import LOGGER

MIN_STRIDE = 32  # pixels: where the model's is smaller, v6.1 counts with this one
USUAL_SIDE = 640  # pixels of the image for which YOLOv5 tells the cost, whatever a model is trained at


class Summary(NamedTuple):
    """The numbers of the summary line."""

    layers: int  # modules, the model itself included
    parameters: int
    gradients: int  # parameters that are trained
    gflops: float | None  # for one image; None where thop is not installed
    imgsz: int = USUAL_SIDE  # of that image, pixels

    def __str__(self) -> str:
        cost = "" if self.gflops is None else f", {self.gflops:.1f} GFLOPs"
        cost += f" at {self.imgsz} pixels" if cost and self.imgsz != USUAL_SIDE else ""
        return f"{self.layers} layers, {self.parameters} parameters, {self.gradients} gradients{cost}"


class DynamicCost(NamedTuple):
    """What a dynamic convolution costs: its attention, the mixing of its kernels, and the convolution itself."""

    name: str  # inside the model: "model.10.conv"
    layer: Dynamic_conv2d
    parameters: int
    gflops: float  # for one image

    def __str__(self) -> str:
        layer, side = self.layer, self.layer.kernel_size
        channels = f"{layer.in_planes} -> {layer.out_planes}, {side}x{side}, {layer.K} kernels"
        return f"{self.name.removeprefix('model.')} Dynamic_conv2d ({channels})"


def model_summary(model: DetectionModel, imgsz: int = USUAL_SIDE) -> Summary:
    """The numbers of a model for square images of imgsz pixels. The model stays as it is."""
    return Summary(
        layers=sum(1 for _ in model.modules()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        gradients=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        gflops=gflops(model, imgsz),
        imgsz=imgsz,
    )


def log_summary(
    model: DetectionModel, imgsz: int = USUAL_SIDE, *, name: str | Path = "Model", table: bool = True
) -> Summary:
    """Logs the line `YOLOv5n summary: ... layers, ...`, which tells imgsz if it is not 640. Before it, with `table`,
    stand the table of layers and what dynamic ones cost.

    name: what the line calls the model; of a path, such as that of its YAML, the stem.
    """
    if table:
        LOGGER.info("\n".join([model_table(model), *dynamic_table(model, imgsz)]))
    summary = model_summary(model, imgsz)
    LOGGER.info(f"{Path(name).stem.replace('yolov5', 'YOLOv5')} summary: {summary}\n")
    return summary


def model_table(model: DetectionModel) -> str:
    """One line a layer of the model YAML: index, from, repeats, parameters, module, arguments."""
    lines = [f"\n{'':>3}{'from':>18}{'n':>3}{'params':>10}  {'module':<40}{'arguments':<30}"]
    for row, layer in zip(model.rows, model.model, strict=True):
        source = f"{row.source!s:>18}{row.repeats:>3}{row.parameters:>10}"
        lines.append(f"{row.number:>3}{source}  {layer.type:<40}{row.arguments:<30}")
    return "\n".join(lines)


def dynamic_table(model: DetectionModel, imgsz: int = USUAL_SIDE) -> list[str]:
    """A heading and one line a dynamic convolution; no lines for a static model."""
    costs = dynamic_costs(model, imgsz)
    if not costs:
        return []
    parameters, operations = sum(cost.parameters for cost in costs), sum(cost.gflops for cost in costs)
    total = f"{parameters:,} parameters, {operations:.3f} GFLOPs at {imgsz} pixels"
    lines = [f"   {cost}: {cost.parameters:,} parameters, {cost.gflops:.3f} GFLOPs" for cost in costs]
    return [f"Dynamic layers: {len(costs)}, {total}", *lines]


def dynamic_costs(model: DetectionModel, imgsz: int = USUAL_SIDE) -> list[DynamicCost]:
    """The cost of each dynamic convolution for one square image, in the model's order, counted as in `gflops` but
    without thop. The model stays as it is."""
    shapes, image, scale = _shapes_only(model, imgsz)
    macs: dict[nn.Module, int] = {}

    def count(layer: Dynamic_conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        macs[layer] = macs.get(layer, 0) + _dynamic_macs(layer, inputs, output)

    layers = dynamic_layers(shapes)
    for _, layer in layers:
        layer.register_forward_hook(count)
    if layers:
        shapes(image)
    parameters = {name: sum(p.numel() for p in layer.parameters()) for name, layer in layers}
    return [
        DynamicCost(name, layer, parameters[name], 2 * macs.get(twin, 0) * scale / 1e9)
        for (name, layer), (_, twin) in zip(dynamic_layers(model), layers, strict=True)
    ]


def gflops(model: DetectionModel, imgsz: int = USUAL_SIDE) -> float | None:
    """Billions of operations (two for each multiply-add) for one square image, as v6.1 prints them: thop counts
    convolutions, batch normalisations, linear layers and upsampling from the shapes, without computing anything. For an
    imgsz that is no multiple of the stride, the count for the next multiple is scaled by area. None, which the log
    tells, where thop cannot be imported.

    Differs from v6.1: dynamic convolutions are counted (attention, mixing of kernels and the convolution itself). The
    count is for the image's own size, not for one of the stride that is scaled up, as a part of it is the same for
    every size.
    """
    shapes, image, scale = _shapes_only(model, imgsz)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # importing thop 0.1.1 warns
            warnings.simplefilter("ignore")
            from thop import profile

            macs, _ = profile(shapes, inputs=(image,), custom_ops={Dynamic_conv2d: _count_dynamic}, verbose=False)
    except ImportError as error:  # also where Python no longer has distutils, which thop 0.1.1 imports
        LOGGER.info(f"GFLOPs are left out: thop cannot be imported ({error})")
        return None
    return 2 * macs * scale / 1e9


def _shapes_only(model: DetectionModel, imgsz: int) -> tuple[DetectionModel, Tensor, float]:
    """A copy of the model and an image (1, ch, side, side), both shapes without content, and the area of imgsz as a
    part of the image's, whose side is the next multiple of the stride. A copy, as counting leaves hooks and buffers
    behind."""
    stride = max(int(model.stride.max()), MIN_STRIDE)
    side = math.ceil(imgsz / stride) * stride
    image = torch.empty(1, model.yaml["ch"], side, side, device="meta")
    return deepcopy(model).to("meta"), image, (imgsz / side) ** 2


def _count_dynamic(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Adds the multiply-adds of one call to layer.total_ops, thop's counter."""
    layer.total_ops += _dynamic_macs(layer, inputs, output)


def _dynamic_macs(layer: Dynamic_conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """The multiply-adds of one call: for each image the two attention layers and the sum over K kernels and biases,
    then the convolution. Not the global average, which adds without products."""
    attention = layer.attention.fc1.weight.numel() + layer.attention.fc2.weight.numel()
    mixing = layer.weight.numel() + (0 if layer.bias is None else layer.bias.numel())
    kernel = layer.weight[0, 0].numel()  # C / groups * k * k
    return inputs[0].shape[0] * (attention + mixing) + output.numel() * kernel
