"""Networks that were saved after fuse(): gives their convolutions batch normalisations again. Not for folding these
into the convolutions: that is in models/blocks_conv.py."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.blocks_conv import Conv, DyConv
from utils.log import LOGGER


def unfused(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A copy of `state` (a network's state dict) for the model, whose blocks have batch normalisations. Where the state
    has a convolution of the block's shape with a bias and no normalisation, as after fuse(), the block gets one that
    adds this bias and does nothing else, so that in eval mode it computes what the fused network did. Says so.

    Differs from v6.1: there a training that starts from such a file loses the biases.
    """
    whole = dict(state)
    blocks = [(name, block) for name, block in model.named_modules() if isinstance(block, (Conv, DyConv))]
    fused = [(name, block.bn.eps) for name, block in blocks if block.bn and _is_fused(name, block, state)]
    for name, eps in fused:
        bias = whole.pop(f"{name}.conv.bias")
        whole |= {f"{name}.bn.{key}": tensor for key, tensor in _adding(bias, eps).items()}
    if fused:
        LOGGER.warning(
            f"{len(fused)} convolutions were saved without their batch normalisations (after fuse()) and get neutral "
            "ones: the network computes what it did, but to train from it is worse than from the file before fuse()"
        )
    return whole


def _is_fused(name: str, block: Conv | DyConv, state: Mapping[str, Tensor]) -> bool:
    kernel, bias = state.get(f"{name}.conv.weight"), state.get(f"{name}.conv.bias")
    missing = block.bn is not None and f"{name}.bn.weight" not in state
    return missing and kernel is not None and kernel.shape == block.conv.weight.shape and bias is not None


def _adding(bias: Tensor, eps: float) -> dict[str, Tensor]:
    """The state of a batch normalisation whose scale is exactly 1, with its running variance, and whose shift is the
    bias: (O,), or (K, O) of a fused DyConv, whose K biases are equal."""
    shift = bias.reshape(-1, bias.shape[-1])[0]  # (O,)
    return {
        "weight": torch.ones_like(shift),
        "bias": shift,
        "running_mean": torch.zeros_like(shift),
        "running_var": torch.full_like(shift, 1 - eps),
        "num_batches_tracked": torch.tensor(0),
    }
