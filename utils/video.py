"""Video files, frame by frame: read with what is broken told, written with what OpenCV can encode here. Which files to
read is for utils/sources.py."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.errors import InputError
from utils.log import LOGGER

VIDEO_SUFFIXES = ("asf", "avi", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "wmv")
# H.264 is what browsers play; pip's OpenCV has no encoder for it, and MPEG-4 part 2 is in all of them.
CODECS = ("avc1", "mp4v")
DEFAULT_FPS = 30.0  # where a file does not tell
LOST_FRAMES_ALLOWED = 2  # frame counts in containers are estimates


class VideoFrame(NamedTuple):
    """One picture of a video: BGR uint8 (h, w, 3), its number from 1, the number of frames (0 where the file does not
    tell), frames a second of the file."""

    image: np.ndarray
    number: int
    total: int
    fps: float


def _open_video(path: Path) -> cv2.VideoCapture:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # codec chatter; what matters is told below
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise InputError(f"expected a video that OpenCV can read, got something else in {path}")
    return capture


def read_video(path: str | Path, *, stride: int = 1) -> Iterator[VideoFrame]:
    """The 1st frame and every stride-th after it. Raises InputError where the file cannot be opened or has no frame. A
    frame that cannot be decoded is skipped, a video that ends early gives what it has; both are told in the log."""
    path = Path(path)
    capture = _open_video(path)
    try:
        total = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps < 1000 else DEFAULT_FPS
        number = 0
        while capture.grab():
            number += 1
            if (number - 1) % stride:
                continue
            decoded, image = capture.retrieve()
            if decoded:
                yield VideoFrame(image, number, total, fps)
            else:
                LOGGER.warning(f"frame {number} of {path} is broken and is skipped")
        _tell_a_short_end(path, number, total)
    finally:
        capture.release()


def _tell_a_short_end(path: Path, number: int, total: int) -> None:
    if number == 0:
        raise InputError(f"expected a video with at least one readable frame, got none in {path}")
    if number < total - max(LOST_FRAMES_ALLOWED, total // 100):
        LOGGER.warning(f"{path} ends after {number} of {total} frames: it is truncated or broken")


class VideoSink:
    """Writes frames of one size to an .mp4 file. Use as a context manager, or call close().

    Args:
        file: its suffix becomes .mp4.
        fps: frames a second of what is written.
        size_wh: pixels; each frame must have it.

    Raises InputError where OpenCV can encode none of CODECS or cannot write there.
    """

    def __init__(self, file: str | Path, *, fps: float, size_wh: tuple[int, int]) -> None:
        self.file = Path(file).with_suffix(".mp4")
        self.size_wh = size_wh
        self._writer = _open_writer(self.file, fps, size_wh)

    def write(self, image: np.ndarray) -> None:
        """Adds one frame, BGR uint8 (h, w, 3); another size than the first one's is fitted to it."""
        if (image.shape[1], image.shape[0]) != self.size_wh:
            image = cv2.resize(image, self.size_wh, interpolation=cv2.INTER_AREA)
        self._writer.write(image)

    def close(self) -> None:
        """Finishes the file; without it players cannot read it."""
        self._writer.release()

    def __enter__(self) -> "VideoSink":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _open_writer(file: Path, fps: float, size_wh: tuple[int, int]) -> cv2.VideoWriter:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a codec that is missing is no news
    try:
        for codec in CODECS:
            writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*codec), fps, size_wh)
            if writer.isOpened():
                return writer
    finally:
        cv2.utils.logging.setLogLevel(level)
    raise InputError(f"expected to write a video with one of the codecs {', '.join(CODECS)}, OpenCV cannot: {file}")
