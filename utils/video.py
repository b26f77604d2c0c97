"""Video files, frame by frame: reads them, with broken frames told in the log, and writes them so that browsers play
them. Not which files are read (utils/media_files.py), nor which frames go to which file (utils/outputs.py)."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from utils.captures import grab_past_broken, quiet_ffmpeg
from utils.errors import InputError
from utils.log import LOGGER

VIDEO_SUFFIXES = ("asf", "avi", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "wmv")
DEFAULT_FPS = 30.0  # where a file does not tell
MAX_FPS = 1000  # a file that tells more gives the ticks of its clock, not a rate
LOST_FRAMES_ALLOWED = 2  # at the end, without a warning: frame counts in containers are estimates

CLOCK_HZ = 90_000  # ticks a second of what is written: a whole number a frame for 24, 25, 29.97, 30 and 60 a second
KEYFRAME_S = 2.0  # from one keyframe to the next; also how much of the end is lost where a run is killed
LONGEST_PAUSE_S = 3600.0  # between two frames: mp4 has 32 bits for the ticks of a frame
# A file in fragments, each with its own index before its pictures. An index at the start of the whole file
# ("faststart") is written when the run ends: a killed run would leave nothing that plays, and the index of days of a
# stream would wait in memory, then the file be copied. Browsers play both, and seek in both.
CONTAINER = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
# zerolatency: no picture waits in memory for later ones (300 MB at 4K, for files that would be a third smaller)
ENCODER = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}
BT709, BT601, LIMITED = 1, 6, 1  # ITU-T H.273: primaries and transfer, matrix; range. What the conversion to YUV does


class VideoFrame(NamedTuple):
    """One picture of a video.

    Attributes:
        image: BGR uint8 (h, w, 3).
        number: of the picture, from 1.
        total: how many the video has; 0 where the file does not tell.
        fps: frames a second of the file.
        seconds: when the picture is shown, from the start; steps need not be even.
    """

    image: np.ndarray
    number: int
    total: int
    fps: float
    seconds: float


def usable_fps(fps: float) -> float:
    """Frames a second as told by a file or camera; DEFAULT_FPS where that is no rate: 0, less, NaN, above MAX_FPS."""
    return float(fps) if 0 < fps <= MAX_FPS else DEFAULT_FPS


def _open_video(path: Path) -> cv2.VideoCapture:
    quiet_ffmpeg()
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
        fps = usable_fps(capture.get(cv2.CAP_PROP_FPS))
        number = 0
        while (broken := grab_past_broken(capture)) is not None:
            for lost in range(number + 1, number + broken + 1):
                LOGGER.warning(f"frame {lost} of {path} is broken and is skipped")
            number += broken + 1
            if (number - 1) % stride:
                continue
            decoded, image = capture.retrieve()
            if decoded:
                yield VideoFrame(image, number, total, fps, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            else:
                LOGGER.warning(f"frame {number} of {path} is broken and is skipped")
        _check_end(path, number, total)
    finally:
        capture.release()


def _check_end(path: Path, number: int, total: int) -> None:
    """Raises InputError where no frame was read; warns where clearly fewer were read than the file tells."""
    if number == 0:
        raise InputError(f"expected a video with at least one readable frame, got none in {path}")
    if number < total - max(LOST_FRAMES_ALLOWED, total // 100):
        LOGGER.warning(f"{path} ends after {number} of {total} frames: it is truncated or broken")


class FrameTimes:
    """Turns times of frames, in seconds from any start, into ticks of CLOCK_HZ that begin at 0 and always grow.

    Attributes:
        ticks: when the latest frame is shown.
        duration: ticks from the frame before to the latest one. That is also for how long the latest is shown, as
            nobody knows when the next one comes.
    """

    def __init__(self, fps: float) -> None:
        self._usual_step = 1 / fps  # seconds
        self._given = self._shown = 0.0  # seconds of the latest frame: as it came, and from the start as it is shown
        self.ticks, self.duration = -1, round(CLOCK_HZ / fps)

    def advance(self, seconds: float | None) -> None:
        """Goes on to the next frame. Where `seconds` is None, or no later than before, it is shown one frame of the
        rate later; after a pause, LONGEST_PAUSE_S later at most."""
        if self.ticks < 0:
            self.ticks, self._given = 0, seconds or 0.0
            return
        step = 0.0 if seconds is None else seconds - self._given
        step = step if step > 0 else self._usual_step
        self._given = self._given + step if seconds is None else seconds
        self._shown += min(step, LONGEST_PAUSE_S)
        ticks = max(round(self._shown * CLOCK_HZ), self.ticks + 1)
        self.ticks, self.duration = ticks, ticks - self.ticks


class VideoSink:
    """Writes frames of one size to an .mp4 file, H.264. What is written can be played while the run goes on, and after
    it was killed: all but its last KEYFRAME_S seconds. Memory stays the same, however long it is. Use as a context
    manager, or call close().

    Args:
        file: its suffix becomes .mp4.
        fps: frames a second, for frames that come without their time. What is no rate becomes DEFAULT_FPS.
        size_wh: pixels. H.264 takes even sides alone: of an odd one the last line of pixels is there twice.

    Raises InputError where the file cannot be written or the size not encoded; write() and close() raise OSError where
    a disk is full.

    Differs from v6.1: H.264, which browsers play, not MPEG-4 part 2; frames may have times of their own.
    """

    def __init__(self, file: str | Path, *, fps: float, size_wh: tuple[int, int]) -> None:
        import av

        self.file = Path(file).with_suffix(".mp4")
        self.size_wh = size_wh
        fps = usable_fps(fps)
        self._times = FrameTimes(fps)
        self._keyframe = 0  # ticks of the latest one
        self._is_closed = False
        try:
            self._container = av.open(str(self.file), "w", format="mp4", options=CONTAINER)
            self._stream = self._container.add_stream(
                "libx264", rate=Fraction(fps).limit_denominator(1001), options=ENCODER
            )
            self._configure(self._stream.codec_context)
            self._container.start_encoding()
        except (OSError, av.FFmpegError) as error:
            width, height = size_wh
            raise InputError(
                f"cannot write a video of {width} x {height} pixels to {self.file}: {error.strerror}"
            ) from error

    def _configure(self, encoder: Any) -> None:
        """Sets size, clock, keyframes and colours; encoder: PyAV's codec context."""
        encoder.width, encoder.height = (side + side % 2 for side in self.size_wh)
        encoder.pix_fmt = "yuv420p"
        encoder.time_base = Fraction(1, CLOCK_HZ)
        encoder.gop_size = CLOCK_HZ  # frames from one keyframe to the next: so many that _picture() alone sets them
        encoder.color_primaries = encoder.color_trc = BT709
        encoder.colorspace, encoder.color_range = BT601, LIMITED

    def write(self, image: np.ndarray, seconds: float | None = None) -> None:
        """Adds one frame, BGR uint8 (h, w, 3); one of another size is fitted into the video's, with black borders.

        seconds: when it is shown, from a start that is the same for all frames. See FrameTimes.advance().
        """
        if (image.shape[1], image.shape[0]) != self.size_wh:
            image = fitted(image, self.size_wh)
        odd_h, odd_w = (side % 2 for side in image.shape[:2])
        if odd_h or odd_w:
            image = cv2.copyMakeBorder(image, 0, odd_h, 0, odd_w, cv2.BORDER_REPLICATE)
        self._times.advance(seconds)
        for packet in self._stream.encode(self._picture(image)):
            packet.duration = self._times.duration  # counts for the last frame, which nothing comes after
            self._container.mux(packet)

    def _picture(self, image: np.ndarray) -> Any:
        """The frame as the encoder takes it: a keyframe where the latest one is KEYFRAME_S ago."""
        from av.video.frame import PictureType, VideoFrame

        picture = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        picture.pts, picture.time_base = self._times.ticks, Fraction(1, CLOCK_HZ)
        if picture.pts - self._keyframe >= KEYFRAME_S * CLOCK_HZ:
            picture.pict_type, self._keyframe = PictureType.I, picture.pts
        return picture

    def close(self) -> None:
        """Finishes the file. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def __enter__(self) -> "VideoSink":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def fitted(image: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """The picture (h, w, 3), scaled to be as large as fits into that size, in the middle of a black one."""
    width, height = size_wh
    scale = min(width / image.shape[1], height / image.shape[0])
    new_w, new_h = (max(round(side * scale), 1) for side in image.shape[1::-1])
    left, top = (width - new_w) // 2, (height - new_h) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[top : top + new_h, left : left + new_w] = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_AREA)
    return canvas
