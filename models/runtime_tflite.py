"""TFLite (LiteRT) files as a backend, on the CPU. Not for writing them: models/export_tflite.py."""

import zlib
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from torch import Tensor

from models.export_metadata import LONGEST, Metadata, from_json
from models.exported import METADATA_NAME, ExportedBackend, as_array, check_is_file, in_pixels, one_line
from utils.errors import InputError
from utils.extras import need
from utils.silence import silence

REQUIREMENTS = "requirements-tflite.txt"
UNREADABLE = (BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeError)  # of an archive


class TfliteBackend(ExportedBackend):
    """A file that takes images (B, height, width, 3) and gives boxes as fractions of width and height. It runs with as
    many threads as torch has. Images and predictions may be in 8 bits, as in v6.1's files. Raises InputError where it
    is no such network."""

    def __init__(self, file: Path, device: torch.device) -> None:
        need(["ai_edge_litert"], REQUIREMENTS, purpose=str(file))
        from ai_edge_litert.interpreter import Interpreter

        check_is_file(file)
        try:
            with silence():
                self.network = Interpreter(str(file), num_threads=torch.get_num_threads())
                self.network.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{file}: LiteRT cannot read it: {one_line(error)}") from error
        inputs, outputs = self.network.get_input_details(), self.network.get_output_details()
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4 or inputs[0]["shape"][3] != 3:
            shapes = [entry["shape"].tolist() for entry in inputs[:5]]
            raise InputError(f"{file}: one input (B, height, width, 3) was expected, got {shapes}")
        self.input, self.output = inputs[0], outputs[0]
        batch, *self.size_hw, _ = self.input["shape"].tolist()
        super().__init__(file, _metadata(file), device, fixed_hw=tuple(self.size_hw), fixed_batch=batch)

    def _run(self, images: Tensor) -> Tensor:
        pixels = as_array(images.permute(0, 2, 3, 1))
        try:
            self.network.set_tensor(self.input["index"], quantized(pixels, self.input))
            self.network.invoke()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{self.file}: LiteRT fails on images {tuple(images.shape)}: {one_line(error)}") from error
        predictions = dequantized(self.network.get_tensor(self.output["index"]), self.output)
        return in_pixels(torch.from_numpy(predictions), self.size_hw)


def quantized(values: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    """float32 values in the type of the network's input: as they are where that is float32, else scaled and rounded.
    entry: what LiteRT tells of the input."""
    if entry["dtype"] == np.float32:
        return values
    scale, zero = entry["quantization"]
    limits = np.iinfo(entry["dtype"])
    return (values / scale + zero).round().clip(limits.min, limits.max).astype(entry["dtype"])


def dequantized(values: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    """The network's output as float32: the inverse of `quantized`. entry: what LiteRT tells of the output."""
    if entry["dtype"] == np.float32:
        return values
    scale, zero = entry["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale)


def _metadata(file: Path) -> Metadata:
    """From the archive behind the network; nothing where there is none."""
    if not is_zipfile(file):
        return Metadata({})
    try:
        with ZipFile(file) as archive:
            found = [member for member in archive.infolist() if member.filename == METADATA_NAME]
            if not found:
                return Metadata({})
            if found[0].compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # of others zipfile unpacks without a limit
                raise BadZipFile("it is packed in a way that export.py does not use")
            with archive.open(found[0]) as entry:
                return from_json(entry.read(LONGEST + 1), file)
    except UNREADABLE as error:
        raise InputError(f"{file}: its metadata cannot be unpacked: {one_line(error)}") from error
