"""Image and video files here: which of them a path, directory, pattern or list means, and their frames. Not for files
on the web (utils/web_files.py), streams or the screen."""

import contextlib
import fnmatch
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.errors import InputError
from utils.files import near_files
from utils.frames import Frame, Source
from utils.images import read_image
from utils.label_files import IMAGE_SUFFIXES, LONGEST_PATH
from utils.log import LOGGER
from utils.video import VIDEO_SUFFIXES, read_video

GLOB_SIGNS = set("*?[")
LONGEST_SOURCE, LONGEST_PART = LONGEST_PATH, 255  # characters of a path or pattern, and of a name in it
TOLD_EVERY_S = 10  # seconds, of a long search
LIST_SUFFIXES = (".txt", ".streams")
LONGEST_TOLD = 100  # characters of a line that is no path
LOOKED_FOR = f"images ({' '.join(IMAGE_SUFFIXES)}) and videos ({' '.join(VIDEO_SUFFIXES)})"


class FileSource(Source):
    """The frames of everything that `source` names; images first, then videos, as YOLOv5 does.

    A file that cannot be read is told in the log, kept in `skipped` and does not stop the rest. Raises InputError where
    the source does not exist or nothing in it is an image or a video.

    Differs from v6.1: an unreadable file does not stop the run; every vid_stride-th frame is counted from the first; a
    name with brackets that exists is taken as it stands; entries of a list file are looked for beside it, too.
    """

    def __init__(self, source: str | Path, *, vid_stride: int = 1) -> None:
        self.vid_stride = vid_stride
        self.skipped = []
        found = find_media(source)
        self.paths = sorted(found, key=is_video)

    def __iter__(self) -> Iterator[list[Frame]]:
        self.skipped.clear()
        for index, path in enumerate(self.paths, start=1):
            if self._asked_to_end():
                return
            try:
                yield from read_frames(path, index, len(self), vid_stride=self.vid_stride)
            except InputError as error:
                LOGGER.warning(f"{'video' if is_video(path) else 'image'} {index}/{len(self)} skipped: {error}")
                self.skipped.append(path)


def read_frames(path: Path, index: int, total: int, *, vid_stride: int) -> Iterator[list[Frame]]:
    """The frames of file `index` of `total`, each a batch. Raises InputError where the file cannot be read."""
    if not is_video(path):
        yield [Frame(path, read_image(path), index, total)]
        return
    if not path.is_file():
        raise InputError(f"expected a video in {path}, got no such file")
    for image, number, frames, fps, seconds in read_video(path, stride=vid_stride):
        yield [Frame(path, image, index, total, number=number, frames=frames, fps=fps, seconds=seconds)]


def find_media(source: str | Path) -> list[Path]:
    """The image and video files that `source` names: itself, those directly in a directory or matching a glob pattern
    (`**` goes deep), both sorted by name, or those of a list file in its order. Raises InputError where there are
    none."""
    if not str(source).strip():
        raise InputError(f"--source: expected {LOOKED_FOR}, got nothing")
    path = Path(source).expanduser()
    if len(str(path)) > LONGEST_SOURCE or any(len(part) > LONGEST_PART for part in path.parts):
        raise InputError(f"--source: expected a path that can exist, got {len(str(path))} letters: {str(path)[:60]}...")
    if path.is_dir():
        return _media_in(path)
    if path.is_file():
        return _from_list(path) if path.suffix.lower() in LIST_SUFFIXES else [_checked(path)]
    if set(str(source)) & GLOB_SIGNS:
        return _matching(path)
    meant = near_files(path) if is_media(path) else ""
    raise InputError(f"--source: there is no {source}{_in_working_directory(path)}{meant}")


def is_video(path: Path) -> bool:
    """Whether its name is that of a video."""
    return _suffix(path) in VIDEO_SUFFIXES


def is_media(path: Path) -> bool:
    """Whether its name is that of an image or a video."""
    return _suffix(path) in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def list_lines(list_file: Path) -> list[str]:
    """The lines of a list file that are not empty, without blanks around them. Raises InputError where there are
    none."""
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"--source: expected a list to read, got {list_file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--source: expected UTF-8 text with one source a line in {list_file}, got {error}") from error
    stripped = [line.strip() for line in lines if line.strip()]
    if any(len(line) > LONGEST_PATH for line in stripped):
        raise InputError(f"--source: expected a path a line in {list_file}, got one of over {LONGEST_PATH} characters")
    if not stripped:
        raise InputError(f"--source: expected one source a line in {list_file}, got no line with text")
    return stripped


