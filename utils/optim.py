"""How weights are moved: parameter groups, optimizers, schedules, early stopping. Not the loop that does it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import SGD, Adam, AdamW, Optimizer

from utils.errors import InputError
from utils.hyp import OFF, Hyp
from utils.log import LOGGER

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
WARMUP_MINIMUM = 100  # iterations

OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], Hyp], Optimizer]] = {
    "SGD": lambda groups, hyp: SGD(groups, lr=hyp.lr0, momentum=hyp.momentum, nesterov=hyp.momentum > 0),
    "Adam": lambda groups, hyp: Adam(groups, lr=hyp.lr0, betas=(hyp.momentum, 0.999)),
    "AdamW": lambda groups, hyp: AdamW(groups, lr=hyp.lr0, betas=(hyp.momentum, 0.999)),
}


class ParameterGroups(NamedTuple):
    """All parameters of a model, each in one list, in the model's order."""

    norm_weights: list[nn.Parameter]  # no decay
    weights: list[nn.Parameter]  # decay
    biases: list[nn.Parameter]  # no decay


def parameter_groups(model: nn.Module) -> ParameterGroups:
    """Sorts a model's parameters by what weight decay may do to them.

    Differs from v6.1: no parameter is left out. v6.1 looks for `weight` and `bias` alone, and so never trains the
    in-projection of the transformer block's attention nor the weights of `Sum`.
    """
    groups = ParameterGroups([], [], [])
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if "bias" in name:
                groups.biases.append(parameter)
            elif isinstance(module, NORMS):
                groups.norm_weights.append(parameter)
            else:
                groups.weights.append(parameter)
    return groups


def build_optimizer(name: str, model: nn.Module, hyp: Hyp, *, weight_decay: float) -> Optimizer:
    """The optimizer OPTIMIZERS[name] over three groups in this order: normalisation weights, weights (the only ones
    that `weight_decay` acts on), biases. Raises InputError for an unknown name.

    Differs from v6.1: AdamW's own default decay of 0.01 does not reach the groups that shall not decay.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"--optimizer: one of {', '.join(OPTIMIZERS)} was expected, got {name!r}")
    groups = parameter_groups(model)
    LOGGER.info(
        f"{name}: {len(groups.norm_weights)} normalisation weights, {len(groups.weights)} weights "
        f"(decay {weight_decay:.6g}), {len(groups.biases)} biases"
    )
    decays = (0.0, weight_decay, 0.0)
    rows = [{"params": params, "weight_decay": decay} for params, decay in zip(groups, decays, strict=True)]
    return OPTIMIZERS[name](rows, hyp)


def accumulate_steps(batch_size: int, nominal_batch: int, progress: float = 1.0) -> int:
    """Batches whose gradients make one optimizer step: nominal_batch / batch_size rounded, at least 1. `progress` in
    [0, 1] is how far the warm-up is; it starts at 1 batch a step."""
    return max(1, round(float(np.interp(progress, (0, 1), (1, nominal_batch / batch_size)))))


def scaled_weight_decay(hyp: Hyp, batch_size: int) -> float:
    """The weight decay for the images that one optimizer step really sees, batch_size x accumulated batches."""
    return hyp.weight_decay * batch_size * accumulate_steps(batch_size, hyp.nominal_batch) / hyp.nominal_batch


def lr_lambda(epochs: int, lrf: float, cos: bool = False) -> Callable[[float], float]:
    """The factor on the learning rate at an epoch, from 1 at 0 to `lrf` at `epochs`: a line, or half a cosine wave."""

    def linear(epoch: float) -> float:
        return lrf + (1 - lrf) * (1 - epoch / epochs)

    def cosine(epoch: float) -> float:
        return 1 - (1 - lrf) * (1 - math.cos(math.pi * epoch / epochs)) / 2

    return cosine if cos else linear


class StepSettings(NamedTuple):
    """What the optimizer runs with at one iteration."""

    lr: tuple[float, float, float]  # in parameter_groups' order
    momentum: float
    accumulate: int  # batches an optimizer step


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """The learning rates, momentum and accumulation of every iteration, a pure function of the iteration's number.

    In the first max(warmup_epochs * batches, minimum) iterations the rates rise from 0 (the biases' fall from
    warmup_bias_lr), the momentum rises from warmup_momentum and the accumulation from 1 batch. After that the rate is
    lr0 * factor(epoch) for all groups.

    Differs from v6.1: at least 100 iterations; 1000 are more than a small set's whole training.
    """

    hyp: Hyp
    factor: Callable[[float], float]  # lr_lambda's result
    batches: int  # an epoch
    batch_size: int
    minimum: int = WARMUP_MINIMUM

    @property
    def iterations(self) -> int:
        """How many iterations the warm-up takes."""
        return max(round(self.hyp.warmup_epochs * self.batches), self.minimum)

    def at(self, step: int) -> StepSettings:
        """Settings of iteration `step`, counted from 0 over all epochs."""
        hyp = self.hyp
        length = self.iterations
        progress = min(step / length, 1.0) if length else 1.0
        lr = hyp.lr0 * self.factor(step // self.batches)
        rising, falling = _between(0.0, lr, progress), _between(hyp.warmup_bias_lr, lr, progress)
        return StepSettings(
            lr=(rising, rising, falling),
            momentum=_between(hyp.warmup_momentum, hyp.momentum, progress),
            accumulate=accumulate_steps(self.batch_size, hyp.nominal_batch, progress),
        )

    def apply(self, optimizer: Optimizer, step: int) -> int:
        """Writes the settings of iteration `step` into the optimizer's groups, which are `build_optimizer`'s (Adam has
        no momentum to set). Returns the accumulation."""
        settings = self.at(step)
        for group, lr in zip(optimizer.param_groups, settings.lr, strict=True):
            group["lr"] = lr
            if "momentum" in group:
                group["momentum"] = settings.momentum
        return settings.accumulate


def _between(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress if progress < 1 else end


class EarlyStopping:
    """Tells when the fitness has not risen for `patience` epochs; 0 is never.

    Differs from v6.1: an equal fitness is no improvement, so that a plateau ends too.
    """

    def __init__(self, patience: int = 100, *, best_fitness: float = -math.inf, best_epoch: int = 0) -> None:
        self.patience = patience or math.inf
        self.best_fitness = best_fitness
        self.best_epoch = best_epoch

    def __call__(self, epoch: int, fitness: float) -> bool:
        """Notes an epoch's fitness; True if the training should end."""
        if fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = fitness, epoch
        return self.is_over(epoch)

    def is_over(self, epoch: int) -> bool:
        """Whether the training should end after `epoch`, unless its fitness, where that is not noted yet, is the best.
        Before the first fitness, which is 0 or more, never."""
        return self.best_fitness >= 0 and epoch - self.best_epoch >= self.patience


def annealing_epochs(epochs: int, hyp: Hyp) -> float:
    """How many of `epochs` the temperature takes to fall to 1; OFF (-1): it stays."""
    return OFF if hyp.temperature_epochs == OFF else min(hyp.temperature_epochs, epochs / 3)


def temperature_at(epoch: int, epochs: int, hyp: Hyp) -> float:
    """The attention temperature of dynamic layers in an epoch: falls evenly from hyp.temperature to 1 within
    hyp.temperature_epochs or a third of all epochs, whichever is shorter; 1 throughout where that is 0, and
    hyp.temperature throughout where it is OFF (-1)."""
    length = annealing_epochs(epochs, hyp)
    if length == OFF:
        return hyp.temperature
    if length <= 0:
        return 1.0
    return max(1.0, hyp.temperature - (hyp.temperature - 1) * epoch / length)
