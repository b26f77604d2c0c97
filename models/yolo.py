"""From a model YAML to a network: the table of blocks, `parse_model`, which builds the rows, and `DetectionModel`.

Not for the layers (models/common.py), for files of weights (models/weights.py), nor for the printed table and FLOPs
(models/summary.py).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models import common
from models.blocks_detect import Detect
from models.build_limits import limited_forward, limited_parameters
from models.model_yaml import class_names, completed, naming
from utils.errors import InputError
from utils.flags import did_you_mean

LONGEST_TOLD = 300  # characters of an error or a row in a message
UNUSABLE = (  # what torch's layers raise on arguments or feature maps that they cannot use
    RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, MemoryError,
)  # fmt: skip
PROBE_SIDE = 128  # pixels of the forward that finds the strides: more than most strides in use (P7: 128)
LARGEST_PROBE = 1024


@dataclass(frozen=True)
class Spec:
    """How parse_model calls a block, and how many channels come out.

    Attributes:
        channels: it is called as (c1, c2, ...), with c2 scaled by width_multiple, and gives c2 channels.
        repeats: its third argument is the number of repeats; other blocks are put one after the other so many times.
        widths: (input channels, arguments) -> output channels, for a block without `channels` that changes them.
    """

    build: type[nn.Module]
    channels: bool = False
    repeats: bool = False
    widths: Callable[[list[int], list[Any]], int] | None = None


BLOCKS: dict[str, Spec] = {
    "Conv": Spec(common.Conv, channels=True),
    "DWConv": Spec(common.DWConv, channels=True),
    "DyConv": Spec(common.DyConv, channels=True),
    "Dynamic_conv2d": Spec(common.Dynamic_conv2d, channels=True),
    "GhostConv": Spec(common.GhostConv, channels=True),
    "CrossConv": Spec(common.CrossConv, channels=True),
    "MixConv2d": Spec(common.MixConv2d, channels=True),
    "Focus": Spec(common.Focus, channels=True),
    "Bottleneck": Spec(common.Bottleneck, channels=True),
    "GhostBottleneck": Spec(common.GhostBottleneck, channels=True),
    "BottleneckCSP": Spec(common.BottleneckCSP, channels=True, repeats=True),
    "C3": Spec(common.C3, channels=True, repeats=True),
    "C3Dy": Spec(common.C3Dy, channels=True, repeats=True),
    "C3DyLast": Spec(common.C3DyLast, channels=True, repeats=True),
    "C3Ghost": Spec(common.C3Ghost, channels=True, repeats=True),
    "C3TR": Spec(common.C3TR, channels=True, repeats=True),
    "C3SPP": Spec(common.C3SPP, channels=True),
    "SPP": Spec(common.SPP, channels=True),
    "SPPF": Spec(common.SPPF, channels=True),
    "Concat": Spec(common.Concat, widths=lambda inputs, args: sum(inputs)),
    "Sum": Spec(common.Sum),
    "Contract": Spec(common.Contract, widths=lambda inputs, args: inputs[0] * args[0] ** 2),
    "Expand": Spec(common.Expand, widths=lambda inputs, args: inputs[0] // args[0] ** 2),
    "Detect": Spec(Detect),
}


class Row(NamedTuple):
    """A line of the printed model table: what was built for one row of the YAML."""

    number: int  # of the layer, from 0
    source: int | list[int]  # `from`: of the layers that feed it
    repeats: int  # scaled by depth_multiple
    parameters: int
    type: str  # class name
    arguments: str


def parse_model(description: dict[str, Any], ch: int) -> tuple[nn.Sequential, list[int], list[Row]]:
    """Builds the layers of a model description that models/model_yaml.py has checked, for ch input channels.

    Returns the layers, to each of which the attributes i (index), f (`from`), type (qualified name) and np (number of
    parameters) are added; the sorted indices of the layers whose output is needed later than by the next layer; and the
    rows of the model table. Raises InputError, which names the row, where a layer cannot be built.
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
            row_told = str(entry)[:LONGEST_TOLD]
            raise InputError(f"layer {index} of the model YAML, {row_told}: {_one_line(error)}") from error
        layers.append(layer)
        rows.append(row)
        widths.append(width)
        save.update(source for source, number in zip(sources, given, strict=True) if number != -1)
    if not layers or not isinstance(layers[-1], Detect):
        raise InputError(f"the last layer of a model YAML must be Detect, got {rows[-1].type if rows else 'no layer'}")
    return nn.Sequential(*layers), sorted(save), rows


def _sources(index: int, given: list[int]) -> list[int]:
    """Indices, from 0, of the layers that feed layer `index`; -1 for the image, which feeds layer 0. given: `from`,
    whose negative numbers count back from this layer. Raises InputError for layers that do not come before it."""
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
    """The block of that name, or a layer of torch.nn for nn.<name>. Raises InputError where there is none."""
    if name in BLOCKS:
        return BLOCKS[name]
    layer = getattr(nn, name.removeprefix("nn."), None) if name.startswith("nn.") else None
    # a Transformer takes no maps, and copies its layers past all limits (models/build_limits.py)
    if isinstance(layer, type) and issubclass(layer, nn.Module) and layer is not nn.Transformer:
        return Spec(layer)
    meant = did_you_mean([name.lower()[:LONGEST_TOLD]], {block.lower(): block for block in BLOCKS})
    known = f"nn.* (the layers of torch.nn) and {', '.join(sorted(BLOCKS))}"
    raise InputError(f"unknown block {name!r}{meant}; known are {known}")


