"""The words and figures of a comparison of models: its table, the sentences about differences, compare.csv. Not for
measuring: that is engine/comparer.py; nor for its chart: utils/compare_plots.py."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.bootstrap import Differences, Interval
from utils.files import atomic_write
from utils.tally import Metrics

CSV_HEADER = ("model", "weights", "quantity", "class", "value", "difference", "low", "high", "verdict")


@dataclass(frozen=True)
class Measured:
    """One model of a comparison.

    Attributes:
        name: short, and different from the others'.
        parameters, gflops: of the model as it runs, with batch normalisation folded in; gflops for one square image of
            the comparison's size. None in runtimes other than PyTorch; gflops also where thop is not installed.
        metrics: what val.py gives.
        latency_ms: median time of the network alone for one such image.
        latency_ratio: its time divided by the first model's in the same round of measuring, median over the rounds.
        differences: of its scores from the first model's; None for the first model itself.
    """

    name: str
    weights: Path
    parameters: int | None
    gflops: float | None
    metrics: Metrics
    latency_ms: float = 0.0
    latency_ratio: float = 1.0
    differences: Differences | None = None


@dataclass(frozen=True)
class Comparison:
    """Several models on the same images; all others are compared with the first one.

    imgsz: side in pixels of the square image for GFLOPs and latency. resamples: how many the intervals come from.
    run_dir: where the results are written.
    """

    models: tuple[Measured, ...]
    imgsz: int
    resamples: int
    run_dir: Path

    @property
    def others(self) -> tuple[Measured, ...]:
        """All but the first."""
        return self.models[1:]

    @property
    def changes(self) -> list[Differences]:
        """The differences of all but the first model."""
        return [model.differences for model in self.others if model.differences]


# ------------------------------------------------------------------------------------------------------------- in words
def signed_interval(interval: Interval) -> str:
    """The difference and its bounds as a cell of the table: +0.012 (-0.003 to +0.027)."""
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def verdict(interval: Interval) -> str:
    """What may be said of a difference: "better", "worse" or "no difference shown"."""
    if interval.covers_zero:
        return "no difference shown"
    return "better" if interval.low > 0 else "worse"


def sentences(comparison: Comparison) -> list[str]:
    """A sentence on mAP50-95 and one on mAP50 for each model after the first."""
    first, told = comparison.models[0].name, []
    for model, change in zip(comparison.others, comparison.changes, strict=True):
        for quantity, interval in (("mAP50-95", change.map), ("mAP50", change.map50)):
            told.append(_sentence(model.name, first, quantity, interval))
    return told


def _sentence(name: str, first: str, quantity: str, interval: Interval) -> str:
    if interval.covers_zero:
        bounds = f"95 % interval {interval.low:+.4f} to {interval.high:+.4f}"
        return f"no difference shown between {name} and {first} in {quantity}: {interval.value:+.4f} ({bounds})"
    least, most = sorted((abs(interval.low), abs(interval.high)))
    size = f"by {abs(interval.value):.4f} {quantity} (95 % interval {least:.4f} to {most:.4f})"
    return f"{name} is {verdict(interval)} than {first} {size}"


def table(comparison: Comparison, *, per_class: bool = True) -> str:
    """The table as text: a row for each quantity, a column for each model, and one for the differences beside each
    model after the first. per_class: also a row for each class."""
    names = [model.name for model in comparison.models]
    rows = [_row("", names, ["less the first (95 %)"] * len(comparison.others))]
    rows += [*_cost_rows(comparison), *_quality_rows(comparison)]
    if per_class:
        rows += _class_rows(comparison)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(f"{cell:{'>' if place else '<'}{widths[place]}}" for place, cell in enumerate(row)).rstrip()
        for row in rows
    )


def _row(label: str, values: Iterable[str], changes: Iterable[str]) -> list[str]:
    """The label, the first model's value, and the value and the change of each other model."""
    first, *others = values
    return [label, first, *(cell for pair in zip(others, changes, strict=True) for cell in pair)]


