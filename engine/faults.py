"""What ends a training from outside (no memory left, a loader process that is killed), told in one sentence with what
to do. Not for signals: engine/interruption.py; nor for a full disk: engine/training_saves.py."""

from engine.training_saves import resume_command
from engine.training_state import TrainState
from utils.distributed import world_size
from utils.errors import is_of_dead_worker, is_out_of_memory


def sentence_about(error: BaseException, state: TrainState) -> str | None:
    """What ended the training and what to do about it, on one line; None where the error is a bug of ours."""
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