def _suffix(path: Path) -> str:
    return path.suffix.lower().lstrip(".")


def _in_working_directory(path: Path) -> str:
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def _checked(path: Path) -> Path:
    if not is_media(path):
        raise InputError(f"--source: expected {LOOKED_FOR} or a .txt list, got the file {path}")
    return path


def _media_in(directory: Path) -> list[Path]:
    try:
        found = sorted(path for path in directory.iterdir() if is_media(path) and path.is_file())
    except OSError as error:
        raise InputError(f"--source: expected a directory to look into, got {directory}: {error.strerror}") from error
    if not found:
        raise InputError(f"--source: looked for {LOOKED_FOR} directly in {directory}, and found none")
    return found


def _matching(pattern: Path) -> list[Path]:
    """Files that match; the leading parts that exist as they stand are no pattern, whatever brackets they have."""
    literal = Path(pattern.anchor)
    parts = list(pattern.parts[1:] if pattern.anchor else pattern.parts)
    while parts and (literal / parts[0]).exists():
        literal /= parts.pop(0)
    others, found, search = 0, set(), _Search(pattern)
    for path in search.matches(literal, parts):
        if is_media(path) and path.is_file():
            found.add(path)
        else:
            others += 1
    if not found:
        told, shown = f"{others} other paths match" if others else "nothing matches", str(pattern)[:300]
        raise InputError(
            f"--source: looked for {LOOKED_FOR} matching {shown}{_in_working_directory(pattern)}, and {told}"
        )
    return sorted(found)


class _Search:
    """A walk through what a pattern means. It keeps no more than the folders that are still to be looked into, passes
    over what cannot be read or vanishes meanwhile, follows no link to a folder in `**`, and tells every TOLD_EVERY_S
    seconds how far it is: a pattern may mean a whole disk."""

    def __init__(self, pattern: Path) -> None:
        self.pattern = pattern
        self.seen = 0
        self._told = time.monotonic()

    def matches(self, folder: Path, parts: list[str]) -> Iterator[Path]:
        """Paths in the folder that match the parts of a pattern. A `**` at the end means all files below."""
        part, rest = parts[0], parts[1:]
        if part == "**":
            for below in self._folders(folder):
                yield from self.matches(below, rest or ["*"])
            return
        is_pattern = bool(set(part) & GLOB_SIGNS)
        names = (entry.name for entry in self._entries(folder)) if is_pattern else iter([part])
        for path in (folder / name for name in names if not is_pattern or fnmatch.fnmatch(name, part)):
            if rest and _is(os.path.isdir, path):
                yield from self.matches(path, rest)
            elif not rest and (is_pattern or _is(os.path.lexists, path)):
                yield path

    def _folders(self, top: Path) -> Iterator[Path]:
        """The folder and all below it, links left out."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting.extend(folder / entry.name for entry in self._entries(folder) if _is_folder(entry))

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
            for entry in entries:
                self.seen += 1
                if time.monotonic() - self._told > TOLD_EVERY_S:
                    self._told = time.monotonic()
                    LOGGER.info(f"--source: {self.seen} names seen so far for {self.pattern}; Ctrl+C ends the search")
                yield entry


def _is(test: Callable[[Path], bool], path: Path) -> bool:
    try:
        return test(path)
    except ValueError:  # a NUL in the pattern
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _from_list(list_file: Path) -> list[Path]:
    """One path a line. Relative ones are looked for beside the list file, then in the working directory. Files that are
    missing stay in the list: they are told when their turn comes."""
    entries = [Path(line).expanduser() for line in list_lines(list_file)]
    for entry in entries:
        if not is_media(entry):
            raise InputError(f"--source: expected {LOOKED_FOR}, got {str(entry)[:LONGEST_TOLD]!r} in {list_file}")
    return [beside if (beside := list_file.parent / entry).exists() else entry for entry in entries]
