"""How weights are changed in a training: parameter groups, optimizers, schedules, early stopping. Not for the loop that
changes them: that is engine/trainer.py."""

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
    """All parameters of a model, each in exactly one list, in the model's order."""

    norm_weights: list[nn.Parameter]  # no decay
    weights: list[nn.Parameter]  # decay
    biases: list[nn.Parameter]  # no decay


def parameter_groups(model: nn.Module) -> ParameterGroups:
    """Sorts a model's parameters by whether weight decay acts on them.

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
    """The optimizer OPTIMIZERS[name] with the groups of parameter_groups, in that order. `weight_decay` acts on the
    weights alone. Raises InputError for an unknown name.

    Differs from v6.1: AdamW's own default decay of 0.01 does not act on the two groups that must not decay.
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
    """How many batches' gradients are added up for one optimizer step: nominal_batch / batch_size, rounded, at least 1.

    progress: how far the warm-up is, 0..1. It begins with 1 batch a step.
    """
    return max(1, round(float(np.interp(progress, (0, 1), (1, nominal_batch / batch_size)))))


def scaled_weight_decay(hyp: Hyp, batch_size: int) -> float:
    """The weight decay in proportion to the images that one optimizer step really sees: hyp.weight_decay is for
    hyp.nominal_batch of them, and they are batch_size times the accumulated batches."""
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
    """The learning rates, momentum and accumulation of every iteration; they depend on the iteration's number alone.

    During the first max(warmup_epochs * batches, minimum) iterations the learning rates rise from 0 (that of the biases
    starts at warmup_bias_lr), the momentum rises from warmup_momentum, and the accumulation from 1 batch. After that
    the learning rate of all groups is lr0 * factor(epoch).

    Differs from v6.1: the minimum is 100 iterations; v6.1's 1000 are more than the whole training on a small set.
    """

    hyp: Hyp
    factor: Callable[[float], float]  # lr_lambda's result
    batches: int  # in an epoch
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
        """Writes the settings of iteration `step` into the groups of an optimizer of build_optimizer (Adam's have no
        momentum to set). Returns the accumulation."""
        settings = self.at(step)
        for group, lr in zip(optimizer.param_groups, settings.lr, strict=True):
            group["lr"] = lr
            if "momentum" in group:
                group["momentum"] = settings.momentum
        return settings.accumulate


def _between(start: float, end: float, progress: float) -> float:
    """From start at progress 0 to exactly end at 1."""
    return start + (end - start) * progress if progress < 1 else end


class EarlyStopping:
    """Says when a training should end because its fitness has not risen for `patience` epochs. patience 0: never.

    Differs from v6.1: an equal fitness is no improvement, so that a training whose fitness stays the same ends too.
    """

    def __init__(self, patience: int = 100) -> None:
        self.patience = patience or math.inf
        self.best_fitness = -math.inf
        self.best_epoch = 0

    def __call__(self, epoch: int, fitness: float) -> bool:
        """Notes an epoch's fitness; True if the training should end."""
        if fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = fitness, epoch
        return self.is_over(epoch)

    def is_over(self, epoch: int) -> bool:
        """Whether the training should end after `epoch`. Before that epoch's fitness is noted, it says whether the
        training will end unless that fitness is the best. False until a first fitness, which is 0 or more, is noted."""
        return self.best_fitness >= 0 and epoch - self.best_epoch >= self.patience


def annealing_epochs(epochs: int, hyp: Hyp) -> float:
    """In how many of the epochs the temperature falls to 1: hyp.temperature_epochs, but at most a third of all. OFF: it
    does not fall."""
    return OFF if hyp.temperature_epochs == OFF else min(hyp.temperature_epochs, epochs / 3)


def temperature_at(epoch: int, epochs: int, hyp: Hyp) -> float:
    """The attention temperature of dynamic layers in an epoch. It falls evenly from hyp.temperature to 1 within
    annealing_epochs; it is 1 from the start where these are 0, and stays hyp.temperature where they are OFF."""
    length = annealing_epochs(epochs, hyp)
    if length == OFF:
        return hyp.temperature
    if length <= 0:
        return 1.0
    return max(1.0, hyp.temperature - (hyp.temperature - 1) * epoch / length)
