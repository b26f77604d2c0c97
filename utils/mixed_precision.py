"""Whether a network's results in 16 bits agree with those in 32, which is checked before a training relies on it. Not
for which 16-bit type a device is fast with (amp_dtype of utils/torch_utils.py), nor for losses that overflow later."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)
from torch.nn.modules.dropout import _DropoutNd

from utils.log import LOGGER
from utils.torch_utils import amp_dtype

# In machine epsilons of the 16-bit type. Layers of yolov5n to yolov5x6, trained and untrained, static and dynamic,
# differ by 0.8 to 2.4 of them in both types where all is well, and by hundreds where arithmetic goes wrong.
TOLERANCE = 8.0
SAMPLE_SIDE = 256  # pixels: two cells for the largest stride in use


def disagreement(model: nn.Module, images: Tensor, dtype: torch.dtype) -> float:
    """How far the results of a network's layers under autocast to `dtype` are from their float32 results, in train
    mode.

    That is the largest ||half - full|| / ||full|| of all layers of model.model (an nn.Sequential); inf where one is
    infinite or NaN. Each layer gets the float32 results of the layers before it: an untrained deep network amplifies
    rounding so much that of yolov5x6's outputs as a whole nothing agrees, although the arithmetic is right.

    images: (B, 3, H, W) in 0..1 on the model's device, H and W multiples of its largest stride. The model with its
    batch statistics and gradients, and the generators of random numbers, are left as they are.
    """
    judged = deepcopy(model).train()
    for module in judged.modules():
        if isinstance(module, _DropoutNd):
            module.eval()  # it would drop other values in each of the two runs
    found: list[float] = []

    def compare(layer: nn.Module, inputs: tuple[Any, ...], full: Any) -> None:
        with torch.autocast(images.device.type, dtype=dtype):
            half = layer.forward(*inputs)
        found.extend(map(_relative_difference, _tensors(half), _tensors(full)))

    for layer in judged.get_submodule("model").children():
        layer.register_forward_hook(compare)
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        judged(images)
    return max(found)


def checked_amp_dtype(model: nn.Module) -> torch.dtype | None:
    """The type to autocast to on the model's device: that of amp_dtype. None (float32), with a warning in the log,
    where a layer's results in that type are more than TOLERANCE away from those in float32."""
    device = next(model.parameters()).device
    dtype = amp_dtype(device)
    if dtype is None:
        return None
    found, allowed = disagreement(model, sample_images().to(device), dtype), TOLERANCE * torch.finfo(dtype).eps
    if found <= allowed:
        return dtype
    LOGGER.warning(
        f"Training in float32: in {str(dtype).removeprefix('torch.')} a layer's results are {found:.2g} of their size "
        f"away from those in float32, more than the {allowed:.2g} that rounding explains"
    )
    return None


def sample_images() -> Tensor:
    """Two pictures (2, 3, SAMPLE_SIDE, SAMPLE_SIDE) in 0..1, always the same: smooth patches of colour and noise."""
    rng = torch.Generator().manual_seed(0)
    patches = F.interpolate(torch.rand(2, 3, 8, 8, generator=rng), size=SAMPLE_SIDE, mode="bilinear")
    return (patches + 0.1 * torch.randn(patches.shape, generator=rng)).clamp_(0, 1)


def _tensors(output: Tensor | list[Tensor]) -> Iterator[Tensor]:
    yield from [output] if isinstance(output, Tensor) else output


def _relative_difference(half: Tensor, full: Tensor) -> float:
    """||half - full|| / ||full||, 0 where both are nothing but zeros, inf where that is no number."""
    distance, size = float((half.float() - full).norm()), float(full.norm())
    ratio = distance / size if size else distance
    return ratio if ratio < torch.inf else torch.inf
