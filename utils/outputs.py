"""What a detection leaves behind: annotated pictures and videos, label files, crops, a table, a window. Each is a sink
with write() and close(); which of them are open is for engine/detector.py to say."""

import csv
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from utils.annotator import crop_box
from utils.boxes import xyxy2xywhn
from utils.errors import InputError
from utils.log import LOGGER
from utils.sources import Frame
from utils.video import VideoSink

WRITABLE = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # what OpenCV encodes; others become .jpg
CSV_HEADER = ("Image Name", "Prediction", "Confidence", "Frame", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Found:
    """What was found in one frame.

    Attributes:
        frame: the picture, without boxes.
        stem: the name of its outputs, unique in the run.
        detections: float32 (n, 6) [x1, y1, x2, y2, confidence, class], whole pixels of the frame, most confident first.
        annotated: the picture with boxes, BGR uint8 (h, w, 3); None where no sink needs it.
    """

    frame: Frame
    stem: str
    detections: np.ndarray
    annotated: np.ndarray | None = None

    @property
    def numbered_stem(self) -> str:
        """The stem, in a video with the frame's number: what label files are called."""
        return f"{self.stem}_{self.frame.number}" if self.frame.is_video else self.stem


class Sink(Protocol):
    """Takes what was found, frame by frame."""

    def write(self, found: Found) -> None:
        """Adds one frame."""

    def close(self) -> None:
        """Finishes what is open."""


def unique_stems(paths: Sequence[Path]) -> dict[Path, str]:
    """The name of each file's outputs: its stem, and where two files share one (bus.jpg, bus.png, other/bus.jpg) bus_2
    and so on for the later ones. Letter case does not tell two apart, as on some file systems."""
    stems: dict[Path, str] = {}
    taken = {""}
    for path in paths:
        stem, number = path.stem, 1
        while path not in stems and stem.casefold() in taken:
            number += 1
            stem = f"{path.stem}_{number}"
        stems.setdefault(path, stem)
        taken.add(stem.casefold())
    return stems


def safe_file_name(name: str) -> str:
    """A class name as the name of a directory: without separators, control characters and what else file systems
    refuse. Names come from checkpoints, so they could otherwise lead out of the run directory."""
    return re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name).strip(". ") or "_"


def write_image(file: Path, image: np.ndarray) -> Path:
    """Writes BGR uint8 (h, w, 3); returns the path, whose suffix is .jpg where OpenCV cannot encode the given one."""
    file = file if file.suffix.lower() in WRITABLE else file.with_suffix(".jpg")
    encoded, data = cv2.imencode(file.suffix.lower(), image)
    if not encoded:
        raise InputError(f"expected a picture that can be encoded for {file}, got {image.shape[1]} x {image.shape[0]}")
    file.write_bytes(data.tobytes())
    return file


class AnnotatedSink:
    """Pictures with their source's name, and one .mp4 for each video, at the speed at which it plays."""

    def __init__(self, directory: Path, *, vid_stride: int = 1) -> None:
        self.directory = directory
        self.vid_stride = vid_stride
        self._video: VideoSink | None = None
        self._video_stem = ""

    def write(self, found: Found) -> None:
        """Saves the annotated picture."""
        if not found.frame.is_video:
            write_image(self.directory / f"{found.stem}{found.frame.path.suffix}", found.annotated)
            return
        if self._video is None or self._video_stem != found.stem:
            self.close()
            height, width = found.annotated.shape[:2]
            file, fps = self.directory / f"{found.stem}.mp4", found.frame.fps / self.vid_stride
            self._video, self._video_stem = VideoSink(file, fps=fps, size_wh=(width, height)), found.stem
        self._video.write(found.annotated)

    def close(self) -> None:
        """Finishes the last video."""
        if self._video is not None:
            self._video.close()
            self._video = None


