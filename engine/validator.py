"""Batches -> detections -> metrics, for val.py and for each epoch of a training. Not for images without labels: that is
detector.py."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from models.backend import Backend
from utils.boxes import scale_boxes, xywhn2xyxy
from utils.callbacks import Callbacks
from utils.dataloaders import Batch, Loader
from utils.loss import DetectionLoss
from utils.nms import non_max_suppression
from utils.plots import detections_as_targets, plot_images
from utils.speed import StageTimers
from utils.surviving import survives
from utils.tally import COLUMNS, ImageResult, Metrics, Tally, report, table_row
from utils.torch_utils import to_unit_float

PICTURED_BATCHES = 3


@dataclass(frozen=True)
class ValOptions:
    """How to validate.

    Attributes:
        conf_thres, iou_thres, max_det, single_cls: of utils.nms; single_cls counts every class as class 0.
        save_hybrid: the labels join the detections with confidence 1 (autolabelling), so that no metric means much.
        plots: draw the first batches, the curves and the confusion matrix into save_dir.
        verbose: tell every class in the log.
    """

    conf_thres: float = 0.001
    iou_thres: float = 0.6
    max_det: int = 300
    single_cls: bool = False
    save_hybrid: bool = False
    plots: bool = False
    save_dir: Path | None = None
    verbose: bool = False


@torch.inference_mode()
def validate(
    backend: Backend,
    loader: Loader,
    *,
    names: Mapping[int, str],
    loss_fn: DetectionLoss | None = None,
    callbacks: Callbacks | None = None,
    **options: Any,
) -> Metrics:
    """Runs the model over the loader's batches and compares its detections with the labels, in pixels of the files.

    Args:
        backend: the network, in any runtime.
        loader: of utils.dataloaders.create_dataloader.
        names: of the classes, as many as the network has.
        loss_fn: also takes the mean loss, of a TorchBackend.
        callbacks: on_val_image_end gets `result`, an ImageResult.
        options: the fields of ValOptions, by name.
    """
    opt, callbacks = ValOptions(**options), callbacks or Callbacks()
    timers = StageTimers(backend.device)
    tally, loss = Tally(len(names), pictures=opt.plots), torch.zeros(3)
    callbacks.run("on_val_start")
    for number, batch in enumerate(progress(loader)):
        callbacks.run("on_val_batch_start")
        with timers.preprocess:
            images = to_unit_float(batch.images, backend.device)
        with timers.inference:
            decoded, raw = backend.with_raw(images) if loss_fn else (backend(images), [])
        if loss_fn:
            loss += loss_fn(raw, batch.targets.to(backend.device))[1].cpu()
        with timers.nms:
            detections = suppress(decoded, opt, known_objects(batch) if opt.save_hybrid else ())
        for result in image_results(batch, detections):
            tally.add(result)
            callbacks.run("on_val_image_end", result=result)
        if opt.plots and opt.save_dir and number < PICTURED_BATCHES:
            stem = opt.save_dir / f"val_batch{number}"
            survives(f"{stem.name}_*.jpg", partial(draw_batch, batch, detections, stem, names=names))
        callbacks.run("on_val_batch_end")
    metrics = tally.metrics(names, loss=loss / max(len(loader), 1), timers=timers)
    report(metrics, verbose=opt.verbose)
    if opt.plots and opt.save_dir:
        survives("The validation's curves", partial(tally.draw, opt.save_dir, names))
    callbacks.run("on_val_end", metrics=metrics)
    return metrics


def known_objects(batch: Batch) -> list[Tensor]:
    """The labels of each image, (k, 5) [class, x, y, w, h], in pixels of the network's input."""
    height, width = batch.images.shape[2:]
    rows = batch.targets * torch.tensor((1, 1, width, height, width, height))
    return [rows[rows[:, 0] == image, 1:] for image in range(len(batch.paths))]


def suppress(decoded: Tensor, options: ValOptions, labels: Sequence[Tensor] = ()) -> list[Tensor]:
    """Decoded predictions (B, N, 5 + nc) -> detections (n, 6) of each image, in pixels of the network's input."""
    detections = non_max_suppression(
        decoded,
        options.conf_thres,
        options.iou_thres,
        multi_label=True,
        agnostic=options.single_cls,
        labels=labels,
        max_det=options.max_det,
    )
    if options.single_cls:
        for rows in detections:
            rows[:, 5] = 0
    return detections


def image_results(batch: Batch, detections: list[Tensor]) -> Iterator[ImageResult]:
    """Detections and labels of each image of a batch, taken from the letterboxed input back to the image file."""
    input_hw = batch.images.shape[2], batch.images.shape[3]
    targets = batch.targets.cpu()
    for image, (path, shapes) in enumerate(zip(batch.paths, batch.shapes, strict=True)):
        assert shapes, "augmented images have no way back"
        size_hw, ratio_pad = shapes
        in_file = partial(scale_boxes, from_hw=input_hw, to_hw=size_hw, ratio_pad=ratio_pad)
        found, known = detections[image].cpu(), targets[targets[:, 0] == image, 1:]
        found = torch.cat((in_file(found[:, :4]), found[:, 4:]), 1)
        known = torch.cat((known[:, :1], in_file(xywhn2xyxy(known[:, 1:], input_hw))), 1)
        yield ImageResult(path, size_hw, found, known)


def draw_batch(batch: Batch, detections: list[Tensor], stem: Path, *, names: Mapping[int, str]) -> None:
    """Writes <stem>_labels.jpg and <stem>_pred.jpg: a batch with its labels, and with what was detected."""
    found = detections_as_targets(detections, (batch.images.shape[2], batch.images.shape[3]))
    for kind, targets in (("labels", batch.targets), ("pred", found)):
        plot_images(batch.images, targets, batch.paths, file=f"{stem}_{kind}.jpg", names=names)


def progress(loader: Loader) -> "tqdm[Batch]":
    """The loader with a bar behind the heads of the columns that report() fills."""
    return tqdm(loader, desc=table_row(*COLUMNS), bar_format="{l_bar}{bar:10}{r_bar}", mininterval=0.5)
