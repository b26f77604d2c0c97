"""A network for one image size, made of the plainest operations: what the converters for mobile runtimes take. Not for
writing files: models/export_coreml.py, export_ncnn.py, export_tensorflow.py, export_tflite.py.

Why they do not take the network as it is: NCNN has no tensors of five dimensions and no batched matrix products with
a sum, TFLite has no powers, and 8-bit runtimes want constant weights, which a kernel that is mixed for a sample is not.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from models.blocks_detect import Detect
from models.blocks_dynamic import Dynamic_conv2d, dynamic_layers
from models.frozen import mixed_convolution, replace_layer_
from models.yolo import DetectionModel
from utils.anchors import make_grid


class FixedSizeNetwork(nn.Module):
    """A copy of a network in eval mode, on the CPU, for images of one size. It takes float32 images, RGB in 0..1, and
    gives decoded predictions (B, N, 5 + nc), float32, in the order of the network's own.

    Args:
        size_hw: pixels, multiples of the network's stride.
        channels_last: images are (B, H, W, 3), else (B, 3, H, W).
        fractions: boxes are fractions of width and height, else in pixels.
    """

    def __init__(
        self, model: DetectionModel, size_hw: tuple[int, int], *, channels_last: bool = False, fractions: bool = False
    ) -> None:
        super().__init__()
        self.network = deepcopy(model).cpu().float()
        for name, layer in dynamic_layers(self.network):
            replace_layer_(self.network, name, WeightedSum(layer))
        detect = self.network.detect
        unit_wh = size_hw[::-1] if fractions else (1, 1)
        replace_layer_(self.network, f"model.{detect.i}", FixedSizeDetect(detect, size_hw, unit_wh))
        self.channels_last = channels_last
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.permute(0, 3, 1, 2) if self.channels_last else images)


class WeightedSum(nn.Module):
    """A dynamic convolution as K plain ones, whose results are multiplied by the attention and added."""

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
    """Detect in eval mode for one image size, whose cells and anchors are constants, with tensors of at most four
    dimensions.

    size_hw: of the images, pixels. unit_wh: how many pixels a width and a height of 1 are: (1, 1) for boxes in pixels.
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
    """Of each prediction the cell (column, row), the pixels a cell, and the anchor in pixels: (1, N, 2), all three."""
    cells, strides, anchors = [], [], []
    for stride, anchors_in_cells in zip(detect.stride, detect.anchors, strict=True):
        grid = make_grid((int(size_hw[0] / stride), int(size_hw[1] / stride))).flatten(0, 1)  # (ny * nx, 2)
        cells.append(grid.repeat(detect.na, 1))
        strides.append(stride.expand(len(grid) * detect.na, 2))
        anchors.append((anchors_in_cells * stride).repeat_interleave(len(grid), dim=0))
    return torch.cat(cells)[None], torch.cat(strides)[None], torch.cat(anchors)[None]
