"""Images and their label files: list the images, find the label file of each, parse and verify one. Not for the index
of a whole set (utils/labels.py), nor for pixels (utils/images.py)."""

import glob
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils.boxes import segments2boxes, xywh2xyxy
from utils.errors import InputError
from utils.findings import EMPTY, NO_LABELS, STANDARD, Finding
from utils.log import LOGGER

IMAGE_SUFFIXES = ("bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp")
IMAGE_FORMATS = ("BMP", "DNG", "JPEG", "MPO", "PNG", "TIFF", "WEBP")  # as Pillow names the content, whatever the suffix
MIN_SIDE = 10  # pixels
MOST_PIXELS = 2**30 // 6  # 179 million, from where on Pillow refuses too; decoded that is half a gigabyte
LARGEST_LABELS = 2**24  # bytes of a label file: 400,000 boxes
LONGEST_PATH = 4096  # characters
LONGEST_TOLD = 200  # characters of a reason
TOLD_EVERY_S = 10  # of a long search
EXIF_ORIENTATION = 274
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
MOST_COLUMNS_OF_BOXES = 8  # one longer row makes a file one of polygons, as in v6.1


class LabelFault(ValueError):
    """A label file or an image that cannot be used. The message is the reason, without the file's name. kind: one of
    utils.findings.KINDS."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


class RowFault(LabelFault):
    """What is wrong with one label. row: which one, counted from 0 over the lines that are not blank."""

    def __init__(self, reason: str, kind: str, row: int) -> None:
        super().__init__(reason, kind)
        self.row = row


class Counts(NamedTuple):
    """How many label files are missing, found and empty, and how many images are set aside as corrupt: those with a
    fault in them or in their labels."""

    missing: int = 0
    found: int = 0
    empty: int = 0
    corrupt: int = 0


@dataclass(frozen=True)
class Verified:
    """What verify() saw of one image.

    Attributes:
        size_wh: width and height in pixels, as displayed.
        rows: (n, 5) float32 [class, x, y, w, h], the box in 0..1.
        segments: a polygon (k, 2) in 0..1 for each row, or none at all where the file has boxes alone.
        findings: what is wrong or odd; there may be some of an image that stays in use.
    """

    image: str
    size_wh: tuple[int, int]
    rows: np.ndarray
    segments: list[np.ndarray]
    counts: Counts
    findings: tuple[Finding, ...] = ()

    @property
    def note(self) -> str:
        """The findings in one line; '' where there are none, or only that there are no labels."""
        aside = "set aside: " if self.counts.corrupt else ""
        return "; ".join(f"{found.file}: {aside}{found.what}" for found in self.findings if found.kind not in STANDARD)


# ---------------------------------------------------------------------------------------------------- list the images
def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _in_directory(folder: str) -> list[str]:
    """Images below a folder. Links are followed, but no folder is listed twice, so that links in a circle end. Hidden
    names are left out: macOS leaves a ._x.jpg beside x.jpg that is no image. A folder that cannot be read is told."""
    found, listed = [], set()
    for parent, folders, names in os.walk(folder, onerror=_tell_unread, followlinks=True):
        status = Path(parent).stat()
        place = (status.st_dev, status.st_ino)
        if place in listed:
            folders.clear()
            continue
        listed.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [f"{parent}{os.sep}{name}" for name in names if _is_image(name) and not name.startswith(".")]
    return found


def _tell_unread(error: OSError) -> None:
    LOGGER.warning(
        f"{error.filename}: this folder and all below it are left out, as it is unreadable: {error.strerror}"
    )


def _in_list_file(file: Path) -> list[str]:
    """Images that a text file names, one a line; `./` stands for the list's own folder."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"expected images, a directory or a UTF-8 text file that lists images, got {file}") from error
    if any(len(line) > LONGEST_PATH for line in lines):
        raise InputError(f"{file}: expected a path a line, got a line of more than {LONGEST_PATH} characters")
    here = f"{file.parent}{os.sep}"
    return [here + line[2:] if line.startswith("./") else line for line in lines if _is_image(line)]


