"""One image of whatever kind people hold: a path, an address, PIL, an array. Not for directories, videos and streams:
utils/sources.py."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from utils.downloads import fetch, file_name, is_web_address
from utils.errors import InputError
from utils.images import read_image

MAX_BYTES = 100_000_000  # of an image from the web
CHANNELS = (1, 3, 4)  # grey, colour, colour and transparency


class Picture(NamedTuple):
    """An image in the form that networks are given.

    Attributes:
        image: RGB uint8 (h, w, 3), not to be written to: it may be the caller's own array.
        file: a name for what is made of it, which ends in .jpg.
    """

    image: np.ndarray
    file: str


def as_picture(source: Any, number: int = 0) -> Picture:
    """The image that `source` is or names, turned upright as its EXIF orientation says.

    Args:
        source: path or http(s) address; PIL image; array (h, w), (h, w, c) or (c, h, w) with c of 1, 3 or 4, where
            colours are RGB, values 0..255 (16 bits: 0..65535), and a fourth channel is dropped.
        number: of the image among others; an image without a file is called by it: image0.jpg.

    Raises InputError where the source is none of these or cannot be read.

    Differs from v6.1: images of 16 bits, with a palette or of shape (h, w, 1) are read right; float arrays of 0..1,
    which would be black, are refused.
    """
    if isinstance(source, (str, Path)):
        return _from_web(str(source)) if is_web_address(str(source)) else _from_file(Path(source))
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or f"image{number}"
        return Picture(_rgb_bytes(_pil_array(ImageOps.exif_transpose(source)), str(name)), _jpg(name))
    if isinstance(source, np.ndarray):
        return Picture(_rgb_bytes(source, f"image{number}"), f"image{number}.jpg")
    raise InputError(f"image{number}: expected a path, address, PIL image or array, got {type(source).__name__}")


def _from_file(path: Path) -> Picture:
    return Picture(np.ascontiguousarray(read_image(path)[..., ::-1]), _jpg(path))


def _from_web(address: str) -> Picture:
    name = file_name(address)
    with tempfile.TemporaryDirectory(prefix="yolov5_", ignore_cleanup_errors=True) as folder:
        image, _ = _from_file(fetch(address, Path(folder) / name, max_bytes=MAX_BYTES))
    return Picture(image, _jpg(name))


def _jpg(name: str | Path) -> str:
    """The file's name, without directories, with the suffix .jpg."""
    return Path(name).with_suffix(".jpg").name


def _pil_array(image: Image.Image) -> np.ndarray:
    """The pixels: greys of 16 bits or floats as they are, (h, w), others (palettes, CMYK, ...) as RGB (h, w, 3)."""
    if image.mode == "F":
        return np.asarray(image)
    if image.mode.startswith("I"):  # 16-bit greys, which in some files come as 32-bit numbers
        return np.asarray(image).clip(0, 65535).astype(np.uint16)
    return np.asarray(image.convert("RGB"))


def _rgb_bytes(array: np.ndarray, name: str) -> np.ndarray:
    """An array as `as_picture` takes it -> contiguous RGB uint8 (h, w, 3). name: of the picture, for messages."""
    given = array.shape
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and given[2] not in CHANNELS and given[0] in CHANNELS:
        array = array.transpose(1, 2, 0)  # (c, h, w) -> (h, w, c)
    if array.ndim != 3 or array.shape[2] not in CHANNELS or not array.size:
        raise InputError(f"{name}: expected an image (h, w), (h, w, c) or (c, h, w) with c of 1, 3 or 4, got {given}")
    colours = array[..., :3] if array.shape[2] >= 3 else np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(_bytes(colours, name))


def _bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Values 0..255, or 0..65535 where they are uint16, as uint8. Raises InputError for others."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind not in "iuf":
        raise InputError(f"{name}: expected an image of numbers, got {values.dtype}")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255):  # NaN is neither
        raise InputError(f"{name}: expected an image of values 0..255, got {values.dtype} from {low:g} to {high:g}")
    if values.dtype.kind == "f" and 0 < high <= 1:
        raise InputError(f"{name}: expected an image of values 0..255, got {values.dtype} 0..1: multiply it by 255")
    return values.round().astype(np.uint8)
