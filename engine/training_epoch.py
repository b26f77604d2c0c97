"""The training loop over the batches of an epoch: forward, backward, optimizer step. Not for what happens between
epochs: that is trainer.py."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)
from tqdm import tqdm

from engine.training_saves import stop_as_asked
from engine.training_state import TrainState
from utils.dataloaders import Batch
from utils.distributed import any_rank, average_, mean_over_ranks, rank, world_size
from utils.errors import InputError
from utils.log import LOGGER
from utils.torch_utils import to_unit_float

# The largest norm of a step's gradients. It is there for the step that explodes: healthy steps were measured up to 23
# when fine-tuning (BCCD) and 78 from scratch (digits). v7.0's limit of 10 cuts most of those, and cost 0.012 to 0.035
# mAP50 on BCCD (3 seeds).
CLIP_NORM = 100.0
MAX_LOST_IN_ROW = 20  # batches or steps; more than float16's loss scale takes to find its range


class TrainingDiverged(InputError):
    """The losses or gradients of many batches in a row were not finite."""


def train_one_epoch(state: TrainState) -> Tensor:
    """Trains the batches of the epoch that are left. Returns the mean (box, obj, cls) loss, shape (3,), over all ranks
    and all batches of the epoch that were not skipped. Where a signal asks for the end, the batch is finished, last.pt
    saved and StoppedBySignal raised.

    Differs from v6.1: the gradients of batches that are left over at an epoch's end count in the next step, there they
    are thrown away.
    """
    progress = state.progress
    state.model.train()
    bar = ProgressBar(state)
    for batch in bar.batches():
        state.callbacks.run("on_train_batch_start")
        step = progress.epoch * len(state.train_loader) + progress.batches  # counts across epochs
        images = train_batch(state, batch, step)
        progress.batches += 1
        bar.show(batch, images)
        state.callbacks.run("on_train_batch_end", step=step, batch=batch, model=state.model)
        stop_as_asked(state)
    if progress.skipped or progress.dropped:
        LOGGER.warning(
            f"{progress.skipped} of {progress.batches} batches were skipped, as their loss was not finite, and "
            f"{progress.dropped} optimizer steps, as their gradient was not"
        )
    return mean_over_ranks(progress.losses) / max(progress.counted, 1)


def train_batch(state: TrainState, batch: Batch, step: int) -> Tensor:
    """One batch, the `step`-th of all epochs. Returns its images (B, 3, H, W) as the network got them. A batch whose
    loss is not finite leaves no trace in weights, gradients and statistics. Raises TrainingDiverged after many."""
    state.schedule.apply(state.optimizer, step)
    images = to_unit_float(batch.images, state.device)  # uint8 (B, 3, H, W) -> [0, 1]
    if state.opt.multi_scale:
        images = rescaled(images, state, step)
    statistics = running_statistics(state.model)
    before = [statistic.clone() for statistic in statistics]
    with torch.autocast(state.device.type, dtype=state.amp_dtype, enabled=state.amp_dtype is not None):
        raw = state.forward(images)
    loss, parts = state.loss_fn(raw, batch.targets.to(state.device))
    (is_lost,) = any_rank(not loss.isfinite().all())
    if is_lost:
        skip_batch(state, statistics, before)
        return images
    weight = world_size() * (4 if state.opt.quad else 1)  # the ranks' gradients are averaged, and are to be added
    state.scaler.scale(loss * weight).backward()
    average_(statistics)  # each rank has seen its own share of the batch; backward needed them as they were
    state.progress.losses += parts.cpu()
    if state.accumulated(step):  # counts across epochs
        state.progress.last_step = step
        optimizer_step(state)
    return images


def skip_batch(state: TrainState, statistics: list[Tensor], before: list[Tensor]) -> None:
    """Leaves a batch out: the statistics, which its forward pass has moved, are put back, in place."""
    for statistic, old in zip(statistics, before, strict=True):
        statistic.copy_(old)
    state.progress.skipped += 1
    count_lost(state)


def running_statistics(model: nn.Module) -> list[Tensor]:
    """The means and variances that batch normalisation keeps."""
    return [buffer for name, buffer in model.named_buffers() if name.endswith(("running_mean", "running_var"))]


def optimizer_step(state: TrainState) -> None:
    """Unscales and clips the gradients, moves the weights, zeroes the gradients, moves the average (EMA). Gradients
    that are not finite are dropped, and float16's loss scale is lowered."""
    state.callbacks.run("optimizer_step")
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), max_norm=CLIP_NORM)
    is_finite = bool(norm.isfinite())  # the same on all ranks, as the gradients are
    if is_finite or state.scaler.is_enabled():
        state.scaler.step(state.optimizer)
        state.scaler.update()
    state.callbacks.run("on_before_zero_grad")
    state.optimizer.zero_grad()
    if not is_finite:
        state.progress.dropped += 1
        count_lost(state)
        return
    state.progress.lost_in_row = 0
    state.ema.update(state.model)


