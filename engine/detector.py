"""Pictures and videos in, boxes out: the loop of detect.py. Not for labelled sets: that is validator.py. Where frames
come from is in utils/sources.py, what is written in utils/outputs.py."""

import shutil
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import torch

from engine.inputs import check_ranges, image_sides
from engine.interruption import StoppedBySignal, StopSignals
from engine.predictor import Predictor
from models.weights import renew_checkpoint
from utils.annotator import Annotator, class_colour
from utils.class_names import counted
from utils.errors import InputError
from utils.files import ROOT, increment_path
from utils.fonts import drawable_names
from utils.log import LOGGER
from utils.outputs import (
    AnnotatedSink,
    CropSink,
    CsvSink,
    Found,
    JsonSink,
    LabelSink,
    Sink,
    Sinks,
    WindowSink,
    can_show,
    unique_stems,
)
from utils.sources import Source, open_source
from utils.speed import Speed

SHIPPED_PICTURES = "data/images"  # the default of --source
# What needs a run directory beside the annotated pictures.
SAVING = ("save_txt", "save_csv", "save_crop", "save_json", "visualize")
TOLD_FAILURES = 3  # of outputs, in the last line
NOTHING = np.zeros((0, 6), np.float32)
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
    used; a file or stream among others that cannot be read is told and skipped. Ctrl+C is how one ends a stream; in
    files it ends the run with what is done so far, and StoppedBySignal is raised. An output that cannot be written does
    not cost the others, and raises InputError at the end."""
    check_options(opt)
    with open_source(here_or_shipped(opt.source), vid_stride=opt.vid_stride) as source, StopSignals() as signals:
        source.end_when(lambda: signals.received)
        predictor = Predictor(opt)
        save_dir = make_run_dir(opt)
        with opened_sinks(opt, save_dir, predictor.names, live=source.live) as sinks:
            boxes = save_all(looked_at(source, predictor, opt, save_dir, signals), sinks, predictor, source)
    if not predictor.frames:
        if save_dir and not opt.exist_ok:
            shutil.rmtree(save_dir)  # there is nothing in it
        if signals.received:
            raise StoppedBySignal(signals.received)
        kind = "streams" if source.live else "files"
        raise InputError(f"--source: none of the {len(source)} {kind} could be read; the lines above say why")
    result = Detected(save_dir, predictor.frames, boxes, tuple(source.skipped), predictor.mean_ms)
    report(result, source, predictor.imgsz, labels=sum(sink.count for sink in sinks if isinstance(sink, LabelSink)))
    if sinks.failed:
        more = f" and {len(sinks.failed) - TOLD_FAILURES} more" if len(sinks.failed) > TOLD_FAILURES else ""
        raise InputError(f"not complete: {', '.join(sinks.failed[:TOLD_FAILURES])}{more}; the lines above say why")
    if signals.received and not source.live:
        raise StoppedBySignal(signals.received)
    if opt.update:
        for file in predictor.weights:
            renew_checkpoint(file)
    return result


def save_all(everything: Iterable[Found], sinks: Sinks, predictor: Predictor, source: Source) -> int:
    """Gives what is found to the sinks and a line to the log, until the window is closed. Returns how many boxes."""
    boxes = 0
    with suppress(KeyboardInterrupt):  # Q in the window, or Ctrl+C for the second time
        for found in everything:
            sinks.write(found)
            boxes += len(found.detections)
            LOGGER.info(frame_line(found, predictor, source))
    return boxes


def looked_at(
    source: Source, predictor: Predictor, opt: Namespace, save_dir: Path | None, signals: StopSignals
) -> Iterator[Found]:
    """What is found in each frame of the source, drawn where somebody wants to see it, until a signal comes."""
    stems, drawn_names = unique_stems(source.paths), drawable_names(predictor.names)
    for frames in source:
        first = Found(frames[0], stems[frames[0].path], NOTHING)
        features = save_dir / first.numbered_stem if save_dir and opt.visualize else None
        for frame, detections in zip(frames, predictor([frame.image for frame in frames], features), strict=True):
            found = Found(frame, stems[frame.path], detections)
            drawn = opt.view_img or not opt.nosave
            yield replace(found, annotated=annotate(found, drawn_names, opt)) if drawn else found
        if signals.received:
            return


# ------------------------------------------------------------------------------------------------------------- options
def check_options(opt: Namespace) -> None:
    """Raises InputError for values out of range, in the words of the flag."""
    check_ranges(opt, RANGES)
    if opt.save_conf and not opt.save_txt:
        raise InputError("--save-conf adds a column to the files of --save-txt: give both")
    image_sides(opt.imgsz)


def here_or_shipped(source: str | Path) -> str | Path:
    """The source; the repository's own pictures where the default's are asked for in another directory."""
    shipped = ROOT / SHIPPED_PICTURES
    return shipped if str(source) == SHIPPED_PICTURES and not Path(source).exists() else source


def make_run_dir(opt: Namespace) -> Path | None:
    """The new directory project/name, None where nothing will be saved."""
    if opt.nosave and not any(getattr(opt, name) for name in SAVING):
        return None
    try:
        return increment_path(Path(opt.project) / opt.name, exist_ok=opt.exist_ok, mkdir=True)
    except OSError as error:
        raise InputError(f"--project: expected a place to write to, got {opt.project}: {error.strerror}") from error


# ------------------------------------------------------------------------------------------------------------- outputs
def opened_sinks(opt: Namespace, save_dir: Path | None, names: Mapping[int, str], *, live: bool) -> Sinks:
    """The sinks that the options ask for, by what they write."""
    sinks = file_sinks(opt, save_dir, names, live=live) if save_dir else {}
    if opt.view_img and can_show():
        sinks["window"] = WindowSink()
    return Sinks(sinks)


def file_sinks(opt: Namespace, save_dir: Path, names: Mapping[int, str], *, live: bool) -> dict[str, Sink]:
    """Those that write into the run directory."""
    sinks: dict[str, Sink] = {}
    if not opt.nosave:
        sinks["annotated pictures"] = AnnotatedSink(save_dir, live=live)
    if opt.save_txt:
        sinks["labels"] = LabelSink(save_dir / "labels", with_confidence=opt.save_conf)
    if opt.save_crop:
        sinks["crops"] = CropSink(save_dir / "crops", names)
    if opt.save_csv:
        sinks["predictions.csv"] = CsvSink(save_dir / "predictions.csv", names)
    if opt.save_json:
        sinks["predictions.json"] = JsonSink(save_dir / "predictions.json", names)
    return sinks


def annotate(found: Found, names: Mapping[int, str], opt: Namespace) -> np.ndarray:
    """The frame with its boxes, the most confident on top."""
    annotator = Annotator(found.frame.image, line_width=opt.line_thickness)
    for *xyxy, conf, cls in found.detections[::-1].tolist():
        label = names[int(cls)] if opt.hide_conf else f"{names[int(cls)]} {conf:.2f}"
        annotator.box(xyxy, "" if opt.hide_labels else label, class_colour(int(cls)))
    return annotator.result()


# ----------------------------------------------------------------------------------------------------------------- log
def frame_line(found: Found, predictor: Predictor, source: Source) -> str:
    """The log line of one frame: which, the size that the network saw, what is in it, the network's time."""
    frame, (height, width) = found.frame, predictor.seen_hw
    kind = f"{'stream' if source.live else 'video' if frame.is_video else 'image'} {frame.index}/{frame.total}"
    if frame.is_video:
        kind += f" ({frame.number}/{frame.frames or '?'})"
    counts = counted(found.detections[:, 5].tolist(), predictor.names)
    return f"{kind} {source.place(frame.path)}: {height}x{width} {counts}, {predictor.last_ms:.1f}ms"


def report(result: Detected, source: Source, imgsz: tuple[int, int], *, labels: int) -> None:
    """Logs the speed, what was skipped, where the results are and how many label files are among them."""
    speed = "{:.1f}ms pre-process, {:.1f}ms inference, {:.1f}ms NMS".format(*result.speed_ms)
    LOGGER.info(f"Speed: {speed} per image at shape {(1, 3, *imgsz)}")
    if result.skipped:
        kind = "streams" if source.live else "files"
        LOGGER.warning(f"{len(result.skipped)} of {len(source)} {kind} could not be read and were skipped")
    if result.save_dir:
        LOGGER.info(f"Results saved to {result.save_dir}" + (f", {labels} label files in labels" if labels else ""))
