"""What to detect on: a picture, a video, a directory, a glob pattern or a list file, as frames one after the other. Not
for labelled sets: utils/labels.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.images import read_image
from utils.label_files import IMAGE_SUFFIXES
from utils.log import LOGGER
from utils.video import VIDEO_SUFFIXES, read_video

KINDS = "an image, a video, a directory, a glob pattern or a .txt list of files"
GLOB_SIGNS = set("*?[")
LOOKED_FOR = f"images ({' '.join(IMAGE_SUFFIXES)}) and videos ({' '.join(VIDEO_SUFFIXES)})"


@dataclass(frozen=True)
class Frame:
    """One picture to detect on.

    Attributes:
        path: the file it comes from.
        image: BGR uint8 (h, w, 3).
        index, total: the file's number from 1, and how many files there are.
        number, frames: in a video the picture's number from 1, and how many there are (0: the file does not tell); 0
            and 0 for an image file.
        fps: of the video; 0 for an image file.
    """

    path: Path
    image: np.ndarray
    index: int
    total: int
    number: int = 0
    frames: int = 0
    fps: float = 0.0

    @property
    def is_video(self) -> bool:
        """Whether it is a frame of a video."""
        return self.number > 0


class FileSource:
    """Iterates over the frames of everything that `source` names; images first, then videos, as YOLOv5 does.

    A file that cannot be read is told in the log, kept in `skipped` and does not stop the rest. Raises InputError where
    the source does not exist or nothing in it is an image or a video.

    Differs from v6.1: an unreadable file does not stop the run; every vid_stride-th frame is counted from the first; a
    name with brackets that exists is taken as it stands; entries of a list file are looked for beside it, too.
    """

    def __init__(self, source: str | Path, *, vid_stride: int = 1) -> None:
        if vid_stride < 1:
            raise InputError(f"--vid-stride must be at least 1, got {vid_stride}")
        self.vid_stride = vid_stride
        self.skipped: list[Path] = []
        found = find_media(source)
        self.paths = [path for path in found if not _is_video(path)] + [path for path in found if _is_video(path)]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        for index, path in enumerate(self.paths, start=1):
            try:
                yield from self._frames(path, index)
            except InputError as error:
                LOGGER.warning(f"{'video' if _is_video(path) else 'image'} {index}/{len(self)} skipped: {error}")
                self.skipped.append(path)

    def _frames(self, path: Path, index: int) -> Iterator[Frame]:
        if not _is_video(path):
            yield Frame(path, read_image(path), index, len(self))
            return
        if not path.is_file():
            raise InputError(f"expected a video in {path}, got no such file")
        for image, number, frames, fps in read_video(path, stride=self.vid_stride):
            yield Frame(path, image, index, len(self), number=number, frames=frames, fps=fps)


def find_media(source: str | Path) -> list[Path]:
    """The image and video files that `source` names: itself, those directly in a directory or matching a glob pattern
    (`**` goes deep), both sorted by name, or those of a .txt list in its order. Raises InputError where there are
    none."""
    text = str(source).strip()
    path = Path(text).expanduser()
    if not text:
        raise InputError(f"--source: expected {KINDS}, got nothing")
    if path.is_dir():
        return _media_in(path)
    if path.is_file():
        return _from_list(path) if path.suffix.lower() == ".txt" else [_checked(path)]
    if _is_stream(text):
        raise InputError(f"--source: expected {KINDS}, got {text}: webcams, streams and URLs are not built yet")
    if set(text) & GLOB_SIGNS:
        return _matching(path)
    raise InputError(f"--source: expected {KINDS}, and there is no {text}{_in_working_directory(path)}")


def _is_stream(text: str) -> bool:
    """Whether it is what YOLOv5 takes for the number of a webcam or for an address."""
    return text.isdecimal() or "://" in text


def _in_working_directory(path: Path) -> str:
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def _suffix(path: Path) -> str:
    return path.suffix.lower().lstrip(".")


def _is_video(path: Path) -> bool:
    return _suffix(path) in VIDEO_SUFFIXES


def _is_media(path: Path) -> bool:
    return _suffix(path) in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def _checked(path: Path) -> Path:
    if not _is_media(path):
        raise InputError(f"--source: expected {LOOKED_FOR} or a .txt list, got the file {path}")
    return path


def _media_in(directory: Path) -> list[Path]:
    found = sorted(path for path in directory.iterdir() if _is_media(path) and path.is_file())
    if not found:
        raise InputError(f"--source: looked for {LOOKED_FOR} directly in {directory}, and found none")
    return found


def _matching(pattern: Path) -> list[Path]:
    """Files that match; the leading parts that exist as they stand are no pattern, whatever brackets they have."""
    literal = Path(pattern.anchor)
    parts = list(pattern.parts[1:] if pattern.anchor else pattern.parts)
    while parts and (literal / parts[0]).exists():
        literal /= parts.pop(0)
    matches = list(literal.glob(str(Path(*parts))))
    found = sorted(path for path in matches if _is_media(path) and path.is_file())
    if not found:
        told = f"{len(matches)} other paths" if matches else "nothing"
        raise InputError(
            f"--source: looked for {LOOKED_FOR} matching {pattern}{_in_working_directory(pattern)}, and {told} match"
        )
    return found


def _from_list(list_file: Path) -> list[Path]:
    """One path a line. Relative ones are looked for beside the list file, then in the working directory. Files that are
    missing stay in the list: they are told when their turn comes."""
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"--source: expected UTF-8 text with one path a line in {list_file}, got {error}") from error
    lines = [line.strip() for line in lines if line.strip()]
    if streams := [line for line in lines if _is_stream(line)]:
        raise InputError(f"--source: webcams, streams and URLs are not built yet, got {streams[0]} in {list_file}")
    entries = [Path(line).expanduser() for line in lines]
    if not entries:
        raise InputError(f"--source: expected one path a line in {list_file}, got no line with text")
    if unusable := [entry for entry in entries if not _is_media(entry)]:
        raise InputError(f"--source: expected {LOOKED_FOR}, got {unusable[0]} in {list_file}")
    return [beside if (beside := list_file.parent / entry).exists() else entry for entry in entries]
