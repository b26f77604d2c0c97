"""The layers that model YAMLs name: convolutions, bottlenecks, CSP blocks, pyramid pooling, joining and reshaping.

Arguments come by position from the YAML, so their order is part of the interface: c1 and c2 are input and output
channels, k kernel size, s stride, p padding, g groups, e the hidden width as a part of c2, n repeats. Attribute names
are those of the official checkpoints. Blocks take and return (B, C, H, W). Not for how a YAML becomes a network: that
is models/yolo.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# all layers are imported from here, wherever they are written
from models.blocks_conv import (  # noqa: F401
    Conv,
    DWConv,
    DyConv,
    Fusable,
    GhostConv,
    MixConv2d,
    Size,
    activation,
    autopad,
    fold_into_,
)
from models.blocks_dynamic import Dynamic_conv2d, attention2d, dynamic_layers, set_temperature  # noqa: F401
from models.blocks_transformer import TransformerBlock, TransformerLayer  # noqa: F401
from utils.errors import InputError


class Bottleneck(nn.Module):
    """1x1 down to e * c2 channels, 3x3 up to c2, and the input added where shortcut and c1 == c2."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = self._spatial(hidden, c2, g)
        self.add = shortcut and c1 == c2

    def _spatial(self, c1: int, c2: int, g: int) -> nn.Module:
        return Conv(c1, c2, 3, 1, g=g)

    def forward(self, x: Tensor) -> Tensor:
        out = self.cv2(self.cv1(x))
        return x + out if self.add else out


class BottleneckDy(Bottleneck):
    """Bottleneck whose 3x3 convolution is dynamic."""

    def _spatial(self, c1: int, c2: int, g: int) -> nn.Module:
        return DyConv(c1, c2, 3, 1, g=g)


class BottleneckCSP(Fusable):
    """Cross stage partial block, first form: one batch normalisation over both joined paths. arXiv:1911.11929."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = nn.Conv2d(c1, hidden, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2, 1, 1)
        self.bn = nn.BatchNorm2d(2 * hidden)
        self.act = activation(True)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), dim=1)
        return self.cv4(self.act(self._normalise(joined)))

    def _fold_(self, scale: Tensor, shift: Tensor) -> None:
        for conv, part, offset in zip((self.cv3, self.cv2), scale.chunk(2), shift.chunk(2), strict=True):
            fold_into_(conv, part, offset)


class C3(nn.Module):
    """Cross stage partial block with three convolutions around n bottlenecks. arXiv:1911.11929."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(c1, hidden, 1, 1)
        self.cv3: nn.Module = Conv(2 * hidden, c2, 1)
        self.m = self._inner(hidden, n, shortcut, g)

    def _inner(self, channels: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*(Bottleneck(channels, channels, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), dim=1))


class C3Dy(C3):
    """C3 whose bottlenecks use dynamic convolutions."""

    def _inner(self, channels: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*(BottleneckDy(channels, channels, shortcut, g, e=1.0) for _ in range(n)))


class C3DyLast(C3):
    """C3 whose last 1x1 convolution, the one that mixes both paths, is dynamic."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        self.cv3 = DyConv(2 * int(c2 * e), c2, 1)


class C3Ghost(C3):
    """C3 of ghost bottlenecks."""

    def _inner(self, channels: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*(GhostBottleneck(channels, channels) for _ in range(n)))


class C3TR(C3):
    """C3 around a transformer of n layers with 4 heads. Raises InputError where c2 * e is no multiple of 4."""

    def _inner(self, channels: int, n: int, shortcut: bool, g: int) -> nn.Module:
        if channels % 4:
            raise InputError(f"C3TR's 4 heads need a hidden width (c2 * e) that is a multiple of 4, got {channels}")
        return TransformerBlock(channels, heads=4, layers=n)


class C3SPP(C3):
    """C3 around a spatial pyramid pooling with kernels k. n, shortcut and g do nothing: they keep the place of e, which
    follows them in v6.1."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Sequence[int] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
    ) -> None:
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = SPP(hidden, hidden, k)


class SPP(nn.Module):
    """Spatial pyramid pooling: max pools of several kernels side by side. arXiv:1406.4729."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden * (len(k) + 1), c2, 1, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(side, stride=1, padding=side // 2) for side in k)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat((x, *(pool(x) for pool in self.m)), dim=1))


class SPPF(nn.Module):
    """SPP(k = 5, 9, 13) computed faster, as three pools of k = 5 in a row."""

    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden * 4, c2, 1, 1)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        once = self.cv1(x)
        twice = self.m(once)
        thrice = self.m(twice)
        return self.cv2(torch.cat((once, twice, thrice, self.m(thrice)), dim=1))


class Focus(nn.Module):
    """Each 2x2 square of pixels becomes one pixel of 4 * c1 channels, then Conv. H and W must be even."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Size = 1,
        s: Size = 1,
        p: Size | None = None,
        g: int = 1,
        act: bool | nn.Module = True,
    ) -> None:
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k, s, p, g, act)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(corners, dim=1))


class GhostBottleneck(nn.Module):
    """Two ghost convolutions, between them a depth-wise convolution of stride 2 where s is 2, and a shortcut.
    arXiv:1911.11907."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        hidden = c2 // 2
        self.conv = nn.Sequential(
            GhostConv(c1, hidden, 1, 1),
            DWConv(hidden, hidden, k, s, act=False) if s == 2 else nn.Identity(),
            GhostConv(hidden, c2, 1, 1, act=False),
        )
        shortcut = (DWConv(c1, c1, k, s, act=False), Conv(c1, c2, 1, 1, act=False))
        self.shortcut = nn.Sequential(*shortcut) if s == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)


class CrossConv(nn.Module):
    """A 1 x k and then a k x 1 convolution in place of k x k, and the input added where shortcut and c1 == c2."""

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, g: int = 1, e: float = 1.0, shortcut: bool = False
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, (1, k), (1, s))
        self.cv2 = Conv(hidden, c2, (k, 1), (s, 1), g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        out = self.cv2(self.cv1(x))
        return x + out if self.add else out


class Concat(nn.Module):
    """Joins a list of feature maps along a dimension (1 = channels)."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


class Sum(nn.Module):
    """Adds n feature maps. weight: each but the first is multiplied by a learned factor in 0..2, which starts lower the
    later the map comes."""

    def __init__(self, n: int, weight: bool = False) -> None:
        super().__init__()
        self.n = n
        self.w = nn.Parameter(-torch.arange(1.0, n) / 2) if weight else None  # (n - 1,)

    def forward(self, x: list[Tensor]) -> Tensor:
        factors = [1.0] * (self.n - 1) if self.w is None else torch.sigmoid(self.w) * 2
        total = x[0]
        for factor, other in zip(factors, x[1:], strict=True):
            total = total + factor * other
        return total


class Contract(nn.Module):
    """Moves space into channels: (B, C, H, W) -> (B, C * gain^2, H / gain, W / gain). gain must divide H and W."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        gain = self.gain
        squares = x.reshape(batch, channels, height // gain, gain, width // gain, gain)
        # (B, row in square, column in square, C, H / gain, W / gain)
        return squares.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * gain**2, height // gain, width // gain)


class Expand(nn.Module):
    """Moves channels into space, the inverse of Contract: (B, C, H, W) -> (B, C / gain^2, H * gain, W * gain)."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        gain = self.gain
        squares = x.reshape(batch, gain, gain, channels // gain**2, height, width)
        # (B, C / gain^2, H, row in square, W, column in square)
        return squares.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // gain**2, height * gain, width * gain)
