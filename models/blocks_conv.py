"""Convolution blocks with batch normalisation, and how that normalisation folds into their weights.

Not for blocks built of several of these: those, and the meaning of the short argument names, are in models/common.py.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks_dynamic import Dynamic_conv2d

Size = int | tuple[int, int]  # YAMLs have lists, which torch takes too


def autopad(k: Size, p: Size | None = None) -> Size:
    """The padding that keeps the size of the image at stride 1 (half the kernel), unless p is given."""
    if p is not None:
        return p
    return k // 2 if isinstance(k, int) else (k[0] // 2, k[1] // 2)


def activation(act: bool | nn.Module) -> nn.Module:
    """True: SiLU, a module: itself, anything else: the identity."""
    if act is True:
        return SiLU(inplace=True)
    return act if isinstance(act, nn.Module) else nn.Identity()


class SiLU(nn.SiLU):
    """torch's SiLU with two changes that make training faster and no result different. It does not work in place, where
    autograd would keep a copy of what is overwritten. And gradients with gaps in memory, as a concatenation passes them
    back, are copied into one piece first: with gaps, torch's backward takes one number at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and x.requires_grad):
            return super().forward(x)
        out = F.silu(x)
        out.register_hook(in_one_piece)
        return out


def in_one_piece(gradient: Tensor) -> Tensor:
    """The gradient (B, C, H, W) without gaps in memory, in channels_last order where it is in that."""
    order = torch.channels_last if gradient.stride(1) == 1 else torch.contiguous_format
    return gradient.contiguous(memory_format=order)


class Fusable(nn.Module):
    """A block with a batch normalisation `bn` that can be folded into the convolutions before it."""

    bn: nn.BatchNorm2d | None

    def fuse_(self) -> None:
        """Folds `bn`, with its running statistics, into the weights, in place, and sets it to None. Eval mode gives the
        same results; the block is no longer one to train. Does nothing the second time."""
        if self.bn is not None:
            self._fold_(*scale_and_shift(self.bn))
            self.bn = None

    def _fold_(self, scale: Tensor, shift: Tensor) -> None:
        raise NotImplementedError

    def _normalise(self, x: Tensor) -> Tensor:
        return x if self.bn is None else self.bn(x)


def scale_and_shift(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """bn in eval mode as y = scale * x + shift, both (C,), float64 so that folding rounds only once."""
    mean, variance = bn.running_mean, bn.running_var
    assert mean is not None, "a batch normalisation without running statistics"
    assert variance is not None, "a batch normalisation without running statistics"
    scale = bn.weight.detach().double() / (variance.double() + bn.eps).sqrt()
    return scale, bn.bias.detach().double() - mean.double() * scale


def fold_into_(conv: nn.Conv2d | Dynamic_conv2d, scale: Tensor, shift: Tensor) -> None:
    """Changes the weights of conv, in place, so that it computes scale * conv(x) + shift; both (O,). In a dynamic
    convolution each of the K kernels and biases is changed, which gives the same mixture because the attention sums to
    1."""
    weight = conv.weight.detach()  # ([K,] O, C / groups, k, k)
    leading = weight.shape[:-3]  # ([K,] O)
    bias = torch.zeros(leading, device=weight.device) if conv.bias is None else conv.bias.detach()
    folded = weight * scale[:, None, None, None]  # float64
    conv.weight = nn.Parameter(folded.to(weight.dtype))
    conv.bias = nn.Parameter((bias * scale + shift).to(weight.dtype))


class Normalised(Fusable):
    """What Conv and DyConv have in common: `conv`, then `bn`, then `act`."""

    conv: nn.Conv2d | Dynamic_conv2d
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self._normalise(self.conv(x)))

    def _fold_(self, scale: Tensor, shift: Tensor) -> None:
        fold_into_(self.conv, scale, shift)


class Conv(Normalised):
    """Convolution, batch normalisation, activation (SiLU)."""

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
        self.conv = nn.Conv2d(c1, c2, k, s, autopad(k, p), groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = activation(act)


class DWConv(Conv):
    """Conv with gcd(c1, c2) groups: depth-wise where c1 == c2."""

    def __init__(self, c1: int, c2: int, k: Size = 1, s: Size = 1, act: bool | nn.Module = True) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), act=act)


class DyConv(Normalised):
    """Conv with a dynamic convolution of K kernels. ratio: the attention's hidden width as a part of c1."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        act: bool | nn.Module = True,
        K: int = 4,
        ratio: float = 0.25,
    ) -> None:
        super().__init__()
        self.conv = Dynamic_conv2d(c1, c2, k, ratio, s, k // 2 if p is None else p, groups=g, bias=False, K=K)
        self.bn = nn.BatchNorm2d(c2)
        self.act = activation(act)


class GhostConv(nn.Module):
    """Half the channels by Conv, the other half by a cheap depth-wise 5x5 of them. arXiv:1911.11907."""

    def __init__(self, c1: int, c2: int, k: Size = 1, s: Size = 1, g: int = 1, act: bool | nn.Module = True) -> None:
        super().__init__()
        hidden = c2 // 2
        self.cv1 = Conv(c1, hidden, k, s, g=g, act=act)
        self.cv2 = Conv(hidden, hidden, 5, 1, g=hidden, act=act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return torch.cat((x, self.cv2(x)), dim=1)


class MixConv2d(Fusable):
    """Convolutions of several kernel sizes side by side, then one batch normalisation and SiLU. arXiv:1907.09595.

    equal_ch: each kernel size gets as many of the c2 channels; otherwise about as many parameters.
    """

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (1, 3), s: int = 1, equal_ch: bool = True) -> None:
        super().__init__()
        widths = _even_shares(c2, len(k)) if equal_ch else _equal_parameter_shares(c2, k)
        self.m = nn.ModuleList(
            nn.Conv2d(c1, width, side, s, side // 2, groups=math.gcd(c1, width), bias=False)
            for side, width in zip(k, widths, strict=True)
        )
        self.bn = nn.BatchNorm2d(c2)
        self.act = activation(True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self._normalise(torch.cat([conv(x) for conv in self.m], dim=1)))

    def _fold_(self, scale: Tensor, shift: Tensor) -> None:
        convs = [conv for conv in self.m if isinstance(conv, nn.Conv2d)]
        widths = [conv.out_channels for conv in convs]
        for conv, part, offset in zip(convs, scale.split(widths), shift.split(widths), strict=True):
            fold_into_(conv, part, offset)


def _even_shares(channels: int, parts: int) -> list[int]:
    """How many of the channels go to each part, where channel i of n goes to part floor(i * parts / (n - 1)): v6.1's
    rule, which decides the shapes in a checkpoint. The small constant keeps the last channel in the last part."""
    step = (parts - 1e-6) / max(channels - 1, 1)
    owners = [int(channel * step) for channel in range(channels)]
    return [owners.count(part) for part in range(parts)]


def _equal_parameter_shares(channels: int, k: Sequence[int]) -> list[int]:
    """Channels for each kernel size in proportion to 1 / k^2, so that each has about as many parameters."""
    total = sum(side**-2 for side in k)
    shares = [round(channels * side**-2 / total) for side in k]
    shares[k.index(min(k))] += channels - sum(shares)  # what rounding lost or gained
    return shares
