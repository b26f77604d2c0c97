"""Live streams and webcams. For each, a thread keeps the newest frame and connects again after a loss. Not for files,
here or on the web, which wait until they are read: utils/media_files.py, utils/web_files.py."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2

from utils.captures import grab_past_broken, quiet_ffmpeg
from utils.downloads import LONGEST_NAME, checked_url, shown
from utils.frames import Frame, Source
from utils.log import LOGGER
from utils.video import usable_fps

SCHEMES = ("rtsp", "rtmp", "http", "https")
GLANCE_S = 0.5  # how often the caller's thread wakes up: Windows delivers Ctrl+C only then


@dataclass(frozen=True)
class Patience:
    """How long a stream is waited for.

    Attributes:
        connect_s: seconds for one connection.
        silence_s: seconds without a frame until it counts as lost.
        first_tries, tries: connections in a row without a frame until it is given up:
            before its first frame, and later.
        wait_s, longest_wait_s: seconds before the second try, doubled before each further one up to the longest.
    """

    connect_s: float = 10.0
    silence_s: float = 5.0
    first_tries: int = 3
    tries: int = 8
    wait_s: float = 1.0
    longest_wait_s: float = 30.0

    def before_try(self, failed: int) -> float:
        """Seconds to wait after `failed` connections in a row without a frame."""
        return min(self.wait_s * 2 ** max(failed - 1, 0), self.longest_wait_s)

    def exhausted(self, failed: int, *, seen: bool) -> bool:
        """Whether a stream is given up after so many failed connections in a row; `seen`: it has had frames before."""
        return failed >= (self.tries if seen else self.first_tries)


@dataclass(frozen=True)
class Stream:
    """Where a stream comes from, what its outputs are called, its number from 1 and how many there are."""

    address: str
    path: Path
    index: int
    total: int

    def __str__(self) -> str:
        place = f"webcam {self.address}" if self.address.isdecimal() else shown(self.address)
        return f"stream {self.index}/{self.total} {place}"


class StreamSource(Source):
    """Batches of the newest frames of streams and webcams: one of each that has a new frame since the batch before.
    Frames that come faster than they are taken are left out, so that the delay does not grow. Only of a stream that
    tells its length, a recording, none is left out.

    The iteration ends when all streams have ended or were given up. Those given up are in `skipped`.

    Args:
        addresses: rtsp, rtmp, http or https addresses, or the numbers of webcams.
        vid_stride: takes the 1st frame and every vid_stride-th after it.
        patience: how long a stream is waited for.

    Raises InputError where an address is malformed.

    Differs from v6.1: a batch has only new frames, not old ones again; a stream that is lost is told, connected again
    and given up after some tries, and does not end the others; outputs are called by the whole address, without user,
    password and query.
    """

    live = True

    def __init__(self, addresses: Sequence[str], *, vid_stride: int = 1, patience: Patience | None = None) -> None:
        for address in addresses:
            if not address.isdecimal():
                checked_url(address, SCHEMES)
        self.addresses, self.vid_stride, self.patience = list(addresses), vid_stride, patience or Patience()
        self.paths = unique_paths([stream_name(address) for address in addresses])
        self.skipped = []
        self._readers: list[StreamReader] = []

    def __iter__(self) -> Iterator[list[Frame]]:
        self.close()
        self.skipped.clear()
        news = threading.Condition()
        self._readers = [
            StreamReader(Stream(address, path, index, len(self)), self.patience, news, vid_stride=self.vid_stride)
            for index, (address, path) in enumerate(zip(self.addresses, self.paths, strict=True), start=1)
        ]
        with silent_opencv():
            try:
                for reader in self._readers:
                    reader.start()
                yield from self._batches(news)
            finally:
                self.close()

    def place(self, path: Path) -> str:
        """The stream's name."""
        return str(path)

    def close(self) -> None:
        """Ends all threads; one that waits for a connection or a frame ends when the time for it is over."""
        for reader in self._readers:
            reader.end()
        if any(reader.is_alive() for reader in self._readers):
            self._join()

    def _join(self) -> None:
        """Waits for the threads, and says so where that takes a while."""
        longest = max(self.patience.connect_s, self.patience.silence_s) + 1
        end = time.monotonic() + longest
        for reader in self._readers:
            reader.join_if_started(GLANCE_S)
        if waiting := [reader for reader in self._readers if reader.is_alive()]:
            LOGGER.info(f"{len(waiting)} of {len(self)} streams do not answer; ending them takes up to {longest:g} s")
        for reader in waiting:
            reader.join(max(end - time.monotonic(), 0))

    def _batches(self, news: threading.Condition) -> Iterator[list[Frame]]:
        """Batches of new frames until all streams are over or the end is asked for."""
        while True:
            with news:
                while not (batch := self._take()) and not self._is_over():
                    news.wait(GLANCE_S)
                news.notify_all()  # readers that wait until their frame is taken may go on
            self._note_failures()
            if not batch or self._asked_to_end():
                return
            yield batch

    def _take(self) -> list[Frame]:
        """The new frame of each stream that has one. To be called with the lock held."""
        return [frame for reader in self._readers if (frame := reader.take())]

    def _is_over(self) -> bool:
        return bool(self._asked_to_end()) or all(reader.over for reader in self._readers)

    def _note_failures(self) -> None:
        """Raises what went wrong in a thread of ours; puts streams that were given up into `skipped`."""
        for reader in self._readers:
            if reader.failure:
                raise reader.failure
            if reader.given_up and reader.stream.path not in self.skipped:
                self.skipped.append(reader.stream.path)


