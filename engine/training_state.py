"""What one training owns, and how it gets into a checkpoint and back. Not for how it is built: that is
training_setup.py."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.interruption import StopSignals
from models.weights import Checkpoint
from models.yolo import DetectionModel
from utils.callbacks import Callbacks
from utils.data_config import DataConfig
from utils.dataloaders import Loader
from utils.distributed import gathered, rank, world_size
from utils.ema import ModelEma
from utils.hyp import Hyp
from utils.loss import DetectionLoss
from utils.optim import EarlyStopping, Warmup, annealing_epochs, temperature_at
from utils.tally import Metrics
from utils.torch_utils import random_states, set_random_states


@dataclass
class Progress:
    """Where a training stands. Together with the weights, the optimizer and the random states this decides how it goes
    on.

    Attributes:
        epoch: the one that is trained or comes next.
        batches: how many of its batches are done; after the last of them it still has to be validated.
        losses: (3,) sum of this rank's (box, obj, cls) losses of those batches, but for the skipped ones.
        skipped: how many of those batches were left out, as their loss was not finite.
        dropped: how many optimizer steps of the epoch were left out, as their gradient was not finite.
        lost_in_row: how many batches and steps were left out since the last good step.
        last_step: number, counted over all epochs, of the last batch after which the optimizer made a step.
        best_fitness: of all validated epochs; -1 before the first.
        class_maps: (nc,) mAP50-95 of the last validation.
    """

    class_maps: np.ndarray
    epoch: int = 0
    batches: int = 0
    losses: Tensor = field(default_factory=lambda: torch.zeros(3))
    skipped: int = 0
    dropped: int = 0
    lost_in_row: int = 0
    last_step: int = -1
    best_fitness: float = -1.0

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, batches of it that are done): how far the training has come."""
        return self.epoch, self.batches

    @property
    def counted(self) -> int:
        """How many batches `losses` is the sum of."""
        return self.batches - self.skipped

    def next_epoch(self) -> None:
        """Called when an epoch is trained and validated."""
        self.epoch += 1
        self.batches = self.skipped = self.dropped = 0
        self.losses = torch.zeros(3)

    def saved(self) -> dict[str, Any]:
        """As plain data, with the losses of every rank. Epoch and best_fitness are left out: the checkpoint has them in
        places of their own."""
        kept = {name: value for name, value in vars(self).items() if name not in ("epoch", "best_fitness")}
        return {**kept, "class_maps": self.class_maps.tolist(), "losses": gathered(self.losses.tolist())}

    @classmethod
    def of(cls, saved: dict[str, Any]) -> "Progress":
        """From a checkpoint's `training`. Our first versions saved between epochs alone, so that theirs has nothing of
        what counts within an epoch."""
        losses = torch.tensor(saved.get("losses", [[0.0] * 3]))  # (ranks, 3); where now are more or fewer, their mean
        return cls(
            class_maps=np.asarray(saved["class_maps"]),
            epoch=saved["epoch"] + 1,
            batches=saved.get("batches", 0),
            losses=losses[rank()] if len(losses) == world_size() else losses.mean(0),
            skipped=saved.get("skipped", 0),
            dropped=saved.get("dropped", 0),
            lost_in_row=saved.get("lost_in_row", 0),
            last_step=saved["last_step"],
            best_fitness=saved["best_fitness"],
        )


@dataclass
class TrainState:
    """What one training owns. Made by training_setup.prepare() and changed by the training loop alone."""

    opt: Namespace
    run_dir: Path
    data: DataConfig
    hyp: Hyp  # as given: loss_fn has its own, with scaled gains
    device: torch.device
    amp_dtype: torch.dtype | None
    stride: int  # image sides are multiples of it
    model: DetectionModel
    forward: Callable[[Tensor], list[Tensor]]  # the model, wrapped where several processes train it
    ema: ModelEma[DetectionModel]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss_fn: DetectionLoss
    schedule: Warmup
    stopper: EarlyStopping
    train_loader: Loader
    val_loader: Loader  # on rank 0 alone
    callbacks: Callbacks
    progress: Progress
    signals: StopSignals = field(default_factory=StopSignals)
    resumable: Path | None = None  # the checkpoint that --resume would go on with
    saved_at: tuple[int, int] | None = None  # the progress.position in it
    kept: Path | None = None  # where a signal's checkpoint lies that could not be saved in the run's directory
    is_best: bool = False  # whether the last epoch is the best so far
    saved_fitness: float = -1.0  # of best.pt
    has_best: bool = False  # whether best.pt is this run's: with --exist-ok an older one may lie there
    metrics: Metrics | None = None  # of the last validation

    @property
    def options(self) -> dict[str, Any]:
        """The options of train.py by name, plain values, as opt.yaml and checkpoints hold them."""
        return {name: value for name, value in vars(self.opt).items() if name != "given"}

    @property
    def temperature(self) -> float:
        """Of the attention of dynamic layers in the present epoch."""
        return temperature_at(self.progress.epoch, self.opt.epochs, self.hyp)

    @property
    def is_saved(self) -> bool:
        """Whether all that is trained is in the checkpoint `resumable`."""
        return self.saved_at == self.progress.position

    def accumulated(self, step: int) -> bool:
        """Whether, after batch `step` of all epochs, gradients of enough batches are gathered for an optimizer step."""
        return step - self.progress.last_step >= self.schedule.at(step).accumulate

    def pending_gradients(self) -> dict[str, Tensor]:
        """Gradients, by parameter name, that no optimizer step has used yet."""
        return {name: p.grad.cpu() for name, p in self.model.named_parameters() if p.grad is not None}

    def lasting_hyp(self) -> Hyp:
        """The hyperparameters with temperature_epochs as it is now, so that the temperature does not rise again where
        the run is resumed with more --epochs."""
        return replace(self.hyp, temperature_epochs=annealing_epochs(self.opt.epochs, self.hyp))

    def snapshot(self) -> dict[str, Any]:
        """What a checkpoint holds now: the keyword arguments of models.weights.save_checkpoint. Every rank must call
        it: each has random states of its own."""
        return {
            "model": self.model,
            "ema": self.ema,
            "optimizer": self.optimizer,
            "epoch": self.progress.epoch - 1,  # the last one that is complete
            "best_fitness": self.progress.best_fitness,
            "info": {"opt": self.options, "hyp": asdict(self.lasting_hyp())},
            "training": {
                **self.progress.saved(),
                "scaler": self.scaler.state_dict(),
                "best_epoch": self.stopper.best_epoch,
                "gradients": self.pending_gradients(),
                "random": gathered(random_states(self.device)),
            },
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Puts a stopped training's weights, optimizer, average, counters and random states back."""
        saved: dict[str, Any] = checkpoint.training or {}
        self.model.load_state_dict(saved["model"])
        self.ema.ema.load_state_dict(checkpoint.state)
        self.ema.updates = saved["updates"]
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["scaler"]:  # empty where the earlier part did not compute in float16
            self.scaler.load_state_dict(saved["scaler"])
        for name, parameter in self.model.named_parameters():
            if name in saved["gradients"]:
                parameter.grad = saved["gradients"][name].to(parameter)
        self.progress = Progress.of(saved)
        self.stopper.best_fitness, self.stopper.best_epoch = saved["best_fitness"], saved["best_epoch"]
        if rank() < len(saved.get("random", ())):
            set_random_states(saved["random"][rank()])
        self.resumable, self.saved_at = checkpoint.file, self.progress.position
        self.saved_fitness = saved["best_fitness"]
        self.has_best = (checkpoint.file.parent / "best.pt").exists()
