"""How fast is one training step, and what does each choice of the default mode give? The variants take turns, each in a
process of its own. They are compared with what YOLOv5 v6.1 does on a CPU: float32 in contiguous order, activations in
place.

python -m benchmarks.train_step                                          # 4 minutes on two cores, 8 GB
python -m benchmarks.train_step --device 0 --models n s --sizes 640x32   # on a GPU

A step is forward, loss, backward, clipped gradients, optimizer and average of the weights, of random images with 8
boxes each. The first variants do nothing else; "train.py" is the step of train.py with all that it does besides,
"train.py, dyconv" and "train.py, dynamic" the same for the models with dynamic convolutions.
"""

import argparse
import itertools
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import train
from benchmarks.timing import Elsewhere, interleave, machine, speed_table
from engine.training_epoch import CLIP_NORM, train_batch
from engine.training_setup import assemble
from engine.training_state import TrainState
from models.yolo import DetectionModel
from utils.callbacks import Callbacks
from utils.data_config import DataConfig
from utils.dataloaders import Batch
from utils.files import ROOT
from utils.hyp import load_hyp
from utils.log import LOGGER
from utils.memory import keep_freed_memory
from utils.torch_utils import amp_dtype, select_device, time_sync, to_channels_last_

NC = 80
BOXES = 8  # an image
EPOCH = 1000  # steps; the first one that is timed is that of FIRST, after the warm-up
FIRST = 10 * EPOCH
REFERENCE, OURS = "as v6.1", "train.py"


class Variant(NamedTuple):
    """A way to train. Of train.py's own steps the rest is what train.py chooses."""

    model: str = ""  # what the model YAML's name ends in
    own: bool = False  # train.py's step
    half: bool = False  # 16 bits where the device is fast at them
    channels_last: bool = False
    as_before: bool = False  # activations in place, freed memory given back


VARIANTS = {
    REFERENCE: Variant(as_before=True),
    "float32, channels_last": Variant(channels_last=True),
    "16 bits, contiguous": Variant(half=True),
    "16 bits, channels_last": Variant(half=True, channels_last=True),
    OURS: Variant(own=True),
    "train.py, dyconv": Variant("_dyconv", own=True),
    "train.py, dynamic": Variant("_dynamic", own=True),
}


def random_batch(size: int, imgsz: int) -> Batch:
    """Images of noise with BOXES random boxes each, the same ones each time."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (size, 3, imgsz, imgsz), dtype=torch.uint8, generator=rng)
    number = torch.arange(size).repeat_interleave(BOXES)[:, None]
    classes = torch.randint(NC, number.shape, generator=rng)
    centres = torch.rand(len(number), 2, generator=rng) * 0.6 + 0.2
    sides = torch.rand(len(number), 2, generator=rng) * 0.35 + 0.05
    return Batch(images, torch.cat((number, classes, centres, sides), 1), ("",) * size, (None,) * size)


def made_state(cfg: str, batch: Batch, device: torch.device, half: torch.dtype | None) -> TrainState:
    """A training of the model that takes an optimizer step after each batch."""
    hyp = load_hyp(ROOT / "data/hyps/hyp.scratch-low.yaml")
    data = DataConfig(Path(), Path(), (), (), (), NC, {number: str(number) for number in range(NC)})
    model = DetectionModel(ROOT / "models" / cfg, nc=NC).to(device).train()
    with tempfile.TemporaryDirectory() as folder:
        opt = train.parse_opt(["--project", folder, "--batch-size", str(hyp.nominal_batch)])
        opt.imgsz = batch.images.shape[-1]
        return assemble(opt, data, hyp, model, amp_dtype=half, loaders=([batch] * EPOCH, None), callbacks=Callbacks())


def made_step(variant: Variant, size: str, imgsz: int, batch_size: int, device: str) -> Callable[[], object]:
    """The variant's step of yolov5<size>, as a function without arguments."""
    torch.manual_seed(0)
    LOGGER.setLevel(logging.WARNING)
    if not variant.as_before:
        keep_freed_memory()
    chosen, batch = select_device(device), random_batch(batch_size, imgsz)
    half = amp_dtype(chosen) if variant.own or variant.half else None
    state = made_state(f"yolov5{size}{variant.model}.yaml", batch, chosen, half)
    if variant.own or variant.channels_last:
        to_channels_last_(state.model)
    return own_step(state, batch) if variant.own else plain_step(state, batch, variant)


def plain_step(state: TrainState, batch: Batch, variant: Variant) -> Callable[[], object]:
    """A step without anything that v6.1's has not."""
    order = torch.channels_last if variant.channels_last else torch.contiguous_format
    device, dtype = state.device, state.amp_dtype
    if variant.as_before:
        for module in state.model.modules():
            if isinstance(getattr(module, "act", None), nn.SiLU):
                module.act = nn.SiLU(inplace=True)

    def step() -> Tensor:
        images = batch.images.to(device).to(torch.float32, memory_format=order).div_(255)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            raw = state.model(images)
        loss, parts = state.loss_fn(raw, batch.targets.to(device))
        state.scaler.scale(loss).backward()
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), max_norm=CLIP_NORM)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
        state.ema.update(state.model)
        time_sync(device)
        return parts

    return step


def own_step(state: TrainState, batch: Batch) -> Callable[[], object]:
    """What train.py does with a batch."""
    steps = itertools.count(FIRST)

    def step() -> None:
        train_batch(state, batch, next(steps))
        time_sync(state.device)

    return step


def report(size: str, imgsz: int, batch_size: int, opt: argparse.Namespace) -> None:
    """Logs the table of one model size and image size, the dynamic models against the static one, and memory."""
    arguments = size, imgsz, batch_size, opt.device
    steps = {name: Elsewhere(made_step, variant, *arguments) for name, variant in VARIANTS.items()}
    times = interleave(steps, rounds=opt.rounds, at_most=opt.seconds)
    peaks = {name: step.end() for name, step in steps.items()}
    LOGGER.info(f"\n### yolov5{size}, {imgsz} pixels, batch {batch_size}\n")
    LOGGER.info(speed_table(times, REFERENCE, what="step", images=batch_size))
    own = {name: seconds for name, seconds in times.items() if VARIANTS[name].own}
    LOGGER.info("\n" + speed_table(own, OURS, what="model", images=batch_size))
    if None not in peaks.values():
        told = ", ".join(f"{name} {peak / 2**20:.0f} MiB" for name, peak in peaks.items())
        LOGGER.info(f"\nMemory of the process at most: {told}")


def size_of(text: str) -> tuple[int, int]:
    """640x8 -> 640 pixels, 8 images a batch."""
    imgsz, _, batch_size = text.partition("x")
    return int(imgsz), int(batch_size)


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["n"], choices=list("nsmlx"), help="model sizes")
    sizes = "pixels x images a batch, such as 320x16"
    parser.add_argument("--sizes", nargs="+", type=size_of, default=[(320, 16), (640, 8)], help=sizes)
    parser.add_argument("--device", default="cpu", help="cpu or a CUDA device number")
    parser.add_argument("--rounds", type=int, default=15, help="rounds a table")
    parser.add_argument("--seconds", type=float, default=60, help="a table ends early after this time and 3 rounds")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    for size in opt.models:
        for imgsz, batch_size in opt.sizes:
            report(size, imgsz, batch_size, opt)
    LOGGER.info(f"\n{machine()}")


if __name__ == "__main__":
    main(parse_opt())