class LabelSink:
    """labels/<stem>[_frame].txt: `cls x y w h [conf]`, normalised centre and size, least confident first; no file where
    nothing is found.

    Differs from v6.1: a file left by an earlier run in the same directory is replaced, not appended to.
    """

    def __init__(self, directory: Path, *, with_confidence: bool = False) -> None:
        self.directory = directory
        self.with_confidence = with_confidence
        self.count = 0
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, found: Found) -> None:
        """Saves the frame's lines."""
        file = self.directory / f"{found.numbered_stem}.txt"
        lines = label_lines(found.detections, found.frame.image.shape[:2], with_confidence=self.with_confidence)
        if not lines:
            file.unlink(missing_ok=True)
            return
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.count += 1

    def close(self) -> None:
        """Nothing is open."""


def label_lines(detections: np.ndarray, size_hw: tuple[int, int], *, with_confidence: bool) -> list[str]:
    """Detections (n, 6) in pixels, most confident first -> text lines, least confident first."""
    xywhn = xyxy2xywhn(detections[:, :4], size_hw)
    rows = np.concatenate([detections[:, 5:], xywhn, detections[:, 4:5]], axis=1)[::-1]
    return [" ".join(f"{value:g}" for value in row[: 6 if with_confidence else 5]) for row in rows]


class CropSink:
    """crops/<class>/<stem>.jpg, <stem>2.jpg, ...: each detection cut out of the picture without boxes. Nothing that is
    there is overwritten."""

    def __init__(self, directory: Path, names: Mapping[int, str]) -> None:
        self.directory = directory
        self.names = names
        self._used: dict[tuple[int, str], int] = {}

    def write(self, found: Found) -> None:
        """Saves the frame's crops."""
        for *xyxy, _, cls in found.detections:
            crop = crop_box(found.frame.image, xyxy)
            if crop.size:
                write_image(self._free_file(int(cls), found.stem), crop)

    def _free_file(self, cls: int, stem: str) -> Path:
        folder = self.directory / safe_file_name(self.names[cls])
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            number = self._used[cls, stem] = self._used.get((cls, stem), 0) + 1
            file = folder / f"{stem}{number if number > 1 else ''}.jpg"
            if not file.exists():
                return file

    def close(self) -> None:
        """Nothing is open."""


class CsvSink:
    """predictions.csv: a row for each detection. Its first three columns are those of YOLOv5."""

    def __init__(self, file: Path, names: Mapping[int, str]) -> None:
        self.names = names
        self._stream = open(file, "w", encoding="utf-8", newline="")  # noqa: SIM115  (closed by close())
        self._writer = csv.writer(self._stream)
        self._writer.writerow(CSV_HEADER)

    def write(self, found: Found) -> None:
        """Adds the frame's rows, most confident first."""
        frame = found.frame
        for x1, y1, x2, y2, conf, cls in found.detections.tolist():
            number = frame.number if frame.is_video else ""
            corners = (round(x1), round(y1), round(x2), round(y2))
            self._writer.writerow([frame.path.name, self.names[int(cls)], f"{conf:.4f}", number, *corners])

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


class WindowSink:
    """Shows each annotated picture in a window of its file's name."""

    def write(self, found: Found) -> None:
        """Shows the picture; it stays until the next one of the same file."""
        cv2.imshow(str(found.frame.path), found.annotated)
        cv2.waitKey(1)  # ms: lets the window draw itself

    def close(self) -> None:
        """Closes the windows."""
        cv2.destroyAllWindows()


def can_show() -> bool:
    """Whether windows can be opened here; says in the log why not."""
    has_display = not sys.platform.startswith("linux") or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
    has_windows = not re.search(r"GUI:\s+NONE", cv2.getBuildInformation())
    if not (has_display and has_windows):
        reason = "there is no display" if has_windows else "this OpenCV is built without windows"
        LOGGER.warning(f"--view-img is left out: {reason} here")
    return bool(has_display and has_windows)
