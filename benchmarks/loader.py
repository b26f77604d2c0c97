"""How many training images does one loader worker make, and what does a cache save?

python -m benchmarks.loader                                         # made-up JPEGs of 640x480: half a minute
python -m benchmarks.loader --data bccd.yaml --sizes 320 640

In processor time of this process, without worker processes: nothing waits, and other programs disturb little.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import torch
from torch.utils.data import DataLoader

from benchmarks.label_index import make_pictures
from benchmarks.timing import machine, three_digits
from utils.data_config import load_data_config
from utils.dataloaders import make_dataloader
from utils.datasets import DetectionDataset
from utils.files import ROOT
from utils.hyp import load_hyp
from utils.images import IMAGE_STORES
from utils.label_files import image_files
from utils.labels import LabelIndex, index_labels
from utils.log import LOGGER
from utils.memory import keep_freed_memory

KINDS = {"trained, with mosaic": True, "validated, letterboxed": False}


def seconds_an_image(loader: DataLoader) -> float:
    """Processor time of a whole pass."""
    started = time.process_time()
    count = sum(len(batch) for batch in loader)
    return (time.process_time() - started) / count


def made_loaders(index: LabelIndex, imgsz: int, caches: list[str | None]) -> dict[tuple[str, str | None], DataLoader]:
    """One loader for each kind of sample and each cache."""
    hyp = load_hyp(ROOT / "data/hyps/hyp.scratch-low.yaml")
    return {
        (kind, cache): make_dataloader(
            DetectionDataset(index, imgsz=imgsz, hyp=hyp, augment=augment, cache=cache), batch_size=16, workers=0
        )
        for kind, augment in KINDS.items()
        for cache in caches
    }


def report(index: LabelIndex, imgsz: int, rounds: int, caches: list[str | None]) -> None:
    """Logs the rows of one image size."""
    loaders = made_loaders(index, imgsz, caches)
    for loader in loaders.values():
        seconds_an_image(loader)
    times = [{key: seconds_an_image(loader) for key, loader in loaders.items()} for _ in range(rounds)]
    for kind, cache in loaders:
        seconds = median(round_[kind, cache] for round_ in times)
        LOGGER.info(
            f"| {imgsz} | {kind} | {cache or 'none'} | {three_digits(1e3 * seconds)} | {three_digits(1 / seconds)} |"
        )


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="data YAML; default: 64 JPEGs of noise, 640x480")
    parser.add_argument("--sizes", nargs="+", type=int, default=[320, 640], help="pixels")
    parser.add_argument("--rounds", type=int, default=5, help="passes over the images")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)  # as in a worker
    cv2.setNumThreads(0)
    LOGGER.info("| pixels | samples | cache | ms | images/s of a worker |\n|--:|---|---|--:|--:|")
    with tempfile.TemporaryDirectory() as name:
        images = image_files(load_data_config(opt.data).train) if opt.data else make_pictures(Path(name))
        caches: list[str | None] = [cache for cache in IMAGE_STORES if cache != "disk" or not opt.data]
        LOGGER.setLevel(logging.WARNING)  # not how the labels are read
        index = index_labels(images)
        LOGGER.setLevel(logging.INFO)
        for imgsz in opt.sizes:
            report(index, imgsz, opt.rounds, caches)
    LOGGER.info(f"\n{machine()}")


if __name__ == "__main__":
    main(parse_opt())
