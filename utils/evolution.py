"""What goes into a search for hyperparameters and what comes out: the ranges, the table of trials, the file with the
best. Not for the search itself: that is utils/study.py; nor for its picture: utils/evolution_plots.py."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from utils.files import atomic_write
from utils.hyp import FIELDS, Hyp, hyp_yaml

METRICS = (
    *(f"metrics/{figure}" for figure in ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")),
    *(f"val/{loss}" for loss in ("box_loss", "obj_loss", "cls_loss")),
)
DIGITS = 5  # significant ones of a value that was drawn


@dataclass(frozen=True)
class Range:
    """Values that a hyperparameter may take in a search; `log`: drawn evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool = False


RANGES = {
    "lr0": Range(1e-5, 0.1, log=True),
    "lrf": Range(0.01, 1, log=True),
    "momentum": Range(0.6, 0.98),
    "weight_decay": Range(0, 0.001),
    "warmup_epochs": Range(0, 5),
    "warmup_momentum": Range(0, 0.95),
    "warmup_bias_lr": Range(0, 0.2),
    "box": Range(0.02, 0.2, log=True),
    "cls": Range(0.2, 4, log=True),
    "cls_pw": Range(0.5, 2, log=True),
    "obj": Range(0.2, 4, log=True),
    "obj_pw": Range(0.5, 2, log=True),
    "anchor_t": Range(2, 8),
    "anchors": Range(2, 10),
    "fl_gamma": Range(0, 2),
    "hsv_h": Range(0, 0.1),
    "hsv_s": Range(0, 0.9),
    "hsv_v": Range(0, 0.9),
    "degrees": Range(0, 45),
    "translate": Range(0, 0.9),
    "scale": Range(0, 0.9),
    "shear": Range(0, 10),
    "perspective": Range(0, 0.001),
    "flipud": Range(0, 1),
    "fliplr": Range(0, 1),
    "mosaic": Range(0, 1),
    "mixup": Range(0, 1),
    "copy_paste": Range(0, 1),
    "temperature": Range(1, 100, log=True),
    "temperature_epochs": Range(1, 30),
}
OF_DYNAMIC_LAYERS = ("temperature", "temperature_epochs")


def search_space(start: Hyp, *, dynamic: bool) -> dict[str, Range]:
    """The hyperparameters to vary, with their ranges: those of RANGES that `start` has switched on (its value is
    neither 0, -1 nor None), and those of dynamic layers only where the model is `dynamic`. Each range contains the
    value of `start`.

    Differs from v6.1: `anchors` is not brought in where the file has none; fl_gamma, perspective and fliplr are varied
    where they are on; the two of dynamic layers are ours; a start value outside of its range widens it.
    """
    values = asdict(start)
    on = [name for name in RANGES if (values[name] or 0) > 0]
    return {name: _widened(name, values[name]) for name in on if dynamic or name not in OF_DYNAMIC_LAYERS}


def _widened(name: str, value: float) -> Range:
    """The usual range; where `value` lies outside, it is widened to half or twice the value, as far as Hyp allows."""
    usual, allowed = RANGES[name], FIELDS[name].metadata
    low = usual.low if value >= usual.low else max(value / 2, allowed["low"])
    high = usual.high if value <= usual.high else min(value * 2, allowed["high"])
    return replace(usual, low=low, high=high)


def drawn_hyp(start: Hyp, values: Mapping[str, float]) -> Hyp:
    """`start` with the drawn values, rounded to DIGITS. A value that equals that of `start` is not rounded."""
    rounded = {name: float(f"{value:.{DIGITS}g}") for name, value in values.items() if value != getattr(start, name)}
    return replace(start, **rounded)  # type: ignore[arg-type]  # the fields that are whole numbers are not searched


@dataclass(frozen=True)
class TrialResult:
    """One finished trial.

    Attributes:
        number: counted from 0 over all processes of the study.
        state: complete; pruned: ended early because it was worse than most; diverged: its loss was no longer finite,
            which counts as fitness 0.
        epochs: how many were trained.
        fitness: 0.1 mAP50 + 0.9 mAP50-95 of its best epoch.
        metrics: those of METRICS, of the same epoch, by name.
    """

    number: int
    state: str
    epochs: int
    fitness: float
    metrics: Mapping[str, float]
    hyp: Hyp


def best_of(trials: Sequence[TrialResult]) -> TrialResult | None:
    """The complete trial with the highest fitness, the first of equals; None where no trial is complete."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return max(complete, key=lambda trial: (trial.fitness, -trial.number), default=None)


def write_table(trials: Sequence[TrialResult], file: Path) -> None:
    """Writes evolve.csv atomically, with a row for each trial.

    Differs from v6.1: cells are not padded; trial, state, epochs and fitness stand before v6.1's columns.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    hyps = [name for name in FIELDS if name != "label_smoothing"]
    writer.writerow(("trial", "state", "epochs", "fitness", *METRICS, *hyps))
    for trial in trials:
        metrics = [f"{value:.5g}" for value in (trial.fitness, *(trial.metrics[name] for name in METRICS))]
        writer.writerow((trial.number, trial.state, trial.epochs, *metrics, *(getattr(trial.hyp, key) for key in hyps)))
    with atomic_write(file) as stream:
        stream.write(text.getvalue().encode())


def write_best(best: TrialResult, file: Path, *, trials: int, command: str) -> None:
    """Writes hyp_evolve.yaml atomically: the best hyperparameters, below a comment that says which of the `trials` had
    them, what it reached, and with which `command` to train with them."""
    precision, recall, map50, map50_95 = (best.metrics[name] for name in METRICS[:4])
    told = (
        f"Trial {best.number}, the best of {trials}: fitness {best.fitness:.5g} in {best.epochs} epochs",
        f"(mAP50 {map50:.4g}, mAP50-95 {map50_95:.4g}, precision {precision:.4g}, recall {recall:.4g}).",
        f"To train with it: {command}",
    )
    comment = "".join(f"# {line}\n" for line in told)
    with atomic_write(file) as stream:
        stream.write(f"{comment}\n{hyp_yaml(best.hyp)}".encode())
