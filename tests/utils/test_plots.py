import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from tests.utils.pictures import ink_at_edges
from utils.errors import InputError
from utils.figures import save_figure
from utils.logger_csv import COLUMNS
from utils.plots import (
    detections_as_targets,
    plot_feature_maps,
    plot_images,
    plot_labels,
    plot_results,
    read_columns,
    without_skipped,
)

NAMES = {0: "cat", 1: "dog"}


def batch(size=2, side=32):
    return torch.full((size, 3, side, side), 90, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "rows"),
    [
        (batch(), np.zeros((0, 6))),
        (batch(1, 1), np.zeros((0, 7))),
        (batch(3).float() / 255, [[0, 1, 0.5, 0.5, 0.5, 0.5], [2, 7, 0.1, 0.9, 0.9, 0.9]]),
        (batch(40, 64), [[39, 0, 0.5, 0.5, 0.5, 0.5]]),
        (batch(2).numpy(), [[0, 0, 0.5, 0.5, 0.5, 0.5, 0.9], [0, 0, 0.5, 0.5, 0.5, 0.5, 0.1]]),
    ],
)
def test_grids_of_any_batch(tmp_path, images, rows):
    paths = [f"/data/images/{index}.jpg" for index in range(len(images))]
    plot_images(images, np.array(rows), paths, file=tmp_path / "train_batch0.jpg", names=NAMES)
    picture = cv2.imread(str(tmp_path / "train_batch0.jpg"))
    assert 100 < max(picture.shape) < 2300


def test_images_keep_their_colours_and_boxes_their_place(tmp_path):
    images = torch.zeros((1, 3, 320, 320), dtype=torch.uint8)
    images[:, 0] = 200  # red
    rows = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.5]])
    for given in (images, images.float() / 255):
        plot_images(given, rows, ["a.png"], file=tmp_path / "a.png", names={1: ""})
        picture = cv2.imread(str(tmp_path / "a.png"))
        assert picture[20, 20].tolist() == [0, 0, 200]
        edge = picture[6 + 320, 6 + 160]  # gap, then the middle of the left side at twice the size
        assert edge.tolist() != [0, 0, 200]


def test_boxes_of_low_confidence_are_left_out(tmp_path):
    rows = np.array([[0, 0, 0.5, 0.5, 0.5, 0.5, 0.25]])
    plot_images(batch(1), rows, ["a.png"], file=tmp_path / "low.png", names=NAMES)
    plot_images(batch(1), rows[:0], ["a.png"], file=tmp_path / "none.png", names=NAMES)
    assert (tmp_path / "low.png").read_bytes() == (tmp_path / "none.png").read_bytes()


@pytest.mark.parametrize(
    ("detections", "expected"),
    [
        ([], np.zeros((0, 7))),
        ([torch.zeros(0, 6)], np.zeros((0, 7))),
        (
            [torch.zeros(0, 6), torch.tensor([[10.0, 20, 30, 60, 0.5, 3]])],
            [[1, 3, 0.1, 0.4, 0.1, 0.4, 0.5]],
        ),
    ],
)
def test_detections_become_rows_for_the_grid(detections, expected):
    rows = detections_as_targets(detections, (100, 200))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize(("count", "nc"), [(0, 1), (1, 25), (1500, 80)])
def test_label_statistics_of_any_set(tmp_path, count, nc):
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.integers(0, nc, (count, 1)), rng.random((count, 4))], axis=1)
    plot_labels(rows, {cls: f"$class_{cls}^$" for cls in range(nc)}, tmp_path)
    for name in ("labels.jpg", "labels_correlogram.jpg"):
        assert min(cv2.imread(str(tmp_path / name)).shape[:2]) > 1000


@pytest.mark.parametrize(
    ("names", "turned"),
    [
        ({}, False),
        ({0: "cat"}, False),
        ({0: "a class name of forty letters, that is it"}, False),
        ({0: "a name of twenty-six letters", 1: "another with twenty-eight so"}, True),
        (dict(enumerate("abcdefghij")), False),
        ({cls: f"class number {cls}" for cls in range(30)}, True),
        ({cls: "a class name so long that somebody thought about it" for cls in range(80)}, False),
    ],
)
def test_names_below_bars_do_not_run_into_each_other_or_out_of_the_picture(tmp_path, names, turned, monkeypatch):
    figures = []
    monkeypatch.setattr("utils.plots.save_figure", lambda figure, *_, **__: figures.append(figure))
    plot_labels(np.zeros((0, 5)), names, tmp_path)
    bars = figures[0].axes[0]
    save_figure(figures[0], tmp_path / "labels.jpg")
    texts = [label for label in bars.get_xticklabels() if label.get_text()]
    assert all(label.get_rotation() == (90 if turned else 0) for label in texts)
    boxes = [label.get_window_extent() for label in texts]
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))
    assert not ink_at_edges(cv2.imread(str(tmp_path / "labels.jpg")))


