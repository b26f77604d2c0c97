"""Several models on the same images: one table, differences with intervals, a picture. Not for the score of one model:
that is validator.py, which also measures each model here."""

import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.validation import (
    DEFAULT_DATA,
    FILES,
    Subject,
    build_loader,
    check_options,
    common_names,
    refuse_flags,
    trained_on,
    validated,
    with_single_cls,
)
from models.backend import Backend
from models.backends import load_backend
from models.ensemble import Ensemble
from models.runtime_torch import TorchBackend
from models.summary import model_summary
from utils.bootstrap import Differences, ImageMatches, draw_counts, paired_differences
from utils.callbacks import Callbacks
from utils.compare_plots import plot_comparison
from utils.comparison import Comparison, Measured, model_names, save_csv, sentences, signed_interval, table, verdict
from utils.data_config import DataConfig, load_data_config, need_splits
from utils.dataloaders import Loader
from utils.errors import InputError
from utils.files import increment_path
from utils.log import LOGGER
from utils.metrics import match_detections
from utils.tally import IOU_THRESHOLDS, ImageResult, Metrics
from utils.torch_utils import Timer, select_device, to_unit_float

TASK, SPLIT = "compare", "val"
RESAMPLES, SEED = 1000, 0
AS_VAL = {"conf_thres": 0.001, "iou_thres": 0.6, "max_det": 300, "single_cls": False, "verbose": False, "task": SPLIT}
FEW_IMAGES = 30  # resamples of fewer are too alike: their intervals come out too narrow
WARMUP_ROUNDS, ROUNDS, FEWEST_ROUNDS = 3, 50, 10
ROUNDS_SECONDS = 30.0  # then measuring ends, as soon as the fewest rounds are there


def run(opt: Namespace) -> Comparison:
    """Compares the checkpoints of --weights on the val split, with the other options of val.py.
    Raises InputError where the input cannot be used.

    Differs from v6.1: this task is ours.
    """
    weights = weights_to_compare(opt)
    device = select_device(opt.device)
    backends = [load_backend(file, device, half=opt.half, augment=opt.augment, dnn=opt.dnn) for file in weights]
    data = load_data_config(opt.data or trained_on(backends[0], weights[0]) or DEFAULT_DATA)
    need_splits(data, SPLIT)
    opt = with_single_cls(Namespace(**{**vars(opt), "task": SPLIT}), list(zip(weights, backends, strict=True)), data)
    subjects = [
        Subject(file, backend, data, common_names(backend, data, weights=file, single_cls=opt.single_cls), opt)
        for file, backend in zip(weights, backends, strict=True)
    ]
    loader = build_loader(replace(subjects[0], backend=Ensemble(backends)))
    check_images(loader)
    imgsz = loader.dataset.imgsz
    run_dir = increment_path(Path(opt.project) / opt.name, opt.exist_ok, mkdir=True)
    measured, matches = [], []
    for subject, name in zip(subjects, model_names(weights), strict=True):
        LOGGER.info(f"\n{name}: {subject.file}")
        metrics, found = validate_with_matches(subject, loader)
        matches.append(found)
        measured.append(Measured(name, subject.file, *cost_of(subject.backend, imgsz), metrics))
    measured = with_latency(measured, interleaved_ms(backends, grey_image(imgsz, device)))
    comparison = Comparison(tuple(with_differences(measured, matches)), imgsz, RESAMPLES, run_dir)
    report(comparison, per_class=opt.verbose or len(subjects[0].names) < 50)
    return comparison


def weights_to_compare(opt: Namespace) -> list[Path]:
    """--weights as paths. Raises InputError for fewer than two, for flags that only one model's validation reads, and
    for values out of range."""
    given = opt.weights if isinstance(opt.weights, Sequence) and not isinstance(opt.weights, str) else [opt.weights]
    weights = [Path(file) for file in given if file]
    if len(weights) < 2:
        raise InputError(f"--task {TASK}: two or more --weights were expected, got {len(weights)}")
    refuse_flags(opt, FILES, f"beside --task {TASK}: it is for one model")
    check_options(Namespace(**{**vars(opt), "task": SPLIT}))
    return weights


def check_images(loader: Loader) -> None:
    """Raises InputError where a difference cannot be told from the images, and warns where they are few."""
    images, labels = len(loader.dataset), len(loader.dataset.index.rows)
    if images < 2 or not labels:
        raise InputError(f"--task {TASK}: two or more images with labels were expected, got {images} with {labels}")
    if images < FEW_IMAGES:
        LOGGER.warning(f"The intervals will be too narrow: they come from {images} images, fewer than {FEW_IMAGES}")


class MatchCollector:
    """Keeps of each validated image what a bootstrap over images needs."""

    def __init__(self, nc: int) -> None:
        self.nc = nc
        self.correct: list[np.ndarray] = []  # (n, 10) bool an image
        self.scores: list[np.ndarray] = []  # (n, 2) [confidence, class] an image
        self.labels: list[np.ndarray] = []  # (nc,) labels of each class in an image

    def add(self, result: ImageResult) -> None:
        """Matches one image's detections with its labels."""
        self.correct.append(match_detections(result.detections, result.labels, IOU_THRESHOLDS).numpy())
        self.scores.append(result.detections[:, 4:].numpy())
        self.labels.append(np.bincount(result.labels[:, 0].numpy().astype(int), minlength=self.nc))

    def matches(self) -> ImageMatches:
        """Of all images so far, of which there must be one at least."""
        scores = np.concatenate(self.scores)
        image = np.repeat(np.arange(len(self.scores)), [len(rows) for rows in self.scores])
        correct, labels = np.concatenate(self.correct), np.stack(self.labels)
        return ImageMatches(image, correct, conf=scores[:, 0], cls=scores[:, 1].astype(int), labels=labels)


