"""What every runtime looks like to detect.py, val.py and hub: images in, decoded predictions out. Not for choosing a
runtime (models/backends.py), nor for any single one (models/runtime_*.py)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from utils.errors import InputError


class Backend(ABC):
    """One network in one runtime.

    Attributes:
        names: class names by class number.
        stride: pixels; image sides must be multiples of it.
        device: where images are taken and predictions given.
        fixed_hw: the one image size (height, width) that the file takes, None where it takes any.
        fixed_batch: the one number of images that the file takes at a time, None where it takes any. Callers may give
            any number: smaller batches are filled up, larger ones are cut.
        trained_with: what the file tells of its training: data (path of the data YAML), single_cls, ...
    """

    def __init__(
        self,
        names: Mapping[int, str],
        stride: int,
        device: torch.device,
        *,
        fixed_hw: tuple[int, int] | None = None,
        fixed_batch: int | None = None,
        trained_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.names = dict(names)
        self.stride = stride
        self.device = device
        self.fixed_hw = fixed_hw
        self.fixed_batch = fixed_batch
        self.trained_with = dict(trained_with or {})

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), RGB float32 in 0..1 -> decoded predictions (B, N, 5 + nc), float32: x, y, w, h in
        pixels of the images, objectness and class probabilities in 0..1. Raises InputError for a size that the file
        does not take."""
        size_hw = tuple(images.shape[2:])
        if self.fixed_hw and size_hw != self.fixed_hw:
            expected, got = ("{} x {}".format(*size) for size in (self.fixed_hw, size_hw))
            raise InputError(f"images: the file takes images of {expected} pixels (height x width), got {got}")
        if self.fixed_batch is None or len(images) == self.fixed_batch:
            return self._infer(images)
        return torch.cat([self._infer(chunk)[:count] for chunk, count in _chunks(images, self.fixed_batch)])

    def with_raw(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The decoded predictions, and the heads' raw maps, from which a loss is computed. Raises NotImplementedError
        for all but networks in PyTorch."""
        raise NotImplementedError(f"{type(self).__name__} gives no raw maps")

    @abstractmethod
    def _infer(self, images: Tensor) -> Tensor:
        """As __call__, for sizes that the file takes."""


def _chunks(images: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
    """Batches of exactly `size` images, the last one filled up with black ones, and how many of each were given."""
    for chunk in images.split(size):
        missing = size - len(chunk)
        yield torch.cat((chunk, chunk.new_zeros(missing, *chunk.shape[1:]))) if missing else chunk, len(chunk)