def _resolved(argument: Any, description: dict[str, Any]) -> Any:
    """An argument of a row with the words that stand for values replaced by them, in lists too. Other text stays text:
    `nearest`."""
    if isinstance(argument, list):
        return [_resolved(item, description) for item in argument]
    words = {"None": None, "True": True, "False": False, "nc": description["nc"], "anchors": description["anchors"]}
    return words.get(argument, argument) if isinstance(argument, str) else argument


def _called_with(spec: Spec, arguments: list[Any], inputs: list[int], description: dict[str, Any]) -> list[Any]:
    """The arguments of the constructor. arguments: those in the YAML, resolved; inputs: channels of the layers that
    feed it."""
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
    """The channels times width_multiple, rounded up to a multiple of 8. As many channels as Detect has outputs are not
    scaled: YAMLs of YOLOv3's time have such convolutions before the head."""
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
    return getattr(layer, "out_channels", inputs[0])  # torch's convolutions have it; other layers keep the width


def _qualified_name(build: type[nn.Module]) -> str:
    """The name that the class has in v6.1's table and checkpoints, where every block but Detect is in models.common."""
    if build is Detect:
        return "models.yolo.Detect"
    if build.__module__.startswith("models.blocks_"):
        return f"models.common.{build.__name__}"
    return f"{build.__module__}.{build.__name__}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:LONGEST_TOLD]


class DetectionModel(nn.Module):
    """The network that a model YAML describes: backbone, head, and Detect as the last layer.

    Args:
        cfg: path of a model YAML (looked for as given, then in the repository, models/ and models/hub/), or its content
            as a dict.
        ch: input channels, where the YAML does not name them.
        nc: number of classes, in place of the YAML's.
        anchors: in place of the YAML's: (width, height) pairs in pixels, a flat list a level, or their number a level.
        names: nc class names.

    Attributes:
        yaml: the description, with ch, nc and anchors as built.
        names: class names by class number.
        model: the layers in order, the last of which is Detect.
        save: indices of the layers whose output is needed later than by the next layer.
        rows: the lines of the model table.

    Raises InputError where the network cannot be built.

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
                module.eps, module.momentum = 1e-3, 0.03  # v6.1's; torch's are 1e-5 and 0.1

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
        """images (B, ch, H, W), RGB in 0..1, H and W multiples of the largest stride. Returns what Detect returns: in
        train mode the raw maps, in eval mode (decoded predictions, raw maps)."""
        output: Any = images
        kept: list[Any] = []  # the output of each layer so far; None where no later one takes it, to free memory
        for layer in self.model:
            output = layer(_inputs(layer, output, kept))  # (B, C, H / stride, W / stride) before Detect
            kept.append(output if layer.i in self.save else None)
        return output

    def layer_outputs(self, images: Tensor) -> Iterator[tuple[int, str, Any]]:
        """What forward computes, layer by layer: yields (index, type, output) of each as soon as it is there. The last
        output is Detect's."""
        output: Any = images
        kept: list[Any] = []
        layer: Any  # with the attributes that parse_model adds
        for layer in self.model:
            output = layer(_inputs(layer, output, kept))
            kept.append(output if layer.i in self.save else None)
            yield layer.i, layer.type, output

    def fuse(self) -> "DetectionModel":
        """Folds every batch normalisation into the convolution before it, in place: eval mode gives the same results
        faster, and the model is no longer one to train. Returns self."""
        for module in self.modules():
            if isinstance(module, common.Fusable):
                module.fuse_()
        return self

    def _probe_strides(self) -> Tensor:
        """Pixels a cell of each level, (nl,), measured with an empty image. A map of a single cell does not tell the
        stride, which may be larger than the image: then a larger image is taken."""
        side, heights = PROBE_SIDE, self._probed(PROBE_SIDE)
        while min(heights) == 1 and side < LARGEST_PROBE:
            side *= 2
            heights = self._probed(side)
        return torch.tensor([side / height for height in heights])

    def _probed(self, side: int) -> list[int]:
        """The height in cells of each level's raw map, for an empty square image of that side in pixels. The forward
        changes no running statistics and no random numbers. Raises InputError, which names the layer, where one cannot
        take its inputs. (On torch's "meta" device nothing would be computed, but torch would import its compiler: 1 s
        and 100 MB at every start.)"""
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
            place = f"layer {row.number} ({row.type}) does not fit its inputs {str(row.source)[:60]}"
            raise InputError(f"{place}: {_one_line(error)}") from error
        finally:
            self.train()
            for hook in hooks:
                hook.remove()


def _inputs(layer: Any, previous: Any, kept: list[Any]) -> Any:
    """What the layer's `from` names: one output, or a list of them. previous: that of the layer before, which is -1;
    other negative numbers count back in `kept`."""
    if layer.f == -1:
        return previous
    if isinstance(layer.f, int):
        return kept[layer.f]
    return [previous if source == -1 else kept[source] for source in layer.f]


Model = DetectionModel  # v6.1's name
