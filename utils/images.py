"""Pictures of a set as arrays at the network's size: read, turned upright, resized and, if asked for, cached in memory
or on disk. Not for labels (utils/labels.py), borders (utils/augmentations.py) or videos (utils/sources.py)."""

import io
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from tqdm import tqdm

from utils.errors import InputError
from utils.label_files import MOST_PIXELS, too_large
from utils.log import LOGGER
from utils.memory import memory_share

MEMORY_MARGIN = 1.2  # times the cache's size must be free: the training itself needs memory too
DISK_MARGIN = 1.1  # likewise on the disk: the results need some
NPY_HEADER = 128  # bytes of numpy's file format before a picture's pixels
TRUNCATED = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # what Pillow may read in part; for some others it runs programs
DECODERS = {  # OpenCV's ways to read a colour picture, by the divisor of its size
    1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8,
}  # fmt: skip
REDUCIBLE = (".jpg", ".jpeg")  # other formats are decoded at full size in any case
HEADS = (*TRUNCATED, "GIF", "JPEG2000", "PPM")  # formats whose size is checked before OpenCV decodes them
_RESCUE = threading.Lock()  # Pillow has one switch for truncated pictures, which all threads share
READERS = min(8, os.cpu_count() or 1)  # threads that fill a cache


def read_image(path: str | Path, reduction: int = 1) -> np.ndarray:
    """A picture as uint8 (H, W, 3), BGR, turned upright as its EXIF orientation says.

    path: may have characters of any script. reduction: a key of DECODERS; the sides are divided by it and rounded up.
    A JPEG is then decoded at that size, which saves most of the work.

    A picture that ends too early has its full size all the same, with grey where pixels are missing; the log says so
    once. Raises InputError where the file is missing or empty, where neither OpenCV nor Pillow can decode it, and where
    it has more than MOST_PIXELS.
    """
    if not Path(path).is_file():  # nothing there, or a pipe, which would be waited for
        raise InputError(f"expected a picture in {str(path)!r}, got no such file")
    try:
        content = np.fromfile(path, np.uint8)  # cv2.imread cannot open non-ASCII paths on Windows
        _check_pixels(content, path)
        image = cv2.imdecode(content, DECODERS[reduction]) if content.size else None
    except (OSError, cv2.error) as error:
        raise InputError(f"expected a picture in {path}, got: {error}") from error
    if image is None and (image := truncated_image(content.tobytes())) is not None:
        _tell_truncated(str(path))
    if image is None:
        raise InputError(f"expected a picture in {path}, got {content.size} bytes that cannot be decoded")
    return image


def _check_pixels(content: np.ndarray, path: str | Path) -> None:
    """Raises InputError where the file's header claims more than MOST_PIXELS. A header that cannot be read passes: the
    decoder will complain."""
    try:
        with Image.open(io.BytesIO(content.data), formats=HEADS) as picture:
            pixels = picture.width * picture.height
    except Image.DecompressionBombError:
        pixels = MOST_PIXELS + 1
    except Exception:  # a dozen kinds: no picture to Pillow, or a damaged one
        return
    if pixels > MOST_PIXELS:
        raise InputError(f"{path}: {too_large()}")


def truncated_image(content: bytes) -> np.ndarray | None:
    """The picture in a file's first bytes, as read_image gives it; None where they are too few to show anything. Done
    by Pillow, as OpenCV decodes no truncated pictures from version 5 on."""
    with _RESCUE:
        return _rescued(content)