@contextmanager
def told_search(pattern: str) -> Iterator[None]:
    """Tells every TOLD_EVERY_S seconds that the block still looks for what matches: a pattern may mean a whole disk."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(TOLD_EVERY_S):
            LOGGER.info(f"{pattern[:LONGEST_TOLD]}: still looking for images that match; Ctrl+C ends the search")

    threading.Thread(target=tell, name="long search", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _from_source(source: str) -> list[str]:
    path = Path(source)
    if path.is_dir():
        found = _in_directory(os.path.normpath(source))
    elif path.is_file():
        found = [source] if _is_image(source) else _in_list_file(path)
    elif glob.has_magic(source):
        with told_search(source):
            found = [name for name in glob.iglob(source, recursive=True) if _is_image(name)]  # noqa: PTH207 (text)
    else:
        raise InputError(
            f"{source}: expected a directory of images, a list file or a pattern; nothing is there: "
            "correct the path where it is written, as in the data YAML"
        )
    if not found:
        raise InputError(f"{source}: no images there (suffixes looked for: {' '.join(IMAGE_SUFFIXES)})")
    return found


def image_files(sources: str | Path | Iterable[str | Path]) -> list[str]:
    """Images of directories (with all below them), list files and glob patterns, sorted by path over all sources.

    Raises InputError where a source does not exist or holds no image.
    """
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    if not listed:
        raise InputError("images: expected at least one directory or list file, got none")
    return sorted(name.replace("/", os.sep) for source in listed for name in _from_source(str(source)))


def label_path(image: str) -> str:
    """.../images/a/x.jpg -> .../labels/a/x.txt: the last folder named `images` counts. With none: beside the image."""
    parts = image.split(os.sep)  # noqa: PTH206 (text all through: a Path a million times over costs seconds)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    stem, dot, _ = parts[-1].rpartition(".")
    parts[-1] = f"{stem if dot else parts[-1]}.txt"
    return os.sep.join(parts)  # noqa: PTH118


# ------------------------------------------------------------------------------------------------------- verify one
def _boxes(table: Sequence[Sequence[str]]) -> np.ndarray:
    """The words of each line of a file of boxes -> rows (n, 5)."""
    for row, words in enumerate(table):
        if len(words) != 5:
            hint = _separator_hint("".join(words))
            reason = f"expected 5 columns [class x y w h], got {len(words)}{hint}"
            raise RowFault(reason, "wrong number of columns", row)
    try:
        return _as_float32(table)
    except ValueError:
        return np.stack([_numbers(words, row) for row, words in enumerate(table)])  # raises, and knows the row


def _as_float32(words: Sequence[str] | Sequence[Sequence[str]]) -> np.ndarray:
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which _check_rows refuses
        return np.array(words, np.float32)


def _numbers(words: Sequence[str], row: int) -> np.ndarray:
    """The words of one line as numbers."""
    try:
        return _as_float32(words)
    except ValueError as error:
        got = str(error).rpartition(":")[2].strip()[:60]  # could not convert string to float: 'cat'
        hint = _separator_hint("".join(word[-1] for word in words))  # 0,5 is a decimal comma, no separator
        raise RowFault(f"expected numbers, got {got}{hint}", "not a number", row) from error


def _separator_hint(text: str) -> str:
    """The end of a message about a line in which one of these separates the numbers; '' where none is in the text."""
    name = next((name for sign, name in ((";", "semicolons"), (",", "commas")) if sign in text), "")
    return f" (separated by {name}, where blanks were expected)" if name else ""


def _polygon(words: Sequence[str], row: int) -> tuple[np.ndarray, np.ndarray]:
    """One line of a file that has polygons -> its label row (5,) and its points (k, 2). A box among them stays a box,
    and its corners are its points."""
    values = _numbers(words, row)
    if len(values) == 5:
        left, top, right, bottom = xywh2xyxy(values[None, 1:])[0]
        return values, np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    if len(values) < 7 or len(values) % 2 == 0:
        reason = f"expected a class and at least 3 points (x, y), got {len(values)} columns"
        raise RowFault(reason, "wrong number of columns", row)
    points = values[1:].reshape(-1, 2)  # (k, 2)
    return np.concatenate((values[:1], segments2boxes([points])[0])), points


def _check_rows(rows: np.ndarray) -> None:
    """Raises RowFault where a row is something else than a class id and a box in 0..1."""
    classes, boxes = rows[:, :1], rows[:, 1:]
    _refuse(rows, ~np.isfinite(rows), "expected finite numbers", "not a number")
    _refuse(classes, classes < 0, "expected no negative number", "class out of range")
    _refuse(boxes, boxes < 0, "expected no negative number", "coordinates out of range")
    _refuse(boxes, boxes > 1, "expected coordinates normalised to 0..1", "coordinates out of range")
    _refuse(classes, classes % 1 > 0, "expected whole numbers as classes", "class not whole")


def _refuse(values: np.ndarray, wrong: np.ndarray, expected: str, kind: str) -> None:
    """Raises RowFault for the first of the values (n, k) that are wrong, bool (n, k)."""
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise RowFault(f"{expected}, got {values[row, column]:g}", kind, int(row))


def parse_labels(text: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """A label file's text -> rows (n, 5) float32 [class, x, y, w, h], the box in 0..1, and polygons (k, 2), one a row
    or none at all.

    A file is of polygons where a row has more than 8 columns, else of boxes. Duplicate rows are kept. Raises LabelFault
    on anything else than rows of numbers in range, with the line.

    Differs from v6.1: a line of blanks is no fault; a box in a file of polygons stays a box, where v6.1 takes its
    centre and size for two points; a class like 1.5 is a fault, where v6.1 cuts it to 1.
    """
    table = [words for words in map(str.split, text.splitlines()) if words]
    if not table:
        return np.zeros((0, 5), np.float32), []
    try:
        if any(len(words) > MOST_COLUMNS_OF_BOXES for words in table):
            pairs = [_polygon(words, row) for row, words in enumerate(table)]
            rows, segments = np.stack([row for row, _ in pairs]), [points for _, points in pairs]
        else:
            rows, segments = _boxes(table), []
        _check_rows(rows)
    except RowFault as fault:
        lines = [number for number, line in enumerate(text.splitlines(), 1) if line.split()]
        raise LabelFault(f"{fault} in line {lines[fault.row]}", fault.kind) from fault
    return rows, segments


def line_of_class(file: str, class_id: int) -> int | None:
    """The number of the first line of a label file with that class, for messages; None where there is none any more."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
        return next(n for n, line in enumerate(lines, 1) if line.split() and np.float32(line.split()[0]) == class_id)
    except (OSError, ValueError, StopIteration):
        return None


