"""What the engines make of --weights, --data and --imgsz, and how they refuse a number. Not for options of one engine
alone."""

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from models.backend import Backend
from utils.data_config import find_data_yaml
from utils.errors import InputError
from utils.files import newest_run
from utils.log import LOGGER

DEFAULT_IMGSZ = 640  # pixels
FAR = 1.5  # times as large, or as small: v6.1's scale augmentation makes objects seen at up to so much


def flag_of(name: str) -> str:
    """batch_size -> --batch-size."""
    return f"--{name.replace('_', '-')}"


def check_ranges(opt: Namespace, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raises InputError, in the words of the flag, for an option that is not in its range [low, high]; None passes."""
    for name, (low, high) in ranges.items():
        value = getattr(opt, name)
        if value is not None and not low <= value <= high:
            expected = f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise InputError(f"{flag_of(name)}: {expected} was expected, got {value}")


def chosen_weights(weights: str | Path | Sequence[str | Path] | None) -> list[Path]:
    """--weights, of which several make an ensemble; else the best.pt below runs/ that was written last, and says which.
    Raises InputError where there is none."""
    given = weights if isinstance(weights, Sequence) and not isinstance(weights, str) else [weights]
    if files := [Path(file) for file in given if file]:
        return files
    newest = newest_run("runs", "best.pt")
    if newest is None:
        raise InputError(
            f"no best.pt below {Path('runs').resolve()} yet: train a model first (python train.py), or name a "
            "checkpoint with --weights"
        )
    LOGGER.info(f"--weights {newest} is the newest run's best")
    return [newest]


def data_of_run(stored: str, file: Path, *, remedy: str) -> str:
    """The data YAML that the checkpoint `file` says it was trained on. On another machine the path may not be there:
    then one of the same name is taken, from the working directory or the shipped ones, with a warning. Raises
    InputError without any, and ends with the remedy."""
    if Path(stored).exists():
        return stored
    name = PureWindowsPath(stored).name  # takes both separators
    told = f"{file} was trained on {stored}, which is not here"
    try:
        found = find_data_yaml(name)
    except InputError as error:
        raise InputError(f"{told}; looked for by its name alone: {error}. What to do: {remedy}") from error
    LOGGER.warning(f"{told}: {found} is taken, as it has the same name")
    return str(found)


def whole_strides(sides: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """Image sides in pixels, rounded up to multiples of the model's stride; says so where that changes them."""
    rounded = tuple(-(-side // stride) * stride for side in sides)
    if rounded != sides:
        was, now = (" x ".join(map(str, values)) for values in (sides, rounded))
        LOGGER.warning(f"--imgsz {was}: the model needs multiples of {stride}, so {now} is taken")
    return rounded


def image_sides(imgsz: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of --imgsz, which may be one side, pixels. Raises InputError for anything else."""
    given = (imgsz,) if isinstance(imgsz, int) else tuple(imgsz)
    if len(given) not in (1, 2) or min(given) < 1:
        raise InputError(f"--imgsz: expected one side or height and width in pixels, got {imgsz}")
    return given[0], given[-1]


def network_size(imgsz: int | Sequence[int], backend: Backend) -> tuple[int, int]:
    """The (height, width) in pixels that images are fitted into for --imgsz, one side or both: the one that the file
    takes, else in multiples of the network's stride. Says so where that is another one."""
    sides = image_sides(imgsz)
    if backend.fixed_hw is None:
        tell_other_size(sides, backend.trained_with.get("imgsz"))
        height, width = whole_strides(sides, backend.stride)
        return height, width
    if backend.fixed_hw != sides:
        was, now = ("{} x {}".format(*size) for size in (sides, backend.fixed_hw))
        LOGGER.warning(f"--imgsz {was}: the model was exported for {now} alone, which is taken")
    return backend.fixed_hw


def tell_other_size(sides: tuple[int, int], trained_at: Any) -> None:
    """Says so where images are fitted into a size far from the one that the weights were trained at (pixels; anything
    else is taken as not known). That is right for pictures which are as much larger or smaller than those of the
    training; in others, objects have sizes that the network has never seen."""
    if isinstance(trained_at, int) and trained_at > 0 and not 1 / FAR < max(sides) / trained_at < FAR:
        LOGGER.info(
            f"--imgsz {max(sides)}, and the weights were trained at {trained_at}: that suits pictures whose objects "
            f"have as many pixels as in the training; if nothing or nonsense is found, try --imgsz {trained_at}"
        )
