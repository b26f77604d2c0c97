"""Core ML packages as a backend, on macOS. Not for writing them: models/export_coreml.py."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.export_metadata import from_texts
from models.exported import ExportedBackend, one_line
from utils.errors import InputError
from utils.extras import need

REQUIREMENTS = "requirements-coreml.txt"
INPUT, OUTPUT = "image", "output"


class CoreMLBackend(ExportedBackend):
    """A .mlpackage that models/export_coreml.py wrote, on the processor that macOS chooses. Raises InputError on any
    other system, and where it is no such package."""

    def __init__(self, file: Path, device: torch.device) -> None:
        if why := why_not_run():
            raise InputError(f"{file}: {why}")
        need(["coremltools"], REQUIREMENTS, purpose=str(file))
        import coremltools

        try:
            self.package = coremltools.models.MLModel(str(file))
            texts = dict(self.package.user_defined_metadata)
        except Exception as error:  # its classes have no common base of their own
            raise InputError(f"{file}: Core ML cannot read it: {one_line(error)}") from error
        metadata = from_texts(texts, file)
        super().__init__(file, metadata, device, fixed_hw=metadata.imgsz, fixed_batch=1)

    def _run(self, images: Tensor) -> Tensor:
        from PIL import Image

        pixels = (images[0].permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)  # (H, W, 3)
        try:
            predictions = self.package.predict({INPUT: Image.fromarray(pixels)})[OUTPUT]
        except Exception as error:  # as above
            raise InputError(f"{self.file}: Core ML fails: {one_line(error)}") from error
        return torch.from_numpy(predictions)


def why_not_run() -> str:
    """Why Core ML cannot be used here, "" where it can."""
    return "" if sys.platform == "darwin" else "Core ML networks run on macOS alone"