def _read_labels(file: str) -> tuple[np.ndarray, list[np.ndarray], int]:
    """Rows and polygons as parse_labels gives them, without duplicate rows, and how many of these were dropped. Where
    there were any, the rest comes sorted, as in v6.1.

    Differs from v6.1: duplicates in a file of polygons are dropped too (there the image is lost); a byte-order mark,
    which Windows editors write, is skipped.
    """
    with open(file, "rb") as stream:
        content = stream.read(LARGEST_LABELS + 1)
    if len(content) > LARGEST_LABELS:
        raise LabelFault(f"expected at most {LARGEST_LABELS >> 20} MB of labels, got more", "unreadable label file")
    try:
        rows, segments = parse_labels(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LabelFault(
            f"expected UTF-8 text: {error.reason} at byte {error.start}", "unreadable label file"
        ) from error
    if len(rows) < 2:
        return rows, segments, 0
    kept = np.unique(rows, axis=0, return_index=True)[1]
    if len(kept) == len(rows):
        return rows, segments, 0
    return rows[kept], [segments[i] for i in kept] if segments else [], len(rows) - len(kept)


def _size_as_shown(image: Image.Image) -> tuple[int, int]:
    """(width, height) after the turn that EXIF asks for, which OpenCV makes when it reads a JPEG, PNG or WebP.

    Differs from v6.1: orientations 5 and 7 swap the sides too, and formats other than JPEG are turned.
    """
    exif = Image.Exif()
    exif.load(image.info.get("exif") or b"")
    width, height = image.size
    return (height, width) if exif.get(EXIF_ORIENTATION) in QUARTER_TURNS else (width, height)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:LONGEST_TOLD]


