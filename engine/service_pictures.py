"""From the bytes of an upload to a picture, once its head has told what it is and how large. Not for files and
addresses, of which the service opens none: utils/images.py."""

import io
import warnings
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from engine.service_limits import Limits, ServiceError
from utils.images import TRUNCATED, truncated_image

FORMATS = TRUNCATED  # what Pillow reads without starting a program


class Decoded(NamedTuple):
    """A picture, BGR uint8 (h, w, 3), upright. truncated: whether its file ends too early; what is missing is grey."""

    image: np.ndarray
    truncated: bool


def decoded_picture(content: bytes | bytearray, name: str, limits: Limits) -> Decoded:
    """The picture of a file, as detect.py reads it. Raises ServiceError, with the name: 415 for what is no picture, 413
    for too many pixels, told by its head before anything is decoded.

    OpenCV before version 5 rescues some files itself without a word; those count as whole.
    """
    size_wh = _size_wh(content, name, limits)
    truncated = False
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            image, truncated = truncated_image(bytes(content)), True
    except Exception:  # OpenCV's own kind, and what Pillow raises besides the kinds that it documents
        image = None
    if image is None or sorted(image.shape[:2]) != sorted(size_wh):
        raise _no_picture(name, f"{len(content)} bytes that cannot be decoded")
    return Decoded(image, truncated)


def _size_wh(content: bytes | bytearray, name: str, limits: Limits) -> tuple[int, int]:
    """Width and height in the picture's head, in either order where it is to be turned."""
    if not content:
        raise _no_picture(name, "an empty file")
    too_large = ServiceError(413, f"{name}: at most {limits.pixels} pixels were expected, got more")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as head:
                size_wh = head.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large from error
    except Exception as error:  # Pillow raises a dozen kinds for broken heads
        raise _no_picture(name, f"{len(content)} bytes of something else") from error
    if size_wh[0] * size_wh[1] > limits.pixels:
        raise too_large
    return size_wh


def _no_picture(name: str, got: str) -> ServiceError:
    return ServiceError(415, f"{name}: a picture ({', '.join(FORMATS)}) was expected, got {got}")
