"""Weights that were saved after fuse(): gives their convolutions batch normalisations again. Not for fuse() itself:
models/blocks_conv.py."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.blocks_conv import Conv, DyConv
from utils.log import LOGGER


def unfused(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A copy of `state`, the state dict of a network that may have been fused, for a model that is not. A block that
    has a convolution with a bias there and no batch normalisation gets one that adds this bias and does nothing else.
    In eval mode the model then computes what the fused network did. Logs a warning where there are such blocks.

    Differs from v6.1: there a training that starts from such a file loses the biases.
    """
    whole = dict(state)
    blocks = [(name, block) for name, block in model.named_modules() if isinstance(block, (Conv, DyConv))]
    fused = {name: block.bn.eps for name, block in blocks if block.bn and _is_fused(name, block, state)}
    for name, eps in fused.items():
        bias = whole.pop(f"{name}.conv.bias")
        whole |= {f"{name}.bn.{key}": tensor for key, tensor in _adding(bias, eps).items()}
    if fused:
        LOGGER.warning(
            f"{len(fused)} convolutions were saved without their batch normalisations (after fuse()) and get neutral "
            "ones: the network computes what it did, but to train from it is worse than from the file before fuse()"
        )
    return whole


def _is_fused(name: str, block: Conv | DyConv, state: Mapping[str, Tensor]) -> bool:
    """Whether the state has the block's convolution, in its shape and with a bias, and no batch normalisation."""
    kernel = state.get(f"{name}.conv.weight")
    has_convolution = kernel is not None and kernel.shape == block.conv.weight.shape
    return has_convolution and f"{name}.conv.bias" in state and f"{name}.bn.weight" not in state


def _adding(bias: Tensor, eps: float) -> dict[str, Tensor]:
    """The state of a batch normalisation that adds the bias. bias: (O,), or (K, O) of a fused DyConv, whose K biases
    are equal. Its running variance is 1 - eps, so that it divides by exactly 1."""
    shift = bias.reshape(-1, bias.shape[-1])[0]  # (O,)
    return {
        "weight": torch.ones_like(shift),
        "bias": shift,
        "running_mean": torch.zeros_like(shift),
        "running_var": torch.full_like(shift, 1 - eps),
        "num_batches_tracked": torch.tensor(0),
    }
