"""Batches -> detections -> metrics, for val.py and for each epoch of a training. Not for images without labels: that is
detector.py."""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from engine.attention_report import AttentionReport
from engine.inputs import DEFAULT_IMGSZ, check_ranges, chosen_weights, data_of_run, whole_strides
from models.weights import Checkpoint, load_model, read_checkpoint
from models.yolo import DetectionModel
from utils.boxes import scale_boxes, xywhn2xyxy
from utils.callbacks import Callbacks
from utils.coco import CocoResults, CocoScore, find_annotations
from utils.data_config import SPLITS, DataConfig, load_data_config
from utils.dataloaders import Batch, create_dataloader
from utils.errors import InputError
from utils.files import increment_path
from utils.log import LOGGER
from utils.loss import DetectionLoss
from utils.nms import non_max_suppression
from utils.outputs import label_lines
from utils.plots import detections_as_targets, plot_images
from utils.speed import StageTimers
from utils.tally import COLUMNS, ImageResult, Metrics, Tally, report, table_row
from utils.torch_utils import amp_dtype, select_device, to_channels_last_, to_unit_float

PICTURED_BATCHES = 3
DEFAULT_DATA = "data/digits.yaml"
RANGES = {
    "batch_size": (1, inf),
    "workers": (0, inf),
    "max_det": (1, inf),
    "imgsz": (32, inf),
    "conf_thres": (0, 1),
    "iou_thres": (0, 1),
}


@dataclass(frozen=True)
class ValOptions:
    """How to validate.

    Attributes:
        conf_thres, iou_thres, max_det, single_cls: of utils.nms; single_cls counts every class as class 0.
        amp: the 16-bit type to run the network in, None for float32.
        plots: draw the first batches, the curves and the confusion matrix into save_dir.
        verbose: tell every class in the log.
    """

    conf_thres: float = 0.001
    iou_thres: float = 0.6
    max_det: int = 300
    single_cls: bool = False
    amp: torch.dtype | None = None
    plots: bool = False
    save_dir: Path | None = None
    verbose: bool = False


@torch.inference_mode()
def validate(
    model: DetectionModel,
    loader: DataLoader,
    *,
    names: Mapping[int, str],
    loss_fn: DetectionLoss | None = None,
    callbacks: Callbacks | None = None,
    **options: Any,
) -> Metrics:
    """Runs the model over the loader's batches and compares its detections with the labels, in pixels of the files.

    Args:
        model: put into eval mode, and back again.
        loader: of utils.dataloaders.create_dataloader.
        names: of the classes, as many as the model has.
        loss_fn: also takes the mean loss.
        callbacks: on_val_image_end gets `result`, an ImageResult.
        options: the fields of ValOptions, by name.
    """
    options, callbacks = ValOptions(**options), callbacks or Callbacks()
    device, was_training = next(model.parameters()).device, model.training
    timers = StageTimers(device)
    tally, loss = Tally(len(names), pictures=options.plots), torch.zeros(3)
    model.eval()
    callbacks.run("on_val_start")
    for number, batch in enumerate(progress(loader)):
        callbacks.run("on_val_batch_start")
        with timers.preprocess:
            images, targets = to_unit_float(batch.images, device), batch.targets.to(device)
        with timers.inference:
            decoded, raw = infer(model, images, options.amp)
        if loss_fn:
            loss += loss_fn(raw, targets)[1].cpu()
        with timers.nms:
            detections = suppress(decoded, options)
        for result in image_results(batch, detections):
            tally.add(result)
            callbacks.run("on_val_image_end", result=result)
        if options.plots and number < PICTURED_BATCHES:
            draw_batch(batch, detections, options.save_dir / f"val_batch{number}", names=names)
        callbacks.run("on_val_batch_end")
    model.train(was_training)
    metrics = tally.metrics(names, loss=loss / max(len(loader), 1), timers=timers)
    report(metrics, verbose=options.verbose)
    if options.plots:
        tally.draw(options.save_dir, names)
    callbacks.run("on_val_end", metrics=metrics)
    return metrics


def infer(model: DetectionModel, images: Tensor, amp: torch.dtype | None) -> tuple[Tensor, list[Tensor]]:
    """Images (B, 3, H, W) in 0..1 -> (decoded (B, N, 5 + nc) in pixels, raw maps of the heads), float32 both."""
    with torch.autocast(images.device.type, dtype=amp, enabled=amp is not None):
        decoded, raw = model(images)
    return decoded.float(), [level.float() for level in raw]


