import json
import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageShow

from utils.annotator import class_colour
from utils.detections import CENTRES, CORNERS, Detections
from utils.errors import InputError

NAMES = {0: "person", 1: "bus", 2: "../a/b"}
ROWS = [[10, 20, 60, 120, 0.9, 0], [40, 30, 80, 50, 0.8, 1], [0, 0, 30, 40, 0.5, 0]]
NOTHING = torch.zeros(0, 6)
GREEN = (30, 200, 40)  # RGB


def image(height=150, width=100):
    return np.full((height, width, 3), GREEN, np.uint8)


def found(*rows, files=None, **options):
    """Detections in images of 150 x 100 pixels."""
    pred = [torch.tensor(one, dtype=torch.float32).reshape(-1, 6) for one in rows]
    files = files or [f"image{number}.jpg" for number in range(len(rows))]
    times, shape = (5.0, 5.002, 5.012, 5.013), (len(rows), 3, 640, 448)
    return Detections(
        [image() for _ in rows], pred, files, **{"names": NAMES, "times": times, "shape": shape, **options}
    )


@pytest.fixture(autouse=True)
def in_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files_below(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


# -------------------------------------------------------------------------------------------------------------- tensors
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("xyxy", [10, 20, 60, 120]),
        ("xywh", [35, 70, 50, 100]),
        ("xyxyn", [0.1, 20 / 150, 0.6, 120 / 150]),
        ("xywhn", [0.35, 70 / 150, 0.5, 100 / 150]),
    ],
)
def test_forms_of_the_boxes(form, expected):
    nothing, something = getattr(found([], ROWS), form)
    assert nothing.shape == (0, 6)
    assert something[0].tolist() == pytest.approx([*expected, 0.9, 0])
    assert something.shape == (3, 6)


def test_the_other_attributes():
    results = found([], ROWS, files=["bus.jpg", "image1.jpg"])
    assert results.n == len(results) == 2
    assert results.pred is results.xyxy
    assert results.imgs is results.ims
    assert results.names == NAMES
    assert results.files == ["bus.jpg", "image1.jpg"]
    assert results.t == pytest.approx((1, 5, 0.5))
    assert results.s == (2, 3, 640, 448)


# ----------------------------------------------------------------------------------------------------------------- text
def test_the_lines_that_people_know(capsys):
    results = found([], ROWS)
    expected = (
        "image 1/2: 150x100 (no detections)\n"
        "image 2/2: 150x100 2 persons, 1 bus\n"
        "Speed: 1.0ms pre-process, 5.0ms inference, 0.5ms NMS per image at shape (2, 3, 640, 448)"
    )
    assert str(results) == repr(results) == expected
    results.print()
    assert capsys.readouterr().err == f"{expected}\n"


# ------------------------------------------------------------------------------------------------------- image by image
def test_an_image_of_its_own():
    results = found([], ROWS, files=["bus.jpg", "zidane.jpg"])
    first, second = results.tolist()
    assert [len(one.pred) for one in results] == [1, 1]
    assert second.files == results[1].files == results[-1].files == ["zidane.jpg"]
    assert torch.equal(second.xyxy[0], results.xyxy[1])
    assert first.t == pytest.approx(results.t)
    assert str(first).startswith("image 1/1: 150x100 (no detections)\n")
    assert results[:0].n == 0
    assert results[::-1].files == ["zidane.jpg", "bus.jpg"]
    with pytest.raises(IndexError):
        results[2]


# --------------------------------------------------------------------------------------------------------------- tables
def test_tables():
    results = found([], ROWS)
    tables = results.pandas()
    assert isinstance(results.xyxy[0], torch.Tensor)  # as it was
    for form, columns in (("xyxy", CORNERS), ("xyxyn", CORNERS), ("xywh", CENTRES), ("xywhn", CENTRES)):
        empty, table = getattr(tables, form)
        assert tuple(empty.columns) == tuple(table.columns) == columns
        assert len(empty) == 0
        np.testing.assert_allclose(table.iloc[:, :5].to_numpy(), getattr(results, form)[1][:, :5])
        assert table["class"].tolist() == [0, 1, 0]
        assert table["name"].tolist() == ["person", "bus", "person"]
    assert CORNERS == ("xmin", "ymin", "xmax", "ymax", "confidence", "class", "name")
    assert tables.n == 2


def test_json_as_people_make_it():
    rows = json.loads(found(ROWS).pandas().xyxy[0].to_json(orient="records"))
    assert rows[1] == pytest.approx(
        {"xmin": 40, "ymin": 30, "xmax": 80, "ymax": 50, "confidence": 0.8, "class": 1, "name": "bus"}, abs=1e-6
    )


@pytest.mark.parametrize("rows", [[], ROWS])
def test_supervision(rows):
    supervision = pytest.importorskip("supervision")
    results = found(rows)
    converted = results.to_supervision()
    assert isinstance(converted, supervision.Detections)
    np.testing.assert_array_equal(converted.xyxy, results.xyxy[0][:, :4])
    assert converted["class_name"].tolist() == [NAMES[row[5]] for row in rows]
    theirs = supervision.Detections.from_yolov5(results)
    np.testing.assert_array_equal(converted.confidence, theirs.confidence)
    np.testing.assert_array_equal(converted.class_id, theirs.class_id)


