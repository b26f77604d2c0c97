"""Pictures and videos in, boxes out: the loop of detect.py. Not for labelled sets: that is validator.py. Where frames
come from is in utils/sources.py, what is written in utils/outputs.py."""

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.inputs import check_ranges, chosen_weights, network_size
from models.attention_probe import AttentionProbe
from models.backend import Backend
from models.backends import load_backend
from models.runtime_torch import TorchBackend
from utils.annotator import Annotator, class_colour
from utils.attention_plots import plot_image_attention
from utils.augmentations import letterbox
from utils.boxes import clip_boxes_, scale_boxes
from utils.data_config import load_data_config
from utils.errors import InputError
from utils.files import increment_path
from utils.log import LOGGER
from utils.nms import non_max_suppression
from utils.outputs import AnnotatedSink, CropSink, CsvSink, Found, LabelSink, Sink, WindowSink, can_show, unique_stems
from utils.plots import plot_feature_maps
from utils.sources import FileSource, Frame
from utils.speed import Speed, StageTimers
from utils.torch_utils import select_device, to_unit_float

SAVING = ("save_txt", "save_csv", "save_crop", "visualize")  # what needs a run directory beside the annotated pictures
TOLD_NAMES = 12  # of classes, in a message
RANGES = {
    "conf_thres": (0, 1),
    "iou_thres": (0, 1),
    "max_det": (1, inf),
    "vid_stride": (1, inf),
    "line_thickness": (1, inf),
}


@dataclass(frozen=True)
class Detected:
    """What a run did: its directory (None where nothing was to be saved), how many frames and boxes, the files that
    could not be read, the mean speed."""

    save_dir: Path | None
    frames: int
    boxes: int
    skipped: tuple[Path, ...]
    speed_ms: Speed


@torch.inference_mode()
def run(opt: Namespace) -> Detected:
    """One detection with the options of detect.py. Raises InputError where they, the source or the weights cannot be
    used; a file among others that cannot be read is told and skipped."""
    check_options(opt)
    source = FileSource(opt.source, vid_stride=opt.vid_stride)
    predictor = Predictor(opt)
    save_dir = make_run_dir(opt)
    stems = unique_stems(source.paths)
    boxes = Counter()
    with opened_sinks(opt, save_dir, predictor.names) as sinks:
        for frame in source:
            (detections,) = predictor([frame.image], feature_dir(opt, save_dir, stems[frame.path], frame))
            found = Found(frame, stems[frame.path], detections)
            if opt.view_img or not opt.nosave:
                found = replace(found, annotated=annotate(found, predictor.names, opt))
            for sink in sinks:
                sink.write(found)
            boxes[frame.path] += len(detections)
            LOGGER.info(frame_line(frame, predictor.seen_hw, counted(detections, predictor.names), predictor.last_ms))
    result = Detected(save_dir, predictor.frames, boxes.total(), tuple(source.skipped), predictor.mean_ms)
    labels = sum(sink.count for sink in sinks if isinstance(sink, LabelSink))
    report(result, source, predictor.imgsz, labels=labels)
    return result


# ------------------------------------------------------------------------------------------------------------- options
def check_options(opt: Namespace) -> None:
    """Raises InputError for values out of range, in the words of the flag."""
    check_ranges(opt, RANGES)
    if opt.save_conf and not opt.save_txt:
        raise InputError("--save-conf adds a column to the files of --save-txt: give both")
    sides = image_size(opt)
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"--imgsz: expected one side or height and width in pixels, got {opt.imgsz}")


def image_size(opt: Namespace) -> tuple[int, ...]:
    """(height, width) of --imgsz, which may be one side."""
    given = [opt.imgsz] if isinstance(opt.imgsz, int) else list(opt.imgsz)
    return tuple(given * 2 if len(given) == 1 else given)


def chosen_names(opt: Namespace, backend: Backend, weights: Path) -> dict[int, str]:
    """Class names of --data, else those in the weights. Raises InputError where their number does not fit."""
    if not opt.data:
        return backend.names
    data = load_data_config(opt.data)
    if data.nc != backend.nc:
        raise InputError(f"--data: expected the {backend.nc} classes of {weights}, got {data.nc} in {data.file}")
    return data.names


