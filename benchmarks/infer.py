"""How fast is detection on one picture, and what does it take besides the network? And does the network bound val.py?

python -m benchmarks.infer                                              # an untrained yolov5n: 2 minutes
python -m benchmarks.infer --weights yolov5n.pt --source bus.jpg --data coco8.yaml
python -m benchmarks.infer --device 0 --models n s --batches 1 32       # on a GPU

The networks take turns, each in a process of its own. They are compared with what YOLOv5 v6.1 does on a CPU: float32 in
contiguous order. Static and dynamic models in float32 as detect.py runs them have a table of their own.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

import detect
import val
from benchmarks.timing import Elsewhere, interleave, machine, ratios, speed_table, spread, three_digits
from benchmarks.untrained import given_or_untrained
from engine import validation
from engine.predictor import Predictor
from models.runtime_torch import TorchBackend
from models.yolo import DetectionModel
from utils.files import ROOT
from utils.images import read_image
from utils.log import LOGGER
from utils.memory import keep_freed_memory
from utils.torch_utils import amp_dtype, select_device, time_sync, to_channels_last_

PICTURES = 30  # that the stages are timed on


class Variant(NamedTuple):
    """A way to run a network."""

    model: str = ""  # what the model YAML's name ends in
    half: bool = False
    channels_last: bool = True
    as_before: bool = False  # freed memory is given back


REFERENCE, STATIC = "as v6.1", "float32, channels_last"
VARIANTS = {
    REFERENCE: Variant(channels_last=False, as_before=True),
    STATIC: Variant(),
    "--half": Variant(half=True),
    "dyconv": Variant("_dyconv"),
    "dynamic": Variant("_dynamic"),
}
DYNAMIC, DYNAMIC_ROUNDS = ("dyconv", "dynamic"), 301  # what they differ by is small


def made_forward(variant: Variant, size: str, imgsz: int, batch: int, device: str) -> Callable[[], object]:
    """The fused network with random weights on random images, as a function without arguments."""
    torch.manual_seed(0)
    LOGGER.setLevel(logging.WARNING)
    if not variant.as_before:
        keep_freed_memory()
    chosen = select_device(device)
    model = DetectionModel(ROOT / "models" / f"yolov5{size}{variant.model}.yaml").eval().fuse().to(chosen)
    order = torch.channels_last if variant.channels_last else torch.contiguous_format
    if variant.channels_last:
        to_channels_last_(model)
    backend = TorchBackend(model, amp=amp_dtype(chosen) if variant.half else None)
    images = torch.rand(batch, 3, imgsz, imgsz, device=chosen).contiguous(memory_format=order)

    def forward() -> None:
        with torch.inference_mode():
            backend(images)
        time_sync(chosen)

    return forward


def report_network(size: str, batch: int, opt: argparse.Namespace) -> None:
    """Logs the table of one model size and number of images."""
    arguments = size, opt.imgsz, batch, opt.device
    forwards = {name: Elsewhere(made_forward, variant, *arguments) for name, variant in VARIANTS.items()}
    times = interleave(forwards, rounds=opt.rounds, at_most=opt.seconds)
    for forward in forwards.values():
        forward.end()
    LOGGER.info(f"\n### yolov5{size}, {opt.imgsz} pixels, {batch} images\n")
    LOGGER.info(speed_table(times, REFERENCE, what="network", images=batch))
    report_dynamic(*arguments, opt)


def report_dynamic(size: str, imgsz: int, batch: int, device: str, opt: argparse.Namespace) -> None:
    """Logs what dynamic layers cost. All in one process: processes differ by more than these layers take, as each has
    its memory elsewhere."""
    forwards = {name: made_forward(VARIANTS[name], size, imgsz, batch, device) for name in (STATIC, *DYNAMIC)}
    LOGGER.setLevel(logging.INFO)
    against = ratios(interleave(forwards, rounds=DYNAMIC_ROUNDS, at_most=opt.seconds), STATIC)
    told = ", ".join(f"{name} {spread(against[name])}" for name in DYNAMIC)
    LOGGER.info(f"\nTime against the static model in {STATIC}, within one process: {told}")


def report_stages(weights: str, opt: argparse.Namespace) -> None:
    """Logs what detect.py does with one picture, stage by stage."""
    source = opt.source or str(ROOT / "data/images/digits1.jpg")
    image = read_image(source)
    LOGGER.info(f"\n### detect.py's stages, {image.shape[1]}x{image.shape[0]} to {opt.imgsz} pixels, batch 1\n")
    LOGGER.info("| arithmetic | pre-process ms | network ms | NMS ms | pre-process and NMS |\n|---|--:|--:|--:|--:|")
    for name, flags in (("float32", []), ("--half", ["--half"])):
        options = ["--weights", weights, "--imgsz", str(opt.imgsz), "--device", opt.device, *flags]
        LOGGER.setLevel(logging.WARNING)
        predictor = Predictor(detect.parse_opt(options))
        LOGGER.setLevel(logging.INFO)
        preprocess, network, suppression = stages = stage_ms(predictor, image)
        share = (preprocess + suppression) / sum(stages)
        LOGGER.info(f"| {name} | {' | '.join(map(three_digits, stages))} | {share:.0%} |")


def stage_ms(predictor: Predictor, image: np.ndarray) -> list[float]:
    """Milliseconds of pre-processing, network and suppression on the picture: medians."""
    rows, total = [], [0.0] * 3
    with torch.inference_mode():
        for number in range(1, PICTURES + 1):
            predictor([image])
            before, total = total, [mean * number for mean in predictor.mean_ms]
            rows.append([now - then for now, then in zip(total, before, strict=True)])
    return [median(column) for column in zip(*rows, strict=True)]


def report_validation(weights: str, opt: argparse.Namespace) -> None:
    """Logs how much of val.py's time is the network's."""
    LOGGER.setLevel(logging.WARNING)
    options = ["--weights", weights, "--data", opt.data, "--imgsz", str(opt.imgsz), "--device", opt.device]
    subject = validation.prepared(val.parse_opt(options))
    loader = validation.build_loader(subject)
    validation.validated(subject, loader)  # starts the workers
    started = time.perf_counter()
    metrics = validation.validated(subject, loader)
    seconds = time.perf_counter() - started
    LOGGER.setLevel(logging.INFO)
    network = metrics.speed_ms.inference * metrics.images / 1e3
    LOGGER.info(f"\n### val.py, {metrics.images} images of {opt.data}, {opt.imgsz} pixels\n")
    LOGGER.info(
        f"{metrics.images / seconds:.1f} images/s; {network / seconds:.0%} of the time is the network's, "
        f"{metrics.speed_ms.nms * metrics.images / 1e3 / seconds:.0%} suppression's"
    )


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["n"], choices=list("nsmlx"), help="model sizes")
    parser.add_argument("--batches", nargs="+", type=int, default=[1], help="images a batch")
    parser.add_argument("--imgsz", type=int, default=640, help="pixels")
    parser.add_argument("--device", default="cpu", help="cpu or a CUDA device number")
    parser.add_argument("--weights", default="", help="checkpoint for stages and val.py; default: untrained yolov5n")
    parser.add_argument("--source", default="", help="picture for the stages; default: one of digits")
    parser.add_argument("--data", default="", help="data YAML for val.py; default: not measured")
    parser.add_argument("--rounds", type=int, default=41, help="rounds a table")
    parser.add_argument("--seconds", type=float, default=30, help="a table ends early after this time and 3 rounds")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    for size in opt.models:
        for batch in opt.batches:
            report_network(size, batch, opt)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        weights = given_or_untrained(opt.weights, Path(name))
        report_stages(weights, opt)
        if opt.data:
            report_validation(weights, opt)
    LOGGER.info(f"\n{machine()}")


if __name__ == "__main__":
    main(parse_opt())
