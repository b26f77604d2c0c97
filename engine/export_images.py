"""Real images for an export: what exported files are compared on, and what the scales of 8-bit ones come from. Not for
labelled batches: utils/dataloaders.py."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.inputs import data_of_run
from utils.augmentations import letterbox
from utils.data_config import DataConfig, load_data_config, need_splits
from utils.errors import InputError
from utils.files import ROOT
from utils.images import read_image
from utils.label_files import image_files
from utils.log import LOGGER

COMPARED = 8  # images that a file is compared on
CALIBRATING = 300  # images that scales come from: what NNCF asks for by itself
SHIPPED = ROOT / "data" / "images"

T = TypeVar("T")


def known_data(given: str | Path | None, trained_with: Mapping[str, Any], weights: Path) -> DataConfig | None:
    """The data of --data, else what the weights were trained on; None where neither is known or, with a warning, not
    here. Raises InputError where --data cannot be used."""
    if given:
        return load_data_config(given)
    stored = trained_with.get("data")
    if not stored:
        return None
    try:
        return load_data_config(data_of_run(stored, weights, remedy="name the data YAML with --data"))
    except InputError as error:
        LOGGER.warning(f"The data that the weights were trained on is not used: {error}")
        return None


def _first_of(data: DataConfig, *splits: str) -> tuple[Path, ...]:
    """The paths of the first of the splits that the data YAML has. Raises InputError where they are not there."""
    split = next(split for split in splits if getattr(data, split))
    need_splits(data, split)
    return getattr(data, split)


def images_to_compare(data: DataConfig | None) -> list[np.ndarray]:
    """Images of the validation split, else the shipped ones: uint8 (H, W, 3), BGR. Raises InputError where one cannot
    be read."""
    sources = _first_of(data, "val", "test", "train") if data else [SHIPPED]
    if not data:
        LOGGER.info(f"Exported files are compared on {SHIPPED}; with --data, on the images of its val")
    return [read_image(file) for file in evenly(image_files(sources), COMPARED)]


def calibration(data: DataConfig | None, size_hw: tuple[int, int]) -> Iterator[Tensor]:
    """Images of the training split, float32 (1, 3, height, width), RGB in 0..1. Raises InputError where there is no
    data, or an image cannot be read."""
    if data is None:
        raise InputError("--int8 takes its scales from images like those to come: name their data YAML with --data")
    for file in evenly(image_files(_first_of(data, "train", "val", "test")), CALIBRATING):
        yield fitted([read_image(file)], size_hw)


def evenly(items: Sequence[T], most: int) -> list[T]:
    """The items, or `most` of them, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[place] for place in np.linspace(0, len(items) - 1, most).round().astype(int)]


def fitted(images: Sequence[np.ndarray], size_hw: tuple[int, int]) -> Tensor:
    """Images as a network's input (B, 3, height, width), float32, RGB in 0..1, on a border where the shape differs."""
    boxed = np.stack([letterbox(image, size_hw)[0] for image in images])[..., ::-1]  # (B, H, W, 3), RGB
    return torch.from_numpy(np.ascontiguousarray(boxed.transpose(0, 3, 1, 2))).float() / 255
