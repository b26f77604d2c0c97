"""When a training's checkpoints are written (after an epoch, when Ctrl+C asks for the end) and what is done where one
cannot be. Not for what is in a checkpoint: that is training_state.py."""

import shlex
import signal
import tempfile
from pathlib import Path
from typing import Any

from engine.interruption import StoppedBySignal
from engine.training_state import TrainState
from models.weights import save_checkpoint, strip_optimizer
from utils.distributed import any_rank, main_decides, world_size
from utils.errors import InputError
from utils.log import LOGGER


def save(state: TrainState, *, goes_on: bool) -> None:
    """After an epoch: writes best.pt where it is the best so far, epochN.pt as --save-period asks, and last.pt. That
    comes last, so that a run killed before it trains the epoch again and writes the others again. goes_on: whether
    another epoch follows."""
    done, period = state.progress.epoch, state.opt.save_period
    names = ["best.pt"] * state.is_best
    if period > 0 and done % period == 0:
        names.append(f"epoch{done}.pt")
    names.append("last.pt")
    written = write_checkpoints(state, names, goes_on=goes_on)
    if state.is_best and written:
        state.has_best, state.saved_fitness = True, state.progress.best_fitness
    elif state.is_best:  # what is not in best.pt must not keep a lesser epoch from being in it
        state.progress.best_fitness = state.saved_fitness
    if written == len(names):
        state.callbacks.run("on_model_save", epoch=done - 1, file=state.resumable, best=state.is_best)


def stop_as_asked(state: TrainState) -> None:
    """After SIGINT, SIGTERM or SIGHUP on any rank: saves last.pt as it stands, in the middle of the epoch, in another
    place where it cannot be written in its own, and raises StoppedBySignal on all ranks."""
    (asked,) = any_rank(state.signals.received is not None)
    if not asked:
        return
    if not write_checkpoints(state, ["last.pt"], goes_on=False):
        try:
            state.kept = keep_elsewhere(state)
        except InputError as error:
            LOGGER.warning(str(error))
    raise StoppedBySignal(state.signals.received or signal.SIGTERM)


def write_checkpoints(state: TrainState, names: list[str], *, goes_on: bool) -> int:
    """Writes the state as it is now into files of the run's weights/, one after another, on rank 0; every rank must
    call it. Returns how many were written. At the first that cannot be (a full disk, ...) the log says why and the
    rest is left out; the files that were there stay whole. goes_on: whether there will be another save."""
    weights, snapshot = state.run_dir / "weights", state.snapshot()

    def write() -> int:
        for number, name in enumerate(names):
            if not saved_or_told(weights / name, snapshot, kept=state.resumable, goes_on=goes_on):
                return number
        return len(names)

    written = main_decides(write)
    if written == len(names):
        state.resumable, state.saved_at = weights / "last.pt", state.progress.position
    return written


def saved_or_told(file: Path, snapshot: dict[str, Any], *, kept: Path | None, goes_on: bool) -> bool:
    """Saves a checkpoint (see models.weights.save_checkpoint), in a folder that is made anew where it was deleted.
    Returns whether that worked; if not, the log tells why, what there is instead (`kept`) and, where the training goes
    on, what to do."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(file, **snapshot)
    except OSError as error:
        former = f"what was saved before is whole ({kept})" if kept and kept.exists() else "nothing is saved yet"
        again = ", and the training goes on and saves again next time: free space there, or make it writable"
        LOGGER.warning(
            f"{file} cannot be saved now ({error}); {former}{f'{again}, in the meantime' if goes_on else ''}"
        )
        return False
    return True


def keep_unsaved(state: TrainState) -> None:
    """Where the last save of all failed: keeps what is trained elsewhere and says how to go on. Raises InputError, with
    which the run ends, as it isn't what was asked for."""
    place, last = keep_elsewhere(state), state.run_dir / "weights" / "last.pt"
    finishing = f", and finish with: {resume_command(last)}" if state.has_best else ""
    raise InputError(
        f"the end of the training could not be saved in {last} (see above); it is in {place}. Free space and move it "
        f"to {last}{finishing}"
    )


def keep_elsewhere(state: TrainState) -> Path:
    """Writes the state as it is now into the system's folder for temporary files, on rank 0; every rank must call it.
    Returns the file. Raises InputError where that cannot be written either."""

    def write() -> Path:
        try:
            place = Path(tempfile.mkdtemp(prefix=f"{state.run_dir.name}_")) / "last.pt"
            save_checkpoint(place, **snapshot)
        except OSError as error:
            raise InputError(
                f"what was trained last could be saved neither in {state.run_dir / 'weights'} (see above) nor in "
                f"{tempfile.tempdir or 'a folder for temporary files'} ({error}), and is lost: free space in one of "
                "them before the next training, or set TMPDIR to a folder that has some"
            ) from error
        return place

    snapshot = state.snapshot()
    return main_decides(write)


def stripped_or_told(best: Path) -> None:
    """Makes best.pt a small file for inference; where that cannot be written it stays as it is, and the log says so."""
    try:
        strip_optimizer(best)
    except OSError as error:
        LOGGER.warning(
            f"{best} cannot be made small ({error}); it stays as it is, with the optimizer in it, and can be used. "
            f"When there is space: {resume_command(best.with_name('last.pt'))}"
        )


def tell_of_interruption(state: TrainState) -> None:
    """After Ctrl+C: up to which batch the training is saved, and the command that goes on with it."""
    if state.kept:
        last = state.run_dir / "weights" / "last.pt"
        LOGGER.info(
            f"\nSaved in another place: {state.kept}; free space, move it to {last}, "
            f"and go on with: {resume_command(last)}"
        )
        return
    if state.resumable is None or state.saved_at is None:
        LOGGER.info(f"\nNothing was saved yet in {state.run_dir}: there is nothing to go on with.")
        return
    if not state.resumable.exists():
        LOGGER.info(f"\n{state.resumable} is gone: there is nothing to go on with.")
        return
    epoch, batches = state.saved_at
    within = f"epoch {epoch}, batch {batches} of {len(state.train_loader)}"
    place = within if batches else f"the end of epoch {epoch - 1}"
    lost = "" if state.is_saved else " (what was trained after that is lost)"
    LOGGER.info(f"\nSaved at {place}: {state.resumable}{lost}; go on with: {resume_command(state.resumable)}")


def resume_command(file: Path) -> str:
    """The command line that goes on with a checkpoint."""
    several = f"-m torch.distributed.run --nproc_per_node {world_size()} ".split() if world_size() > 1 else []
    return shlex.join(["python", *several, "train.py", "--resume", str(file)])