def _check_jpeg_tail(file: str) -> str:
    """'' where a JPEG ends as it should; a note where more bytes follow. Raises OSError where its data is cut off.

    Differs from v6.1, which writes such a file anew, in place and with loss: ours reads it as it is, every time.
    """
    with open(file, "rb") as handle:
        handle.seek(-2, os.SEEK_END)
        if handle.read() == b"\xff\xd9":
            return ""
    with Image.open(file) as image:
        image.load()
    return "bytes after the end of the JPEG are skipped"


def _check_image(file: str) -> tuple[tuple[int, int], str]:
    """Size (width, height) as shown, and a note or ''. Raises LabelFault on an image that cannot be used."""
    if not os.path.isfile(file):  # noqa: PTH113 (a Path costs a million times over)
        there = os.path.exists(file)  # noqa: PTH110
        got = "a folder, pipe or device" if there else "no such file"  # a pipe would never end
        raise LabelFault(f"expected an image, got {got}", "no image file")
    kind = "corrupt image"
    try:
        with Image.open(file) as image:
            size_wh, stored_as = _size_as_shown(image), image.format
            image.verify()
        kind = "truncated image"
        note = _check_jpeg_tail(file) if stored_as == "JPEG" else ""
    except Image.DecompressionBombError as error:
        raise LabelFault(too_large(), "image too large") from error
    except Exception as error:  # Pillow raises a dozen kinds on damaged files; the reason goes into the report
        raise LabelFault(f"unreadable image: {str(error) or type(error).__name__}", kind) from error
    if min(size_wh) < MIN_SIDE:
        told = f"expected an image of {MIN_SIDE} pixels a side or more, got {size_wh[0]} x {size_wh[1]}"
        raise LabelFault(told, "image too small")
    if size_wh[0] * size_wh[1] > MOST_PIXELS:
        raise LabelFault(f"{too_large()}, got {size_wh[0]} x {size_wh[1]}", "image too large")
    if stored_as not in IMAGE_FORMATS:
        told = f"expected an image of {', '.join(IMAGE_FORMATS)}, got {stored_as}"
        raise LabelFault(told, "image of another format")
    return size_wh, note


def too_large() -> str:
    """What to say of a picture of more than MOST_PIXELS."""
    return f"expected at most {MOST_PIXELS:,} pixels, as a larger picture needs gigabytes: scale it down or cut it up"


def verify(image: str, label: str) -> Verified:
    """Reads one image and its label file; where there is none, the image is one of background. Never raises on bad
    content: counts.corrupt is 1 then, and the findings say why."""
    nothing = np.zeros((0, 5), np.float32)
    found, findings = 0, []
    try:
        size_wh, note = _check_image(image)
        if note:
            findings.append(Finding("bytes after the image", image, note))
        if not os.path.exists(label):  # noqa: PTH110
            findings.append(Finding(NO_LABELS, label, STANDARD[NO_LABELS]))
            return Verified(image, size_wh, nothing, [], Counts(missing=1), tuple(findings))
        found = 1
        if not os.path.isfile(label):  # noqa: PTH113
            raise LabelFault("expected a label file, got a folder, pipe or device", "unreadable label file")
        rows, segments, duplicates = _read_labels(label)
    except (LabelFault, OSError) as error:
        where = label if found else image
        kind = error.kind if isinstance(error, LabelFault) else "unreadable label file" if found else "no image file"
        fault = Finding(kind, where, _line(error))
        return Verified(image, (0, 0), nothing, [], Counts(found=found, corrupt=1), (fault,))
    if duplicates:
        findings.append(Finding("duplicate rows", label, f"{duplicates} duplicate labels dropped"))
    if not len(rows):
        findings.append(Finding(EMPTY, label, STANDARD[EMPTY]))
    return Verified(image, size_wh, rows, segments, Counts(found=1, empty=int(not len(rows))), tuple(findings))