def _cost_rows(comparison: Comparison) -> Iterator[list[str]]:
    models, none = comparison.models, [""] * len(comparison.others)
    yield _row("parameters", ("-" if model.parameters is None else f"{model.parameters:,}" for model in models), none)
    costs = ("-" if model.gflops is None else f"{model.gflops:.2f}" for model in models)
    yield _row(f"GFLOPs at {comparison.imgsz}", costs, none)
    ratios = (f"x {model.latency_ratio:.2f}" for model in comparison.others)
    yield _row("latency ms", (f"{model.latency_ms:.2f}" for model in models), ratios)


def _quality_rows(comparison: Comparison) -> Iterator[list[str]]:
    scores, none = [model.metrics for model in comparison.models], [""] * len(comparison.others)
    changes = comparison.changes
    yield _row("precision", (f"{score.precision:.3f}" for score in scores), none)
    yield _row("recall", (f"{score.recall:.3f}" for score in scores), none)
    yield _row("mAP50", (f"{score.map50:.3f}" for score in scores), (signed_interval(it.map50) for it in changes))
    yield _row("mAP50-95", (f"{score.map:.3f}" for score in scores), (signed_interval(it.map) for it in changes))


def _class_rows(comparison: Comparison) -> Iterator[list[str]]:
    """mAP50-95 of the classes that have labels."""
    columns = [model.metrics.per_class for model in comparison.models]
    for scores in zip(*columns, strict=True):
        cls, name = scores[0].cls, scores[0].name
        changes = (signed_interval(change.per_class[cls]) for change in comparison.changes)
        yield _row(f"  {name}", (f"{score.map:.3f}" for score in scores), changes)


# ---------------------------------------------------------------------------------------------------------- compare.csv
def save_csv(comparison: Comparison, file: Path) -> None:
    """Writes a CSV atomically: a row for each model, quantity and class ("all" for the mean over them), with the
    difference from the first model, its 95 % interval and the verdict where there is a difference."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(CSV_HEADER)
    for model in comparison.models:
        for quantity, cls, value, interval in _csv_values(model):
            bounds = (interval.value, interval.low, interval.high) if interval else ()
            cells = [f"{bound:.6g}" for bound in bounds] or [""] * 3
            said = verdict(interval) if interval else ""
            writer.writerow([model.name, model.weights, quantity, cls, _number(value), *cells, said])
    with atomic_write(file) as stream:
        stream.write(text.getvalue().encode())


def _number(value: float | int | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.6g}"


def _csv_values(model: Measured) -> Iterator[tuple[str, str, float | int | None, Interval | None]]:
    """The (quantity, class, value, difference from the first model) of each row."""
    change, score = model.differences, model.metrics
    for quantity in ("parameters", "gflops", "latency_ms", "latency_ratio"):
        yield quantity, "", getattr(model, quantity), None
    yield "precision", "all", score.precision, None
    yield "recall", "all", score.recall, None
    yield "mAP50", "all", score.map50, change.map50 if change else None
    yield "mAP50-95", "all", score.map, change.map if change else None
    for row in score.per_class:
        yield "mAP50-95", row.name, row.map, change.per_class[row.cls] if change else None


def model_names(weights: Sequence[Path]) -> list[str]:
    """A short, different name for each file.

    That is its stem, with the suffix where files differ in that alone; for a file in the weights/ folder of a run with
    the run's name before it (exp/best), and with as many folders more as are needed to tell the files apart. A file
    that is given again gets a number.
    """
    paths = [path.absolute() for path in weights]
    stems = [path.with_suffix("") for path in dict.fromkeys(paths)]
    last = [path.name if stems.count(path.with_suffix("")) > 1 else path.stem for path in paths]
    parts = [
        [*(part for part in path.parent.parts if part != "weights"), name]
        for path, name in zip(paths, last, strict=True)
    ]
    shown = [2 if path.parent.name == "weights" else 1 for path in paths]
    names: list[str] = []
    for more in range(max(map(len, parts), default=0)):
        names = ["/".join(part[-count - more :]) for part, count in zip(parts, shown, strict=True)]
        if len(set(names)) == len(set(paths)):
            break
    before = (names[:number].count(name) for number, name in enumerate(names))
    return [f"{name} ({count + 1})" if count else name for name, count in zip(names, before, strict=True)]
