"""utils/curves.py writes every picture for no, one, several and many classes, with the names and numbers in it."""

import cv2
import numpy as np
import pytest

import utils.curves
from tests.utils.pictures import ink_at_edges
from utils.curves import plot_confusion_matrix, plot_curves
from utils.metrics import ap_per_class

CURVES = {"PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png"}


def random_scores(classes, per_class=20):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    confidences = rng.uniform(0, 1, labels.shape)
    right = rng.uniform(0, 1, labels.shape) < 0.3 + 0.7 * confidences
    return ap_per_class(np.repeat(right[:, None], 10, 1), confidences, labels, labels)


@pytest.fixture
def texts(monkeypatch):
    """file name -> all texts of the figure that was written to it."""
    seen, save = {}, utils.curves.save_figure

    def note_texts(figure, file, **options):
        axes = figure.axes[0]
        legend = axes.get_legend()
        written = [text.get_text() for text in [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]]
        seen[file.name] = written + [text.get_text() for text in (legend.get_texts() if legend else ())]
        save(figure, file, **options)

    monkeypatch.setattr(utils.curves, "save_figure", note_texts)
    return seen


@pytest.mark.parametrize("classes", [0, 1, 3, 30])
def test_curves_are_written(tmp_path, texts, classes):
    scores = random_scores(classes)
    plot_curves(scores, tmp_path, {0: "cat", 1: "dog"})
    assert {file.name for file in tmp_path.iterdir()} == CURVES
    for name in CURVES:
        assert cv2.imread(str(tmp_path / name)).std() > 1
    assert f"all classes  {scores.map50:.3f} mAP@0.5" in texts["PR_curve.png"]
    assert (
        f"all classes  {scores.curves.f1.mean(0).max() if classes else 0:.2f} at {scores.confidence:.3f}"
        in texts["F1_curve.png"]
    )
    named = {1: ["cat"], 3: ["cat", "dog", "2"]}.get(classes, [])
    assert [text for text in texts["P_curve.png"] if text in ("cat", "dog", "2")] == named


@pytest.mark.parametrize("nc", [0, 1, 5, 31, 100])
def test_confusion_matrix_is_written(tmp_path, texts, nc):
    matrix = np.eye(nc + 1) * 3
    matrix[-1, 0] += 1
    file = tmp_path / "confusion_matrix.png"
    plot_confusion_matrix(matrix, file, {0: "cat"})
    assert cv2.imread(str(file)).std() > 1
    assert ("cat" in texts[file.name]) == (0 < nc <= 99)
    assert ("0.75" in texts[file.name]) == (0 < nc <= 30)


LONG = "a class name so long that somebody thought about it, number "


@pytest.mark.parametrize(("nc", "name"), [(0, ""), (1, ""), (1, LONG), (12, LONG), (80, LONG)])
def test_a_confusion_matrix_has_room_for_its_texts(tmp_path, nc, name):
    plot_confusion_matrix(np.eye(nc + 1), tmp_path / "c.png", {cls: f"{name}{cls}" for cls in range(nc)})
    picture = cv2.imread(str(tmp_path / "c.png")).astype(int)
    assert not ink_at_edges(picture)
    rows, columns = (np.flatnonzero((picture < 150).any((2, axis))) for axis in (1, 0))
    margins = (rows[0], columns[0], picture.shape[0] - 1 - rows[-1], picture.shape[1] - 1 - columns[-1])
    assert max(margins) < 40  # pixels
    blue = np.flatnonzero((picture[:, :, 0] > picture[:, :, 2] + 50).any(axis=1))  # rows of pixels with dark cells
    assert blue[-1] - blue[0] > 0.5 * picture.shape[0]


def test_an_empty_confusion_matrix(tmp_path):
    plot_confusion_matrix(np.zeros((4, 4)), tmp_path / "empty.png", {})
    assert (tmp_path / "empty.png").stat().st_size
