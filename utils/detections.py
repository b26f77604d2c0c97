"""What a network found in images, in the forms that people ask for: tensors, tables, pictures, crops. Not for the run
directory of detect.py: utils/outputs.py."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageShow
from torch import Tensor

from utils.annotator import Annotator, class_colour, crop_box
from utils.boxes import xyxy2xywh
from utils.class_names import counted, plural
from utils.errors import InputError
from utils.files import increment_path
from utils.fonts import drawable_names
from utils.log import LOGGER
from utils.outputs import safe_file_name, unique_stems, write_image

if TYPE_CHECKING:
    import supervision

DEFAULT_DIR = "runs/detect/exp"
CORNERS = ("xmin", "ymin", "xmax", "ymax", "confidence", "class", "name")
CENTRES = ("xcenter", "ycenter", "width", "height", "confidence", "class", "name")
TABLES = {"xyxy": CORNERS, "xyxyn": CORNERS, "xywh": CENTRES, "xywhn": CENTRES}  # attribute -> columns


class Detections:
    """The detections of one or more images, as YOLOv5's Python API gives them.

    Attributes:
        ims: list of the images, RGB uint8 (h, w, 3); after render() those with boxes. `imgs` is the same list.
        pred, xyxy: for each image (n, 6) [x1, y1, x2, y2, confidence, class] in pixels of the image, most confident
            first, on the network's device.
        xywh: the same, [centre x, centre y, width, height, confidence, class].
        xyxyn, xywhn: the same two, divided by the image's width and height.
        files: a name for each image, which ends in .jpg.
        names: class names by class number.
        n: how many images.
        times: seconds of a clock: before pre-processing, before the network, before NMS and after it.
        t: milliseconds an image for each of these three stages.
        s: shape of the network's input, (B, 3, h, w).

    Iteration and an index give Detections of single images, a slice those of several. pandas() gives tables.

    Differs from v6.1: save() and crop() after render() start from the images without boxes; nothing is drawn into
    arrays that the caller gave; two images of one name do not overwrite each other.
    """

    def __init__(
        self,
        ims: Sequence[np.ndarray],
        pred: Sequence[Tensor],
        files: Sequence[str],
        *,
        names: Mapping[int, str],
        times: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        shape: Sequence[int] = (),
    ) -> None:
        self.ims = list(ims)
        self.pred = self.xyxy = list(pred)
        self.files = list(files)
        self.names = names
        self.n = len(self.pred)
        self.times = tuple(times)
        self.t = tuple(1000 * (end - start) / max(self.n, 1) for start, end in pairwise(self.times))
        self.s = tuple(shape)
        self._plain = list(self.ims)  # without boxes, also after render()

    @property
    def imgs(self) -> list[np.ndarray]:
        """`ims` by its older name."""
        return self.ims

    @cached_property
    def xywh(self) -> list[Tensor]:
        """For each image (n, 6) [centre x, y, width, height, confidence, class] in pixels."""
        return [torch.cat((xyxy2xywh(rows), rows[:, 4:]), 1) for rows in self.xyxy]

    @cached_property
    def xyxyn(self) -> list[Tensor]:
        """As xyxy, with corners in 0..1."""
        return self._normalised(self.xyxy)

    @cached_property
    def xywhn(self) -> list[Tensor]:
        """As xywh, with centre, width and height in 0..1."""
        return self._normalised(self.xywh)

    def _normalised(self, boxes: list[Tensor]) -> list[Tensor]:
        sides = ((*image.shape[1::-1], *image.shape[1::-1], 1, 1) for image in self._plain)  # w, h, w, h
        return [rows / rows.new_tensor(divisors) for rows, divisors in zip(boxes, sides, strict=True)]

    # ---------------------------------------------------------------------------------------------------- as text
    def __str__(self) -> str:
        """A line an image, "image 1/2: 1080x810 4 persons, 1 bus", and one of the speed."""
        lines = [
            f"image {number}/{self.n}: {image.shape[0]}x{image.shape[1]} {counted(rows[:, 5].tolist(), self.names)}"
            for number, (image, rows) in enumerate(zip(self._plain, self.pred, strict=True), 1)
        ]
        speed = "{:.1f}ms pre-process, {:.1f}ms inference, {:.1f}ms NMS".format(*self.t)
        return "\n".join((*lines, f"Speed: {speed} per image at shape {self.s}"))

    __repr__ = __str__

    def print(self) -> None:
        """Logs what str() gives."""
        LOGGER.info(str(self))

    # -------------------------------------------------------------------------------------------------- image by image
    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator["Detections"]:
        return (self[i] for i in range(self.n))

    def __getitem__(self, index: int | slice) -> "Detections":
        """The detections of one image, or of several, as a Detections of its own."""
        every = range(self.n)
        numbers: Sequence[int] = every[index] if isinstance(index, slice) else (every[index],)
        start, share = self.times[0], len(numbers) / max(self.n, 1)
        part = Detections(
            [self._plain[i] for i in numbers],
            [self.pred[i] for i in numbers],
            [self.files[i] for i in numbers],
            names=self.names,
            times=[start + (moment - start) * share for moment in self.times],
            shape=self.s,
        )
        part.ims = [self.ims[i] for i in numbers]
        return part

    def tolist(self) -> list["Detections"]:
        """A Detections for each image."""
        return list(self)

    # -------------------------------------------------------------------------------------------------- other libraries
    def pandas(self) -> "Detections":
        """A copy whose xyxy, xyxyn, xywh and xywhn are lists of pandas.DataFrame, one an image, with the columns of
        TABLES: `results.pandas().xyxy[0]`."""
        tables = copy(self)
        for form, columns in TABLES.items():
            setattr(tables, form, [self._table(rows, columns) for rows in getattr(self, form)])
        return tables

    def _table(self, rows: Tensor, columns: Sequence[str]) -> Any:
        import pandas as pd

        content = [(*box, conf, int(cls), self.names[int(cls)]) for *box, conf, cls in rows.tolist()]
        return pd.DataFrame(content, columns=columns)

    def to_supervision(self) -> "supervision.Detections":
        """The detections of a single image as supervision.Detections, with names under data["class_name"]. Raises
        InputError for several images (take results[i]), ImportError without the package."""
        if self.n != 1:
            raise InputError(f"supervision takes one image at a time, got {self.n}: use results[i].to_supervision()")
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision() needs the package supervision: pip install supervision") from error
        rows = self.pred[0].detach().cpu().numpy()
        classes = rows[:, 5].astype(int)
        return supervision.Detections(
            xyxy=rows[:, :4],
            confidence=rows[:, 4],
            class_id=classes,
            data={"class_name": np.array([self.names[cls] for cls in classes.tolist()], dtype=str)},
        )

    # ------------------------------------------------------------------------------------------------------- pictures
    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Replaces the images in `ims` by copies with boxes, and labels where asked for. Returns `ims`."""
        self.ims[:] = [np.ascontiguousarray(image[..., ::-1]) for image in self._annotated(labels)]
        return self.ims

    def show(self, labels: bool = True) -> None:
        """Shows the images with boxes: in a notebook below the cell, else in the system's image viewer. Where there is
        none, the log says so."""
        for image, file in zip(self._annotated(labels), self.files, strict=True):
            _show(Image.fromarray(np.ascontiguousarray(image[..., ::-1])), file)

    def save(self, labels: bool = True, save_dir: str | Path = DEFAULT_DIR, exist_ok: bool | None = None) -> Path:
        """Writes the images with boxes as .jpg and returns their directory.

        exist_ok: whether to write into save_dir even where it exists; else save_dir2, save_dir3 and so on are made. By
        default it is written into, unless it is DEFAULT_DIR.
        """
        folder = _make_directory(save_dir, exist_ok)
        for stem, image in zip(self._stems(), self._annotated(labels), strict=True):
            write_image(folder / f"{stem}.jpg", image)
        LOGGER.info(f"Saved {self.n} {plural('image', self.n)} to {folder}")
        return folder

    def crop(
        self, save: bool = True, save_dir: str | Path = DEFAULT_DIR, exist_ok: bool | None = None
    ) -> list[dict[str, Any]]:
        """Cuts each detection out of its image. Returns for each, least confident of an image first, a dict: box
        [x1, y1, x2, y2], conf and cls (tensors), label ("person 0.87") and im, BGR uint8 (h, w, 3).

        save: also writes them, as <save_dir>/crops/<class>/<file>.jpg; exist_ok as in save().
        """
        folder = _make_directory(save_dir, exist_ok) / "crops" if save else None
        crops = []
        for stem, image, rows in zip(self._stems(), self._plain, self.pred, strict=True):
            for *xyxy, conf, cls in rows.flip(0):
                crop = crop_box(image[..., ::-1], xyxy)
                if folder and crop.size:
                    _save_crop(folder / safe_file_name(self.names[int(cls)]), stem, crop)
                crops.append(
                    {"box": xyxy, "conf": conf, "cls": cls, "label": label_of(self.names, conf, cls), "im": crop}
                )
        if folder:
            LOGGER.info(f"Saved {len(crops)} {plural('crop', len(crops))} to {folder}")
        return crops

    def _annotated(self, labels: bool) -> Iterator[np.ndarray]:
        """The images with boxes, the most confident on top, BGR."""
        names = drawable_names(self.names)
        for image, rows in zip(self._plain, self.pred, strict=True):
            annotator = Annotator(image[..., ::-1])
            for *xyxy, conf, cls in reversed(rows.tolist()):
                annotator.box(xyxy, label_of(names, conf, cls) if labels else "", class_colour(int(cls)))
            yield annotator.result()

    def _stems(self) -> list[str]:
        """What the files of each image are called, without suffix; where several are called bus: bus, bus_2, ..."""
        return list(unique_stems([Path(str(number), file) for number, file in enumerate(self.files)]).values())


def label_of(names: Mapping[int, str], conf: float | Tensor, cls: float | Tensor) -> str:
    """ "person 0.87" """
    return f"{names[int(cls)]} {float(conf):.2f}"


def _make_directory(save_dir: str | Path, exist_ok: bool | None) -> Path:
    """Makes the directory to save into, as Detections.save() describes it."""
    exist_ok = Path(save_dir) != Path(DEFAULT_DIR) if exist_ok is None else exist_ok
    return increment_path(save_dir, exist_ok=exist_ok, mkdir=True)


def _save_crop(folder: Path, stem: str, crop: np.ndarray) -> None:
    """Writes into the folder under the next free name: bus.jpg, bus2.jpg, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    write_image(increment_path(folder / f"{stem}.jpg"), crop)


def _show(image: Image.Image, title: str) -> None:
    """See Detections.show()."""
    if "ipykernel" in sys.modules:  # a notebook
        from IPython.display import display

        display(image)
    elif not ImageShow.show(image, title):
        LOGGER.warning(f"{title} is not shown: there is no image viewer here; save() writes it to a file")
