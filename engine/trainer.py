"""The training loop: epochs of batches, each validated, recorded and saved. What it works on is built in
training_setup.py, a batch is trained in training_epoch.py; pictures and logs are callbacks."""

import signal
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from torch import Tensor

from engine.faults import resume_command, saved_or_told, sentence_about, stripped_or_told
from engine.interruption import StoppedBySignal
from engine.training_epoch import mean_losses, trained_batches
from engine.training_setup import prepare
from engine.training_state import TrainState
from engine.validator import validate
from models.common import dynamic_layers, set_temperature
from models.runtime_torch import TorchBackend, load_torch
from models.weights import save_checkpoint
from utils.callbacks import Callbacks
from utils.distributed import any_rank, main_decides, process_group, rank
from utils.errors import InputError, is_of_dead_worker
from utils.log import LOGGER
from utils.metrics import class_weights, fitness, image_weights
from utils.optim import temperature_at
from utils.tally import Metrics


def train(opt: Namespace, callbacks: Callbacks | None = None) -> Metrics | None:
    """One training from the options of train.py. Returns the metrics of the best checkpoint; where several processes
    train, those beside rank 0 return the metrics of the last epoch, and call none of the callbacks. None where no
    epoch was left to train and no best checkpoint is there.

    Raises InputError before anything is written where the input cannot be used, StoppedBySignal (a
    KeyboardInterrupt) after SIGINT, SIGTERM or SIGHUP, when a checkpoint is saved.
    """
    with process_group():
        state = prepare(opt, callbacks or Callbacks())
        with state.signals:
            return run_to_the_end(state)


def run_to_the_end(state: TrainState) -> Metrics | None:
    """The training and its teardown, whatever ends it."""
    try:
        return train_and_finish(state)
    except (KeyboardInterrupt, RuntimeError, MemoryError) as error:
        worker_died = is_of_dead_worker(error)  # of a signal of its own: nothing could be saved
        if isinstance(error, KeyboardInterrupt) or (worker_died and state.signals.received):
            tell_of_interruption(state)
            raise StoppedBySignal(state.signals.received or signal.SIGINT) from error
        told = sentence_about(error, state)
        if told is None:
            raise
        raise InputError(told) from error
    finally:
        state.callbacks.run("teardown")


def train_and_finish(state: TrainState) -> Metrics | None:
    """All epochs that are left and what follows them."""
    state.callbacks.register("on_val_batch_end", lambda **_: end_validation_as_asked(state))
    state.callbacks.run("on_train_start")
    started = time.monotonic()  # the clock may be set in between
    done = train_epochs(state)
    if not state.is_saved:
        keep_unsaved(state)
    LOGGER.info(f"\n{done} epochs completed in {(time.monotonic() - started) / 3600:.3f} hours.")
    return finish(state) if rank() == 0 else state.metrics


def train_epochs(state: TrainState) -> int:
    """All epochs that are left, or as many as early stopping and callbacks let pass. Returns how many were trained."""
    progress, first = state.progress, state.progress.epoch
    stop = state.stopper.is_over(first - 1)  # a run that was killed after its last epoch
    while progress.epoch < state.opt.epochs and not stop:
        begin_epoch(state)
        for _ in trained_batches(state):
            stop_as_asked(state)
        state.callbacks.run("on_train_epoch_end", epoch=progress.epoch)
        final = progress.epoch + 1 == state.opt.epochs or state.stopper.is_over(progress.epoch)
        if final or not state.opt.noval:
            state.metrics = main_decides(lambda: validate_ema(state))
            stop_as_asked(state)  # before the epoch counts as validated
        plateau = record(state, mean_losses(state))
        (asked,) = any_rank(state.callbacks.stop_training)
        stop = plateau or asked
        progress.next_epoch()
        if final or stop or not state.opt.nosave:
            save(state)
        if plateau:
            LOGGER.info(
                f"Stopped early: no better fitness in {state.opt.patience} epochs; the best was epoch "
                f"{state.stopper.best_epoch}. --patience N waits longer, --patience 0 never stops."
            )
    return progress.epoch - first


def stop_as_asked(state: TrainState) -> None:
    """After SIGINT or SIGTERM on any rank: saves last.pt as it stands, in the middle of the epoch, and raises
    StoppedBySignal on all."""
    (asked,) = any_rank(state.signals.received is not None)
    if asked:
        write_checkpoints(state, ["last.pt"])
        raise StoppedBySignal(state.signals.received or signal.SIGTERM)


