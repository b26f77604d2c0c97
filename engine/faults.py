"""What befalls a training from outside (a full disk, no memory left, a loader process that is killed), told in one
sentence with what to do. Not for signals: engine/interruption.py."""

import shlex
from pathlib import Path
from typing import Any

from engine.training_state import TrainState
from models.weights import save_checkpoint, strip_optimizer
from utils.distributed import world_size
from utils.errors import is_of_dead_worker, is_out_of_memory
from utils.log import LOGGER


def saved_or_told(file: Path, snapshot: dict[str, Any], *, kept: Path | None) -> bool:
    """Saves a checkpoint (see models.weights.save_checkpoint), in a folder that is made anew where it was deleted.
    Returns whether that worked; if not, the log tells why, what there is instead (`kept`) and what to do."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(file, **snapshot)
    except OSError as error:
        former = f"what was saved before is whole ({kept})" if kept and kept.exists() else "nothing is saved yet"
        LOGGER.warning(
            f"{file} cannot be saved now ({error}); {former}, and the training goes on and saves again next time: "
            "free space there, or make it writable, in the meantime"
        )
        return False
    return True


def stripped_or_told(file: Path) -> None:
    """Makes best.pt a small file for inference; where that cannot be written it stays as it is, and the log says so."""
    try:
        strip_optimizer(file)
    except OSError as error:
        LOGGER.warning(
            f"{file} cannot be made small ({error}); it stays as it is, with the optimizer in it, and can be used. "
            f"When there is space: {resume_command(file.with_name('last.pt'))}"
        )


def resume_command(file: Path) -> str:
    """The command line that goes on with a checkpoint."""
    several = f"-m torch.distributed.run --nproc_per_node {world_size()} ".split() if world_size() > 1 else []
    return shlex.join(["python", *several, "train.py", "--resume", str(file)])


def sentence_about(error: BaseException, state: TrainState) -> str | None:
    """What ended a training and what to do; None for what is a bug of ours. A text on one line."""
    if is_out_of_memory(error):
        return _no_memory(error, state)
    if is_of_dead_worker(error):
        return _dead_worker(error, state)
    return None


def _no_memory(error: BaseException, state: TrainState) -> str:
    given, multiple = state.opt.batch_size, world_size() * (4 if state.opt.quad else 1)
    smaller = max(given // 2 // multiple, 1) * multiple
    less = f"--batch-size {smaller} (it is {given})" if smaller < given else "a smaller model"
    go_on = f"; --weights {state.resumable} starts from what was saved" if state.resumable else ""
    return (
        f"out of memory on {state.device} in epoch {state.progress.epoch}, after {state.progress.batches} batches of "
        f"it: try {less}, or a smaller --imgsz (it is {state.opt.imgsz}){go_on} ({_first_line(error)})"
    )


def _dead_worker(error: BaseException, state: TrainState) -> str:
    given = state.train_loader.num_workers
    cached = ", without --cache ram" if state.opt.cache == "ram" else ""
    go_on = (
        f"{resume_command(state.resumable)} --workers {given // 2}" if state.resumable else f"--workers {given // 2}"
    )
    return (
        f"a loader process was ended from outside in epoch {state.progress.epoch} ({_first_line(error)}), most likely "
        f"by the system for want of memory: try fewer --workers (there were {given}; 0 needs no such process, nor "
        f"shared memory){cached}: {go_on}"
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
