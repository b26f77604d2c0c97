"""A network for one image size, made of the plainest operations: what the converters for mobile runtimes take. Not for
writing files: models/export_coreml.py, export_ncnn.py, export_tensorflow.py, export_tflite.py.

Why not the network as it is: NCNN has no fifth dimension and no batched sums of products, TFLite no powers, and 8-bit
runtimes want weights that are constants, which a kernel mixed for a sample is not.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from models.blocks_detect import Detect
from models.blocks_dynamic import Dynamic_conv2d, dynamic_layers
from models.frozen import ROW, mixed_convolution
from models.yolo import DetectionModel
from utils.anchors import make_grid


class FixedSizeNetwork(nn.Module):
    """A copy of a network in eval mode, on the CPU, for images of one size.

    Args:
        size_hw: pixels, multiples of the network's stride.
        channels_last: images are (B, H, W, 3), else (B, 3, H, W); float32, RGB in 0..1.
        fractions: boxes in 0..1 of width and height, else in pixels.

    Returns decoded predictions (B, N, 5 + nc), float32, in the order of the network's own.
    """

    def __init__(
        self, model: DetectionModel, size_hw: tuple[int, int], *, channels_last: bool = False, fractions: bool = False
    ) -> None:
        super().__init__()
        self.network = deepcopy(model).cpu().float()
        for name, layer in dynamic_layers(self.network):
            parent, _, attribute = name.rpartition(".")
            setattr(self.network.get_submodule(parent), attribute, placed_as(layer, WeightedSum(layer)))
        unit_wh = size_hw[::-1] if fractions else (1, 1)
        detect = self.network.detect
        self.network.model[-1] = placed_as(detect, FixedSizeDetect(detect, size_hw, unit_wh))
        self.channels_last = channels_last
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.permute(0, 3, 1, 2) if self.channels_last else images)


def placed_as(layer: nn.Module, replacement: nn.Module) -> nn.Module:
    """The replacement, which now knows the layer's row in the YAML, where the layer is one by itself."""
    vars(replacement).update({key: value for key, value in vars(layer).items() if key in ROW})
    return replacement


class WeightedSum(nn.Module):
    """A dynamic convolution as K plain ones, whose results are weighted with the attention and summed up."""

    def __init__(self, layer: Dynamic_conv2d) -> None:
        super().__init__()
        self.attention = layer.attention
        self.convs = nn.ModuleList(mixed_convolution(layer, only_one) for only_one in torch.eye(layer.K))

    def forward(self, x: Tensor) -> Tensor:
        attention = self.attention(x).to(x.dtype).reshape(-1, len(self.convs), 1, 1)  # (B, K, 1, 1)
        mixed = self.convs[0](x) * attention[:, 0:1]
        for k in range(1, len(self.convs)):
            mixed = mixed + self.convs[k](x) * attention[:, k : k + 1]
        return mixed


class FixedSizeDetect(nn.Module):
    """Detect in eval mode for one image size, of tensors of at most four dimensions: its cells and anchors are
    constants.

    size_hw in pixels; unit_wh: the pixels that a box's 1 stands for, (1, 1) for boxes in pixels.
    """

    xy_scale: Tensor
    xy_shift: Tensor
    wh_scale: Tensor

    def __init__(self, detect: Detect, size_hw: tuple[int, int], unit_wh: tuple[int, int]) -> None:
        super().__init__()
        self.m, self.na, self.no = detect.m, detect.na, detect.no
        cells, strides, anchors = _constants(detect, size_hw)
        unit = torch.tensor(unit_wh, dtype=torch.float32)
        self.register_buffer("xy_scale", 2 * strides / unit)  # (1, N, 2), all three
        self.register_buffer("xy_shift", (cells - 0.5) * strides / unit)
        self.register_buffer("wh_scale", 4 * anchors / unit)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = [self._rows(conv(feature)) for conv, feature in zip(self.m, features, strict=True)]
        sigmoids = torch.cat(levels, dim=1).sigmoid()  # (B, N, no)
        xy, wh, scores = sigmoids[..., 0:2], sigmoids[..., 2:4], sigmoids[..., 4:]
        return torch.cat((xy * self.xy_scale + self.xy_shift, wh * wh * self.wh_scale, scores), dim=2)

    def _rows(self, output: Tensor) -> Tensor:
        batch, _, ny, nx = output.shape
        rows = output.reshape(batch, self.na, self.no, ny * nx).permute(0, 1, 3, 2)
        return rows.reshape(batch, self.na * ny * nx, self.no)


def _constants(detect: Detect, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Cells (column, row), pixels a cell, and anchors in pixels of each prediction: (1, N, 2) each."""
    cells, strides, anchors = [], [], []
    for stride, anchors_in_cells in zip(detect.stride, detect.anchors, strict=True):
        grid = make_grid((int(size_hw[0] / stride), int(size_hw[1] / stride))).flatten(0, 1)  # (ny * nx, 2)
        cells.append(grid.repeat(detect.na, 1))
        strides.append(stride.expand(len(grid) * detect.na, 2))
        anchors.append((anchors_in_cells * stride).repeat_interleave(len(grid), dim=0))
    return torch.cat(cells)[None], torch.cat(strides)[None], torch.cat(anchors)[None]