def end_validation_as_asked(state: TrainState) -> None:
    """After SIGINT or SIGTERM: raises StoppedBySignal, at a batch of a validation, which leaves nothing behind."""
    if state.signals.received is not None:
        raise StoppedBySignal(state.signals.received)


def tell_of_interruption(state: TrainState) -> None:
    """What is left after Ctrl+C, and how to go on with it."""
    if state.resumable is None:
        LOGGER.info(f"\nNothing was saved yet in {state.run_dir}: there is nothing to go on with.")
        return
    command = resume_command(state.resumable)
    LOGGER.info(f"\nWhat was trained until the last save is in {state.resumable}; to go on: {command}")


def begin_epoch(state: TrainState) -> None:
    """Sets shuffle, temperature and, by the last validation, image weights. The same after a resume, which goes on with
    the epoch's first batch that is not trained yet."""
    epoch = state.progress.epoch
    state.callbacks.run("on_train_epoch_start", epoch=epoch)
    state.train_loader.sampler.set_epoch(epoch, skip_batches=state.progress.batches)
    if state.opt.image_weights:
        index = state.train_loader.dataset.index
        classes = index.rows[:, 0]
        weights = class_weights(classes, state.data.nc) * (1 - state.progress.class_maps) ** 2
        state.train_loader.sampler.set_weights(image_weights(classes, index.offsets, weights))
    state.temperature = temperature_at(epoch, state.opt.epochs, state.hyp)
    for model in (state.model, state.ema.ema):
        set_temperature(model, state.temperature)


def validate_ema(state: TrainState) -> Metrics | None:
    """Validates the averaged weights on the validation set. None where a signal ended it."""
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
    """Keeps the best fitness, hands the epoch's figures to the loggers. Returns whether to stop early."""
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


def save(state: TrainState) -> None:
    """After an epoch: writes best.pt where it is the best so far, epochN.pt as --save-period asks, and last.pt. That
    comes last, so that a run killed before it trains the epoch again and writes the others again."""
    done, period = state.progress.epoch, state.opt.save_period
    names = ["best.pt"] * state.is_best
    if period > 0 and done % period == 0:
        names.append(f"epoch{done}.pt")
    names.append("last.pt")
    written = write_checkpoints(state, names)
    if state.is_best and written:
        state.has_best, state.saved_fitness = True, state.progress.best_fitness
    elif state.is_best:  # what is not in best.pt must not keep a lesser epoch from being in it
        state.progress.best_fitness = state.saved_fitness
    if written == len(names):
        state.callbacks.run("on_model_save", epoch=done - 1, file=state.resumable, best=state.is_best)


def write_checkpoints(state: TrainState, names: list[str]) -> int:
    """Writes the state as it is now into files of the run's weights/, on rank 0; every rank must call it. Returns how
    many were written, in their order. One that cannot be (a full disk, ...) is told, as are those behind it by their
    absence; the files that are there stay whole, and the training goes on."""
    weights, snapshot = state.run_dir / "weights", state.snapshot()

    def write() -> int:
        for number, name in enumerate(names):
            if not saved_or_told(weights / name, snapshot, kept=state.resumable):
                return number
        return len(names)

    written = main_decides(write)
    if written == len(names):
        state.resumable, state.is_saved = weights / "last.pt", True
    else:
        state.is_saved = False
    return written


def keep_unsaved(state: TrainState) -> None:
    """Where the last save of all failed: writes what is trained into the system's folder for temporary files and says
    how to go on. Raises InputError, with which the run ends, as it isn't what was asked for."""

    def write() -> Path:
        place = Path(tempfile.mkdtemp(prefix=f"{state.run_dir.name}_")) / "last.pt"
        save_checkpoint(place, **snapshot)
        return place

    snapshot, last = state.snapshot(), state.run_dir / "weights" / "last.pt"
    place = main_decides(write)
    finishing = f", and finish with: {resume_command(last)}" if state.has_best else ""
    raise InputError(
        f"the end of the training could not be saved in {last} (see above); it is in {place}. Free space and move it "
        f"to {last}{finishing}"
    )


def finish(state: TrainState) -> Metrics | None:
    """Validates best.pt again with pictures and then strips it to float16 weights, which says that the run is complete;
    last.pt stays as it is, so that the run can be extended. Returns the metrics of best.pt.

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
