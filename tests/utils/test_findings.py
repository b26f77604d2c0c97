"""Findings: their table, its summary by kind, and the CSV of all of it."""

import csv

import cv2
import numpy as np
import pytest

from utils import findings
from utils.findings import EMPTY, KINDS, NO_LABELS, STANDARD, Finding
from utils.labels import index_labels, label_path


def labels_of(number: int) -> str:
    return f"labels/{number}.txt"


def found(kind: str, owner: int = -1) -> tuple[int, Finding]:
    file = labels_of(owner) if kind in STANDARD else f"{kind}.jpg"
    return owner, Finding(kind, file, STANDARD.get(kind, f"why: {kind}, é \udcff"))


SETS = {
    "nothing": [],
    "one": [found("corrupt image")],
    "every kind": [found(kind, 3 if kind in STANDARD else -1) for kind in KINDS],
}


@pytest.mark.parametrize("name", SETS)
def test_a_table_gives_back_what_was_put_in(name):
    table = findings.pack(SETS[name])
    findings.check(table, usable=4)
    assert list(table.each(range(len(table)), labels_of)) == [finding for _, finding in SETS[name]]


def test_joined_parts_count_on():
    parts = [[], [found(NO_LABELS, 0), found("corrupt image")], [], [found(EMPTY, 1)]]
    joined = findings.join([findings.pack(part) for part in parts], [2, 3, 0, 2])
    assert [finding.file for finding in joined.each(range(3), labels_of)] == [
        "labels/2.txt",
        "corrupt image.jpg",
        "labels/6.txt",
    ]
    assert len(findings.join([], [])) == 0


def test_the_summary_is_by_kind_with_the_first_files():
    assert findings.summary(findings.NONE, labels_of) == {}
    many = [found(NO_LABELS, number) for number in range(5)] + [found("corrupt image")]
    assert list(findings.summary(findings.pack(many), labels_of).values()) == [
        "missing label file: 5 (labels/0.txt, labels/1.txt, labels/2.txt, ...)",
        "corrupt image: 1 (corrupt image.jpg: why: corrupt image, é \udcff)",
    ]


def test_a_million_images_without_labels_are_a_few_bytes_each():
    one = findings.pack([found(NO_LABELS, 0)])
    assert sum(getattr(one, name).nbytes for name in findings.ARRAYS) < 40


@pytest.mark.parametrize("name", SETS)
def test_the_csv_has_a_row_for_each(name, tmp_path):
    file = tmp_path / "train_findings.csv"
    file.write_text("of an earlier run")
    assert findings.write_findings(findings.pack(SETS[name]), labels_of, file) == bool(SETS[name])
    assert file.exists() == bool(SETS[name])
    if SETS[name]:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
        assert rows[0] == ["file", "kind", "what"]
        assert [kind for _, kind, _ in rows[1:]] == [finding.kind for _, finding in SETS[name]]


def test_an_index_writes_its_findings_also_from_its_cache(tmp_path):
    images = []
    for number, label in enumerate([None, "", "0 .5 .5 .1 .1\n" * 2, "0 .5 .5 .1\n", "0 .5 .5 .1 .1\n"]):
        images.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(images[-1], np.zeros((16, 16, 3), np.uint8))
        if label is not None:
            (tmp_path / f"{number}.txt").write_text(label)
    (tmp_path / "5.png").write_bytes(b"none")
    images.append(str(tmp_path / "5.png"))
    expected = [
        (0, "missing label file"),
        (1, "empty label file"),
        (2, "duplicate rows"),
        (3, "wrong number of columns"),
        (5, "corrupt image"),
    ]
    for _ in ("new", "cached"):
        index = index_labels(images, cache=tmp_path / "set.cache")
        index.write_findings(tmp_path, "train")
        with open(tmp_path / "train_findings.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        files = [images[number] if kind == "corrupt image" else label_path(images[number]) for number, kind in expected]
        assert [row["file"] for row in rows] == files
        assert [row["kind"] for row in rows] == [kind for _, kind in expected]


def test_a_csv_that_cannot_be_written_is_told(tmp_path, caplog):
    index = index_labels(_one_image(tmp_path))
    index.write_findings(tmp_path / "nowhere", "val")
    assert "val_findings.csv cannot be written" in caplog.text


def _one_image(folder) -> list[str]:
    cv2.imwrite(str(folder / "a.png"), np.zeros((16, 16, 3), np.uint8))
    return [str(folder / "a.png")]