def write_results(file, rows, columns=COLUMNS, padding=0):
    lines = [",".join(f"{cell:>{padding}}" for cell in line) for line in [("epoch", *columns), *rows]]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize(
    ("epochs", "columns", "padding"), [(1, COLUMNS, 0), (2, COLUMNS[:-1], 23), (40, COLUMNS, 0), (2, COLUMNS[:3], 0)]
)
def test_results_of_any_length(tmp_path, epochs, columns, padding):
    rows = [[epoch, *[0.5] * len(columns)] for epoch in range(epochs)]
    file = plot_results(write_results(tmp_path / "results.csv", rows, columns, padding))
    assert file == tmp_path / "results.png"
    assert cv2.imread(str(file)).shape[1] > 1000


def test_empty_cells_are_read_as_nan_and_charted(tmp_path):
    file = write_results(tmp_path / "results.csv", [[0, *[""] * len(COLUMNS)], [1, *[0.25] * len(COLUMNS)]])
    results = read_columns(file)
    assert np.isnan(results["metrics/mAP_0.5"][0])
    assert results["metrics/mAP_0.5"][1] == 0.25
    assert plot_results(file, tmp_path / "other.png").exists()


def test_a_row_that_was_cut_off_costs_itself_alone(tmp_path):
    file = write_results(tmp_path / "results.csv", [[epoch, *[0.5] * len(COLUMNS)] for epoch in range(2)])
    file.write_text(file.read_text() + "2,0.5,0.")
    assert read_columns(file)["epoch"].tolist() == [0, 1]


@pytest.mark.parametrize(
    "text", ["", "epoch,a\n", "a,b\n1,2\n", "epoch,a\n1,x\n", "epoch,a\n1,2\n1\n", "epoch,train/box_loss\n0,x\n"]
)
def test_files_that_are_no_results_are_told_by_name(tmp_path, text):
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(InputError, match=r"results\.csv"):
        plot_results(tmp_path / "results.csv")


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 20, 30), (1, 64, 5, 5)])
def test_feature_maps(tmp_path, shape):
    features = torch.randn(shape)
    plot_feature_maps(features, "layer 0, Conv", tmp_path / "stage0_Conv_features.png")
    assert cv2.imread(str(tmp_path / "stage0_Conv_features.png")) is not None
    np.testing.assert_array_equal(np.load(tmp_path / "stage0_Conv_features.npy"), features[0].numpy())


def test_neither_matplotlib_nor_pandas_is_loaded_before_a_chart_is_drawn():
    code = "import sys, utils.plots, utils.loggers; sys.exit(bool({'matplotlib', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_pictures_of_many_labels_count_a_selection(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("utils.plots._class_bars", lambda axes, classes, names: titles.append(f"bars {len(classes)}"))
    monkeypatch.setattr(
        "utils.plots._correlogram", lambda boxes, file, total: titles.append(f"{len(boxes)} of {total}")
    )
    monkeypatch.setattr("utils.plots.MOST_COUNTED", 10)
    plot_labels(np.full((25, 5), 0.5, np.float32), {0: "a"}, tmp_path)
    assert titles == ["bars 25", "9 of 25"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"epoch": []}, {"epoch": []}),
        ({"epoch": [0, 1], "train/box_loss": [0, 0]}, {"epoch": [0, 1], "train/box_loss": [0, 0]}),
        (
            {"epoch": [0, 1, 2], "train/box_loss": [3, 2, 0], "val/box_loss": [0, 0, 2], "metrics/mAP_0.5": [0, 0, 0]},
            {
                "epoch": [0, 1, 2],
                "train/box_loss": [3, 2, 0],
                "val/box_loss": [np.nan, np.nan, 2],
                "metrics/mAP_0.5": [np.nan, np.nan, 0],
            },
        ),
    ],
)
def test_epochs_that_were_not_validated_are_gaps(columns, expected):
    results = without_skipped({key: np.array(values, float) for key, values in columns.items()})
    assert list(results) == list(expected)
    for key, values in expected.items():
        np.testing.assert_array_equal(results[key], values)
