"""The detection network: `Detect`, the table of blocks, and `DetectionModel`, which a model YAML describes.

Not for files of weights (models/weights.py), nor for the printed table and FLOPs (models/summary.py).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.build_limits import limited_forward, limited_parameters
from models.common import (
    C3,
    C3SPP,
    C3TR,
    SPP,
    SPPF,
    Bottleneck,
    BottleneckCSP,
    C3Dy,
    C3DyLast,
    C3Ghost,
    Concat,
    Contract,
    Conv,
    CrossConv,
    DWConv,
    DyConv,
    Dynamic_conv2d,
    Expand,
    Focus,
    Fusable,
    GhostBottleneck,
    GhostConv,
    MixConv2d,
    Sum,
)
from models.model_yaml import class_names, completed, naming
from utils.anchors import decode, in_stride_order, make_grid
from utils.errors import InputError
from utils.torch_utils import is_traced

LONGEST_TOLD = 300  # characters of an error or a row
UNUSABLE = (  # what layers raise on arguments or maps that they can't use
    RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, MemoryError,
)  # fmt: skip
PROBE_SIDE = 128  # pixels of the forward that finds the strides: more than most strides in use (P7: 128)
LARGEST_PROBE = 1024


class Detect(nn.Module):
    """The head: one 1x1 convolution a level, and in eval mode the decoding into boxes.

    nc classes; anchors nl lists of na (width, height) pairs, flat, pixels; ch input channels of the nl levels.
    `anchors` (nl, na, 2) are kept in grid units and `stride` (nl,) in pixels a cell: `set_strides` fills in both.
    """

    anchors: Tensor
    stride: Tensor

    def __init__(self, nc: int, anchors: list[list[float]], ch: list[int]) -> None:
        super().__init__()
        self.nc, self.no = nc, nc + 5  # outputs an anchor: x, y, w, h, objectness, classes
        self.nl, self.na = len(anchors), len(anchors[0]) // 2
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32).view(self.nl, self.na, 2))
        self.register_buffer("stride", torch.ones(self.nl), persistent=False)
        self.m = nn.ModuleList(nn.Conv2d(channels, self.no * self.na, 1) for channels in ch)
        self._grids: dict[int, Tensor] = {}  # level -> cells of the last image size, (ny, nx, 2)

    def set_strides(self, strides: Tensor) -> None:
        """Once, after construction: takes the strides (nl,), puts the anchors in their order and into grid units, and
        starts the biases at the expected number of objects (arXiv:1708.02002, section 3.3)."""
        self.stride.copy_(strides)
        self.anchors.copy_(in_stride_order(self.anchors, self.stride) / self.stride.view(-1, 1, 1))
        for conv, stride in zip(self.m, self.stride.tolist(), strict=True):
            bias = conv.get_parameter("bias").detach().view(self.na, self.no)  # a view of the parameter
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)  # 8 objects in an image of 640 pixels
            bias[:, 5:] += math.log(0.6 / (self.nc - 0.999999))  # one class is as likely as another

    def forward(self, features: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """features: nl maps (B, ch, ny, nx). In train mode returns the nl raw maps (B, na, ny, nx, nc + 5); in eval
        mode (decoded, raw), decoded (B, N, nc + 5) with xywh in pixels, objectness and class probabilities in 0..1, N
        over levels, anchors, rows, columns.

        Differs from v6.1: boxes are decoded in at least float32, where 16 bits would move large coordinates.
        """
        raw = [self._raw(conv(feature)) for conv, feature in zip(self.m, features, strict=True)]
        if self.training:
            return raw
        raw = [level.contiguous() for level in raw]
        return torch.cat([self._decoded(level, output) for level, output in enumerate(raw)], dim=1), raw

    def _raw(self, output: Tensor) -> Tensor:
        batch, _, ny, nx = output.shape
        return output.view(batch, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2)

    def _decoded(self, level: int, raw: Tensor) -> Tensor:
        sigmoids = raw.to(torch.promote_types(raw.dtype, torch.float32)).sigmoid()  # (B, na, ny, nx, no)
        stride = self.stride[level]
        anchors_px = (self.anchors[level] * stride).view(self.na, 1, 1, 2)
        xywh = decode(sigmoids[..., :4], self._grid(level, sigmoids), anchors_px, stride=stride)
        return torch.cat((xywh, sigmoids[..., 4:]), dim=-1).flatten(1, 3)  # (B, na * ny * nx, no)

    def _grid(self, level: int, like: Tensor) -> Tensor:
        """Cells (ny, nx, 2) of the level; the last size is kept, but not while tracing, where it would become fixed."""
        size_hw = like.shape[2], like.shape[3]
        if is_traced() or torch.compiler.is_compiling():
            # type_as: a trace keeps the device on which it was made, and is to run on others
            return make_grid(size_hw, device=like.device, dtype=like.dtype).type_as(like)
        grid = self._grids.get(level)
        if grid is None or grid.shape[:2] != size_hw or grid.device != like.device or grid.dtype != like.dtype:
            grid = self._grids[level] = make_grid(size_hw, device=like.device, dtype=like.dtype)
        return grid


@dataclass(frozen=True)
class Spec:
    """How parse_model calls a block."""

    build: type[nn.Module]
    channels: bool = False  # called as (c1, c2, ...), c2 scaled by width_multiple
    repeats: bool = False  # takes its own repeat count as third argument
    widths: Callable[[list[int], list[Any]], int] | None = None  # (input channels, arguments) -> output channels


BLOCKS: dict[str, Spec] = {
    "Conv": Spec(Conv, channels=True),
    "DWConv": Spec(DWConv, channels=True),
    "DyConv": Spec(DyConv, channels=True),
    "Dynamic_conv2d": Spec(Dynamic_conv2d, channels=True),
    "GhostConv": Spec(GhostConv, channels=True),
    "CrossConv": Spec(CrossConv, channels=True),
    "MixConv2d": Spec(MixConv2d, channels=True),
    "Focus": Spec(Focus, channels=True),
    "Bottleneck": Spec(Bottleneck, channels=True),
    "GhostBottleneck": Spec(GhostBottleneck, channels=True),
    "BottleneckCSP": Spec(BottleneckCSP, channels=True, repeats=True),
    "C3": Spec(C3, channels=True, repeats=True),
    "C3Dy": Spec(C3Dy, channels=True, repeats=True),
    "C3DyLast": Spec(C3DyLast, channels=True, repeats=True),
    "C3Ghost": Spec(C3Ghost, channels=True, repeats=True),
    "C3TR": Spec(C3TR, channels=True, repeats=True),
    "C3SPP": Spec(C3SPP, channels=True),
    "SPP": Spec(SPP, channels=True),
    "SPPF": Spec(SPPF, channels=True),
    "Concat": Spec(Concat, widths=lambda inputs, args: sum(inputs)),
    "Sum": Spec(Sum),
    "Contract": Spec(Contract, widths=lambda inputs, args: inputs[0] * args[0] ** 2),
    "Expand": Spec(Expand, widths=lambda inputs, args: inputs[0] // args[0] ** 2),
    "Detect": Spec(Detect),
}


class Row(NamedTuple):
    """A line of the model table: what was built for one row of the YAML."""

    number: int  # from 0
    source: int | list[int]  # `from`
    repeats: int  # after depth_multiple
    parameters: int
    type: str  # class name
    arguments: str


def parse_model(description: dict[str, Any], ch: int) -> tuple[nn.Sequential, list[int], list[Row]]:
    """Builds the layers of a checked model description (models/model_yaml.py) for ch input channels.

    Returns the layers, each with i (index), f (`from`), type (qualified name) and np (parameters); the sorted indices
    of those whose output a later layer asks for; and the rows of the model table. Raises InputError that names the row.
    """
    layers: list[nn.Module] = []
    rows: list[Row] = []
    widths: list[int] = []  # output channels of the layers so far
    save: set[int] = set()
    for index, entry in enumerate(description["backbone"] + description["head"]):
        try:
            given = [entry[0]] if isinstance(entry[0], int) else entry[0]
            sources = _sources(index, given)
            inputs = [widths[source] if index else ch for source in sources]
            layer, row, width = _build(index, entry, inputs, description)
        except UNUSABLE as error:
            reason = " ".join(str(error).split())[:LONGEST_TOLD]
            raise InputError(f"layer {index} of the model YAML, {str(entry)[:LONGEST_TOLD]}: {reason}") from error
        layers.append(layer)
        rows.append(row)
        widths.append(width)
        save.update(source for source, number in zip(sources, given, strict=True) if number != -1)
    if not layers or not isinstance(layers[-1], Detect):
        raise InputError(f"the last layer of a model YAML must be Detect, got {rows[-1].type if rows else 'no layer'}")
    return nn.Sequential(*layers), sorted(save), rows


def _sources(index: int, given: list[int]) -> list[int]:
    """Absolute indices of the layers that feed layer `index`; -1 for the image, which feeds layer 0."""
    absolute = [number if number >= 0 else index + number for number in given]
    first, last = (0, index - 1) if index else (-1, -1)
    if not absolute or any(not first <= number <= last for number in absolute):
        expected = f"layers 0 to {last}, or -1 to -{index} counted back" if index else "-1, the image"
        raise InputError(f"`from` names {given}, but only earlier layers exist: {expected}")
    return absolute


def _build(index: int, entry: list[Any], inputs: list[int], description: dict[str, Any]) -> tuple[nn.Module, Row, int]:
    """One row of the YAML -> the layer, its line in the table, and its output channels."""
    source, number, name, arguments = entry
    spec = _spec(name)
    repeats = max(round(number * description["depth_multiple"]), 1) if number > 1 else number
    arguments = _called_with(spec, _resolved(arguments, description), inputs, description)
    if spec.repeats:
        arguments.insert(2, repeats)
    copies = 1 if spec.repeats else repeats
    built = [spec.build(*arguments) for _ in range(copies)]
    layer = built[0] if copies == 1 else nn.Sequential(*built)
    parameters = sum(parameter.numel() for parameter in layer.parameters())
    vars(layer).update(i=index, f=source, type=_qualified_name(spec.build), np=parameters)
    row = Row(index, source, repeats, parameters, spec.build.__name__, str(arguments))
    return layer, row, _output_channels(spec, built[-1], inputs, arguments)


def _spec(name: str) -> Spec:
    """The block of that name, or any layer of torch.nn as nn.Name."""
    if name in BLOCKS:
        return BLOCKS[name]
    layer = getattr(nn, name.removeprefix("nn."), None) if name.startswith("nn.") else None
    # a Transformer takes no maps, and copies its layers past all limits (models/build_limits.py)
    if isinstance(layer, type) and issubclass(layer, nn.Module) and layer is not nn.Transformer:
        return Spec(layer)
    raise InputError(f"unknown block {name!r}; known are nn.* (the layers of torch.nn) and {', '.join(sorted(BLOCKS))}")


def _resolved(argument: Any, description: dict[str, Any]) -> Any:
    """Arguments with the words that stand for values replaced; other text stays text (`nearest`)."""
    if isinstance(argument, list):
        return [_resolved(item, description) for item in argument]
    words = {"None": None, "True": True, "False": False, "nc": description["nc"], "anchors": description["anchors"]}
    return words.get(argument, argument) if isinstance(argument, str) else argument


def _called_with(spec: Spec, arguments: list[Any], inputs: list[int], description: dict[str, Any]) -> list[Any]:
    """The arguments of the constructor, from those in the YAML and the channels that arrive."""
    if spec.channels:
        return [inputs[0], _scaled_width(arguments[0], description), *arguments[1:]]
    if spec.build is Detect:
        nc, anchors = arguments
        if isinstance(anchors, int):  # placeholders until AutoAnchor fits them to the data
            anchors = [list(range(anchors * 2)) for _ in inputs]
        if len(anchors) != len(inputs):
            raise InputError(f"anchors for {len(anchors)} levels, but Detect gets {len(inputs)} layers")
        return [nc, anchors, inputs]
    if spec.build is nn.BatchNorm2d:
        return inputs[:1]
    return arguments


def _scaled_width(channels: int, description: dict[str, Any]) -> int:
    """Channels times width_multiple, rounded up to a multiple of 8; not where they are the outputs of the head."""
    anchors = description["anchors"]
    anchors_a_level = anchors if isinstance(anchors, int) else len(anchors[0]) // 2
    if channels == anchors_a_level * (description["nc"] + 5):
        return channels
    return math.ceil(channels * description["width_multiple"] / 8) * 8


def _output_channels(spec: Spec, layer: nn.Module, inputs: list[int], arguments: list[Any]) -> int:
    if spec.channels:
        return arguments[1]
    if spec.widths:
        return spec.widths(inputs, arguments)
    return getattr(layer, "out_channels", inputs[0])  # torch's convolutions know, other layers keep the width


def _qualified_name(build: type[nn.Module]) -> str:
    """The class as v6.1's table and checkpoints name it: all blocks stand in models.common."""
    if build.__module__.startswith("models.blocks_"):
        return f"models.common.{build.__name__}"
    return f"{build.__module__}.{build.__name__}"