class StreamReader(threading.Thread):
    """Follows one stream until it ends, is given up, or end() is called.

    `news` is shared by all streams: who reads or changes the newest frame or `over` holds its lock, and whoever changes
    one of them notifies the others.
    """

    def __init__(self, stream: Stream, patience: Patience, news: threading.Condition, *, vid_stride: int) -> None:
        super().__init__(name=str(stream), daemon=True)
        self.stream, self.patience, self.vid_stride = stream, patience, vid_stride
        self.over = self.given_up = False
        self.failure: Exception | None = None
        self._frame: Frame | None = None
        self._news = news
        self._ending = threading.Event()
        self._number = 0  # of the latest picture

    def run(self) -> None:
        """The thread's work. An exception in it, which means a bug of ours, is kept in `failure`."""
        try:
            self._follow()
        except Exception as error:
            self.failure = error
        finally:
            with self._news:
                self.over = True
                self._news.notify_all()

    def take(self) -> Frame | None:
        """The newest frame where it has not been taken yet. To be called with the lock held."""
        frame, self._frame = self._frame, None
        return frame

    def end(self) -> None:
        """Asks the thread to end."""
        self._ending.set()
        with self._news:
            self._news.notify_all()

    def join_if_started(self, seconds: float) -> None:
        """Waits until the thread has ended, at most so long."""
        if self.ident is not None:
            self.join(seconds)

    def _follow(self) -> None:
        """Connects, receives and, after a loss, waits and connects again."""
        failed = 0  # connections in a row without a frame
        while True:
            before = self._number
            loss = self._receive()
            failed = 0 if self._number > before else failed + 1
            if self._ending.is_set() or not loss:
                return
            if self.patience.exhausted(failed, seen=self._number > 0):
                LOGGER.warning(f"{self.stream} is given up: {loss}, {failed} times in a row")
                self.given_up = True
                return
            wait = self.patience.before_try(failed)
            LOGGER.warning(f"{self.stream}: {loss}; connecting again in {wait:g} s")
            self._ending.wait(wait)

    def _receive(self) -> str:
        """Takes frames from a new connection as long as there are any. Returns in words how it was lost; "" where a
        stream that tells its length has come to its end."""
        capture = open_capture(self.stream.address, self.patience)
        try:
            if not capture.isOpened():
                return "no connection"
            length, fps = told_length(capture), told_fps(capture)
            LOGGER.info(f"{self.stream}: connected, {told_size(capture)} at {fps:.4g} fps")
            first = self._number + 1
            while not self._ending.is_set() and self._grab(capture):
                if (self._number - 1) % self.vid_stride == 0:
                    self._retrieve(capture, length, fps)
            received = self._number - first + 1
            if not (received and length):
                return f"lost after {received} frames"
            LOGGER.info(f"{self.stream}: ended after {received} of {length} frames")
            return ""
        except cv2.error as error:
            return f"OpenCV gives up: {error.err or error}"
        finally:
            capture.release()

    def _grab(self, capture: cv2.VideoCapture) -> bool:
        """Grabs the next whole picture; counts it and the broken ones before it. False where no more comes."""
        broken = grab_past_broken(capture, silence_s=self.patience.silence_s)
        if broken is None:
            return False
        for number in range(self._number + 1, self._number + broken + 1):
            LOGGER.warning(f"{self.stream}: frame {number} is broken and is skipped")
        self._number += broken + 1
        return True

    def _retrieve(self, capture: cv2.VideoCapture, length: int, fps: float) -> None:
        """Makes the grabbed picture the newest frame, in place of the one before. That may not have been taken yet: a
        live stream goes on without it, one of known length waits until it is taken."""
        decoded, image = capture.retrieve()
        if not decoded:
            LOGGER.warning(f"{self.stream}: frame {self._number} is broken and is skipped")
            return
        stream, seconds = self.stream, None if length else time.monotonic()
        frame = Frame(stream.path, image, stream.index, stream.total, self._number, length, fps, seconds)
        with self._news:
            if length:
                self._news.wait_for(lambda: self._frame is None or self._ending.is_set())
            self._frame = frame
            self._news.notify_all()


