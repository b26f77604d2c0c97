"""From --weights to a backend: which runtime reads which file, and several files as an ensemble. Not for the runtimes
themselves: models/runtime_*.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.backend import Backend
from models.ensemble import Ensemble
from utils.errors import InputError
from utils.log import LOGGER
from utils.torch_utils import half_type


@dataclass(frozen=True)
class Wanted:
    """How a file is to be run.

    Attributes:
        device: where images are taken and predictions given; not every runtime computes there.
        half: 16-bit arithmetic where the runtime and the device have it.
        augment: test-time augmentation.
        dnn: ONNX files through OpenCV.
    """

    device: torch.device
    half: bool = False
    augment: bool = False
    dnn: bool = False


def load_backend(
    weights: Path | str | Sequence[Path | str],
    device: torch.device,
    *,
    half: bool = False,
    augment: bool = False,
    dnn: bool = False,
) -> Backend:
    """The network in a file, run by the runtime for its suffix; for several files, their ensemble.

    half, augment, dnn: see Wanted. Raises InputError for a suffix that no runtime reads, where a file cannot be used as
    it is wanted, and for several files with different numbers of classes.
    """
    files = [weights] if isinstance(weights, (str, Path)) else list(weights)
    wanted = Wanted(device, half, augment, dnn)
    members = [_load(Path(file), wanted) for file in files]
    if len(members) == 1:
        return members[0]
    if len({member.nc for member in members}) > 1:
        told = ", ".join(f"{file} knows {member.nc}" for file, member in zip(files, members, strict=True))
        raise InputError(f"--weights: an ensemble needs one number of classes, but {told}")
    return Ensemble(members)


DetectMultiBackend = load_backend  # v6.1's name


def _load(file: Path, wanted: Wanted) -> Backend:
    loader = next((load for suffix, load in BACKENDS.items() if file.name.lower().endswith(suffix)), None)
    if loader is None:
        raise InputError(f"--weights: expected a file or folder that ends in {', '.join(BACKENDS)}, got {file}")
    if wanted.augment and loader is not _torch:
        raise InputError(f"--augment looks at other image sizes, which only .pt weights are sure to take, got {file}")
    if wanted.dnn and loader is not _onnx:
        raise InputError(f"--dnn runs .onnx files, got {file}")
    if wanted.half and loader not in IN_16_BITS:
        LOGGER.warning(f"--half is left out: {file} has the precision that it was exported with")
    return loader(file, wanted)


def _torch(file: Path, wanted: Wanted) -> Backend:
    from models.runtime_torch import load_torch

    return load_torch(
        file, wanted.device, amp=half_type(wanted.device) if wanted.half else None, augment=wanted.augment
    )


def _torchscript(file: Path, wanted: Wanted) -> Backend:
    from models.runtime_torchscript import TorchScriptBackend

    return TorchScriptBackend(file, wanted.device)


def _onnx(file: Path, wanted: Wanted) -> Backend:
    if wanted.dnn:
        from models.runtime_dnn import DnnBackend

        return DnnBackend(file, wanted.device)
    from models.runtime_onnx import OnnxBackend

    return OnnxBackend(file, wanted.device)


def _openvino(file: Path, wanted: Wanted) -> Backend:
    from models.runtime_openvino import OpenVinoBackend

    return OpenVinoBackend(file, wanted.device, half=wanted.half)


def _engine(file: Path, wanted: Wanted) -> Backend:
    from models.runtime_tensorrt import TensorRTBackend

    return TensorRTBackend(file, wanted.device)


def _coreml(file: Path, wanted: Wanted) -> Backend:
    from models.runtime_coreml import CoreMLBackend

    return CoreMLBackend(file, wanted.device)


def _ncnn(file: Path, wanted: Wanted) -> Backend:
    from models.runtime_ncnn import NcnnBackend

    return NcnnBackend(file, wanted.device, half=wanted.half)


def _saved_model(file: Path, wanted: Wanted) -> Backend:
    from models.runtime_tensorflow import SavedModelBackend

    return SavedModelBackend(file, wanted.device)


def _pb(file: Path, wanted: Wanted) -> Backend:
    from models.runtime_tensorflow import FrozenGraphBackend

    return FrozenGraphBackend(file, wanted.device)


def _tflite(file: Path, wanted: Wanted) -> Backend:
    from models.runtime_tflite import TfliteBackend

    return TfliteBackend(file, wanted.device)


IN_16_BITS = (_torch, _openvino, _ncnn)  # those that choose the precision; others run a file as it is
BACKENDS: dict[str, Callable[[Path, Wanted], Backend]] = {
    ".pt": _torch,
    ".torchscript": _torchscript,
    ".onnx": _onnx,
    "_openvino_model": _openvino,
    ".engine": _engine,
    ".mlpackage": _coreml,
    "_ncnn_model": _ncnn,
    "_saved_model": _saved_model,
    ".pb": _pb,
    ".tflite": _tflite,
    ".xml": _openvino,
}
