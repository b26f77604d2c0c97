"""The logger behind `tensorboard --logdir runs/train`: events.out.tfevents* in the run directory."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.log import LOGGER
from utils.logged_run import NewPictures
from utils.surviving import survives
from utils.tensorflow_beside_torch import import_before_tensorflow


class TensorBoardLogger:
    """Scalars of every epoch, the run directory's pictures and the model's graph.

    first_epoch: the first one that is trained now. What an earlier part of the run wrote for it and later ones is not
    shown: they are trained again.
    """

    def __init__(self, run_dir: str | Path, *, first_epoch: int = 0) -> None:
        import_before_tensorflow()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_dir), purge_step=first_epoch or None)
        self._pictures = NewPictures(Path(run_dir))
        self._last_epoch = first_epoch
        LOGGER.info(f"TensorBoard: to watch the training, run `tensorboard --logdir {Path(run_dir).parent}`")

    def on_train_batch_end(self, step: int, batch: Any, model: nn.Module, **_: Any) -> None:
        """After the run's first batch: adds the graph of the model at this image size."""
        if step == 0:
            image = batch.images[:1].to(next(model.parameters()).device).float() / 255  # (1, 3, H, W)
            survives("TensorBoard's graph of the model", lambda: self._add_graph(model, image))

    def on_fit_epoch_end(self, epoch: int, values: Mapping[str, float], **_: Any) -> None:
        """Adds the epoch's values, and the pictures that are new since the last epoch."""
        self._last_epoch = epoch
        for name, value in values.items():
            self._writer.add_scalar(name, float(value), epoch)
        self._add_new_pictures()
        self._writer.flush()  # so that a training that is killed keeps what it has

    def on_train_end(self, **_: Any) -> None:
        """Adds the pictures of the final validation."""
        self._add_new_pictures()

    def teardown(self, **_: Any) -> None:
        """Closes the file."""
        self._writer.close()

    def _add_graph(self, model: nn.Module, image: Tensor) -> None:
        """image (1, 3, H, W) in 0..1."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing makes shapes constant: the graph of this size is what is wanted
            self._writer.add_graph(traced(model, image), [])

    def _add_new_pictures(self) -> None:
        import cv2

        for file in chain.from_iterable(self._pictures.take().values()):
            picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if picture is not None:
                self._writer.add_image(file.stem, picture[..., ::-1].copy(), self._last_epoch, dataformats="HWC")


def traced(model: nn.Module, image: Tensor) -> torch.jit.ScriptModule:
    """The model's trace in eval mode on an image (1, 3, H, W) in 0..1. Model and random state stay as they are."""
    model = deepcopy(model).eval()
    gpus = [image.device.index] if image.is_cuda else []
    with torch.random.fork_rng(gpus), torch.no_grad():
        return torch.jit.trace(model, image, strict=False, check_trace=False)