@pytest.mark.parametrize("rows", [[], ROWS])
def test_what_supervision_is_given(rows, monkeypatch):
    fake = ModuleType("supervision")
    fake.Detections = lambda **given: SimpleNamespace(**given)
    monkeypatch.setitem(sys.modules, "supervision", fake)
    converted = found(rows).to_supervision()
    assert converted.xyxy.shape == (len(rows), 4)
    assert converted.xyxy.tolist() == [row[:4] for row in rows]
    assert converted.confidence.tolist() == pytest.approx([row[4] for row in rows])
    assert converted.class_id.tolist() == [row[5] for row in rows]
    assert converted.class_id.dtype == int
    assert converted.data["class_name"].tolist() == [NAMES[row[5]] for row in rows]
    with pytest.raises(InputError, match=r"results\[i\]\.to_supervision"):
        found(rows, rows).to_supervision()


def test_without_supervision_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        found(ROWS).to_supervision()


# ------------------------------------------------------------------------------------------------------------- pictures
def test_rendered_images_have_boxes_and_the_callers_have_none():
    given = image()
    results = Detections([given], found(ROWS).pred, ["a.jpg"], names=NAMES)
    (drawn,) = results.render()
    assert results.ims[0] is drawn
    assert drawn.shape == given.shape
    assert drawn.dtype == np.uint8
    np.testing.assert_allclose(drawn[100, 10], class_colour(0), atol=20)  # the left side of the first box
    assert (given == GREEN).all()
    without_labels = results.render(labels=False)[0]
    assert (without_labels != GREEN).any(2).sum() < (drawn != GREEN).any(2).sum()
    np.testing.assert_array_equal(results[0].ims[0], without_labels)
    np.testing.assert_array_equal(results.render()[0], drawn)  # not drawn twice


def test_nothing_found_renders_the_image():
    np.testing.assert_array_equal(found([]).render()[0], image())


def test_saved_into_numbered_directories_or_the_one_that_is_named(tmp_path, capsys):
    results = found([], ROWS, ROWS, files=["bus.jpg", "image1.jpg", "bus.jpg"])
    assert [str(results.save()), str(results.save())] == ["runs/detect/exp", "runs/detect/exp2"]
    for _ in range(2):
        results.save(save_dir=tmp_path / "mine", labels=False)
    assert results.save(save_dir="mine", exist_ok=False).name == "mine2"
    assert files_below(tmp_path / "mine") == {"bus.jpg", "image1.jpg", "bus_2.jpg"}
    assert str(results.save(exist_ok=True)) == "runs/detect/exp"
    assert "Saved 3 images to runs/detect/exp2\n" in capsys.readouterr().err
    saved = np.asarray(Image.open("mine/bus.jpg"))
    np.testing.assert_allclose(saved, image(), atol=3)  # right colours


def test_crops(tmp_path):
    results = found([], [*ROWS, [0, 0, 20, 20, 0.4, 2]], files=["a.jpg", "b.jpg"])
    results.render()
    crops = results.crop(save_dir="mine")
    assert [crop["label"] for crop in crops] == ["../a/b 0.40", "person 0.50", "bus 0.80", "person 0.90"]
    assert [float(side) for side in crops[-1]["box"]] == [10, 20, 60, 120]
    assert (float(crops[2]["cls"]), float(crops[2]["conf"])) == pytest.approx((1, 0.8))
    assert crops[2]["im"].shape == (31, 51, 3)  # 20 x 40, a fiftieth more and 10 pixels, cut at whole ones
    assert (crops[2]["im"] == GREEN[::-1]).all()  # BGR, and without boxes
    crops_of = {"crops/person/b.jpg", "crops/person/b2.jpg", "crops/bus/b.jpg", "crops/_a_b/b.jpg"}
    assert files_below(tmp_path / "mine") == crops_of
    np.testing.assert_allclose(cv2.imread("mine/crops/bus/b.jpg"), crops[2]["im"], atol=3)


@pytest.mark.parametrize("rows", [[], ROWS])
def test_crops_that_are_not_saved_leave_nothing(tmp_path, rows):
    assert len(found(rows).crop(save=False)) == len(rows)
    assert files_below(tmp_path) == set()


def test_shown_in_a_viewer(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(ImageShow, "show", lambda image, title: shown.append((image, title)) or True)
    results = found(ROWS, files=["bus.jpg"])
    results.show()
    ((picture, title),) = shown
    assert title == "bus.jpg"
    np.testing.assert_array_equal(np.asarray(picture), results.render()[0])
    assert capsys.readouterr().err == ""


def test_shown_in_a_notebook(monkeypatch):
    shown = []
    notebook = ModuleType("IPython.display")
    notebook.display = shown.append
    for name, module in {"ipykernel": ModuleType("i"), "IPython": ModuleType("I"), "IPython.display": notebook}.items():
        monkeypatch.setitem(sys.modules, name, module)
    found(ROWS, ROWS).show(labels=False)
    assert [picture.size for picture in shown] == [(100, 150)] * 2


def test_without_a_viewer_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr(ImageShow, "show", lambda image, title: False)
    found(ROWS).show()
    assert "image0.jpg is not shown" in capsys.readouterr().err


def test_names_that_no_font_here_has_are_drawn_as_numbers(monkeypatch):
    drawn = []
    monkeypatch.setattr("utils.fonts.face_of", lambda text: None)
    monkeypatch.setattr("utils.detections.Annotator.box", lambda _, xyxy, label, colour: drawn.append(label))
    results = found([1, 2, 30, 40, 0.9, 0], names={0: "人"})
    results.render()
    assert drawn == ["0 0.90"]
    assert [crop["label"] for crop in results.crop(save=False)] == ["人 0.90"]
