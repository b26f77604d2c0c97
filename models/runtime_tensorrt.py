"""TensorRT's engines as a backend, on an NVIDIA GPU. Not for writing them: models/export_tensorrt.py.

An engine is code for the GPU: run what you trust.
"""

from pathlib import Path

import torch
from torch import Tensor

from models.export_metadata import Metadata, from_json
from models.exported import ExportedBackend, check_is_file, fixed_size
from utils.errors import InputError
from utils.extras import need

REQUIREMENTS = "requirements-tensorrt.txt"
LENGTH_BYTES = 4  # a file begins with the length of its metadata, in so many bytes, the least significant first


class TensorRTBackend(ExportedBackend):
    """An engine that models/export_tensorrt.py wrote, on the GPU that it was built for. Raises InputError where there
    is no GPU, and where it is no such engine.

    Not tested on a GPU yet.
    """

    def __init__(self, file: Path, device: torch.device) -> None:
        check_gpu(str(file))
        need(["tensorrt"], REQUIREMENTS, purpose=str(file))
        import tensorrt as trt

        device = device if device.type == "cuda" else torch.device("cuda:0")
        metadata, content = split(file)
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self.engine = self.runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            raise InputError(f"{file}: TensorRT cannot read it: it was built by another version, or for another GPU")
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        modes = [self.engine.get_tensor_mode(name) for name in names]
        self.input = names[modes.index(trt.TensorIOMode.INPUT)]
        self.output = names[modes.index(trt.TensorIOMode.OUTPUT)]
        batch, _, height, width = (side if side > 0 else None for side in self.engine.get_tensor_shape(self.input))
        super().__init__(file, metadata, device, fixed_hw=fixed_size(height, width), fixed_batch=batch)

    def _run(self, images: Tensor) -> Tensor:
        images = images.contiguous()
        if not self.context.set_input_shape(self.input, tuple(images.shape)):
            raise InputError(f"{self.file}: the engine does not take images {tuple(images.shape)}")
        predictions = torch.empty(tuple(self.context.get_tensor_shape(self.output)), device=images.device)
        self.context.set_tensor_address(self.input, images.data_ptr())
        self.context.set_tensor_address(self.output, predictions.data_ptr())
        stream = torch.cuda.current_stream(images.device)
        if not self.context.execute_async_v3(stream.cuda_stream):
            raise InputError(f"{self.file}: TensorRT fails on images {tuple(images.shape)}")
        return predictions


def check_gpu(purpose: str) -> None:
    """Raises InputError where TensorRT has nothing to run on. purpose: the flag or file that asks for it."""
    if not torch.cuda.is_available():
        raise InputError(f"{purpose} needs an NVIDIA GPU, and there is none here that PyTorch can use")


def split(file: Path) -> tuple[Metadata, bytes]:
    """A file's metadata, and the engine behind it. Raises InputError where the file is not so."""
    check_is_file(file)
    content = file.read_bytes()
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    text, engine = content[LENGTH_BYTES : LENGTH_BYTES + length], content[LENGTH_BYTES + length :]
    if not engine:
        raise InputError(f"{file}: an engine behind its metadata was expected, as export.py --include engine writes it")
    return from_json(text, file), engine