def validate_with_matches(subject: Subject, loader: Loader) -> tuple[Metrics, ImageMatches]:
    """What a validation gives, and the matches of each image."""
    collector, callbacks = MatchCollector(len(subject.names)), Callbacks()
    callbacks.register("on_val_image_end", collector.add)
    return validated(subject, loader, callbacks=callbacks), collector.matches()


@dataclass(frozen=True)
class SideBySide:
    """A network and what was made of it (an exported file, a frozen twin), measured on the same images. change: the
    second's mAP less the first's, with intervals from a bootstrap over the images."""

    first: Metrics
    second: Metrics
    change: Differences

    def sentence(self, first: str, second: str) -> str:
        """Both by these names, and how sure the difference is."""
        interval = self.change.map
        return (
            f"mAP50-95 {self.first.map:.4f} {first}, {self.second.map:.4f} {second}, {signed_interval(interval)}: "
            f"{verdict(interval)} (95 % of {RESAMPLES} resamples of {self.first.images} images)"
        )


def side_by_side(
    first: Backend, second: Backend, data: DataConfig, *, imgsz: int, file: Path, batch_size: int = 32, workers: int = 8
) -> SideBySide:
    """Both networks on the validation split, as val.py scores them, at an image size in pixels; in squares where one of
    them takes these alone. file: of the weights, for messages. Raises InputError where the data does not fit them."""
    opt = Namespace(**AS_VAL, imgsz=imgsz, batch_size=batch_size, workers=workers)
    names = common_names(first, data, weights=file, single_cls=False)
    loader = build_loader(Subject(file, Ensemble([first, second]), data, names, opt))
    check_images(loader)
    (before, matches), (after, others) = (
        validate_with_matches(Subject(file, backend, data, names, opt), loader) for backend in (first, second)
    )
    (change,) = differences_to_the_first([matches, others])
    return SideBySide(before, after, change)


def cost_of(backend: Backend, imgsz: int) -> tuple[int | None, float | None]:
    """Parameters and GFLOPs of a network in PyTorch for one square image; None for both in other runtimes."""
    if not isinstance(backend, TorchBackend):
        return None, None
    cost = model_summary(backend.model, imgsz)
    return cost.parameters, cost.gflops


def differences_to_the_first(matches: Sequence[ImageMatches]) -> list[Differences]:
    """Of the second and all that follow, over one bootstrap of the images."""
    first, *others = matches
    counts = draw_counts(np.random.default_rng(SEED), len(first.labels), RESAMPLES)
    return paired_differences(first, others, counts)


def with_differences(measured: Sequence[Measured], matches: Sequence[ImageMatches]) -> list[Measured]:
    """The models with their differences to the first."""
    differences = [None, *differences_to_the_first(matches)]
    return [replace(model, differences=change) for model, change in zip(measured, differences, strict=True)]


# ------------------------------------------------------------------------------------------------------------- latency
def grey_image(imgsz: int, device: torch.device) -> Tensor:
    """One square image (1, 3, imgsz, imgsz)."""
    return to_unit_float(torch.full((1, 3, imgsz, imgsz), 114).byte(), device)


@torch.inference_mode()
def interleaved_ms(backends: Sequence[Backend], images: Tensor) -> np.ndarray:
    """Milliseconds (rounds, backends) of each network alone on the images (B, 3, H, W), rows in the order they were
    measured.

    A round runs every model once, and each round begins with another one, so that what else the machine does, or that
    it grows warm, falls on all of them alike.
    """
    device = backends[0].device
    timer, rounds, start = Timer(device), [], time.perf_counter()
    for number in range(-WARMUP_ROUNDS, ROUNDS):
        row = np.zeros(len(backends))
        for place in range(len(backends)):
            chosen = (place + number) % len(backends)
            with timer:
                backends[chosen](images)
            row[chosen] = 1000 * timer.last
        rounds.append(row)
        if number >= FEWEST_ROUNDS and time.perf_counter() - start > ROUNDS_SECONDS:
            break
    return np.stack(rounds[WARMUP_ROUNDS:])


def with_latency(measured: Sequence[Measured], rounds_ms: np.ndarray) -> list[Measured]:
    """The models with their latencies: medians of rounds_ms, (rounds, models) milliseconds. A ratio is the median of
    those within each round, as what slows the machine down falls on a whole round."""
    medians, ratios = np.median(rounds_ms, 0), np.median(rounds_ms / rounds_ms[:, :1], 0)
    return [
        replace(model, latency_ms=float(ms), latency_ratio=float(ratio))
        for model, ms, ratio in zip(measured, medians, ratios, strict=True)
    ]


def report(comparison: Comparison, *, per_class: bool) -> None:
    """Logs the table and what it shows; writes compare.csv and compare.png."""
    LOGGER.info("\n" + table(comparison, per_class=per_class))
    first = comparison.models[0].name
    LOGGER.info(f"x N beside a latency: N times that of {first}, the median over rounds that ran each model once\n")
    for sentence in sentences(comparison):
        LOGGER.info(sentence)
    LOGGER.info(
        f"Intervals: {comparison.resamples} resamples of {comparison.models[0].metrics.images} images. They do not "
        "tell how much another training of the same model would differ."
    )
    save_csv(comparison, comparison.run_dir / "compare.csv")
    plot_comparison(comparison, comparison.run_dir / "compare.png")
    LOGGER.info(f"Results saved to {comparison.run_dir}")
