"""What a detection leaves behind: annotated pictures and videos, label files, crops, tables, a window. Each is a sink
with write() and close(), and Sinks is several of them. Not which of them a run uses: engine/detector.py."""

import csv
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from utils.annotator import crop_box
from utils.boxes import xyxy2xywhn
from utils.coco import category_ids, image_id, result_rows
from utils.errors import InputError
from utils.files import atomic_write
from utils.frames import Frame
from utils.label_files import IMAGE_SUFFIXES
from utils.log import HIDDEN, LOGGER
from utils.surviving import survives
from utils.video import VideoSink, usable_fps

WRITABLE = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # what OpenCV encodes; others become .jpg
CSV_HEADER = ("Image Name", "Prediction", "Confidence", "Frame", "x1", "y1", "x2", "y2")
LONGEST_FOLDER = 200  # bytes of a class's folder: file systems take 255
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # Windows opens these, not a folder
JSON_END = b"\n]\n"
SCREEN_WH = (1280, 800)  # px; larger pictures are shown smaller, in windows of this size at most


@dataclass(frozen=True)
class Found:
    """What was found in one frame.

    Attributes:
        frame: the picture, without boxes.
        stem: what its outputs are called, without suffix; unique in the run, and the same for all frames of a video.
        detections: float32 (n, 6) [x1, y1, x2, y2, confidence, class], whole pixels of the frame, most confident first.
        annotated: the picture with boxes, BGR uint8 (h, w, 3); None where no sink needs it.
    """

    frame: Frame
    stem: str
    detections: np.ndarray
    annotated: np.ndarray | None = None

    @property
    def drawn(self) -> np.ndarray:
        """`annotated`, for the sinks that it is drawn for."""
        assert self.annotated is not None, "annotated is None where a sink needs it"
        return self.annotated

    @property
    def numbered_stem(self) -> str:
        """What its label file and crops are called: the stem, of a frame of a video or stream with its number."""
        return f"{self.stem}_{self.frame.number}" if self.frame.is_video else self.stem


class Sink(Protocol):
    """Takes what was found, frame by frame."""

    def write(self, found: Found) -> None:
        """Adds one frame."""

    def close(self) -> None:
        """Finishes what is open."""


class Sinks:
    """Several sinks as one, by what they write: {"annotated pictures": AnnotatedSink(...)}. Iteration gives the sinks.

    Where one of them fails (a disk is full, a directory read-only), the log tells what and why, it gets no more frames
    of that picture, video or stream, and everything else goes on. Use as a context manager, or call close().

    Attributes:
        failed: what is not complete, such as "writing labels of street", in the order in which it failed.
    """

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = dict(sinks)
        self.failed: list[str] = []

    def __iter__(self) -> Iterator[Sink]:
        return iter(self._sinks.values())

    def write(self, found: Found) -> None:
        """Adds one frame to each."""
        for name, sink in self._sinks.items():
            self._try(f"writing {name} of {found.stem}", partial(sink.write, found))

    def close(self) -> None:
        """Finishes all of them."""
        for name, sink in self._sinks.items():
            self._try(f"finishing {name}", sink.close)

    def _try(self, what: str, action: Callable[[], None]) -> None:
        if what not in self.failed and not survives(what, action):
            self.failed.append(what)

    def __enter__(self) -> "Sinks":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def unique_stems(paths: Sequence[Path]) -> dict[Path, str]:
    """What the outputs of each input are called: its stem, and where an earlier input has that (bus.jpg, bus.png,
    other/bus.jpg) bus_2, bus_3 and so on. Letter case does not tell two apart, as on some file systems.

    What is no image counts as a video, and its frames have names too: clip.mp4 becomes clip_2 beside the picture
    clip_7.jpg, which else would have the name of its frame 7.
    """
    stems: dict[Path, str] = {}
    taken = {""}  # of all inputs so far
    videos: set[str] = set()
    pictures_unnumbered: set[str] = set()  # of clip_7.jpg: clip

    def is_free(stem: str, is_video: bool) -> bool:
        clashes = stem in pictures_unnumbered if is_video else _without_number(stem) in videos
        return stem not in taken and not clashes

    for path in dict.fromkeys(paths):
        is_video = path.suffix.lower().lstrip(".") not in IMAGE_SUFFIXES
        stem, number = path.stem, 1
        while not is_free(stem.casefold(), is_video):
            number += 1
            stem = f"{path.stem}_{number}"
        stems[path] = stem
        taken.add(stem.casefold())
        if is_video:
            videos.add(stem.casefold())
        else:
            pictures_unnumbered.add(_without_number(stem.casefold()))
    return stems


