"""Detections as a COCO results file, and its score by COCO's own rules. Not for our own mAP, which is computed in
another way: utils/metrics.py."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from utils.errors import InputError
from utils.files import atomic_write
from utils.log import LOGGER

# COCO numbers its categories 1 to 90 and leaves ten of the numbers out; models count 0 to 79.
UNUSED_CATEGORIES = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_CATEGORIES = tuple(number for number in range(1, 91) if number not in UNUSED_CATEGORIES)


class CocoScore(NamedTuple):
    """AP averaged over IoU 0.50:0.95, and AP at IoU 0.50, both 0..1, over all box sizes."""

    map: float
    map50: float


def is_coco(names: Mapping[int, str]) -> bool:
    """Whether these are COCO's 80 classes in COCO's order; only their number, the first and the last are looked at."""
    return len(names) == len(COCO_CATEGORIES) and names[0] == "person" and names[79] == "toothbrush"


def category_ids(names: Mapping[int, str], annotated: Mapping[str, int] | None = None) -> tuple[int, ...]:
    """The COCO category id of each class, by class id: that of its name where the annotations ({name: category id})
    have all names; else COCO's own where these are COCO's classes; else the class id itself."""
    if annotated and set(names.values()) <= set(annotated):
        return tuple(annotated[names[cls]] for cls in range(len(names)))
    return COCO_CATEGORIES if is_coco(names) else tuple(range(len(names)))


def find_annotations(root: Path, split: str) -> Path | None:
    """The instances JSON of a split ("val", "test", "train") under root/annotations; None where there is none."""
    return next(iter(sorted((root / "annotations").glob(f"instances_{split}*.json"))), None)


def annotation_ids(annotations: Path) -> tuple[dict[str, int], dict[str, int]]:
    """({file stem: image id}, {class name: category id}) of an annotation file. Raises InputError where it is not in
    COCO's format."""
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        images = {Path(image["file_name"]).stem: image["id"] for image in content["images"]}
        return images, {category["name"]: category["id"] for category in content["categories"]}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"expected COCO annotations with 'images' and 'categories' in {annotations}, got {error!r}"
        ) from error


def image_id(stem: str) -> int | str:
    """The id of an image that no annotation file numbers: the stem of its file, as a number where it is one, since COCO
    names its images by their ids."""
    return int(stem) if stem.isdecimal() else stem


def result_rows(image: int | str, detections: np.ndarray, categories: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of COCO's results format, one a detection: `bbox` is [left, top, width, height] in pixels to 3 decimals,
    `score` has 5 decimals.

    detections: (n, 6) [x1, y1, x2, y2, confidence, class] in pixels; categories: the id of each class.
    """
    return [
        {
            "image_id": image,
            "category_id": categories[int(cls)],
            "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(confidence, 5),
        }
        for x1, y1, x2, y2, confidence, cls in detections.astype(float).tolist()
    ]


class CocoResults:
    """Collects the detections of a validation in COCO's results format: one row a box.

    names: by class id. annotations: a COCO annotation file of these images, whose image and category ids are used;
    without one, see image_id and category_ids.
    """

    def __init__(self, names: Mapping[int, str], annotations: Path | None = None) -> None:
        self.annotations = annotations
        self.ids, by_name = annotation_ids(annotations) if annotations else ({}, {})
        self.categories = category_ids(names, by_name)
        self.rows: list[dict[str, Any]] = []
        self.images: list[int | str] = []

    def add(self, path: str, detections: Tensor) -> None:
        """Detections of one image: (n, 6) [x1, y1, x2, y2, confidence, class], pixels of the image file."""
        stem = Path(path).stem
        image = self.ids.get(stem, image_id(stem))
        self.images.append(image)
        self.rows += result_rows(image, detections.cpu().numpy(), self.categories)

    def save(self, file: Path) -> None:
        """Writes the rows as JSON, atomically."""
        with atomic_write(file) as stream:
            stream.write(json.dumps(self.rows).encode())

    def score(self) -> CocoScore:
        """COCO's score of the rows, over the images that were added; its table of twelve numbers goes to the log.
        Raises InputError where there are no annotations, or faster-coco-eval is not installed."""
        if self.annotations is None:
            raise InputError("--save-json: COCO's score needs annotations/instances_<split>*.json in the data's path")
        return evaluate_rows(self.rows, self.images, self.annotations)


def evaluate_rows(rows: list[dict[str, Any]], images: Iterable[int | str], annotations: Path) -> CocoScore:
    """Scores result rows against an annotation file, over the given image ids only."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise InputError(
            "--save-json: COCO's score needs the package faster-coco-eval: pip install faster-coco-eval. The results "
            "file is written, and everything but COCO's own score works without it."
        ) from error
    if not rows:
        return CocoScore(0.0, 0.0)
    truth = COCO(str(annotations))
    table: list[str] = []
    evaluation = COCOeval_faster(truth, truth.loadRes(rows), "bbox", print_function=table.append)
    evaluation.params.imgIds = sorted(set(images))
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    LOGGER.info("\n".join(line for line in table if "Average" in line))  # not what the library says of its progress
    return CocoScore(float(evaluation.stats[0]), float(evaluation.stats[1]))
