"""OpenVINO's networks as a backend. Not for writing them: models/export_openvino.py."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.export_metadata import Metadata, from_json
from models.export_openvino import METADATA_PATH
from models.exported import ExportedBackend, as_array, fixed_size, one_line
from utils.errors import InputError
from utils.extras import need
from utils.log import LOGGER

REQUIREMENTS = "requirements-export.txt"
SIXTEEN_BITS = {"BF16": "bf16", "FP16": "f16"}  # a device's ability -> the hint that asks for it; the best first


class OpenVinoBackend(ExportedBackend):
    """A folder with one .xml, or that file. It runs on the CPU, with as many threads as torch has; where there is a GPU
    of Intel's, on the device that OpenVINO chooses.

    half: 16-bit arithmetic where the device has it. Otherwise it is float32, which OpenVINO would not keep to by
    itself. Raises InputError where the file is no network for images.
    """

    def __init__(self, file: Path, device: torch.device, *, half: bool = False) -> None:
        need(["openvino"], REQUIREMENTS, purpose=str(file))
        import openvino

        core, xml = openvino.Core(), xml_of(file)
        place = "AUTO" if any(name.startswith("GPU") for name in core.available_devices) else "CPU"
        try:
            network = core.read_model(xml)
            self.compiled = core.compile_model(network, place, settings(core, half=half))
            shapes = [entry.get_partial_shape() for entry in (*network.inputs, *network.outputs)]
        except RuntimeError as error:
            raise InputError(f"{file}: OpenVINO cannot read it: {one_line(error)}") from error
        if len(network.inputs) != 1 or shapes[0].rank.is_dynamic or len(shapes[0]) != 4:
            raise InputError(f"{file}: one input (B, 3, H, W) was expected, got {[str(shape) for shape in shapes]}")
        batch, _, height, width = map(_length, shapes[0])
        columns = _length(shapes[1][2]) if shapes[1].rank.is_static and len(shapes[1]) == 3 else None
        super().__init__(
            file,
            metadata_of(network, file),
            device,
            columns=columns,
            fixed_hw=fixed_size(height, width),
            fixed_batch=batch,
        )

    def _run(self, images: Tensor) -> Tensor:
        try:
            return torch.from_numpy(self.compiled(as_array(images))[0].copy())
        except RuntimeError as error:
            shape = tuple(images.shape)
            raise InputError(f"{self.file}: OpenVINO fails on images {shape}: {one_line(error)}") from error


def xml_of(file: Path) -> Path:
    """The one .xml of a folder, or the file itself. Raises InputError where there is none."""
    found = sorted(file.glob("*.xml")) if file.is_dir() else [file] if file.is_file() else []
    if len(found) != 1:
        raise InputError(f"{file}: a folder with one .xml of OpenVINO was expected, got {len(found)} of them")
    return found[0]


def settings(core: Any, *, half: bool) -> dict[str, Any]:
    """OpenVINO's properties for one batch at a time, in the arithmetic that was asked for. core: openvino.Core."""
    abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    fast = next((hint for ability, hint in SIXTEEN_BITS.items() if ability in abilities), None)
    if half and fast is None:
        LOGGER.warning("--half is left out: OpenVINO has no 16-bit arithmetic on this CPU")
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": fast if half and fast else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def metadata_of(network: Any, file: Path) -> Metadata:
    """What the file tells; nothing where it was not written by us. network: openvino.Model."""
    if not network.has_rt_info(METADATA_PATH):
        return Metadata({})
    return from_json(network.get_rt_info(METADATA_PATH).astype(str), file)


def _length(dimension: Any) -> int | None:
    """Of an openvino.Dimension, None where it is free."""
    return dimension.get_length() if dimension.is_static else None
