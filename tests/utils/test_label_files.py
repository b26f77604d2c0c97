"""Single label files: what their lines mean, and that a fault is told with its line. The golden cases of v6.1 are in
test_labels.py."""

import os
import re

import numpy as np
import pytest

from utils.label_files import LabelFault, image_files, label_path, line_of_class, parse_labels


@pytest.mark.parametrize("text", ["", "\n", "  \n\t\n"])
def test_nothing_is_no_label(text):
    rows, segments = parse_labels(text)
    assert rows.shape == (0, 5)
    assert segments == []


def test_box_among_polygons_has_its_corners_as_polygon():
    rows, segments = parse_labels("0 0.1 0.1 0.4 0.1 0.4 0.5 0.1 0.5\n1 0.5 0.5 0.2 0.4\n")
    np.testing.assert_allclose(rows[1], [1, 0.5, 0.5, 0.2, 0.4])
    np.testing.assert_allclose(segments[1], [(0.4, 0.3), (0.6, 0.3), (0.6, 0.7), (0.4, 0.7)], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 1e50 0.5 0.2 0.3", "expected finite numbers, got inf"),
        ("0 0.5 0.5 0.2", "expected 5 columns [class x y w h], got 4"),
        ("cat 0.5 0.5 0.2 0.3", "expected numbers, got 'cat'"),
        ("0 0.5 0.5 0.2 7", "expected coordinates normalised to 0..1, got 7"),
        ("0 0.5 0.5 -0.2 0.2", "expected no negative number, got -0.2"),
        ("-1 0.5 0.5 0.2 0.2", "expected no negative number, got -1"),
        ("1.5 0.5 0.5 0.2 0.2", "expected whole numbers as classes, got 1.5"),
        ("0 0 0 1 0 1 1 0 1 1", "expected a class and at least 3 points (x, y), got 10 columns"),
        ("0 0 0 1 0 1 1 0 1 1 cat", "expected numbers, got 'cat'"),
        (
            "0,0.5,0.5,0.2,0.3",
            "expected 5 columns [class x y w h], got 1 (separated by commas, where blanks were expected)",
        ),
        (
            "0; 0.5; 0.5; 0.2",
            "expected 5 columns [class x y w h], got 4 (separated by semicolons, where blanks were expected)",
        ),
        ("0, 0.5, 0.5, 0.2, 0.3", "expected numbers, got '0,' (separated by commas, where blanks were expected)"),
        (
            "0; 0; 0; 1; 0; 1; 1; 0; 1",
            "expected numbers, got '0;' (separated by semicolons, where blanks were expected)",
        ),
        ("0 0,5 0,5 0,2 0,3", "expected numbers, got '0,5'"),
    ],
)
@pytest.mark.parametrize(("before", "line"), [("", 1), ("1 0.5 0.5 0.2 0.3\n\n  \n", 4)])
def test_faults_say_why_and_in_which_line(before, line, text, reason):
    with pytest.raises(LabelFault, match=f"^{re.escape(reason)} in line {line}$"):
        parse_labels(before + text)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, None),
        (b"", None),
        (b"\n\xef", None),
        (b"cat 1\n7 1", None),
        (b"\n7.0 1\n7 1", 2),
        (b"\xef\xbb\xbf7 0", 1),
    ],
)
def test_the_line_of_a_class(content, line, tmp_path):
    file = tmp_path / "a.txt"
    if content is not None:
        file.write_bytes(content)
    assert line_of_class(str(file), 7) == line


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("x.jpg", "x.txt"),
        ("images/x.jpg", "labels/x.txt"),
        ("/d/images/train/x.y.JPG", "/d/labels/train/x.y.txt"),
        ("/images/d/images/a/x.png", "/images/d/labels/a/x.txt"),
        ("/d/my_images/x.png", "/d/my_images/x.txt"),
        ("/d/images", "/d/images.txt"),
    ],
)
def test_label_path(image, label):
    assert label_path(image.replace("/", os.sep)) == label.replace("/", os.sep)


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch, caplog):
    def refusing(folder):
        if str(folder) == str(locked):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    real, locked = os.scandir, tmp_path / "locked"
    for folder in (locked, tmp_path / "open"):
        folder.mkdir()
        (folder / "x.jpg").touch()
    monkeypatch.setattr(os, "scandir", refusing)
    assert image_files(tmp_path) == [str(tmp_path / "open" / "x.jpg")]
    told = f"{locked}: this folder and all below it are left out, as it is unreadable: Permission denied"
    assert [record.getMessage() for record in caplog.records] == [told]
