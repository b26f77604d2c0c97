"""What code around tensors needs of torch: devices, memory layout, seeds, 16-bit types, time on a device. Not for
models or optimizers."""

import functools
import os
import random
import time
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from utils import __version__
from utils.errors import InputError
from utils.log import LOGGER

FAST_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}  # in /proc/cpuinfo; without them bfloat16 is slower than float32

M = TypeVar("M", bound=nn.Module)


def select_device(device: str = "", *, process: int | None = None) -> torch.device:
    """The device that `device` names: '' the best there is, 'cpu', 'mps', or CUDA indices '0', 'cuda:0', '0,1'.

    process: the number of this process where several train together on this machine: of the CUDA devices that are named
    (or of all), each process takes the one at its number. None for a process that is alone.

    Raises InputError where a device is not there, and where several are named for one process.

    Differs from v6.1: the environment variable CUDA_VISIBLE_DEVICES is read, never written; one process uses one
    device (torch advises against DataParallel, which v6.1 takes for several).
    """
    wanted = str(device).strip().lower().replace("cuda:", "").replace("none", "")
    if wanted == "" and not torch.cuda.is_available():
        wanted = "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted in ("cpu", "mps"):
        return _told(_cpu_or_mps(wanted))
    indices = _cuda_indices(wanted.replace("cuda", "0")) if wanted else list(range(torch.cuda.device_count()))
    if process is None and wanted and len(indices) > 1:
        raise InputError(
            f"--device {device}: one process uses one device. To train on {len(indices)}: "
            f"python -m torch.distributed.run --nproc_per_node {len(indices)} train.py --device {device} ..."
        )
    if process is not None and process >= len(indices):
        raise InputError(
            f"--device {device or 'not given'}: process {process} of this machine has none of the {len(indices)} CUDA "
            "devices left; start as many processes as devices, or use --device cpu"
        )
    return _told(torch.device("cuda", indices[process or 0]))


def _cpu_or_mps(wanted: str) -> torch.device:
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: this machine or this torch build has no MPS; use --device cpu")
    return torch.device(wanted)


def _cuda_indices(wanted: str) -> list[int]:
    """'0,1' -> [0, 1], each of them present and none twice."""
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise InputError(f"--device: '', cpu, mps or CUDA indices such as 0 or 0,1 were expected, got {wanted!r}")
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    indices = [int(part) for part in parts]
    if max(indices) >= present:
        raise InputError(f"--device {wanted}: torch sees {present} CUDA devices here; use --device cpu or one of those")
    return indices


def _told(device: torch.device) -> torch.device:
    """Logs the device and passes it on."""
    described = device.type.upper()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described = f"CUDA:{device.index} ({properties.name}, {properties.total_memory >> 20} MiB)"
    LOGGER.info(f"YOLOv5 with dynamic convolution {__version__}, torch {torch.__version__}, {described}")
    return device


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seeds Python's and torch's generators on every device. numpy's are made where they are used, from the same seed.
    `deterministic` asks torch for reproducible kernels, with a warning where it has none; otherwise it may choose the
    fastest by trial."""
    random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs time
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is reproducible only with a fixed one


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global random generators, as plain data for checkpoints. Our own code
    draws from generators of its own, seeded by the sample's number: the global ones are used by layers such as dropout,
    and by the code of listeners."""
    version, words, gauss = random.getstate()
    drawn = np.random.get_state(legacy=False)  # noqa: NPY002  (it is that state that is kept)
    twister = drawn["state"]
    states = {
        "python": (version, torch.tensor(words), gauss),
        "numpy": (
            drawn["bit_generator"],
            torch.from_numpy(twister["key"].astype(np.int64)),
            twister["pos"],
            drawn["has_gauss"],
            drawn["gauss"],
        ),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Puts the generators back into the states that random_states() found; a GPU's state goes to the current GPU."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


@functools.cache
def supports_bf16_cpu() -> bool:
    """Whether the CPU computes bfloat16 itself (AVX512-BF16 or AMX), so that it is faster than float32."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        return not FAST_BF16_FLAGS.isdisjoint(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch >= 2.6, for systems without /proc
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def amp_dtype(device: torch.device) -> torch.dtype | None:
    """The type to autocast to: float16 on CUDA, bfloat16 on a CPU that computes it itself, None (float32) elsewhere."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and supports_bf16_cpu() else None


def half_type(device: torch.device) -> torch.dtype | None:
    """The 16-bit type for --half; None, with a warning, where the device is not faster with one."""
    dtype = amp_dtype(device)
    if dtype is None:
        LOGGER.warning(f"--half is left out: this {device.type} is not faster at 16 bits, float32 is used")
    return dtype


def to_unit_float(images: Tensor, device: torch.device, channels_last: bool = True) -> Tensor:
    """Images (B, C, H, W) uint8 -> float32 in [0, 1] on `device`. They are moved as bytes: a quarter of the floats."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    on_device = images.to(device, non_blocking=True)
    return on_device.to(torch.float32, memory_format=layout).div_(255)


def is_traced() -> bool:
    """Whether torch.jit.trace records what runs now."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch's types don't list it


def to_channels_last_(model: M) -> M:
    """Puts weights of shape (O, I, k, k) into channels_last order, in place. Others have no such order: torch's own
    Module.to raises for the (K, O, I, k, k) of dynamic layers. Returns the model."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def time_sync(device: torch.device) -> float:
    """Waits until everything that was queued on `device` is done; returns the seconds of a clock that never goes
    back."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


class Timer:
    """Adds up the time spent in its `with` blocks, the device's queued work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.last = 0.0  # seconds of the latest block

    def __enter__(self) -> "Timer":
        self._start = time_sync(self.device)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.last = time_sync(self.device) - self._start
        self.seconds += self.last
