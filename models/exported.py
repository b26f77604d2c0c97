"""An exported file as a backend: what the runtimes of such files have in common. Not for any single one (the other
models/runtime_*.py), nor for .pt files (models/runtime_torch.py)."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backend import Backend
from models.export_metadata import Metadata
from utils.boxes import xyxy2xywh
from utils.errors import InputError, is_out_of_memory
from utils.log import LOGGER

FEWEST_COLUMNS = 6  # of predictions: a box, objectness, one class
DETECTION_COLUMNS = 6  # of a file with suppression: corners, confidence, class
LONGEST_MESSAGE = 300  # characters
MOST_PIXELS = 2**28  # of a batch, whatever a file claims: 3 GB as float32
METADATA_NAME = "metadata.json"  # of the file with the metadata, for formats that have no place for texts
PROBE_SIDE = 64  # pixels at least of the image that is given to a file which does not tell what it predicts


class ExportedBackend(Backend):
    """A file that takes float32 images (B, 3, H, W) and gives decoded predictions. A file with suppression inside gives
    detections instead, which are turned into predictions: the confidence becomes the objectness, and the class has the
    probability 1.

    A subclass calls this constructor when its runtime is ready, as it is run once where `columns` is None.

    Args:
        metadata: what the file tells.
        columns: of the file's output, None where only a run can tell.
        fixed_hw, fixed_batch: see Backend.

    Raises InputError for a file whose output is not that of a YOLOv5 detector.
    """

    def __init__(
        self,
        file: Path,
        metadata: Metadata,
        device: torch.device,
        *,
        columns: int | None = None,
        fixed_hw: tuple[int, int] | None = None,
        fixed_batch: int | None = None,
    ) -> None:
        self.file = file
        _check_size(file, fixed_batch or 1, fixed_hw or (1, 1))
        self.suppressed = metadata.nms is not None
        if metadata.train:
            raise InputError(f"{file} was exported with --train, to be trained on: it gives no boxes")
        if columns is None:
            side = max(PROBE_SIDE, metadata.stride)
            columns = self._columns((fixed_batch or 1, 3, *(fixed_hw or (side, side))), device)
        names = metadata.names if self.suppressed else metadata.named(_classes(columns, file), file)
        super().__init__(
            names,
            metadata.stride,
            device,
            fixed_hw=fixed_hw,
            fixed_batch=fixed_batch,
            trained_with=metadata.trained_with,
        )
        if self.suppressed:
            _warn_of_suppression(file, metadata)
        if metadata.frozen:
            LOGGER.info(f"{file} has its attention frozen, which cost: {_told(metadata.frozen)}")

    def _columns(self, shape: tuple[int, ...], device: torch.device) -> int:
        """How many the output has, from a run with black images of that shape, (B, 3, H, W)."""
        try:
            return int(self._checked(self._run(torch.zeros(shape, device=device))).shape[2])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(f"{self.file}: there is no memory for the images {shape} that it takes") from error

    @abstractmethod
    def _run(self, images: Tensor) -> Tensor:
        """float32 images (B, 3, H, W) -> the file's first output, a tensor on any device. Raises InputError where that
        fails."""

    def _infer(self, images: Tensor) -> Tensor:
        predictions = self._checked(self._run(images)).float().to(self.device)
        return as_predictions(predictions, self.nc) if self.suppressed else predictions

    def _checked(self, output: Tensor) -> Tensor:
        columns = output.shape[2] if output.ndim == 3 else 0
        if columns < FEWEST_COLUMNS or (self.suppressed and columns != DETECTION_COLUMNS):
            expected = "detections (B, K, 6)" if self.suppressed else "predictions (B, N, 5 + classes)"
            raise InputError(f"{self.file}: {expected} were expected, got {tuple(output.shape)}")
        return output


def _check_size(file: Path, batch: int, size_hw: tuple[int, int]) -> None:
    pixels = batch * size_hw[0] * size_hw[1]
    if pixels > MOST_PIXELS:
        raise InputError(
            f"{file} takes {batch} images of {size_hw[0]} x {size_hw[1]} pixels at a time, which is more than "
            f"{MOST_PIXELS} pixels"
        )


def check_is_file(file: Path) -> None:
    """Raises InputError where there is no such file."""
    if not file.is_file():
        raise InputError(f"there is no file {file}")


def fixed_size(height: int | None, width: int | None) -> tuple[int, int] | None:
    """The one image size of a file, from its sides, of which None is free; None where one is."""
    return (height, width) if height and width else None


def as_array(images: Tensor) -> np.ndarray:
    """Images as the contiguous array that runtimes other than torch take."""
    return np.ascontiguousarray(images.cpu().numpy())


def one_line(error: Exception) -> str:
    """A runtime's message on one line, cut where it is long."""
    return " ".join(str(error).split())[:LONGEST_MESSAGE]


def in_pixels(predictions: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Predictions (B, N, 5 + nc) with boxes as fractions of width and height -> the same with boxes in pixels."""
    size = predictions.new_tensor((*size_hw[::-1], *size_hw[::-1]))  # of x, y, w, h
    return torch.cat((predictions[..., :4] * size, predictions[..., 4:]), dim=2)


def as_predictions(detections: Tensor, nc: int) -> Tensor:
    """Detections (B, K, 6) [x1, y1, x2, y2, confidence, class] -> predictions (B, K, 5 + nc), of which suppression
    makes the same detections. A row with a class that does not exist, as hostile files may have, is of no class."""
    label = detections[..., 5:6]
    certain = (label == torch.arange(nc, device=label.device)).to(detections.dtype)  # (B, K, nc)
    return torch.cat((xyxy2xywh(detections[..., :4]), detections[..., 4:5], certain), dim=2)


def _classes(columns: int, file: Path) -> int:
    """How many classes predictions with so many columns have. Raises InputError where there is none."""
    if columns < FEWEST_COLUMNS:
        raise InputError(f"{file}: predictions of {FEWEST_COLUMNS} columns or more were expected, got {columns}")
    return columns - 5


def _warn_of_suppression(file: Path, metadata: Metadata) -> None:
    if not metadata.names:
        raise InputError(f"{file}: a file with suppression inside must tell its class names, and has none")
    settings = _told(metadata.nms or {})
    LOGGER.warning(f"{file} has its own suppression inside ({settings}): what that drops, no threshold brings back")


def _told(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())
