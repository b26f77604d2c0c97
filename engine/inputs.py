"""What the engines make of --weights and --imgsz. Not for options of one engine alone."""

from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError
from utils.files import newest_run
from utils.log import LOGGER


def chosen_weights(weights: str | Path | Sequence[str | Path] | None) -> Path:
    """--weights, else the best.pt below runs/ that was written last, and says which. Raises InputError without any, and
    for several.

    Differs from v6.1: several are refused, as ensembles are not built yet.
    """
    if isinstance(weights, Sequence) and not isinstance(weights, str):
        if len(weights) > 1:
            raise InputError(
                f"--weights: one was expected, got {len(weights)}: ensembles are not built yet; val.py --task compare "
                "measures several side by side"
            )
        weights = weights[0] if weights else None
    if weights:
        return Path(weights)
    newest = newest_run("runs", "best.pt")
    if newest is None:
        raise InputError(
            "no best.pt below runs/ yet: train a model first (python train.py), or name a checkpoint with --weights"
        )
    LOGGER.info(f"--weights {newest} is the newest run's best")
    return newest


def whole_strides(sides: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """Image sides in pixels, rounded up to multiples of the model's stride; says so where that changes them."""
    rounded = tuple(-(-side // stride) * stride for side in sides)
    if rounded != sides:
        was, now = (" x ".join(map(str, values)) for values in (sides, rounded))
        LOGGER.warning(f"--imgsz {was}: the model needs multiples of {stride}, so {now} is taken")
    return rounded