def _without_number(stem: str) -> str:
    """clip_7 -> clip; a stem without a number at its end stays as it is."""
    return re.sub(r"_\d+$", "", stem)


def safe_file_name(name: str) -> str:
    """A class name as the name of a directory: without separators, control characters and what else file systems
    refuse, and no longer than they take. Names come from checkpoints: without this one could lead out of the run
    directory."""
    safe = HIDDEN.sub("_", re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name[:LONGEST_FOLDER]))
    safe = safe.encode()[:LONGEST_FOLDER].decode(errors="ignore").strip(". ") or "_"
    return f"{safe}_" if DEVICES.fullmatch(safe) else safe


def write_image(file: Path, image: np.ndarray) -> Path:
    """Writes BGR uint8 (h, w, 3), whole or not at all. Returns the path: with .jpg for a suffix that OpenCV
    cannot encode. Raises InputError where the format has no room for so large a picture."""
    file = file if file.suffix.lower() in WRITABLE else file.with_suffix(".jpg")
    encoded, data = cv2.imencode(file.suffix.lower(), image)
    if not encoded:
        raise InputError(f"expected a picture that can be encoded for {file}, got {image.shape[1]} x {image.shape[0]}")
    write_whole(file, data.tobytes())
    return file


def write_whole(file: Path, content: bytes) -> None:
    """One of many small outputs: whole or not at all where the disk is full or the run is killed. A power cut may cost
    those of the last seconds: waiting for the disk after each would take longer than detecting."""
    with atomic_write(file, sync=False) as stream:
        stream.write(content)


class AnnotatedSink:
    """Pictures with their source's name, and one .mp4 for each video and stream, at the speed at which it plays; a
    frame of another size than the first one's is fitted into it.

    Args:
        live: the frames are of streams, whose videos are open side by side. Else videos come one after the other.

    Differs from v6.1: each frame is shown at its own time, so that a stream from which frames are dropped plays no
    faster than it was.
    """

    def __init__(self, directory: Path, *, live: bool = False) -> None:
        self.directory = directory
        self.live = live
        self._videos: dict[str, VideoSink] = {}

    def write(self, found: Found) -> None:
        """Saves the annotated picture."""
        frame = found.frame
        if not frame.is_video:
            write_image(self.directory / f"{found.stem}{frame.path.suffix}", found.drawn)
            return
        seconds = (frame.number - 1) / usable_fps(frame.fps) if frame.seconds is None else frame.seconds
        self._video(found).write(found.drawn, seconds)

    def _video(self, found: Found) -> VideoSink:
        if found.stem not in self._videos:
            if not self.live:
                self.close()  # the video before this one has ended
            height, width = found.drawn.shape[:2]
            file = self.directory / f"{found.stem}.mp4"
            self._videos[found.stem] = VideoSink(file, fps=found.frame.fps, size_wh=(width, height))
        return self._videos[found.stem]

    def close(self) -> None:
        """Finishes all videos, also where one of them fails."""
        with ExitStack() as stack:
            while self._videos:
                stack.callback(self._videos.popitem()[1].close)