def class_numbers(wanted: Sequence[str | int] | None, names: Mapping[int, str]) -> list[int] | None:
    """--classes, each by its number or its name, as numbers; None where all are wanted. Raises InputError for what is
    neither. A name that looks like a number is taken as the number."""
    if wanted is None:
        return None
    numbers = {name: cls for cls, name in names.items()}
    found = [int(item) if str(item).isdecimal() else numbers.get(item, -1) for item in wanted]
    if unknown := [item for item, cls in zip(wanted, found, strict=True) if cls not in names]:
        known = ", ".join(f"{cls} {name}" for cls, name in list(names.items())[:TOLD_NAMES])
        more = ", ..." if len(names) > TOLD_NAMES else ""
        raise InputError(f"--classes: expected numbers or names of {known}{more}, got {unknown[0]!r}")
    return found


def make_run_dir(opt: Namespace) -> Path | None:
    """The new directory project/name, None where nothing will be saved."""
    if opt.nosave and not any(getattr(opt, name) for name in SAVING):
        return None
    return increment_path(Path(opt.project) / opt.name, exist_ok=opt.exist_ok, mkdir=True)


# ----------------------------------------------------------------------------------------------------------- detection
class Predictor:
    """A network and its thresholds as a function from pictures to their detections, timed."""

    def __init__(self, opt: Namespace) -> None:
        weights = chosen_weights(opt.weights)
        self.opt = opt
        device = select_device(opt.device)
        self.backend = load_backend(weights, device, half=opt.half, augment=opt.augment, dnn=opt.dnn)
        self.names = chosen_names(opt, self.backend, weights[0])
        self.classes = class_numbers(opt.classes, self.names)
        if opt.visualize and not isinstance(self.backend, TorchBackend):
            raise InputError(f"--visualize looks into one network in PyTorch: one .pt was expected, got {weights[0]}")
        self.imgsz = network_size(image_size(opt), self.backend)
        self.frames = 0
        self._timers = StageTimers(device)
        if device.type == "cuda":  # the first pass loads kernels: not to be counted
            self.backend(to_unit_float(torch.zeros(1, 3, *self.imgsz, dtype=torch.uint8), device))

    def __call__(self, images: Sequence[np.ndarray], features: Path | None = None) -> list[np.ndarray]:
        """Pictures BGR uint8 (h, w, 3) -> detections of each, float32 (n, 6) [x1, y1, x2, y2, confidence, class] in
        whole pixels of the picture, most confident first. Feature maps and attention go to `features`."""
        opt = self.opt
        with self._timers.preprocess:
            batch = self._fitted(images)
        with self._timers.inference:
            pred = self._pictured_forward(batch, features) if features else self.backend(batch)
        with self._timers.nms:
            found = non_max_suppression(
                pred,
                opt.conf_thres,
                opt.iou_thres,
                classes=self.classes,
                agnostic=opt.agnostic_nms,
                max_det=opt.max_det,
            )
        self.frames += len(images)
        self.seen_hw = tuple(batch.shape[2:])
        return [self._in_picture(rows, image.shape[:2]) for rows, image in zip(found, images, strict=True)]

    def _fitted(self, images: Sequence[np.ndarray]) -> Tensor:
        """The network's input (B, 3, h, w): no larger than needed where all pictures have one shape."""
        auto = self.backend.fixed_hw is None and len({image.shape for image in images}) == 1
        fitted = [letterbox(image, self.imgsz, auto=auto, stride=self.backend.stride)[0] for image in images]
        planes = np.ascontiguousarray(np.stack(fitted)[..., ::-1].transpose(0, 3, 1, 2))  # (B, 3, h, w) RGB
        return to_unit_float(torch.from_numpy(planes), self.backend.device)

    def _in_picture(self, found: Tensor, size_hw: tuple[int, int]) -> np.ndarray:
        """Detections in pixels of the network's input -> in whole pixels of the picture."""
        found[:, :4] = scale_boxes(found[:, :4], from_hw=self.seen_hw, to_hw=size_hw).round()
        clip_boxes_(found, size_hw)
        return found.float().cpu().numpy()

    def _pictured_forward(self, batch: Tensor, folder: Path) -> Tensor:
        """Decoded predictions, with pictures of the feature maps and of the attention of dynamic layers in the folder;
        of the first picture of the batch."""
        folder.mkdir(parents=True, exist_ok=True)
        model = self.backend.model
        with AttentionProbe(model) as probe, self.backend.autocast():
            for index, kind, output in model.layer_outputs(batch):
                if isinstance(output, Tensor) and output.dim() == 4:
                    name = kind.rpartition(".")[2]
                    plot_feature_maps(
                        output.float(), f"layer {index}, {name}", folder / f"stage{index}_{name}_features.png"
                    )
        if probe.layers:
            attention = {name: rows[0].numpy() for name, rows in probe.take().items()}
            plot_image_attention(attention, folder / "attention.png")
        return output[0].float()

    @property
    def last_ms(self) -> float:
        """Milliseconds of the network on the latest picture."""
        return self._timers.inference.last * 1000

    @property
    def mean_ms(self) -> Speed:
        """Mean milliseconds a picture."""
        return self._timers.mean_ms(self.frames)


