"""Folders of NCNN as a backend, on the CPU. Not for writing them: models/export_ncnn.py."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.export_metadata import from_file
from models.exported import METADATA_NAME, ExportedBackend, as_array
from utils.errors import InputError
from utils.extras import need
from utils.silence import silence

REQUIREMENTS = "requirements-ncnn.txt"
NETWORK_NAME, WEIGHTS_NAME = "model.ncnn.param", "model.ncnn.bin"


class NcnnBackend(ExportedBackend):
    """A folder with model.ncnn.param and model.ncnn.bin, which takes one image at a time. It runs with as many threads
    as torch has.

    half: 16-bit arithmetic where the processor has it, else float32. Raises InputError where there is no such network.
    """

    def __init__(self, file: Path, device: torch.device, *, half: bool = False) -> None:
        need(["ncnn"], REQUIREMENTS, purpose=str(file))
        import ncnn

        for name in (NETWORK_NAME, WEIGHTS_NAME):
            if not (file / name).is_file():
                raise InputError(f"{file}: a folder of NCNN with {name} was expected")
        self.network = ncnn.Net()
        self.network.opt.num_threads = torch.get_num_threads()
        for kind in ("fp16_packed", "fp16_storage", "fp16_arithmetic"):
            setattr(self.network.opt, f"use_{kind}", half)
        with silence():
            failed = self.network.load_param(str(file / NETWORK_NAME)) or self.network.load_model(
                str(file / WEIGHTS_NAME)
            )
        inputs, outputs = self.network.input_names(), self.network.output_names()
        if failed or len(inputs) != 1 or not outputs:
            raise InputError(f"{file}: NCNN cannot read it, or it is no network with one input: {inputs} {outputs}")
        self.input, self.output = inputs[0], outputs[0]
        metadata = from_file(file / METADATA_NAME)
        super().__init__(file, metadata, device, fixed_hw=metadata.imgsz, fixed_batch=1)

    def _run(self, images: Tensor) -> Tensor:
        import ncnn

        pixels = as_array(images[0])
        extractor = self.network.create_extractor()
        extractor.input(self.input, ncnn.Mat(pixels))
        code, predictions = extractor.extract(self.output)
        if code:
            raise InputError(f"{self.file}: NCNN fails on images {tuple(images.shape)} (code {code})")
        return torch.from_numpy(np.array(predictions)[None])  # a copy: the memory is the extractor's
