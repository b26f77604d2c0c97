"""How fast is train.py over whole epochs, where does its time go, and what is lost against the training step alone?

python -m benchmarks.train_epoch                                    # the built-in digits: 2 minutes on two cores
python -m benchmarks.train_epoch --data bccd.yaml --imgsz 320       # a data set of photographs
python -m benchmarks.train_epoch --data coco.yaml --device 0 --epochs 2 --batch-size 64

Trains with train.py's defaults, without a cache and with --cache ram, and times the stages of all epochs but the first.
After each epoch a batch that is there is trained a few times, while no loader works: the step alone.
"""

import argparse
import logging
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import torch

import train
from benchmarks.timing import machine, three_digits
from engine import trainer, training_epoch, training_saves
from engine.training_state import TrainState
from utils.callbacks import Callbacks
from utils.log import LOGGER
from utils.memory import keep_freed_memory
from utils.torch_utils import time_sync

STAGES = ("wait for data", "forward", "loss", "backward", "optimizer and average", "validation", "checkpoints")
PURE_STEPS = 4
TRAINED, REST = "training", "the rest"


class Speed(NamedTuple):
    """Milliseconds an image, medians over the epochs: of the training part of an epoch, of the step alone, and of each
    stage (validation and checkpoints by training images too)."""

    epoch: float
    step: float
    stages: dict[str, float]


class StageClock:
    """Seconds of the stages of each epoch, the device's queued work included. A stage within another counts in the
    inner one alone."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.epochs: list[dict[str, float]] = []
        self._running: list[str] = []
        self._since = 0.0

    def begin_epoch(self) -> None:
        """What is timed from now on belongs to the next epoch."""
        self.epochs.append(defaultdict(float))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block."""
        self._note()
        self._running.append(name)
        try:
            yield
        finally:
            self._note()
            self._running.pop()

    def _note(self) -> None:
        now = time_sync(self.device)
        if self._running and self.epochs:
            self.epochs[-1][self._running[-1]] += now - self._since
        self._since = now

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as that stage."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return call


class TimedLoader:
    """A loader whose waits are timed."""

    def __init__(self, loader: Any, clock: StageClock) -> None:
        self._loader, self._clock = loader, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        with self._clock.stage("wait for data"):
            batches = iter(self._loader)
        while True:
            with self._clock.stage("wait for data"):
                batch = next(batches, None)
            if batch is None:
                return
            self.batch = batch
            yield batch


class Observer:
    """Times train.py, whose functions it wraps in this process, through them and as a listener of its callbacks."""

    def __init__(self) -> None:
        self.clock = StageClock()
        self.seconds: list[float] = []  # of the training part of each epoch
        self.pure: list[float] = []  # of PURE_STEPS steps alone, after each epoch
        self.state: TrainState | None = None
        timed, prepare = self.clock.timed, trainer.prepare
        trainer.prepare = lambda *args: self.observed(prepare(*args))
        trainer.validate_ema = timed("validation", trainer.validate_ema)
        training_saves.write_checkpoints = timed("checkpoints", training_saves.write_checkpoints)
        training_epoch.optimizer_step = timed("optimizer and average", training_epoch.optimizer_step)
        torch.Tensor.backward = timed("backward", torch.Tensor.backward)

    def observed(self, state: TrainState) -> TrainState:
        """The training that begins, with its own parts wrapped."""
        self.state, self.clock.device = state, state.device
        state.forward = self.clock.timed("forward", state.forward)
        state.loss_fn = self.clock.timed("loss", state.loss_fn)
        state.train_loader = TimedLoader(state.train_loader, self.clock)
        return state

    def on_train_epoch_start(self, epoch: int) -> None:
        self.clock.begin_epoch()
        self._started = time_sync(self.clock.device)

    def on_train_epoch_end(self, epoch: int) -> None:
        self.seconds.append(time_sync(self.clock.device) - self._started)

    def on_fit_epoch_end(self, epoch: int, values: dict[str, float]) -> None:
        stages, self.clock.epochs[-1] = self.clock.epochs[-1], defaultdict(float)  # the steps alone are not counted
        step = (epoch + 1) * len(self.state.train_loader)
        started = time.perf_counter()
        for number in range(PURE_STEPS):
            training_epoch.train_batch(self.state, self.state.train_loader.batch, step + number)
        self.pure.append(time_sync(self.clock.device) - started)
        self.clock.epochs[-1] = stages

    def speed(self) -> Speed:
        """Of all epochs but the first."""
        images, batch = len(self.state.train_loader.dataset), len(self.state.train_loader.batch)
        stages = {name: 1e3 * median(epoch[name] for epoch in self.clock.epochs[1:]) / images for name in STAGES}
        return Speed(1e3 * median(self.seconds[1:]) / images, 1e3 * median(self.pure[1:]) / PURE_STEPS / batch, stages)


def measured(opt: argparse.Namespace, cache: str | None) -> Speed:
    """One training in this process."""
    keep_freed_memory()
    LOGGER.setLevel(logging.WARNING)
    observer, callbacks = Observer(), Callbacks()
    callbacks.register_all(observer)
    names = ("data", "cfg", "weights", "imgsz", "batch_size", "device", "workers", "epochs")
    options = {name: getattr(opt, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        train.run(callbacks, **options, cache=cache, project=folder, loggers=[], noplots=opt.noplots)
    return observer.speed()


def table(speeds: dict[str, Speed]) -> str:
    """Both speeds and what is lost between them, and the stages of the whole."""
    lines = ["| cache | images/s over an epoch | images/s, the step alone | of the step's speed |", "|---|--:|--:|--:|"]
    for name, speed in speeds.items():
        rates = f"{three_digits(1e3 / speed.epoch)} | {three_digits(1e3 / speed.step)}"
        lines.append(f"| {name} | {rates} | {speed.step / speed.epoch:.0%} |")
    lines += ["", f"| cache | {' | '.join(STAGES)} | {REST} of the training |", "|---|" + "--:|" * (len(STAGES) + 1)]
    for name, speed in speeds.items():
        in_training = sum(ms for stage, ms in speed.stages.items() if stage not in ("validation", "checkpoints"))
        cells = [*speed.stages.values(), speed.epoch - in_training]
        lines.append(f"| {name} | {' | '.join(three_digits(max(cell, 0.0)) for cell in cells)} |")
    return "\n".join(lines)


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data/digits.yaml", help="data YAML")
    parser.add_argument("--cfg", default="models/yolov5n.yaml", help="model YAML")
    parser.add_argument("--weights", default="", help="start weights")
    parser.add_argument("--imgsz", type=int, default=320, help="pixels")
    parser.add_argument("--batch-size", type=int, default=16, help="images a batch")
    parser.add_argument("--device", default="cpu", help="cpu or a CUDA device number")
    parser.add_argument("--workers", type=int, default=8, help="loader processes at most")
    parser.add_argument("--epochs", type=int, default=5, help="the first is not counted")
    parser.add_argument("--noplots", action="store_true", help="no pictures, as train.py's flag")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    speeds = {}
    for cache in (None, "ram"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context()) as pool:
            speeds[cache or "none"] = pool.submit(measured, opt, cache).result()
    LOGGER.info(f"\n### {opt.cfg}, {opt.data}, {opt.imgsz} pixels, batch {opt.batch_size}\n")
    LOGGER.info(f"{table(speeds)}\n\nThe stages are in milliseconds a training image. {machine()}")


if __name__ == "__main__":
    main(parse_opt())