class LabelSink:
    """labels/<stem>[_frame].txt: `cls x y w h [conf]`, normalised centre and size, least confident first; no file where
    nothing is found. A file is whole or not there.

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
        write_whole(file, ("\n".join(lines) + "\n").encode())
        self.count += 1

    def close(self) -> None:
        """Nothing is open."""


def label_lines(detections: np.ndarray, size_hw: tuple[int, int], *, with_confidence: bool) -> list[str]:
    """Detections (n, 6) in pixels, most confident first -> text lines, least confident first."""
    xywhn = xyxy2xywhn(detections[:, :4], size_hw)
    rows = np.concatenate([detections[:, 5:], xywhn, detections[:, 4:5]], axis=1)[::-1]
    return [" ".join(f"{value:g}" for value in row[: 6 if with_confidence else 5]) for row in rows]


class CropSink:
    """crops/<class>/<stem>[_frame].jpg, then <stem>2.jpg, <stem>3.jpg (in videos <stem>_<frame>-2.jpg): each detection
    cut out of the picture without boxes, the most confident first. Nothing that is there is overwritten.

    Differs from v6.1: crops of videos have their frame's number.
    """

    def __init__(self, directory: Path, names: Mapping[int, str]) -> None:
        self.directory = directory
        self.names = names

    def write(self, found: Found) -> None:
        """Saves the frame's crops."""
        counts: Counter[Path] = Counter()
        for *xyxy, _, cls in found.detections:
            crop = crop_box(found.frame.image, xyxy)
            if crop.size:
                write_image(self._free_file(found, self.directory / safe_file_name(self.names[int(cls)]), counts), crop)

    @staticmethod
    def _free_file(found: Found, folder: Path, counts: Counter[Path]) -> Path:
        """The first file name in a class's folder that is not in use. `counts`, changed here, has how many names were
        tried for this frame in each folder."""
        folder.mkdir(parents=True, exist_ok=True)
        between = "-" if found.frame.is_video else ""
        while True:
            counts[folder] += 1
            ending = f"{between}{counts[folder]}" if counts[folder] > 1 else ""
            file = folder / f"{found.numbered_stem}{ending}.jpg"
            if not file.exists():
                return file

    def close(self) -> None:
        """Nothing is open."""


class CsvSink:
    """predictions.csv: a row for each detection. Its first three columns are those of YOLOv5."""

    def __init__(self, file: Path, names: Mapping[int, str]) -> None:
        self.names = names
        self._stream = open(file, "w", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115  (closed by close())
        self._writer = csv.writer(self._stream)
        self._writer.writerow(CSV_HEADER)

    def write(self, found: Found) -> None:
        """Adds the frame's rows, most confident first."""
        frame = found.frame
        for x1, y1, x2, y2, conf, cls in found.detections.tolist():
            number = frame.number if frame.is_video else ""
            corners = (round(x1), round(y1), round(x2), round(y2))
            self._writer.writerow([frame.path.name, self.names[int(cls)], f"{conf:.4f}", number, *corners])
        self._stream.flush()  # so that a run that is killed keeps its rows

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


class JsonSink:
    """predictions.json: all detections in COCO's results format, {image_id, category_id, bbox, score, file_name}. The
    file is whole after each frame, also after one that no longer fits on the disk; memory does not grow with it.

    image_id is what the frame's outputs are called, as a number if it is one; file_name the file or stream it is from.
    """

    def __init__(self, file: Path, names: Mapping[int, str]) -> None:
        self.categories = category_ids(names)
        self._stream = open(file, "wb", buffering=0)  # noqa: SIM115  (closed by close())
        self._between = b"\n"
        self._written = 0  # bytes before JSON_END
        self._add(b"[")

    def write(self, found: Found) -> None:
        """Adds the frame's rows, most confident first."""
        rows = result_rows(image_id(found.numbered_stem), found.detections, self.categories)
        if rows:
            lines = ",\n".join(json.dumps({**row, "file_name": found.frame.path.name}) for row in rows)
            self._add(self._between + lines.encode())
            self._between = b",\n"

    def _add(self, content: bytes) -> None:
        """Writes the content over JSON_END, and that again after it. What does not fit is taken back."""
        try:
            self._overwrite_end(content + JSON_END)
        except OSError:
            self._stream.truncate(self._written)  # makes room for what follows
            self._overwrite_end(JSON_END)
            raise
        self._written += len(content)

    def _overwrite_end(self, content: bytes) -> None:
        self._stream.seek(self._written)
        while content:
            content = content[self._stream.write(content) :]  # on a disk that is almost full: a part

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


class WindowSink:
    """Shows each annotated picture, a window for each input. Q or Esc in one of them ends the run, as Ctrl+C does."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[int, int]] = {}

    def write(self, found: Found) -> None:
        """Shows the picture; it stays until the next one of the same input. Raises KeyboardInterrupt for Q and Esc."""
        height, width = found.drawn.shape[:2]
        if self._sizes.get(found.stem) != (width, height):
            self._sizes[found.stem] = (width, height)
            scale = min(1.0, SCREEN_WH[0] / width, SCREEN_WH[1] / height)
            cv2.namedWindow(found.stem, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.resizeWindow(found.stem, max(round(width * scale), 1), max(round(height * scale), 1))
        cv2.imshow(found.stem, found.drawn)
        if cv2.waitKey(1) & 0xFF in (ord("q"), 27):  # ms: also lets the window draw itself
            raise KeyboardInterrupt

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
