"""Weights for benchmarks in which it does not matter what a network finds: given ones, else untrained ones."""

from pathlib import Path

from models.weights import save_checkpoint
from models.yolo import DetectionModel
from utils.files import ROOT


def given_or_untrained(weights: str, folder: Path) -> str:
    """The weights; where they are "", an untrained yolov5n, saved in the folder."""
    if weights:
        return weights
    file = folder / "untrained.pt"
    save_checkpoint(file, model=DetectionModel(ROOT / "models" / "yolov5n.yaml"))
    return str(file)
