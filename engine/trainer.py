"""The training loop over epochs: each is trained, validated, recorded and saved. What it works on is built in
training_setup.py, the loop over batches is training_epoch.py; pictures and logs are callbacks."""

import signal
import time
from argparse import Namespace

from torch import Tensor

from engine.faults import sentence_about
from engine.interruption import StoppedBySignal
from engine.training_epoch import train_one_epoch
from engine.training_saves import keep_unsaved, save, stop_as_asked, stripped_or_told, tell_of_interruption
from engine.training_setup import prepare
from engine.training_state import TrainState
from engine.validator import validate
from models.common import dynamic_layers, set_temperature
from models.runtime_torch import TorchBackend, load_torch
from utils.callbacks import Callbacks
from utils.distributed import any_rank, main_decides, process_group, rank
from utils.errors import InputError, is_of_dead_worker
from utils.log import LOGGER
from utils.metrics import class_weights, fitness, image_weights
from utils.tally import Metrics


def train(opt: Namespace, callbacks: Callbacks | None = None) -> Metrics | None:
    """One training with the options of train.py. Returns the metrics of the best checkpoint, or None where no epoch was
    left to train and there is no best checkpoint. Where several processes train, only rank 0 calls the callbacks, and
    the others return the metrics of the last epoch.

    Raises InputError where the input cannot be used, before anything is written, and StoppedBySignal (a
    KeyboardInterrupt) after SIGINT, SIGTERM or SIGHUP, once a checkpoint is saved.
    """
    with process_group():
        state = prepare(opt, callbacks or Callbacks())
        with state.signals:
            return run_to_the_end(state)


def run_to_the_end(state: TrainState) -> Metrics | None:
    """The training and its teardown, which is called whatever ends the training."""
    try:
        return train_and_finish(state)
    except (KeyboardInterrupt, RuntimeError, MemoryError) as error:
        # a terminal sends Ctrl+C to the loader's processes too: one may die of it before the loop has looked
        if isinstance(error, KeyboardInterrupt) or (is_of_dead_worker(error) and state.signals.received):
            tell_of_interruption(state)
            raise StoppedBySignal(state.signals.received or signal.SIGINT) from error
        told = sentence_about(error, state)
        if told is None:
            raise
        raise InputError(told) from error
    finally:
        state.callbacks.run("teardown")


def train_and_finish(state: TrainState) -> Metrics | None:
    """Trains all epochs that are left, then validates the best checkpoint on rank 0."""
    state.callbacks.register("on_val_batch_end", lambda **_: end_validation_as_asked(state))
    state.callbacks.run("on_train_start")
    started = time.monotonic()  # the system's clock may be set in between
    done = train_epochs(state)
    if not state.is_saved:
        keep_unsaved(state)
    LOGGER.info(f"\n{done} epochs completed in {(time.monotonic() - started) / 3600:.3f} hours.")
    return finish(state) if rank() == 0 else state.metrics


def train_epochs(state: TrainState) -> int:
    """Trains the epochs that are left, until early stopping or a callback ends that. Returns how many were trained."""
    progress, first = state.progress, state.progress.epoch
    stop = state.stopper.is_over(first - 1)  # true for a resumed run that was killed after its last epoch
    while progress.epoch < state.opt.epochs and not stop:
        begin_epoch(state)
        losses = train_one_epoch(state)
        state.callbacks.run("on_train_epoch_end", epoch=progress.epoch)
        final = progress.epoch + 1 == state.opt.epochs or state.stopper.is_over(progress.epoch)
        if final or not state.opt.noval:
            state.metrics = main_decides(lambda: validate_ema(state))
            stop_as_asked(state)  # before the epoch counts as validated
        plateau = record(state, losses)
        (asked,) = any_rank(state.callbacks.stop_training)
        stop = plateau or asked
        progress.next_epoch()
        if final or stop or not state.opt.nosave:
            save(state, goes_on=not (final or stop))
        if plateau:
            LOGGER.info(
                f"Stopped early: no better fitness in {state.opt.patience} epochs; the best was epoch "
                f"{state.stopper.best_epoch}. --patience N waits longer, --patience 0 never stops."
            )
    return progress.epoch - first


def end_validation_as_asked(state: TrainState) -> None:
    """Called after each batch of a validation: raises StoppedBySignal after SIGINT, SIGTERM or SIGHUP. Nothing is saved
    here, as a validation changes nothing."""
    if state.signals.received is not None:
        raise StoppedBySignal(state.signals.received)


def begin_epoch(state: TrainState) -> None:
    """Sets the epoch's shuffle, its temperature and, with --image-weights, how likely each image is drawn. A resumed
    epoch gets the same ones and goes on with its first batch that is not trained yet."""
    epoch = state.progress.epoch
    state.callbacks.run("on_train_epoch_start", epoch=epoch)
    state.train_loader.sampler.set_epoch(epoch, skip_batches=state.progress.batches)
    if state.opt.image_weights:
        index = state.train_loader.dataset.index
        classes = index.rows[:, 0]
        weights = class_weights(classes, state.data.nc) * (1 - state.progress.class_maps) ** 2
        state.train_loader.sampler.set_weights(image_weights(classes, index.offsets, weights))
    for model in (state.model, state.ema.ema):
        set_temperature(model, state.temperature)


def validate_ema(state: TrainState) -> Metrics | None:
    """Validates the averaged weights (EMA) on the validation set. None where a signal ended that."""
    try:
        return validate(
            TorchBackend(state.ema.ema),
            state.val_loader,
            names=state.data.names,
            loss_fn=state.loss_fn,
            single_cls=state.opt.single_cls,
            callbacks=state.callbacks,
        )
    except StoppedBySignal:
        return None


def record(state: TrainState, losses: Tensor) -> bool:
    """Keeps the best fitness and hands the epoch's figures to the loggers. Returns whether to stop early."""
    metrics, progress = state.metrics, state.progress
    score = fitness(metrics.precision, metrics.recall, metrics.map50, metrics.map) if metrics else 0.0
    state.is_best = metrics is not None and score >= progress.best_fitness  # of equals the later: it trained longer
    if state.is_best:
        progress.best_fitness = score
    if metrics:
        progress.class_maps = metrics.maps
    state.callbacks.run("on_fit_epoch_end", epoch=progress.epoch, values=figures(state, losses))
    return metrics is not None and state.stopper(progress.epoch, score)


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


def finish(state: TrainState) -> Metrics | None:
    """Validates best.pt again, with pictures, then strips it to float16 weights: a stripped best.pt says that the run
    is complete. last.pt stays as it is, so that the run can be extended. Returns the metrics of best.pt; where that is
    not this run's or is gone, those of the last validation.

    Differs from v6.1: it validates before it strips, so that a run which is stopped in between can be finished.
    """
    best = state.run_dir / "weights" / "best.pt"
    if state.has_best and not best.is_file():
        LOGGER.warning(f"{best} is gone, so it is not validated again; last.pt beside it is of the last epoch")
    elif state.has_best:
        LOGGER.info(f"Validating {best} ...")
        state.metrics = validate(
            load_torch(best, state.device),
            state.val_loader,
            names=state.data.names,
            loss_fn=state.loss_fn,
            single_cls=state.opt.single_cls,
            callbacks=state.callbacks,
            save_dir=state.run_dir,
            plots=not state.opt.noplots,
            verbose=True,
        )
        stripped_or_told(best)
    state.callbacks.run("on_train_end", save_dir=state.run_dir, metrics=state.metrics)
    LOGGER.info(f"Results saved to {state.run_dir}")
    return state.metrics