# -------------------------------------------------------------------------------------------------------------- OpenCV
def open_capture(address: str, patience: Patience) -> cv2.VideoCapture:
    """A new connection; isOpened() says whether it came about. Connecting and each frame take no longer than `patience`
    says, where OpenCV has such limits: with FFmpeg it has; webcams have their own of 10 s."""
    quiet_ffmpeg()
    if address.isdecimal():
        return cv2.VideoCapture(int(address))
    limits = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: patience.connect_s * 1000,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: patience.silence_s * 1000,
    }
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, [int(number) for item in limits.items() for number in item])


def told_length(capture: cv2.VideoCapture) -> int:
    """How many frames a stream says that it has; 0 for a live one."""
    return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)


def told_fps(capture: cv2.VideoCapture) -> float:
    """Frames a second; DEFAULT_FPS where a stream says nothing, or nothing that can be true."""
    return usable_fps(capture.get(cv2.CAP_PROP_FPS))


def told_size(capture: cv2.VideoCapture) -> str:
    """ "640 x 480" """
    return f"{capture.get(cv2.CAP_PROP_FRAME_WIDTH):.0f} x {capture.get(cv2.CAP_PROP_FRAME_HEIGHT):.0f}"


@contextmanager
def silent_opencv() -> Iterator[None]:
    """Keeps OpenCV from writing its own lines about a webcam that is not there: ours tell what matters."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


# --------------------------------------------------------------------------------------------------------------- names
def stream_name(address: str) -> str:
    """What a stream's outputs are called: a webcam's number, or the address without user, password and query, with `_`
    in place of what is neither letter, digit nor `-`."""
    if address.isdecimal():
        return str(int(address))
    bare = shown(address).partition("?")[0]
    return re.sub(r"[^\w-]+", "_", bare).strip("_")[:LONGEST_NAME]


def unique_paths(names: Sequence[str]) -> list[Path]:
    """The names as paths; one that is in use by an earlier name gets _2, _3 and so on. Letter case does not tell two
    apart."""
    taken: set[str] = set()
    paths = []
    for name in names:
        unique, number = name, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique.casefold())
        paths.append(Path(unique))
    return paths