def _rescued(content: bytes) -> np.ndarray | None:
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = ImageOps.exif_transpose(Image.open(io.BytesIO(content), formats=TRUNCATED)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    return np.ascontiguousarray(np.asarray(picture)[..., ::-1])


@lru_cache(maxsize=4096)
def _tell_truncated(path: str) -> None:
    LOGGER.warning(f"{path} is truncated: what is missing of the picture is grey")


def fitted_hw(size_hw: tuple[int, int], imgsz: int) -> tuple[int, int]:
    """The size with the longer side made imgsz; the other one is cut off to whole pixels, and at least 1.

    Differs from v6.1: there a very thin picture gets a side of 0 and fails.
    """
    ratio = imgsz / max(size_hw)
    return max(int(size_hw[0] * ratio), 1), max(int(size_hw[1] * ratio), 1)


def fit_image(image: np.ndarray, imgsz: int, *, smooth: bool, original_hw: tuple[int, int] | None = None) -> np.ndarray:
    """The image (H, W, 3) resized so that its longer side is imgsz.

    smooth: shrink by averaging areas instead of linearly, which looks better but is slower: for validation.
    original_hw: of an image that was decoded at a reduced size, the size of the file, whose proportions count.
    """
    height, width = fitted_hw(original_hw or image.shape[:2], imgsz)
    if image.shape[:2] == (height, width):
        return image
    shrinks = imgsz < max(image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smooth and shrinks else cv2.INTER_LINEAR)


class ImageStore:
    """The pictures of a set by number, read from their files each time. Can be pickled, for loader processes.

    path_of: from number to path. sizes_wh: (N, 2) pixels of the upright originals. imgsz: length of the longer side.
    smooth: see fit_image.
    """

    def __init__(
        self, path_of: Callable[[int], str], sizes_wh: np.ndarray, imgsz: int, *, smooth: bool = False
    ) -> None:
        self.path_of, self.sizes_wh, self.imgsz, self.smooth = path_of, sizes_wh, imgsz, smooth

    def __len__(self) -> int:
        return len(self.sizes_wh)

    def original_hw(self, i: int) -> tuple[int, int]:
        """Height and width of picture i in its file, upright."""
        width, height = self.sizes_wh[i].tolist()
        return height, width

    def get(self, i: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Picture i, uint8 (H, W, 3), BGR, which callers must not write to, and the (height, width) of its file.

        Raises InputError where it cannot be read.

        Differs from v6.1: a JPEG of at least twice the size that training needs is decoded at a half, a quarter or an
        eighth, which costs less and averages the pixels that linear resizing would skip.
        """
        path, original_hw, divisor = self.path_of(i), self.original_hw(i), self._reduction(i)
        image = read_image(path, divisor)
        if divisor > 1 and image.shape[:2] != tuple(-(-extent // divisor) for extent in original_hw):
            image, divisor = read_image(path), 1  # it is truncated, or was replaced since the index was made
        original_hw = original_hw if divisor > 1 else image.shape[:2]
        return fit_image(image, self.imgsz, smooth=self.smooth, original_hw=original_hw), original_hw

    def _reduction(self, i: int) -> int:
        """The largest divisor at which picture i is still as large as it is needed; 1 for validation, where pictures
        must be the same as v6.1's."""
        if self.smooth or Path(self.path_of(i)).suffix.lower() not in REDUCIBLE:
            return 1
        return max(divisor for divisor in DECODERS if divisor == 1 or max(self.original_hw(i)) >= divisor * self.imgsz)

    def fill(self, prefix: str = "") -> None:
        """Fills the cache, if there is one, behind a progress bar."""

    def _fill_with(self, task: Callable[[int], int], numbers: Sequence[int], description: str) -> None:
        """Runs the task for all numbers of pictures, on several threads. It returns how many bytes it cached; the
        progress bar shows their sum."""
        cached = 0
        with ThreadPoolExecutor(READERS) as pool, tqdm(total=len(numbers), unit="image", dynamic_ncols=True) as bar:
            for size in pool.map(task, numbers):
                cached += size
                bar.set_description(f"{description} ({cached / 2**30:.1f} GiB)")
                bar.update()


class RamImageStore(ImageStore):
    """Keeps the pictures in memory, in one buffer that loader processes share instead of copying it: forked ones see it
    as it is, and for spawned ones torch moves it, as a tensor, into shared memory."""

    def __init__(
        self, path_of: Callable[[int], str], sizes_wh: np.ndarray, imgsz: int, *, smooth: bool = False
    ) -> None:
        super().__init__(path_of, sizes_wh, imgsz, smooth=smooth)
        lengths = [3 * height * width for height, width in map(self._fitted_hw, range(len(self)))]
        self._offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        self._cached = np.zeros(len(self), bool)
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def _fitted_hw(self, i: int) -> tuple[int, int]:
        return fitted_hw(self.original_hw(i), self.imgsz)

    def get(self, i: int) -> tuple[np.ndarray, tuple[int, int]]:
        """As ImageStore.get, from memory where the picture is cached."""
        if not self._cached[i]:
            return super().get(i)
        return self._slot(i).reshape(*self._fitted_hw(i), 3), self.original_hw(i)

    def fill(self, prefix: str = "") -> None:
        """Reads all pictures into memory; where it is too small, the log says so and nothing is cached. Unreadable
        pictures are left out.

        Differs from v6.1, which does not check, and v7.0, which estimates from a sample: the index knows all sizes.
        """
        needed, free = int(self._offsets[-1]), memory_share()
        if free is not None and needed * MEMORY_MARGIN > free:
            LOGGER.warning(
                f"{prefix}Images are not cached in RAM: they need {needed / 2**30:.1f} GiB, a fifth more to be safe, "
                f"but {free / 2**30:.1f} GiB are free for this process. --cache disk needs no memory"
            )
            return
        self._buffer = torch.empty(needed, dtype=torch.uint8)
        self._fill_with(self._keep, range(len(self)), f"{prefix}Caching images in RAM")

    def _slot(self, i: int) -> np.ndarray:
        return self._buffer.numpy()[self._offsets[i] : self._offsets[i + 1]]

    def _keep(self, i: int) -> int:
        try:
            image, original_hw = super().get(i)
        except InputError:
            return 0  # the message comes when a batch needs the picture
        if original_hw != self.original_hw(i):
            return 0
        self._slot(i)[:] = image.reshape(-1)
        self._cached[i] = True
        return image.nbytes


class DiskImageStore(ImageStore):
    """Keeps the resized pictures as .npy files in a hidden folder beside the originals, which saves decoding them.

    A cached file has the modification time of its picture; where the two differ, it is out of date and made anew.

    Differs from v6.1: a folder for each image size, instead of files at full size beside the images; files that are out
    of date are noticed.
    """

    def get(self, i: int) -> tuple[np.ndarray, tuple[int, int]]:
        """As ImageStore.get, from the cache where it has an up-to-date file."""
        image = self._cached(i)
        return super().get(i) if image is None else (image, self.original_hw(i))

    def fill(self, prefix: str = "") -> None:
        """Writes what is missing or out of date. Unreadable pictures are left out. Where the disk has no room for all,
        or cannot be written to, the log says so, and the pictures are read from their own files."""
        try:
            wanted = [i for i in range(len(self)) if not self._is_fresh(i)]
            needed = sum(self._bytes(i) for i in wanted)
            free = shutil.disk_usage(Path(self.path_of(0)).parent).free if wanted else 0
            if needed * DISK_MARGIN > free:
                raise OSError(f"they need {needed / 2**30:.1f} GiB more, and {free / 2**30:.1f} GiB are free")
            self._fill_with(self._keep, wanted, f"{prefix}Caching images on disk")
        except OSError as error:
            LOGGER.warning(f"{prefix}Images are not all cached on disk: {error}")

    def file(self, i: int) -> Path:
        """Where picture i is cached."""
        path = Path(self.path_of(i))
        return path.parent / f".cache_{self.imgsz}{'_smooth' if self.smooth else ''}" / f"{path.name}.npy"

    def _bytes(self, i: int) -> int:
        height, width = fitted_hw(self.original_hw(i), self.imgsz)
        return NPY_HEADER + 3 * height * width

    def _is_fresh(self, i: int) -> bool:
        """Whether the cached file is whole and made from the picture as it is now."""
        try:
            file = self.file(i).stat()
            return file.st_mtime_ns == Path(self.path_of(i)).stat().st_mtime_ns and file.st_size == self._bytes(i)
        except OSError:
            return False

    def _cached(self, i: int) -> np.ndarray | None:
        """The cached picture; None where it is missing, out of date, damaged or of another size than expected."""
        if not self._is_fresh(i):
            return None
        try:
            image = np.load(self.file(i), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        expected = (*fitted_hw(self.original_hw(i), self.imgsz), 3)
        return image if image.shape == expected and image.dtype == np.uint8 else None

    def _keep(self, i: int) -> int:
        try:
            image, _ = ImageStore.get(self, i)
        except InputError:
            return 0  # the message comes when a batch needs the picture
        self._write(i, image)
        return image.nbytes

    def _write(self, i: int, image: np.ndarray) -> None:
        file, times = self.file(i), Path(self.path_of(i)).stat()
        file.parent.mkdir(exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.part")  # two trainings may fill one cache at the same time
        try:
            with open(partial, "wb") as stream:
                np.save(stream, image, allow_pickle=False)
            os.utime(partial, ns=(times.st_atime_ns, times.st_mtime_ns))
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


# By --cache.
IMAGE_STORES = {None: ImageStore, "ram": RamImageStore, "disk": DiskImageStore}
