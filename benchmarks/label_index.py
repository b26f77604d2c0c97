"""What a million images cost before the first step: listing, label cache, order, anchors, pictures of the labels, and
what loader workers hold. The labels are synthetic; the files are there, but empty. Linux only.

python -m benchmarks.label_index                                    # 1,000,000 images, 8,000,000 boxes: some minutes
python -m benchmarks.label_index --images 10000 --boxes 80000       # the same, quickly
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

from benchmarks.timing import processor
from utils.autoanchor import best_possible_recall, label_sizes
from utils.dataloaders import EpochSampler, make_dataloader
from utils.datasets import DetectionDataset, rect_layout
from utils.files import ROOT
from utils.hyp import load_hyp
from utils.label_files import Counts
from utils.labels import IndexReport, LabelIndex, fingerprint, image_files, index_labels, label_path, write_cache
from utils.log import LOGGER
from utils.metrics import class_weights, image_weights
from utils.plots import plot_labels

NC = 80
ANCHORS = np.array([(10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326)])
A_FOLDER = 1000  # images
ROW = "{:<46}{:>9}{:>9}{:>10}{:>10}"
WALKED = 2_000  # images that a worker looks up before its memory is read for the first time


# ------------------------------------------------------------------------------------------------------ synthetic sets
def make_files(root: Path, count: int) -> list[str]:
    """So many empty images, and a label file to each, in folders of A_FOLDER. Returns the images' paths, sorted."""
    images = [str(root / f"images/train/{i // A_FOLDER:04d}/{i:012d}.jpg") for i in range(count)]
    for kind in ("images", "labels"):
        for folder in range((count + A_FOLDER - 1) // A_FOLDER):
            (root / f"{kind}/train/{folder:04d}").mkdir(parents=True, exist_ok=True)
    for image in images:
        for file in (image, label_path(image)):
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY))
    return images


def synthetic_index(images: Sequence[str], boxes: int, *, seed: int = 0) -> LabelIndex:
    """An index of these images in common sizes, with so many random boxes in all, without polygons."""
    rng = np.random.default_rng(seed)
    names = [os.fsencode(image) for image in images]
    rows = np.empty((boxes, 5), np.float32)
    rows[:, 0] = rng.integers(0, NC, boxes)
    rows[:, 3:] = rng.uniform(0.01, 0.5, (boxes, 2)) ** 1.5
    rows[:, 1:3] = rng.uniform(0.3, 0.7, (boxes, 2))
    ends = np.sort(rng.integers(0, boxes + 1, max(len(images) - 1, 0)))
    return LabelIndex(
        path_bytes=np.frombuffer(bytearray().join(names), np.uint8),
        path_offsets=np.concatenate(([0], np.cumsum([len(name) for name in names], dtype=np.int64))),
        sizes_wh=rng.choice(np.array([(640, 480), (480, 640), (640, 427), (500, 375)], np.int32), len(images)),
        offsets=np.concatenate(([0], ends, [boxes])).astype(np.int64),
        rows=rows,
        points=np.zeros((0, 2), np.float32),
        point_offsets=np.zeros(0, np.int64),
        report=IndexReport(Counts(found=len(images))),
    )


def make_pictures(root: Path, count: int = 64) -> list[str]:
    """JPEGs of 640x480 about as large in bytes as those of COCO, with eight boxes each."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        coarse = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        picture = cv2.add(coarse, rng.integers(0, 24, coarse.shape, np.uint8))
        cv2.imwrite(str(root / f"images/{i:03d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        rows = [f"{rng.integers(NC)} 0.5 0.5 {w:.3f} {h:.3f}\n" for w, h in rng.uniform(0.05, 0.6, (8, 2))]
        (root / f"labels/{i:03d}.txt").write_text("".join(rows))
    return image_files(root / "images")


# ----------------------------------------------------------------------------------------------------------- measuring
def memory(file: str, *keys: str, pid: int | str = "self") -> int:
    """Sum of the named lines of /proc/<pid>/<file>, bytes."""
    lines = (line.split() for line in Path(f"/proc/{pid}/{file}").read_text().splitlines())
    return 1024 * sum(int(words[1]) for words in lines if words[0].rstrip(":") in keys)


def unique_memory(pid: int | str = "self") -> int:
    """Bytes that a process shares with no other."""
    return memory("smaps_rollup", "Private_Clean", "Private_Dirty", pid=pid)


def in_child(step: Callable[[], object]) -> tuple[float, float, int, int, object]:
    """Runs the step in a forked process: seconds by the clock and of the processor, by how many bytes its resident
    memory grew at most, and in the end, while what the step returned is alive; and what it returned, as text."""

    def work(pipe: Connection) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
        before, clock, processor_time = memory("status", "VmRSS"), time.perf_counter(), time.process_time()
        result = step()
        times = time.perf_counter() - clock, time.process_time() - processor_time
        peak, kept = (memory("status", key) - before for key in ("VmHWM", "VmRSS"))
        pipe.send((*times, peak, kept, str(result)))

    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=work, args=(sender,))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        child.join()


def report(name: str, step: Callable[[], object]) -> None:
    """One row of the table."""
    seconds, processor_seconds, peak, kept, _ = in_child(step)
    megabytes = (f"{size / 1e6:.0f}" for size in (peak, kept))
    LOGGER.info(ROW.format(name, f"{seconds:.2f}", f"{processor_seconds:.2f}", *megabytes))


# ------------------------------------------------------------------------------------------------------------ the steps
def walk(index: LabelIndex, numbers: np.ndarray) -> None:
    """What a worker asks of the index for these images."""
    for i in numbers:
        index.path(i), index.labels(i), index.segments(i)


def walked_in_parts(index: LabelIndex) -> Iterator[int]:
    """Bytes of this process's own after it has looked up a part of the images in a random order, and after all."""
    order = np.random.default_rng(0).permutation(len(index))
    for part in (order[:WALKED], order):
        walk(index, part)
        yield unique_memory()


