"""val.py --task study: how a model's mAP and speed change with the image size. Not for comparing models at one size:
comparer.py."""

import csv
import io
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.inputs import chosen_weights
from engine.validation import FILES, Subject, build_loader, check_options, prepared, refuse_flags, validated
from utils.comparison import model_names
from utils.errors import InputError
from utils.files import atomic_write, increment_path
from utils.log import LOGGER
from utils.size_plots import plot_sizes
from utils.tally import Metrics

IMAGE_SIZES = range(256, 1537, 128)  # pixels
CSV_HEADER = ("model", "imgsz", "precision", "recall", "map50", "map", "preprocess_ms", "inference_ms", "nms_ms")
COLUMNS = ("Model", "Size", "P", "R", "mAP@.5", "mAP@.5:.95", "ms an image")
ROW = "{:>20}{:>8}" + 4 * "{:>11.3f}" + "{:>13.1f}"


@dataclass(frozen=True)
class SizePoint:
    """A model at one image size: its name, longer side in pixels, what val.py measures."""

    model: str
    imgsz: int
    metrics: Metrics

    @property
    def row(self) -> tuple[str | int | float, ...]:
        """In the order of CSV_HEADER."""
        metrics = self.metrics
        quality = (metrics.precision, metrics.recall, metrics.map50, metrics.map)
        return self.model, self.imgsz, *quality, *metrics.speed_ms


def run(opt: Namespace) -> list[SizePoint]:
    """Validates each of --weights at each image size on the val split; a table in the log, study.csv and study.png in a
    new directory. Raises InputError where the input cannot be used."""
    refuse_flags(opt, (*FILES, "imgsz"), "beside --task study: it is for one image size")
    check_options(opt)
    weights = chosen_weights(opt.weights)
    subjects = [prepared(Namespace(**{**vars(opt), "task": "val", "weights": file})) for file in weights]
    for subject in subjects:
        if subject.backend.fixed_hw:
            raise InputError(f"--task study needs weights that take every image size, got {subject.file}")
    run_dir = increment_path(Path(opt.project) / opt.name, opt.exist_ok, mkdir=True)
    points = [
        measured_at(subject, name, imgsz)
        for subject, name in zip(subjects, model_names(weights), strict=True)
        for imgsz in IMAGE_SIZES
    ]
    LOGGER.info("\n" + table(points))
    save_csv(points, run_dir / "study.csv")
    plot_sizes(curves(points), run_dir / "study.png")
    LOGGER.info(f"Results saved to {run_dir}")
    return points


def measured_at(subject: Subject, name: str, imgsz: int) -> SizePoint:
    """One validation, at an image size in pixels."""
    LOGGER.info(f"\n{name} at {imgsz} pixels")
    return SizePoint(name, imgsz, validated(subject, build_loader(subject, imgsz)))


def table(points: Sequence[SizePoint]) -> str:
    """A line a point: quality, and milliseconds of all stages together."""
    head = ROW.replace(".3f", "").replace(".1f", "").format(*COLUMNS)
    rows = [ROW.format(*point.row[:6], sum(point.metrics.speed_ms)) for point in points]
    return "\n".join((head, *rows))


def curves(points: Sequence[SizePoint]) -> dict[str, list[tuple[int, float, float]]]:
    """What plot_sizes draws: (pixels, milliseconds an image, mAP50-95) of each model."""
    return {
        model: [(p.imgsz, sum(p.metrics.speed_ms), p.metrics.map) for p in points if p.model == model]
        for model in dict.fromkeys(point.model for point in points)
    }


def save_csv(points: Sequence[SizePoint], file: Path) -> None:
    """Writes a row a point, atomically."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(CSV_HEADER)
    writer.writerows(point.row for point in points)
    with atomic_write(file) as stream:
        stream.write(text.getvalue().encode())
