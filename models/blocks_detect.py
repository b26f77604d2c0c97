"""The head of the network, `Detect`: raw maps for training, decoded boxes otherwise. Not for the arithmetic of
decoding, which is in utils/anchors.py, nor for suppression: utils/nms.py."""

import math

import torch
from torch import Tensor, nn

from utils.anchors import decode, in_stride_order, make_grid
from utils.torch_utils import is_traced


class Detect(nn.Module):
    """The head: a 1x1 convolution for each level, and in eval mode the decoding of its output into boxes.

    Args:
        nc: number of classes.
        anchors: nl lists, one a level, of na (width, height) pairs in pixels, each list flat.
        ch: input channels of each level.

    A new head predicts nothing of use before `set_strides`: from then on the buffer `stride` (nl,) holds pixels a cell,
    and the buffer `anchors` (nl, na, 2) cells instead of pixels.
    """

    anchors: Tensor
    stride: Tensor

    def __init__(self, nc: int, anchors: list[list[float]], ch: list[int]) -> None:
        super().__init__()
        self.nc, self.no = nc, nc + 5  # no: outputs an anchor, which are x, y, w, h, objectness, classes
        self.nl, self.na = len(anchors), len(anchors[0]) // 2
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32).view(self.nl, self.na, 2))
        self.register_buffer("stride", torch.ones(self.nl), persistent=False)
        self.m = nn.ModuleList(nn.Conv2d(channels, self.no * self.na, 1) for channels in ch)
        self._grids: dict[int, Tensor] = {}  # level -> (ny, nx, 2) of the last image size

    def set_strides(self, strides: Tensor) -> None:
        """To be called once, after construction. strides (nl,) in pixels a cell. Brings the anchors into the order of
        the strides and from pixels to cells, and sets the biases to the number of objects that is to be expected in an
        image, so that training starts from there (arXiv:1708.02002, section 3.3)."""
        self.stride.copy_(strides)
        self.anchors.copy_(in_stride_order(self.anchors, self.stride) / self.stride.view(-1, 1, 1))
        for conv, stride in zip(self.m, self.stride.tolist(), strict=True):
            bias = conv.get_parameter("bias").detach().view(self.na, self.no)  # a view of the parameter
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)  # 8 objects in an image of 640 pixels
            bias[:, 5:] += math.log(0.6 / (self.nc - 0.999999))  # one class is as likely as another

    def forward(self, features: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """features: nl maps (B, ch, ny, nx). Returns in train mode the nl raw maps (B, na, ny, nx, nc + 5), in eval
        mode (decoded, raw): decoded (B, N, nc + 5) is xywh in pixels, objectness and class probabilities in 0..1; its
        N predictions are in the order of levels, anchors, rows, columns.

        Differs from v6.1: boxes are decoded in at least float32; in 16 bits, large coordinates would be off by pixels.
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
        """Column and row of each cell, (ny, nx, 2), for the image size of `like` (B, na, ny, nx, ...). That of the last
        image size is cached, but not while tracing, as the traced network would then take this size alone."""
        size_hw = like.shape[2], like.shape[3]
        if is_traced() or torch.compiler.is_compiling():
            # type_as: a trace keeps the device on which it was made, and is to run on others
            return make_grid(size_hw, device=like.device, dtype=like.dtype).type_as(like)
        grid = self._grids.get(level)
        if grid is None or grid.shape[:2] != size_hw or grid.device != like.device or grid.dtype != like.dtype:
            grid = self._grids[level] = make_grid(size_hw, device=like.device, dtype=like.dtype)
        return grid
