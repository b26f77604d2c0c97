"""What export.py --freeze-attention makes: the static twin of a dynamic network, and what that costs on the data. Not
for the replacement of the layers: models/frozen.py."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from engine.comparer import AS_VAL, SideBySide, side_by_side
from engine.export_images import evenly
from engine.validation import Subject, build_loader, common_names
from models.attention_probe import AttentionProbe
from models.common import dynamic_layers
from models.frozen import frozen_copy
from models.runtime_torch import TorchBackend
from models.yolo import DetectionModel
from utils.data_config import DataConfig
from utils.dataloaders import Loader
from utils.datasets import Sample
from utils.errors import InputError
from utils.log import LOGGER
from utils.torch_utils import to_unit_float

CALIBRATION_IMAGES = 1000  # of the training split, evenly spread: their mean attention is sharp to a percent


@dataclass(frozen=True)
class FrozenTwin:
    """A static network made of a dynamic one.

    Attributes:
        model: in eval mode.
        images: how many images the mean attention is of.
        scores: of the dynamic network and of the frozen one, on the validation split.
        data: the data YAML of both.
    """

    model: DetectionModel
    images: int
    scores: SideBySide
    data: Path

    def facts(self) -> dict[str, Any]:
        """What an exported file tells of it, as plain data."""
        return {
            "data": str(self.data),
            "images": self.images,
            "map_dynamic": round(self.scores.first.map, 4),
            "map_frozen": round(self.scores.second.map, 4),
            "map50_dynamic": round(self.scores.first.map50, 4),
            "map50_frozen": round(self.scores.second.map50, 4),
        }

    def sentence(self) -> str:
        """What it cost, in words."""
        told = self.scores.sentence("dynamic", "frozen")
        return f"Frozen attention, mean of {self.images} training images of {self.data.name}: {told}"


def frozen_twin(
    model: DetectionModel, data: DataConfig, *, imgsz: int, batch_size: int = 32, workers: int = 8, file: Path
) -> FrozenTwin:
    """Replaces each dynamic convolution by its mixture under the mean attention over training images, and measures both
    networks on the validation split at that image size in pixels. Tells the cost in the log.

    file: of the model's weights, for messages. Raises InputError for a model without a dynamic layer, and where the
    data does not fit it or lacks a split: what freezing costs is never left unmeasured.
    """
    if not dynamic_layers(model):
        raise InputError(f"--freeze-attention: {file} has no dynamic layer (Dynamic_conv2d, DyConv, C3Dy, C3DyLast)")
    loading = {"imgsz": imgsz, "batch_size": batch_size, "workers": workers}
    backend = TorchBackend(model)
    names = common_names(backend, data, weights=file, single_cls=False)
    training = Namespace(**{**AS_VAL, **loading, "task": "train"})
    loader = build_loader(Subject(file, backend, data, names, training))
    twin = frozen_copy(model, mean_attention(backend, calibration_loader(loader)))
    scores = side_by_side(backend, TorchBackend(twin), data, file=file, **loading)
    result = FrozenTwin(twin, min(len(loader.dataset), CALIBRATION_IMAGES), scores, data.file)
    tell = LOGGER.warning if scores.change.map.high < 0 else LOGGER.info
    tell(result.sentence())
    return result


def calibration_loader(loader: Loader) -> DataLoader[Sample]:
    """The loader on CALIBRATION_IMAGES of its images at most, evenly spread."""
    count = len(loader.dataset)
    if count <= CALIBRATION_IMAGES:
        return loader
    chosen = evenly(range(count), CALIBRATION_IMAGES)
    return DataLoader(Subset(loader.dataset, chosen), batch_size=1, collate_fn=loader.collate_fn)


@torch.inference_mode()
def mean_attention(backend: TorchBackend, loader: DataLoader[Sample]) -> dict[str, torch.Tensor]:
    """The mean attention (K,) of each dynamic layer over the loader's images, float64."""
    sums: dict[str, torch.Tensor] = {}
    count = 0
    with AttentionProbe(backend.model) as probe:
        for batch in loader:
            backend(to_unit_float(batch.images, backend.device))
            count += len(batch)
            for name, rows in probe.take().items():
                sums[name] = sums.get(name, 0) + rows.double().sum(0)
    return {name: total / count for name, total in sums.items()}
