"""Dynamic convolution as layers: `attention2d` over K kernels and `Dynamic_conv2d`, with the names that people's code
and weights use. The arithmetic is in models/dynamic_ops.py; blocks built of these layers are in models/common.py.

"Dynamic Convolution: Attention over Convolution Kernels", Chen et al., CVPR 2020, arXiv:1912.03458.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.dynamic_ops import dynamic_conv2d
from utils.errors import InputError

TEMPERATURE_STEP = 3  # of update_temperature: 34, 31, ..., 4, 1


class attention2d(nn.Module):  # noqa: N801  (the published name)
    """The weights of K kernels for each sample: global average, fc1, ReLU, fc2, softmax(logits / temperature).

    x (B, in_planes, H, W) -> (B, K), each row summing to 1, at least float32. The hidden width is
    int(in_planes * ratios), at least 1, and K where in_planes is 3. The temperature is a buffer, so that it is saved
    with the weights. A state dict without it can be loaded, and leaves it as it is.
    """

    temperature: Tensor

    def __init__(
        self, in_planes: int, ratios: float, K: int, temperature: float = 34, init_weight: bool = True
    ) -> None:
        super().__init__()
        hidden = K if in_planes == 3 else max(int(in_planes * ratios), 1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(in_planes, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, K, 1, bias=False)
        self.register_buffer("temperature", torch.tensor(0.0))
        self.set_temperature(temperature)
        if init_weight:
            nn.init.kaiming_normal_(self.fc1.weight, mode="fan_out", nonlinearity="relu")
            nn.init.kaiming_normal_(self.fc2.weight, mode="fan_out", nonlinearity="relu")

    def set_temperature(self, value: float) -> None:
        """The higher, the more even the attention; 1 is the plain softmax. Raises InputError for a value that is not
        positive."""
        if not value > 0:
            raise InputError(f"temperature: a positive number was expected, got {value}")
        self.temperature.fill_(value)

    def update_temperature(self) -> None:
        """Lowers the temperature by 3, but not below 1. Code written for the published layer calls this once an
        epoch."""
        self.set_temperature(max(1.0, float(self.temperature) - TEMPERATURE_STEP))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc2(torch.relu(self.fc1(self.avgpool(x)))).flatten(1)  # (B, K)
        # a softmax in 16 bits would not sum to 1
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return torch.softmax(logits / self.temperature, dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        complete = {f"{prefix}temperature": self.temperature, **state_dict}
        super()._load_from_state_dict(complete, prefix, *rest)


class Dynamic_conv2d(nn.Module):  # noqa: N801  (the published name)
    """A convolution whose kernel is a mixture of K kernels, with weights that depend on the sample.

    x (B, in_planes, H, W) -> (B, out_planes, H', W'), in x's memory format. Note the order of the arguments: the fourth
    is the ratio of the attention's hidden width, not the stride. Raises InputError where groups does not divide both
    in_planes and out_planes.

    Differs from v6.1: (the published layer) biases start at zero instead of uninitialised memory, hidden width is at
    least 1, groups > 1 works, channels_last is kept, the temperature is a buffer, and the softmax is in float32.
    """

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int,
        ratio: float = 0.25,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        K: int = 4,
        temperature: float = 34,
        init_weight: bool = True,
    ) -> None:
        super().__init__()
        if in_planes % groups or out_planes % groups:
            raise InputError(f"groups={groups} must divide in_planes={in_planes} and out_planes={out_planes}")
        self.in_planes, self.out_planes, self.kernel_size = in_planes, out_planes, kernel_size
        self.stride, self.padding, self.dilation, self.groups, self.K = stride, padding, dilation, groups, K
        self.attention = attention2d(in_planes, ratio, K, temperature, init_weight)
        self.weight = nn.Parameter(torch.randn(K, out_planes, in_planes // groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(K, out_planes)) if bias else None
        if init_weight:
            for kernel in self.weight:
                nn.init.kaiming_uniform_(kernel)

    def update_temperature(self) -> None:
        """As attention2d's."""
        self.attention.update_temperature()

    def forward(self, x: Tensor) -> Tensor:
        return dynamic_conv2d(
            x,
            self.weight,
            self.bias,
            self.attention(x),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Dynamic_conv2d":
        """What .to(), .half(), .cuda(), ... call with the conversion of a tensor. The kernels (K, O, C, k, k) are
        converted as (K * O, C, k, k), because .to(memory_format=torch.channels_last) refuses five dimensions. They stay
        contiguous, the order in which mixing reads them."""

        def convert(tensor: Tensor) -> Tensor:
            if tensor.dim() != 5:
                return fn(tensor)
            return fn(tensor.flatten(0, 1)).contiguous().unflatten(0, tensor.shape[:2])

        return super()._apply(convert, recurse)  # type: ignore[no-untyped-call]  # torch's own

    def extra_repr(self) -> str:
        shape = f"{self.in_planes}, {self.out_planes}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{shape}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}, K={self.K}"


def dynamic_layers(model: nn.Module) -> list[tuple[str, Dynamic_conv2d]]:
    """Every dynamic convolution in the model with its qualified name, in order; an empty list for a static model."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, Dynamic_conv2d)]


def set_temperature(model: nn.Module, value: float) -> None:
    """Sets the attention temperature of every dynamic convolution in the model; nothing to do in a static one."""
    for _, layer in dynamic_layers(model):
        layer.attention.set_temperature(value)
