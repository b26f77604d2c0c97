"""AutoBatch (--batch-size -1): the batch size that fills the memory, from trial steps with small batches. Not for
what a training step is: that comes as a function."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from utils.errors import InputError
from utils.log import LOGGER
from utils.memory import forget_peak, memory_share, peak_memory, resident_memory
from utils.torch_utils import to_channels_last_

AUTO = -1  # the --batch-size that asks for it
TRIED = (1, 2, 4, 8, 16)  # images of the trial steps
FALLBACK = 16  # the batch size where memory cannot be measured


@dataclass(frozen=True)
class MemoryMeter:
    """Measures the memory of one device. The functions give bytes, or None where the system does not say.

    used: what is in use now. available: what could be taken besides. peak_of(run): calls run(), and gives the most that
    was in use meanwhile. fraction: how much of the available memory a training may take. most: the largest batch size
    to choose.
    """

    used: Callable[[], int | None]
    available: Callable[[], int | None]
    peak_of: Callable[[Callable[[], object]], int | None]
    fraction: float
    most: int


def cuda_meter(device: torch.device) -> MemoryMeter:
    """Of a GPU: 90 % of its free memory, as in v6.1, but 1024 images at most. All that torch's allocator has reserved
    counts as used, since what it holds in small pieces cannot serve large tensors."""

    def available() -> int:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]

    def peak_of(run: Callable[[], object]) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_reserved(device)

    return MemoryMeter(lambda: torch.cuda.memory_reserved(device), available, peak_of, fraction=0.9, most=1024)


def cpu_meter() -> MemoryMeter:
    """Of the CPU: half of the RAM that is available to this process, since loader processes, caches and the system need
    some too. 64 images at most, the nominal batch: a CPU gains nothing from larger ones. Windows gives no figures."""

    def peak_of(run: Callable[[], object]) -> int | None:
        forget_peak()
        run()
        return peak_memory()

    return MemoryMeter(lambda: resident_memory() or peak_memory(), memory_share, peak_of, fraction=0.5, most=64)


def unknown_meter() -> MemoryMeter:
    """Of a device whose memory cannot be measured."""
    return MemoryMeter(lambda: None, lambda: None, lambda _: None, fraction=0.9, most=FALLBACK)


METERS: dict[str, Callable[[torch.device], MemoryMeter]] = {"cuda": cuda_meter, "cpu": lambda _: cpu_meter()}


def fitted_batch_size(sizes: Sequence[int], peaks: Sequence[int], limit: float) -> int | None:
    """The largest batch size whose peak stays below the limit (bytes), by a straight line fitted to the measured peaks
    (bytes) over the sizes; at least 1. None with fewer than two measurements, or where the peaks do not rise."""
    if len(sizes) < 2 or peaks[-1] <= peaks[0]:
        return None
    an_image, fixed = np.polyfit(sizes, peaks, 1)
    return max(int((limit - fixed) / an_image), 1) if an_image > 0 else None


def measured_peaks(step: Callable[[int], object], meter: MemoryMeter, room: float, used: int) -> list[int]:
    """Peaks (bytes) of trial steps with the sizes of TRIED, from the first on, as far as they fit. used: bytes in use
    before; room: bytes that a step may take besides. Each size doubles the one before, so the trials end where twice
    what the last one took would exceed the room."""
    peaks: list[int] = []
    for size in TRIED:
        try:
            peak = meter.peak_of(partial(step, size))
        except torch.OutOfMemoryError:
            break
        if peak is None:
            break
        peaks.append(peak)
        LOGGER.info(f"AutoBatch: a step with {size} images takes {(peak - used) / 2**30:.2f} GiB more")
        if 2 * (peak - used) > room:
            break
    return peaks


def choose_batch_size(step: Callable[[int], object], meter: MemoryMeter, *, multiple: int = 1) -> int:
    """The batch size that fills the meter's fraction of the available memory; the log says which and why.

    Args:
        step: step(n) makes a whole training step on n images.
        meter: of the device that it runs on.
        multiple: the result is a multiple of it, at least one times it.

    Where memory cannot be measured, or does not grow with n, the result is FALLBACK, with a warning. Raises InputError
    where not even one image fits.

    Differs from v6.1: the trials end before memory is full; never larger than meter.most; on CPUs too.
    """
    try:
        step(1)  # so that what is loaded or set up once counts as used before
    except torch.OutOfMemoryError as error:
        raise InputError("--batch-size -1: not even one image fits; try a smaller --imgsz or model") from error
    used, available = meter.used(), meter.available()
    peaks, room = [], 0.0
    if used is not None and available is not None:
        room = meter.fraction * available
        peaks = measured_peaks(step, meter, room, used)
    size = 1 if len(peaks) == 1 else fitted_batch_size(TRIED[: len(peaks)], peaks, (used or 0) + room)
    if size is None:
        LOGGER.warning(f"AutoBatch: memory cannot be measured here, so --batch-size is {FALLBACK}; give your own")
        return FALLBACK
    size = max(min(size, meter.most) // multiple * multiple, multiple)
    LOGGER.info(
        f"AutoBatch: --batch-size {size} a process, for {room / 2**30:.1f} GiB ({meter.fraction:.0%} of what is free; "
        f"never more than {meter.most} images)"
    )
    return size


def trial_step(
    model: nn.Module, *, imgsz: int, device: torch.device, dtype: torch.dtype | None
) -> Callable[[int], None]:
    """A function step(n) that makes one training step with n grey pictures of imgsz x imgsz pixels. It needs as much
    memory as a real one, but trains a copy: the model stays as it is. dtype: to autocast to; None: float32."""
    # Besides the model there is its copy, as large as the average (EMA) that a training keeps.
    trained = to_channels_last_(copy.deepcopy(model).to(device)).train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.0)  # of our optimizers one that keeps most

    def step(n: int) -> None:
        images = torch.full((n, 3, imgsz, imgsz), 0.5, device=device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            raw = trained(images)
        sum(level.float().square().mean() for level in raw).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def auto_batch_size(
    model: nn.Module, *, imgsz: int, device: torch.device, dtype: torch.dtype | None, multiple: int = 1
) -> int:
    """choose_batch_size for a training of the model on the device. In train mode the model returns a list of
    tensors."""
    meter = METERS[device.type](device) if device.type in METERS else unknown_meter()
    LOGGER.info(f"AutoBatch: looking for the batch size that fits --imgsz {imgsz}")
    return choose_batch_size(trial_step(model, imgsz=imgsz, device=device, dtype=dtype), meter, multiple=multiple)
