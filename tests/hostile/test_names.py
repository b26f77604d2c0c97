"""Class names that a terminal would obey, that lead out of a folder, or that no file system takes: what the log, files,
pictures and folders make of them."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.hostile.child import attempt, bounded
from utils.annotator import Annotator
from utils.class_names import class_numbers, counted
from utils.errors import InputError, readable_errors
from utils.fonts import drawable_names, face_of
from utils.frames import Frame
from utils.log import LOGGER
from utils.outputs import CropSink, CsvSink, Found, JsonSink, LabelSink

NAMES = {
    "nothing": "",
    "a colour": "\x1b[31mred\x1b[0m",
    "a cleared screen": "\x1b[2J\x1b[H",
    "a title": "\x1b]0;owned\x07",
    "an escape of 8 bits": "a\x9b31mb",
    "a new line": "person\nERROR: all is lost",
    "a return": "person\rhidden",
    "a NUL": "a\0b",
    "a bell and backspaces": "a\x07\x08\x08b",
    "delete": "a\x7f",
    "letters from the right": "gpj\u202eexe.",
    "isolated letters": "\u2067abc\u2069",
    "a line separator": "a\u2028b",
    "half a letter": "a\ud800b",
    "two folders up": "../../canary",
    "two folders up for Windows": "..\\..\\canary",
    "an absolute path": "/etc/passwd",
    "a home": "~/canary",
    "a stream": "a:b",
    "dots": "...",
    "con": "con",
    "NUL.txt": "NUL.txt",
    "300 letters": "x" * 300,
    "300 Chinese letters": "数" * 300,
    "10,000 letters": "x" * 10_000,
    "10,000 Chinese letters": "数" * 10_000,
    "5,000 accents": "a" + "\u0301" * 5_000,
    "half a formula": r"$\frac{1}{$ \evil $",
    "a formula of a table": '=cmd|"/c calc"!A1',
    "commas and quotes": 'a,"b",c',
    "a million letters": "x" * 10**6,
}
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def found() -> Found:
    picture = np.full((100, 100, 3), 127, np.uint8)
    detections = np.array([[10, 10, 60, 60, 0.9, 0], [20, 20, 50, 50, 0.8, 1]], np.float32)
    return Found(Frame(Path("some.jpg"), picture, 1, 1), "some", detections)


@pytest.mark.parametrize("name", NAMES)
def test_crops_stay_in_their_folder(name, ground):
    (ground / "run").mkdir()

    def task() -> int:
        CropSink(ground / "run" / "crops", {0: NAMES[name], 1: "b"}).write(found())
        return len(list((ground / "run" / "crops").glob("*/some*.jpg")))

    assert bounded(attempt(task, ground / "run"), ends=("returned",)) == "2"
    folders = [folder.name for folder in (ground / "run" / "crops").iterdir()]
    assert all(len(folder.encode()) <= 255 and not OBEYED.search(folder) for folder in folders)
    assert not {"con", "NUL.txt"} & set(folders)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_show_them(name, ground):
    face_of("…")  # matplotlib asks a program for the fonts of this machine, once

    def task() -> tuple:
        drawn = drawable_names({0: NAMES[name]})
        annotator = Annotator(found().frame.image)
        annotator.box([10, 10, 90, 90], f"{drawn[0]} 0.90")
        return annotator.result().shape

    outcome = attempt(task, ground)
    assert bounded(outcome, ends=("returned",)) == "(100, 100, 3)"
    assert outcome.seconds < 5  # of names of 10,000 letters the fitting took 15


@pytest.mark.parametrize("name", NAMES)
def test_tables_hold_them(name, ground):
    """A table of text has the name as it is, or with escapes where it cannot be written; label files have numbers."""

    def task() -> str:
        names = {0: NAMES[name], 1: "b"}
        for sink in (
            CsvSink(ground / "a.csv", names),
            JsonSink(ground / "a.json", names),
            LabelSink(ground / "labels"),
        ):
            sink.write(found())
            sink.close()
        return "done"

    bounded(attempt(task, ground), ends=("returned",))
    csv.field_size_limit(2**21)
    with open(ground / "a.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == 3
    assert rows[1][1] == NAMES[name].replace("\ud800", "\\ud800")
    assert len(json.loads((ground / "a.json").read_text())) == 2
    assert [line.split()[0] for line in (ground / "labels" / "some.txt").read_text().splitlines()] == ["1", "0"]


@pytest.mark.parametrize("name", NAMES)
def test_the_log_shows_them_and_obeys_nothing(name, capsys):
    LOGGER.warning(f"image 1/1: {counted([0, 0, 1], {0: NAMES[name], 1: 'b'})}")
    told = capsys.readouterr().err
    assert not OBEYED.search(told)
    assert told.count("\n") == 1
    assert len(told) < 500
    with pytest.raises(InputError) as refused:
        class_numbers(["nobody"], {0: NAMES[name]}, told_as="--classes")
    with pytest.raises(SystemExit), readable_errors():
        raise InputError(f"{NAMES[name][:1000]}: {refused.value}")
    told = capsys.readouterr().err
    assert not OBEYED.search(told)
    assert told.count("\n") == 1


def test_names_of_people_stay_as_they_are(capsys):
    for name in ("traffic light", "自転車", "bœuf", "كلب", "می\u200cخواهم", "👩\u200d🚒"):
        LOGGER.info(counted([0], {0: name}))
        assert capsys.readouterr().err == f"1 {name}\n"