def count_lost(state: TrainState) -> None:
    """Counts a batch or an optimizer step that is left out. Raises TrainingDiverged after MAX_LOST_IN_ROW in a row."""
    progress = state.progress
    progress.lost_in_row += 1
    if progress.lost_in_row < MAX_LOST_IN_ROW:
        return
    saved = f"The last good checkpoint is {state.resumable}." if state.resumable else "No epoch was saved yet."
    raise TrainingDiverged(
        f"{MAX_LOST_IN_ROW} batches in a row had no finite loss or gradient, the last in epoch {progress.epoch}. "
        f"{saved} Try a lower lr0 (it is {state.hyp.lr0:g}) or more warmup_epochs (they are "
        f"{state.hyp.warmup_epochs:g}) in the hyperparameters, or --no-amp"
    )


def rescaled(images: Tensor, state: TrainState, step: int) -> Tensor:
    """--multi-scale: the batch (B, 3, H, W) resized so that its long side is a multiple of the stride between half and
    one and a half times --imgsz. The size depends on seed and step alone."""
    stride, imgsz = state.stride, state.opt.imgsz
    rng = np.random.default_rng((state.opt.seed, step))
    side = int(rng.integers(imgsz // 2, imgsz + imgsz // 2 + stride)) // stride * stride
    gain = max(side, stride) / max(images.shape[2:])
    size_hw = [max(round(extent * gain / stride), 1) * stride for extent in images.shape[2:]]
    return F.interpolate(images, size=size_hw, mode="bilinear", align_corners=False)


class ProgressBar:
    """The line of an epoch as users of YOLOv5 know it: epoch, GPU memory, mean losses, labels in the batch, image
    size."""

    COLUMNS = ("Epoch", "gpu_mem", "box", "obj", "cls", "labels", "img_size")

    def __init__(self, state: TrainState) -> None:
        LOGGER.info(("\n" + "%10s" * len(self.COLUMNS)) % self.COLUMNS)
        self.progress = state.progress
        self.bar = tqdm(
            state.train_loader,
            initial=state.progress.batches,
            total=len(state.train_loader),
            bar_format="{l_bar}{bar:10}{r_bar}",
            mininterval=0.5,
            disable=rank() > 0,
        )
        self.label = f"{state.progress.epoch}/{state.opt.epochs - 1}"

    def batches(self) -> Iterator[Batch]:
        """The loader's batches; the bar moves with them."""
        yield from self.bar

    def show(self, batch: Batch, images: Tensor) -> None:
        """Updates the line with the mean losses of the epoch so far, and of the batch its labels and size."""
        memory = f"{torch.cuda.memory_reserved() / 1e9:.3g}G" if images.is_cuda else "0G"
        losses = ("%10.4g" * 3) % tuple((self.progress.losses / max(self.progress.counted, 1)).tolist())
        self.bar.set_description_str(
            f"{self.label:>10}{memory:>10}{losses}{len(batch.targets):>10}{images.shape[-1]:>10}", refresh=False
        )