class DetectionModel(nn.Module):
    """YOLOv5 as its YAML describes it: backbone, head, and Detect as the last layer.

    cfg: path of a model YAML (looked for as given, then in the repository, models/ and models/hub/), or its content as
    a dict; ch input channels, where the YAML does not say; nc and anchors (pixels a level, or a number of anchors a
    level) override the YAML's; names a list or dict of nc class names. Raises InputError where it cannot be built.

    Attributes: yaml (dict with ch, nc and anchors as built), names {int: str}, nc, stride (nl,), save (indices of
    layers whose output is used later), rows (list of Row), model (nn.Sequential; the last is Detect).

    Differs from v6.1: construction leaves the running statistics of batch normalisation untouched.
    """

    def __init__(
        self,
        cfg: str | Path | dict[str, Any] = "models/yolov5n.yaml",
        ch: int = 3,
        nc: int | None = None,
        anchors: list[list[float]] | int | None = None,
        names: list[str] | dict[int, str] | None = None,
    ) -> None:
        super().__init__()
        self.yaml = completed(cfg, ch, nc, anchors)
        self.names = class_names(names, self.yaml["nc"])
        with naming(cfg), limited_parameters():
            self.model, self.save, self.rows = parse_model(self.yaml, self.yaml["ch"])
            self.detect.set_strides(self._probe_strides())
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 0.03

    @property
    def detect(self) -> Detect:
        """The last layer."""
        return self.model[-1]  # type: ignore[return-value]  # parse_model accepts no other

    @property
    def nc(self) -> int:
        """Number of classes."""
        return self.detect.nc

    @property
    def stride(self) -> Tensor:
        """Pixels a cell of each level, (nl,), float32."""
        return self.detect.stride

    def forward(self, images: Tensor) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """images (B, ch, H, W), RGB in 0..1, sides a multiple of the largest stride. Returns what Detect returns."""
        output: Any = images
        kept: list[Any] = []
        for layer in self.model:
            output = self._step(layer, output, kept)
        return output

    def layer_outputs(self, images: Tensor) -> Iterator[tuple[int, str, Any]]:
        """The same as calling the model, but yields (index, type, output) of each layer as soon as it is computed; the
        last output is Detect's."""
        output: Any = images
        kept: list[Any] = []
        layer: Any  # with the attributes that parse_model adds
        for layer in self.model:
            output = self._step(layer, output, kept)
            yield layer.i, layer.type, output

    def _step(self, layer: Any, previous: Any, kept: list[Any]) -> Any:
        """Runs one layer and appends its output to `kept`, or None where no later layer asks for it."""
        if layer.f == -1:
            inputs = previous
        elif isinstance(layer.f, int):
            inputs = kept[layer.f]
        else:
            inputs = [previous if source == -1 else kept[source] for source in layer.f]
        output = layer(inputs)
        kept.append(output if layer.i in self.save else None)
        return output

    def fuse(self) -> "DetectionModel":
        """Folds every batch normalisation into the convolution before it, in place: the same results in eval mode,
        faster. Returns self."""
        for module in self.modules():
            if isinstance(module, Fusable):
                module.fuse_()
        return self

    def _probe_strides(self) -> Tensor:
        """Pixels a cell of each level, (nl,). A map of one cell may stand for any larger stride: then a larger image
        tells."""
        side, heights = PROBE_SIDE, self._probed(PROBE_SIDE)
        while min(heights) == 1 and side < LARGEST_PROBE:
            side *= 2
            heights = self._probed(side)
        return torch.tensor([side / height for height in heights])

    def _probed(self, side: int) -> list[int]:
        """The heights, in cells, of the raw maps of an empty image of that side in pixels, from a forward that leaves
        statistics and random numbers alone. (On torch's "meta" device it would import torch's compiler: 1 s and 100 MB
        at every start.)"""
        image = torch.zeros(1, self.yaml["ch"], side, side)
        reached: list[int] = []
        hooks = [layer.register_forward_pre_hook(lambda module, _: reached.append(module.i)) for layer in self.model]
        self.eval()
        self.detect.train()  # raw maps, as decoding them takes the strides
        try:
            with limited_forward(self):
                return [level.shape[-2] for level in self(image)]
        except UNUSABLE as error:
            row = self.rows[reached[-1]]
            reason = " ".join(str(error).split())[:LONGEST_TOLD]
            raise InputError(
                f"layer {row.number} ({row.type}) does not fit its inputs {str(row.source)[:60]}: {reason}"
            ) from error
        finally:
            self.train()
            for hook in hooks:
                hook.remove()


Model = DetectionModel  # v6.1's name
