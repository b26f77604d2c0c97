"""ONNX files in ONNX Runtime. Not for OpenCV (models/runtime_dnn.py), nor for writing them (models/export_onnx.py)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.export_metadata import from_texts
from models.exported import ExportedBackend, as_array, check_is_file, fixed_size, one_line
from utils.errors import InputError
from utils.extras import need
from utils.log import LOGGER

REQUIREMENTS = "requirements-export.txt"
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxBackend(ExportedBackend):
    """A file in ONNX Runtime: on CUDA where the device is one and the package can, else on the CPU, with as many
    threads as torch has. Raises InputError where it is no network for images."""

    def __init__(self, file: Path, device: torch.device) -> None:
        check_is_file(file)
        need(["onnxruntime"], REQUIREMENTS, purpose=str(file))
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # idle threads that wait in a loop would take the processor from loading, decoding and suppression
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=_providers(device))
            texts = self.session.get_modelmeta().custom_metadata_map
        except Exception as error:  # its classes have no common base of their own
            raise InputError(f"{file}: ONNX Runtime cannot read it: {one_line(error)}") from error
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in TYPES:
            raise InputError(f"{file}: one input (B, 3, H, W) of floats was expected, got {_told(inputs)}")
        self.dtype = TYPES[inputs[0].type]
        self.input, self.output = inputs[0].name, outputs[0].name
        batch, _, height, width = (side if isinstance(side, int) else None for side in inputs[0].shape)
        columns = outputs[0].shape[-1] if len(outputs[0].shape) == 3 else None
        super().__init__(
            file,
            from_texts(texts, file),
            device,
            columns=columns if isinstance(columns, int) else None,
            fixed_hw=fixed_size(height, width),
            fixed_batch=batch,
        )

    def _run(self, images: Tensor) -> Tensor:
        array = as_array(images).astype(self.dtype, copy=False)
        try:
            return torch.from_numpy(self.session.run([self.output], {self.input: array})[0])
        except Exception as error:  # as above
            shape = tuple(images.shape)
            raise InputError(f"{self.file}: ONNX Runtime fails on images {shape}: {one_line(error)}") from error


def _providers(device: torch.device) -> list[Any]:
    """What ONNX Runtime calls the places to compute, the wanted one first. Warns where CUDA is wanted and not there."""
    import onnxruntime

    if device.type != "cuda":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]
    LOGGER.warning("This ONNX Runtime has no CUDA (its package onnxruntime-gpu has): the network runs on the CPU")
    return ["CPUExecutionProvider"]


def _told(inputs: list[Any]) -> str:
    return ", ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in inputs[:5]) or "none"