def suppress(decoded: Tensor, options: ValOptions) -> list[Tensor]:
    """Decoded predictions (B, N, 5 + nc) -> detections (n, 6) of each image, in pixels of the network's input."""
    detections = non_max_suppression(
        decoded,
        options.conf_thres,
        options.iou_thres,
        multi_label=True,
        agnostic=options.single_cls,
        max_det=options.max_det,
    )
    if options.single_cls:
        for rows in detections:
            rows[:, 5] = 0
    return detections


def image_results(batch: Batch, detections: list[Tensor]) -> Iterator[ImageResult]:
    """Detections and labels of each image of a batch, taken from the letterboxed input back to the image file."""
    input_hw = tuple(batch.images.shape[2:])
    targets = batch.targets.cpu()
    for image, (path, (size_hw, ratio_pad)) in enumerate(zip(batch.paths, batch.shapes, strict=True)):
        letterbox = {"from_hw": input_hw, "to_hw": size_hw, "ratio_pad": ratio_pad}
        found, known = detections[image].cpu(), targets[targets[:, 0] == image, 1:]
        found = torch.cat((scale_boxes(found[:, :4], **letterbox), found[:, 4:]), 1)
        known = torch.cat((known[:, :1], scale_boxes(xywhn2xyxy(known[:, 1:], input_hw), **letterbox)), 1)
        yield ImageResult(path, tuple(size_hw), found, known)


def draw_batch(batch: Batch, detections: list[Tensor], stem: Path, *, names: Mapping[int, str]) -> None:
    """Writes <stem>_labels.jpg and <stem>_pred.jpg: a batch with its labels, and with what was detected."""
    found = detections_as_targets(detections, tuple(batch.images.shape[2:]))
    for kind, targets in (("labels", batch.targets), ("pred", found)):
        plot_images(batch.images, targets, batch.paths, file=f"{stem}_{kind}.jpg", names=names)


def progress(loader: DataLoader) -> tqdm:
    """The loader with a bar behind the heads of the columns that report() fills."""
    return tqdm(loader, desc=table_row(*COLUMNS), bar_format="{l_bar}{bar:10}{r_bar}", mininterval=0.5)


# ------------------------------------------------------------------------------------------------------ python val.py
def run(opt: Namespace) -> Metrics:
    """One validation from the options of val.py, with its pictures and files in a new directory.
    Raises InputError where the input cannot be used.

    Differs from v6.1: the data defaults to what the weights were trained on; classes are called as the data calls them;
    --half keeps the weights and decodes boxes in float32; COCO's score stands beside our own mAP, not in its place;
    weights of a training with --single-cls are validated with it.
    """
    check_options(opt)
    weights = chosen_weights(opt.weights)
    checkpoint = read_checkpoint(weights)
    data = load_data_config(opt.data or trained_on(checkpoint) or DEFAULT_DATA)
    opt = with_single_cls(opt, [checkpoint], data)
    device = select_device(opt.device)
    model = to_channels_last_(load_model(weights, device=device))
    names = common_names(model, data, weights=weights, single_cls=opt.single_cls)
    attention = AttentionReport(model, names) if opt.attention else None
    loader = build_loader(opt, data, stride=int(model.stride.max()))
    run_dir = increment_path(Path(opt.project) / opt.name, opt.exist_ok, mkdir=True)
    callbacks, coco = Callbacks(), None
    if attention:
        callbacks.register_all(attention)
    if opt.save_txt:
        callbacks.register("on_val_image_end", LabelFiles(run_dir / "labels", with_conf=opt.save_conf).write)
    if opt.save_json:
        coco = CocoResults(names, find_annotations(data.root, opt.task))
        callbacks.register("on_val_image_end", lambda result: coco.add(result.path, result.detections))
    metrics = validate(
        model,
        loader,
        names=names,
        callbacks=callbacks,
        conf_thres=opt.conf_thres,
        iou_thres=opt.iou_thres,
        max_det=opt.max_det,
        single_cls=opt.single_cls,
        amp=half_type(device) if opt.half else None,
        plots=True,
        save_dir=run_dir,
        verbose=opt.verbose or len(names) < 50,
    )
    if attention:
        attention.write(run_dir)
    if coco:
        metrics = replace(metrics, coco=save_and_score(coco, run_dir / f"{weights.stem}_predictions.json"))
    LOGGER.info(
        "Speed: {:.1f} ms preprocess, {:.1f} ms inference, {:.1f} ms NMS an image".format(*metrics.speed_ms)
        + f" at batch size {loader.batch_size}\nResults saved to {run_dir}"
    )
    return metrics


