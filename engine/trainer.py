"""The training loop: epochs of batches, each validated, recorded and saved. What it works on is built in
training_setup.py; pictures and logs are callbacks."""

import shlex
import time
from argparse import Namespace
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)
from torch.utils.data import DataLoader
from tqdm import tqdm

from engine.training_setup import TrainState, prepare
from engine.validator import Metrics, validate
from models.common import dynamic_layers, set_temperature
from models.weights import load_model, save_checkpoint, strip_optimizer
from utils.dataloaders import Batch
from utils.log import LOGGER
from utils.metrics import class_weights, fitness, image_weights
from utils.optim import temperature_at
from utils.torch_utils import to_unit_float


def train(opt: Namespace) -> Metrics:
    """One training from the options of train.py. Returns the metrics of the best checkpoint.
    Raises InputError before anything is written where the input cannot be used."""
    state = prepare(opt)
    state.callbacks.run("on_train_start")
    started = time.time()
    try:
        done = train_epochs(state)
    except KeyboardInterrupt:
        tell_of_interruption(state)
        raise
    LOGGER.info(f"\n{done} epochs completed in {(time.time() - started) / 3600:.3f} hours.")
    metrics = finish(state)
    state.callbacks.run("teardown")
    return metrics


def train_epochs(state: TrainState) -> int:
    """All epochs that are left, or as many as early stopping and callbacks let pass. Returns how many were trained."""
    for epoch in range(state.start_epoch, state.opt.epochs):
        begin_epoch(state, epoch)
        losses = train_one_epoch(state, state.train_loader, epoch)
        state.callbacks.run("on_train_epoch_end", epoch=epoch)
        final = epoch + 1 == state.opt.epochs or state.stopper.possible_stop
        if final or not state.opt.noval:
            state.metrics = validate_ema(state)
        plateau = record(state, epoch, losses)
        stop = plateau or state.callbacks.stop_training
        if final or stop or not state.opt.nosave:
            save(state, epoch)
        if plateau:
            LOGGER.info(
                f"Stopped early: no better fitness in {state.opt.patience} epochs; the best was epoch "
                f"{state.stopper.best_epoch}. --patience N waits longer, --patience 0 never stops."
            )
        if stop:
            break
    return epoch + 1 - state.start_epoch


def tell_of_interruption(state: TrainState) -> None:
    """What is left after Ctrl+C, and how to go on with it."""
    if state.resumable:
        command = shlex.join(["python", "train.py", "--resume", str(state.resumable)])
        LOGGER.info(f"\nThe last complete epoch is saved in {state.resumable}; to go on: {command}")
    else:
        LOGGER.info(f"\nNo epoch was saved yet in {state.run_dir}: there is nothing to go on with.")


def begin_epoch(state: TrainState, epoch: int) -> None:
    """Sets shuffle, temperature and, by the last validation, image weights. The same after a resume."""
    state.callbacks.run("on_train_epoch_start", epoch=epoch)
    state.train_loader.sampler.set_epoch(epoch)
    if state.opt.image_weights:
        index = state.train_loader.dataset.index
        classes = index.rows[:, 0]
        weights = class_weights(classes, state.data.nc) * (1 - state.class_maps) ** 2
        state.train_loader.sampler.set_weights(image_weights(classes, index.offsets, weights))
    state.temperature = temperature_at(epoch, state.opt.epochs, state.hyp)
    for model in (state.model, state.ema.ema):
        set_temperature(model, state.temperature)


def train_one_epoch(state: TrainState, loader: DataLoader, epoch: int) -> Tensor:
    """One pass over the training set. Returns the mean (box, obj, cls) loss, shape (3,).

    Differs from v6.1: the gradients of batches that are left over at an epoch's end count in the next step, there they
    are thrown away.
    """
    state.model.train()
    total = torch.zeros(3)
    bar = ProgressBar(loader, epoch, state.opt.epochs)
    for step, batch in enumerate(bar.batches(), start=epoch * len(loader)):
        state.callbacks.run("on_train_batch_start")
        state.schedule.apply(state.optimizer, step)
        images = to_unit_float(batch.images, state.device)  # uint8 (B, 3, H, W) -> [0, 1]
        if state.opt.multi_scale:
            images = rescaled(images, state, step)
        with torch.autocast(state.device.type, dtype=state.amp_dtype, enabled=state.amp_dtype is not None):
            raw = state.model(images)
        loss, parts = state.loss_fn(raw, batch.targets.to(state.device))
        state.scaler.scale(loss * (4 if state.opt.quad else 1)).backward()
        if state.accumulated(step):  # counts across epochs
            optimizer_step(state)
        total += parts.cpu()
        bar.show(total / (step - epoch * len(loader) + 1), batch, images)
        state.callbacks.run("on_train_batch_end", step=step, batch=batch, model=state.model)
    return total / len(loader)


def optimizer_step(state: TrainState) -> None:
    """Unscale, clip, step, zero, EMA."""
    state.callbacks.run("optimizer_step")
    state.scaler.unscale_(state.optimizer)
    if state.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), max_norm=state.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.callbacks.run("on_before_zero_grad")
    state.optimizer.zero_grad()
    state.ema.update(state.model)


