"""The exponential moving average of a model's weights."""

import math
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

COPIED = "temperature"  # ends the keys of values that a schedule sets: an average would lag behind it

M = TypeVar("M", bound=nn.Module)


class ModelEma(Generic[M]):
    """A running average of a model's weights. `ema` is a model of its own, in eval mode and without gradients.

    The n-th update gives the old average the weight decay * (1 - exp(-n / tau)) and the model the rest, so that the
    average follows the model closely at first. Every float tensor of the state dict is averaged, batch-norm statistics
    included; integer ones stay as they were at construction; values whose keys end in COPIED are copied.

    updates: how many there have been, in a training that goes on.
    """

    def __init__(self, model: M, decay: float = 0.9999, tau: float = 2000, *, updates: int = 0) -> None:
        self.ema = deepcopy(_unwrapped(model)).eval().requires_grad_(False)
        self.base_decay = decay
        self.tau = tau
        self.updates = updates

    @property
    def decay(self) -> float:
        """The weight of the old average in the latest update."""
        return self.base_decay * (1 - math.exp(-self.updates / self.tau))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards `model`, whose state dict has the same keys and shapes."""
        self.updates += 1
        current = _unwrapped(model).state_dict()
        averages, targets = [], []
        for key, average in self.ema.state_dict().items():
            if key.endswith(COPIED):
                average.copy_(current[key])
            elif average.is_floating_point():
                averages.append(average)
                targets.append(current[key].to(average))
        if averages:
            torch._foreach_lerp_(averages, targets, 1 - self.decay)


def _unwrapped(model: M) -> M:
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        return model.module
    return model