def steps(index: LabelIndex, folder: Path) -> dict[str, Callable[[], object]]:
    """What a training does with the index of its set, by name."""
    dataset = DetectionDataset(index, imgsz=640)
    classes = index.rows[:, 0]
    names = {number: f"class {number}" for number in range(NC)}

    def recall() -> object:
        wh = label_sizes(index.sizes_wh, index.rows, index.offsets, imgsz=640)
        return best_possible_recall(wh, ANCHORS, 4.0)

    return {
        "order of an epoch, shuffled": lambda: sum(1 for _ in EpochSampler(dataset, shuffle=True)),
        "order of --rect": lambda: rect_layout(index.sizes_wh, batch_size=16, imgsz=640, stride=32, pad=0.5),
        "weights of --image-weights": lambda: image_weights(classes, index.offsets, class_weights(classes, NC)),
        "best possible recall of 9 anchors": recall,
        "labels.jpg, labels_correlogram.jpg": lambda: plot_labels(index.rows, names, folder),
    }


def report_worker(index: LabelIndex) -> None:
    """Memory of a forked worker's own over an epoch of index access."""
    seconds, _, _, _, sizes = in_child(lambda: " and ".join(f"{size / 1e6:.1f}" for size in walked_in_parts(index)))
    LOGGER.info(
        f"\nA forked worker that looks up {min(WALKED, len(index)):,} images, then all of them: {sizes} MB of its own, "
        f"{seconds:.1f} s"
    )


def report_loader(folder: Path) -> None:
    """Images a second of processor time that one worker makes, and the memory of its own."""
    images = make_pictures(folder)
    kilobytes = sum(Path(image).stat().st_size for image in images) / len(images) / 1e3
    LOGGER.info(
        f"\nSamples of 640 px from JPEGs of 640x480, {kilobytes:.0f} kB each, images a second of processor time:"
    )
    index, hyp = index_labels(images), load_hyp(ROOT / "data/hyps/hyp.scratch-low.yaml")
    for name, augment in (("with mosaic, as trained", True), ("letterboxed, as validated", False)):
        dataset = DetectionDataset(index, imgsz=640, hyp=hyp, augment=augment)
        started = time.process_time()
        count = sum(len(batch) for _ in range(3) for batch in make_dataloader(dataset, batch_size=16, workers=0))
        LOGGER.info(f"  {name}: {count / (time.process_time() - started):.0f}")
        loader = make_dataloader(dataset, batch_size=16, workers=1)
        batches = iter(loader)
        for _ in range(len(loader)):
            next(batches)
        own = unique_memory(multiprocessing.active_children()[0].pid)
        LOGGER.info(f"  memory of a worker's own after an epoch: {own / 1e6:.0f} MB")
        del batches, loader


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000, help="images in the set")
    parser.add_argument("--boxes", type=int, default=8_000_000, help="boxes over all images")
    parser.add_argument("--folder", help="where the empty files are made, about 1 GB of inodes; default: temporary")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=opt.folder) as name:
        folder = Path(name)
        source, cache = folder / "set/images/train", folder / "train.cache"
        images = make_files(folder / "set", opt.images)
        write_cache(cache, fingerprint(images), synthetic_index(images, opt.boxes))
        del images
        LOGGER.info(f"{opt.images:,} images, {opt.boxes:,} boxes; cache {cache.stat().st_size / 1e6:.0f} MB")
        LOGGER.info(f"{processor()}, {os.cpu_count()} cores\n")
        LOGGER.info(ROW.format("step", "s", "CPU s", "peak MB", "kept MB"))
        report("list the images", lambda: image_files(source))
        report("index from its cache, listing included", lambda: index_labels(image_files(source), nc=NC, cache=cache))
        index = index_labels(image_files(source), cache=cache)
        for step, run in steps(index, folder).items():
            report(step, run)
        report_worker(index)
        report_loader(folder / "pictures")


if __name__ == "__main__":
    main(parse_opt())