# ------------------------------------------------------------------------------------------------------------- outputs
@contextmanager
def opened_sinks(opt: Namespace, save_dir: Path | None, names: Mapping[int, str]) -> Iterator[list[Sink]]:
    """The sinks that the options ask for; closed at the end, also where the run breaks off."""
    sinks: list[Sink] = []
    try:
        if not opt.nosave:
            sinks.append(AnnotatedSink(save_dir, vid_stride=opt.vid_stride))
        if opt.save_txt:
            sinks.append(LabelSink(save_dir / "labels", with_confidence=opt.save_conf))
        if opt.save_crop:
            sinks.append(CropSink(save_dir / "crops", names))
        if opt.save_csv:
            sinks.append(CsvSink(save_dir / "predictions.csv", names))
        if opt.view_img and can_show():
            sinks.append(WindowSink())
        yield sinks
    finally:
        for sink in sinks:
            sink.close()


def feature_dir(opt: Namespace, save_dir: Path | None, stem: str, frame: Frame) -> Path | None:
    """Where --visualize puts the feature maps of a frame, None without it."""
    if not opt.visualize:
        return None
    return save_dir / Found(frame, stem, np.zeros((0, 6))).numbered_stem


def annotate(found: Found, names: Mapping[int, str], opt: Namespace) -> np.ndarray:
    """The frame with its boxes, the most confident on top."""
    annotator = Annotator(found.frame.image, line_width=opt.line_thickness)
    for *xyxy, conf, cls in found.detections[::-1].tolist():
        label = names[int(cls)] if opt.hide_conf else f"{names[int(cls)]} {conf:.2f}"
        annotator.box(xyxy, "" if opt.hide_labels else label, class_colour(int(cls)))
    return annotator.result()


# ----------------------------------------------------------------------------------------------------------------- log
def counted(detections: np.ndarray, names: Mapping[int, str]) -> str:
    """ "4 persons, 1 bus", by class number; "(no detections)" where there are none."""
    counts = sorted(Counter(detections[:, 5].astype(int).tolist()).items())
    return ", ".join(f"{count} {plural(names[cls], count)}" for cls, count in counts) or "(no detections)"


def plural(name: str, count: int) -> str:
    """The name as it follows the count: 1 bus, 2 buses, 2 persons."""
    if count == 1:
        return name
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


def frame_line(frame: Frame, shape_hw: tuple[int, int], counts: str, milliseconds: float) -> str:
    """The log line of one frame."""
    kind = f"video {frame.index}/{frame.total} ({frame.number}/{frame.frames or '?'})"
    kind = kind if frame.is_video else f"image {frame.index}/{frame.total}"
    return f"{kind} {frame.path.resolve()}: {shape_hw[0]}x{shape_hw[1]} {counts}, {milliseconds:.1f}ms"


def report(result: Detected, source: FileSource, imgsz: tuple[int, int], *, labels: int) -> None:
    """Logs speed, what was skipped, where the results are and how many label files are among them. Raises InputError
    where no file could be read."""
    if not result.frames:
        raise InputError(f"--source: none of the {len(source)} files could be read; the lines above say why")
    speed = "{:.1f}ms pre-process, {:.1f}ms inference, {:.1f}ms NMS".format(*result.speed_ms)
    LOGGER.info(f"Speed: {speed} per image at shape {(1, 3, *imgsz)}")
    if result.skipped:
        LOGGER.warning(f"{len(result.skipped)} of {len(source)} files could not be read and were skipped")
    if result.save_dir:
        LOGGER.info(f"Results saved to {result.save_dir}" + (f", {labels} label files in labels" if labels else ""))