def check_options(opt: Namespace) -> None:
    """Raises InputError for values out of range, in the words of the flag."""
    if opt.task not in SPLITS:
        raise InputError(f"--task: one of {', '.join(SPLITS)} was expected, got {opt.task!r}")
    check_ranges(opt, RANGES)
    if opt.save_conf and not opt.save_txt:
        raise InputError("--save-conf adds a column to the files of --save-txt: give both")


def half_type(device: torch.device) -> torch.dtype | None:
    """The 16-bit type for --half; says so where the device has none that is fast."""
    dtype = amp_dtype(device)
    if dtype is None:
        LOGGER.warning(f"--half is left out: this {device.type} is not faster at 16 bits, float32 is used")
    return dtype


def trained_on(checkpoint: Checkpoint) -> str | None:
    """The data YAML that the weights were trained on, where they tell, and says so. Raises InputError where it is not
    here, nor one of its name."""
    stored = checkpoint.info.get("opt", {}).get("data")
    if not stored:
        return None
    data = data_of_run(stored, checkpoint.file, remedy="name the data YAML with --data")
    LOGGER.info(f"--data {data}, from {checkpoint.file}")
    return data


def with_single_cls(opt: Namespace, checkpoints: Sequence[Checkpoint], data: DataConfig) -> Namespace:
    """The options, with --single-cls where one of the weights was trained with it and the data has more classes; says
    so."""
    merged = [checkpoint.file for checkpoint in checkpoints if checkpoint.info.get("opt", {}).get("single_cls")]
    if opt.single_cls or not merged or data.nc == 1:
        return opt
    LOGGER.info(f"--single-cls is what {merged[0]} was trained with: the {data.nc} classes of {data.file} count as one")
    return Namespace(**{**vars(opt), "single_cls": True})


def common_names(model: DetectionModel, data: DataConfig, *, weights: Path, single_cls: bool) -> dict[int, str]:
    """Class names of the data, which must be as many as the model's; one name with single_cls."""
    if single_cls:
        return {0: "item"}
    if model.nc != data.nc:
        raise InputError(
            f"{weights} knows {model.nc} classes, but {data.file} has {data.nc}: give the data that it was trained on"
        )
    differing = [cls for cls in range(model.nc) if model.names[cls] != data.names[cls]]
    if differing:
        first = differing[0]
        LOGGER.warning(
            f"{len(differing)} of {model.nc} classes have other names in {weights} than in {data.file}, such as class "
            f"{first}: {model.names[first]!r}, {data.names[first]!r}. They are compared by number."
        )
    return data.names


def build_loader(opt: Namespace, data: DataConfig, *, stride: int) -> DataLoader:
    """Loader of the split that --task names, in rectangular batches. Says what the data YAML set."""
    paths = getattr(data, opt.task)
    if not paths:
        raise InputError(f"--task {opt.task}: {data.file} has no key `{opt.task}`")
    if opt.imgsz is None and data.imgsz:
        LOGGER.info(f"--imgsz {data.imgsz} taken from {data.file}")
    (imgsz,) = whole_strides((opt.imgsz or data.imgsz or DEFAULT_IMGSZ,), stride)
    return create_dataloader(
        paths,
        imgsz=imgsz,
        batch_size=opt.batch_size,
        stride=stride,
        nc=data.nc,
        rect=True,
        pad=0.5,
        single_cls=opt.single_cls,
        workers=opt.workers,
        prefix=f"{opt.task}: ",
    )


class LabelFiles:
    """Writes the detections of each image as a label file, `cls x y w h [conf]`, normalised."""

    def __init__(self, folder: Path, *, with_conf: bool) -> None:
        self.folder, self.with_conf = folder, with_conf
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, result: ImageResult) -> None:
        """A row a detection; no file for an image without any."""
        lines = label_lines(result.detections.numpy(), result.size_hw, with_confidence=self.with_conf)
        if lines:
            file = self.folder / f"{Path(result.path).stem}.txt"
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def save_and_score(coco: CocoResults, file: Path) -> CocoScore | None:
    """Writes the results file, and scores it where annotations and the package for it are there, else says why not."""
    coco.save(file)
    LOGGER.info(f"{len(coco.rows)} detections written to {file}")
    try:
        return coco.score()
    except InputError as error:
        LOGGER.warning(f"Not scored by COCO's rules: {error}")
        return None
