"""What utils/comparison.py says of two models with known figures, in the table, in sentences, in the CSV and drawn."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

import utils.compare_plots
from utils.bootstrap import Differences, Interval
from utils.compare_plots import plot_comparison
from utils.comparison import Comparison, Measured, model_names, save_csv, sentences, table, verdict
from utils.speed import Speed
from utils.tally import ClassMetrics, Metrics

BETTER, WORSE, NEITHER = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.01, -0.02, 0.04)


def scores(map50: float, map: float, classes: int) -> Metrics:
    rows = tuple(ClassMetrics(cls, f"kind {cls}", 5 + cls, 0.5, 0.5, map50, map) for cls in range(classes))
    return Metrics(0.25, 0.75, map50, map, rows, np.full(classes, map), (0, 0, 0), Speed(1, 1, 1), 40, 99)


def compared(tmp_path: Path, *intervals: Interval, classes: int = 2) -> Comparison:
    """A first model, and one more for each interval, which is its difference of mAP50-95; that of mAP50 covers zero."""
    first = Measured("first", Path("a.pt"), 1_234_567, None, scores(0.5, 0.25, classes), 10.0)
    others = [
        Measured(
            f"model {number}", Path(f"{number}.pt"), 7, 4.5, scores(0.51, 0.25 + interval.value, classes), 12.0, 1.2,
            Differences(interval, NEITHER, dict.fromkeys(range(classes), interval)),
        )
        for number, interval in enumerate(intervals)
    ]  # fmt: skip
    return Comparison((first, *others), 320, 1000, tmp_path)


@pytest.mark.parametrize(("interval", "said"), [(NEITHER, "no difference shown"), (BETTER, "better"), (WORSE, "worse")])
def test_verdict(interval, said):
    assert verdict(interval) == said


def test_sentences(tmp_path):
    assert sentences(compared(tmp_path)) == []
    assert sentences(compared(tmp_path, BETTER, WORSE, NEITHER))[::2] == [
        "model 0 is better than first by 0.2000 mAP50-95 (95 % interval 0.1000 to 0.3000)",
        "model 1 is worse than first by 0.2000 mAP50-95 (95 % interval 0.1000 to 0.3000)",
        "no difference shown between model 2 and first in mAP50-95: +0.0100 (95 % interval -0.0200 to +0.0400)",
    ]


def test_table(tmp_path):
    lines = table(compared(tmp_path, WORSE)).splitlines()
    cells = {line.split("  ")[0] or line.split()[0]: line.split() for line in lines[1:]}
    assert lines[0].split() == ["first", "model", "0", "less", "the", "first", "(95", "%)"]
    assert cells["parameters"] == ["parameters", "1,234,567", "7"]
    assert cells["GFLOPs at 320"][3:] == ["-", "4.50"]
    assert cells["latency ms"][2:] == ["10.00", "12.00", "x", "1.20"]
    assert cells["mAP50-95"] == ["mAP50-95", "0.250", "0.050", "-0.200", "(-0.300", "to", "-0.100)"]
    assert lines[-1].split()[:4] == ["kind", "1", "0.250", "0.050"]
    assert "kind" not in table(compared(tmp_path, WORSE), per_class=False)


def test_csv(tmp_path):
    save_csv(compared(tmp_path, WORSE), tmp_path / "compare.csv")
    with open(tmp_path / "compare.csv", encoding="utf-8", newline="") as file:
        rows = {(row["model"], row["quantity"], row["class"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * (8 + 2)
    assert rows["first", "parameters", ""]["value"] == "1234567"
    assert rows["first", "gflops", ""]["value"] == ""
    assert rows["first", "mAP50-95", "all"]["low"] == ""
    one_class = rows["model 0", "mAP50-95", "kind 1"]
    figures = [float(one_class[key]) for key in ("value", "difference", "low", "high")]
    assert figures == pytest.approx([0.05, -0.2, -0.3, -0.1])
    assert one_class["verdict"] == "worse"
    assert rows["model 0", "mAP50", "all"]["verdict"] == "no difference shown"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ([], []),
        (["yolov5n.pt", "runs/exp/weights/best.pt"], ["yolov5n", "exp/best"]),
        (["a/weights/best.pt", "b/weights/best.pt"], ["a/best", "b/best"]),
        (["x/exp/weights/best.pt", "y/exp/weights/best.pt"], ["x/exp/best", "y/exp/best"]),
        (["x/one.pt", "y/one.pt"], ["x/one", "y/one"]),
        (["one.pt", "one.pt", "two.pt"], ["one", "one (2)", "two"]),
        (["a/weights/best.pt", "a/weights/best.onnx", "b/best.onnx"], ["a/best.pt", "a/best.onnx", "best"]),
    ],
)
def test_names_tell_models_apart(files, names):
    assert model_names([Path(file) for file in files]) == names


@pytest.mark.parametrize("classes", [1, 3, 90])
def test_picture(tmp_path, monkeypatch, classes):
    figures, save = [], utils.compare_plots.save_figure
    monkeypatch.setattr(
        utils.compare_plots, "save_figure", lambda figure, file: figures.append(figure) or save(figure, file)
    )
    plot_comparison(compared(tmp_path, WORSE, NEITHER, classes=classes), tmp_path / "compare.png")
    assert cv2.imread(str(tmp_path / "compare.png")).std() > 1
    bars, forest = figures[0].axes
    rows = [text.get_text() for text in bars.get_yticklabels()]
    assert rows[:2] == ["all classes", "kind 0" if classes < 90 else "kind 10"]  # of many, those with the most labels
    assert len(rows) == 1 + min(classes, 80)
    faces = [line.get_markerfacecolor() for line in forest.lines if line.get_marker() in "Do"]
    assert faces.count("white") == len(rows)
    assert "-0.200 (-0.300 to -0.100)" in [text.get_text() for text in forest.texts]