def rescaled(images: Tensor, state: TrainState, step: int) -> Tensor:
    """--multi-scale: the batch (B, 3, H, W) resized so that its long side is a multiple of the stride between half and
    one and a half times --imgsz. The size depends on seed and step alone."""
    stride, imgsz = state.stride, state.opt.imgsz
    rng = np.random.default_rng((state.opt.seed, step))
    side = int(rng.integers(imgsz // 2, imgsz + imgsz // 2 + stride)) // stride * stride
    gain = max(side, stride) / max(images.shape[2:])
    size_hw = [max(round(extent * gain / stride), 1) * stride for extent in images.shape[2:]]
    return F.interpolate(images, size=size_hw, mode="bilinear", align_corners=False)


def validate_ema(state: TrainState) -> Metrics:
    """Validates the averaged weights on the validation set."""
    return validate(
        state.ema.ema,
        state.val_loader,
        names=state.data.names,
        loss_fn=state.loss_fn,
        single_cls=state.opt.single_cls,
        callbacks=state.callbacks,
    )


def record(state: TrainState, epoch: int, losses: Tensor) -> bool:
    """Keeps the best fitness, hands the epoch's figures to the loggers. Returns whether to stop early."""
    metrics = state.metrics
    score = fitness(metrics.precision, metrics.recall, metrics.map50, metrics.map) if metrics else 0.0
    state.is_best = metrics is not None and score >= state.best_fitness  # of equals the later, as it trained longer
    if state.is_best:
        state.best_fitness = score
    if metrics:
        state.class_maps = metrics.maps
    state.callbacks.run("on_fit_epoch_end", epoch=epoch, values=figures(state, losses))
    return metrics is not None and state.stopper(epoch, score)


def figures(state: TrainState, losses: Tensor) -> dict[str, float]:
    """The row of results.csv, without its epoch."""
    metrics = state.metrics
    values = dict(zip(("train/box_loss", "train/obj_loss", "train/cls_loss"), losses.tolist(), strict=True))
    quality = (metrics.precision, metrics.recall, metrics.map50, metrics.map, *metrics.loss) if metrics else [0.0] * 7
    names = ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")
    keys = [f"metrics/{name}" for name in names] + ["val/box_loss", "val/obj_loss", "val/cls_loss"]
    values.update(zip(keys, map(float, quality), strict=True))
    values.update({f"x/lr{i}": group["lr"] for i, group in enumerate(state.optimizer.param_groups)})
    if dynamic_layers(state.model):
        values["x/temperature"] = state.temperature
    return values


def save(state: TrainState, epoch: int) -> None:
    """Writes last.pt, best.pt where this epoch is the best so far, and epochN.pt as --save-period asks."""
    names = ["last.pt"] + ["best.pt"] * state.is_best
    period = state.opt.save_period
    if period > 0 and (epoch + 1) % period == 0:
        names.append(f"epoch{epoch + 1}.pt")
    for name in names:
        save_checkpoint(state.run_dir / "weights" / name, **state.snapshot(epoch))
    state.has_best = state.has_best or state.is_best
    state.resumable = state.run_dir / "weights" / "last.pt"
    state.callbacks.run("on_model_save", epoch=epoch, file=state.resumable, best=state.is_best)


def finish(state: TrainState) -> Metrics:
    """Strips best.pt to float16 weights and validates it again with pictures; last.pt stays complete, so that the run
    can be extended. Returns the metrics of best.pt."""
    best = state.run_dir / "weights" / "best.pt"
    if state.has_best:
        strip_optimizer(best)
        LOGGER.info(f"Validating {best} ...")
        state.metrics = validate(
            load_model(best, device=state.device),
            state.val_loader,
            names=state.data.names,
            loss_fn=state.loss_fn,
            single_cls=state.opt.single_cls,
            callbacks=state.callbacks,
            save_dir=state.run_dir,
            plots=not state.opt.noplots,
            verbose=True,
        )
    state.callbacks.run("on_train_end", save_dir=state.run_dir, metrics=state.metrics)
    LOGGER.info(f"Results saved to {state.run_dir}")
    return state.metrics


class ProgressBar:
    """The line of an epoch as YOLOv5 users know it: epoch, memory, mean losses, labels in the batch, image size."""

    COLUMNS = ("Epoch", "gpu_mem", "box", "obj", "cls", "labels", "img_size")

    def __init__(self, loader: DataLoader, epoch: int, epochs: int) -> None:
        LOGGER.info(("\n" + "%10s" * len(self.COLUMNS)) % self.COLUMNS)
        self.bar = tqdm(loader, bar_format="{l_bar}{bar:10}{r_bar}", mininterval=0.5)
        self.label = f"{epoch}/{epochs - 1}"

    def batches(self) -> Iterator[Batch]:
        """The loader's batches."""
        yield from self.bar

    def show(self, mean_losses: Tensor, batch: Batch, images: Tensor) -> None:
        """Updates the line; mean_losses (3,) are those of the epoch so far."""
        memory = f"{torch.cuda.memory_reserved() / 1e9:.3g}G" if images.is_cuda else "0G"
        losses = ("%10.4g" * 3) % tuple(mean_losses.tolist())
        self.bar.set_description_str(
            f"{self.label:>10}{memory:>10}{losses}{len(batch.targets):>10}{images.shape[-1]:>10}", refresh=False
        )
