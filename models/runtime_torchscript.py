"""TorchScript files as a backend. Not for writing them: models/export_torchscript.py."""

from pathlib import Path

import torch
from torch import Tensor

from models.export_metadata import from_json
from models.export_torchscript import METADATA_NAME
from models.exported import ExportedBackend, check_is_file, one_line
from utils.errors import InputError
from utils.quiet import quiet


class TorchScriptBackend(ExportedBackend):
    """A file of torch.jit on the device, ours or v6.1's. Raises InputError where it is none, or none that takes
    images."""

    def __init__(self, file: Path, device: torch.device) -> None:
        check_is_file(file)
        extra = {METADATA_NAME: ""}
        try:
            with quiet():  # torch would like torch.export
                self.program = torch.jit.load(str(file), map_location=device, _extra_files=extra).eval()
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{file}: torch cannot read it as TorchScript: {one_line(error)}") from error
        metadata = from_json(extra[METADATA_NAME] or "{}", file)
        bound = not metadata.dynamic and metadata.imgsz is not None
        super().__init__(
            file,
            metadata,
            device,
            fixed_hw=metadata.imgsz if bound else None,
            fixed_batch=metadata.batch if bound else None,
        )

    def _run(self, images: Tensor) -> Tensor:
        try:
            output = self.program(images)
        except RuntimeError as error:
            shape = tuple(images.shape)
            raise InputError(f"{self.file}: TorchScript fails on images {shape}: {one_line(error)}") from error
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if not isinstance(first, Tensor):
            raise InputError(f"{self.file}: it should give a tensor of predictions, got {type(first).__name__}")
        return first
