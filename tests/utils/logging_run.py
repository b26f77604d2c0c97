"""A run directory and the calls that a short training makes, for tests of loggers."""

from pathlib import Path

import cv2
import numpy as np
import torch

from utils.callbacks import Callbacks
from utils.logged_run import LoggedRun
from utils.speed import Speed
from utils.tally import ImageResult, Metrics

OPTIONS = {"epochs": 3, "project": "runs/train", "save_period": 2, "noplots": False, "cfg": None, "freeze": [0]}
METRICS = Metrics(0.5, 0.6, 0.7, 0.4, (), np.zeros(2), (0.1, 0.2, 0.3), Speed(1, 2, 3), images=1, labels=1)


def begun_run(tmp_path: Path, *, first_epoch: int = 0, resumed: bool = False, **options) -> LoggedRun:
    """A run directory as begin_run leaves it."""
    directory = tmp_path / "runs" / "exp"
    (directory / "weights").mkdir(parents=True, exist_ok=True)
    for name in ("opt.yaml", "hyp.yaml"):
        (directory / name).write_text("{}")
    hyp = {"lr0": 0.01, "anchors": None}
    return LoggedRun(directory, OPTIONS | options, hyp, {0: "square", 1: "bar"}, first_epoch, resumed)


def picture(file: Path) -> str:
    """Writes a small one. Returns its path."""
    cv2.imwrite(str(file), np.full((32, 32, 3), 100, np.uint8))
    return str(file)


def values_of(epoch: int) -> dict[str, float]:
    """What a training hands to on_fit_epoch_end, in short."""
    return {"train/box_loss": 1.0 / (1 + epoch), "metrics/mAP_0.5:0.95": epoch / 10}


def train_epochs(callbacks: Callbacks, directory: Path, epochs: range) -> None:
    """The calls of these epochs: each leaves a picture, is validated on twenty images, and is the best so far."""
    for epoch in epochs:
        picture(directory / f"train_batch{epoch}.jpg")
        callbacks.run("on_train_epoch_end", epoch=epoch)
        box = [2.0, 3, 20, 30]
        for number in range(20):
            image = picture(directory.parent / f"val{number}.png")
            result = ImageResult(image, (32, 32), torch.tensor([[*box, 0.9, 1]]), torch.tensor([[1, *box]]))
            callbacks.run("on_val_image_end", result=result)
        callbacks.run("on_fit_epoch_end", epoch=epoch, values=values_of(epoch))
        for name in ("last.pt", "best.pt", f"epoch{epoch + 1}.pt"):
            (directory / "weights" / name).write_bytes(b"weights")
        callbacks.run("on_model_save", epoch=epoch, file=directory / "weights" / "last.pt", best=True)


def end(callbacks: Callbacks, directory: Path) -> None:
    """The calls after the last epoch."""
    picture(directory / "results.png")
    (directory / "results.csv").write_text("epoch\n")
    callbacks.run("on_train_end", save_dir=directory, metrics=METRICS)
    callbacks.run("teardown")
