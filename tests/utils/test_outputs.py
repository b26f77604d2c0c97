"""Sinks by themselves; all of them behind a detection: tests/engine/test_detector.py."""

import csv
import json
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.coco import COCO_CATEGORIES
from utils.errors import InputError
from utils.frames import Frame
from utils.outputs import (
    AnnotatedSink,
    CropSink,
    CsvSink,
    Found,
    JsonSink,
    LabelSink,
    Sinks,
    WindowSink,
    label_lines,
    unique_stems,
)
from utils.video import read_video

SIZE_HW = (48, 64)
NAMES = {0: "cat", 1: "a/b"}
ROWS = [[10, 10, 30, 40, 0.9, 0], [5, 5, 20, 20, 0.8, 0], [0, 0, 64, 48, 0.123456789, 1]]


def found(stem="a", rows=(), *, number=0, fps=10.0, level=90, size_hw=SIZE_HW, seconds=None, suffix=".jpg"):
    """What a detector found in a grey picture, or in frame `number` of a video."""
    image = np.full((*size_hw, 3), level, np.uint8)
    video = {"number": number, "fps": fps, "seconds": seconds} if number else {}
    frame = Frame(Path(f"in/{stem}{'.mp4' if number else suffix}"), image, 1, 1, **video)
    return Found(frame, stem, np.array(rows, np.float32).reshape(-1, 6), annotated=image)


def names_in(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


# ---------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("paths", "stems"),
    [
        ([], []),
        (["a/clip_7.jpg", "a/clip.mp4"], ["clip_7", "clip_2"]),
        (["a/clip.mp4", "a/CLIP_7.jpg"], ["clip", "CLIP_7_2"]),
        (["a/clip_2.jpg", "b/clip_x.jpg", "a/clip.mp4"], ["clip_2", "clip_x", "clip_3"]),
        (["a/clip.mp4", "a/clip_7.mp4"], ["clip", "clip_7"]),
        (["a/bus.jpg", "a/bus_7.jpg"], ["bus", "bus_7"]),
        (["street_1.jpg", "rtsp_street", "rtsp_street_2"], ["street_1", "rtsp_street", "rtsp_street_2"]),
    ],
)
def test_no_frame_of_a_video_has_the_name_of_a_picture(paths, stems):
    assert list(unique_stems([Path(path) for path in paths]).values()) == stems


# --------------------------------------------------------------------------------------------------------------- videos
def test_a_picture_is_no_video(tmp_path):
    sink = AnnotatedSink(tmp_path)
    sink.write(found(suffix=".PNG"))
    sink.close()
    assert names_in(tmp_path) == ["a.PNG"]


def test_videos_come_one_after_the_other_and_play_at_their_own_rates(tmp_path):
    sink = AnnotatedSink(tmp_path)
    for stem, fps, numbers in (("a", 10, range(1, 6)), ("b", 25, range(1, 20, 3))):
        for number in numbers:
            sink.write(found(stem, number=number, fps=fps))
        assert len(sink._videos) == 1  # the one before is closed
    sink.close()
    for stem, fps, count in (("a", 10, 5), ("b", 25 / 3, 7)):
        frames = list(read_video(tmp_path / f"{stem}.mp4"))
        assert len(frames) == count
        assert frames[0].fps == pytest.approx(fps, rel=1e-3)


def test_streams_side_by_side_have_a_file_each_and_their_true_speed(tmp_path):
    sink = AnnotatedSink(tmp_path, live=True)
    for number in range(1, 6):
        for stem, level in (("left", 50), ("right", 200)):  # far slower than the 30 frames a second that they tell
            sink.write(found(stem, number=7 * number, fps=30, level=level, seconds=100 + 2 * number))
    sink.close()
    for stem, level in (("left", 50), ("right", 200)):
        frames = list(read_video(tmp_path / f"{stem}.mp4"))
        assert [frame.image.mean() for frame in frames] == pytest.approx([level] * 5, abs=4)
        assert frames[0].fps == pytest.approx(0.5, rel=1e-3)


def test_a_stream_without_a_clock_plays_at_its_rate(tmp_path):
    sink = AnnotatedSink(tmp_path, live=True)
    for number in range(1, 6):
        sink.write(found(number=number, fps=10))
    sink.close()
    assert next(read_video(tmp_path / "a.mp4")).fps == pytest.approx(10)


def test_a_stream_that_changes_its_size_goes_on(tmp_path):
    sink = AnnotatedSink(tmp_path, live=True)
    for number, size_hw in enumerate([(48, 64), (64, 48), (480, 640)], start=1):
        sink.write(found(number=number, size_hw=size_hw))
    sink.close()
    assert [frame.image.shape for frame in read_video(tmp_path / "a.mp4")] == [(48, 64, 3)] * 3


# --------------------------------------------------------------------------------------------------------------- labels
def test_label_lines_are_those_of_the_reference(golden_json):
    cases = golden_json("detections")
    images = [image for case in cases.values() for image in case["images"]]
    assert len(images) > 5
    for image in images:
        rows = np.array(image["det_int_xyxy_conf_cls"], np.float32).reshape(-1, 6)
        lines = label_lines(rows, tuple(image["original_hw"]), with_confidence=True)
        expected = [line.split() for line in image["save_txt_lines_with_conf"]]
        assert [line.split()[:5] for line in lines] == [line[:5] for line in expected]
        confidences = ([float(line.split()[5]) for line in lines], [float(line[5]) for line in expected])
        np.testing.assert_allclose(*confidences, atol=2e-6)


def test_label_files_of_frames_bear_their_number(tmp_path):
    sink = LabelSink(tmp_path)
    for number in (3, 4, 12):
        sink.write(found("clip", ROWS if number > 3 else [], number=number))
    sink.write(found("bus", ROWS[:1]))
    assert names_in(tmp_path) == ["bus.txt", "clip_12.txt", "clip_4.txt"]
    assert sink.count == 3
    assert (tmp_path / "bus.txt").read_text() == "0 0.3125 0.520833 0.3125 0.625\n"


# ---------------------------------------------------------------------------------------------------------------- crops
def test_crops_are_named_by_picture_or_frame(tmp_path):
    sink = CropSink(tmp_path, NAMES)
    sink.write(found("bus"))
    assert names_in(tmp_path) == []
    sink.write(found("bus", ROWS))
    for number in (1, 12):
        sink.write(found("clip", ROWS, number=number))
    assert names_in(tmp_path) == sorted(
        ["cat/bus.jpg", "cat/bus2.jpg", "cat/clip_1.jpg", "cat/clip_1-2.jpg", "cat/clip_12.jpg", "cat/clip_12-2.jpg"]
        + ["a_b/bus.jpg", "a_b/clip_1.jpg", "a_b/clip_12.jpg"]
    )
    assert cv2.imread(str(tmp_path / "cat" / "bus.jpg")).shape == (41, 31, 3)  # the most confident one


# --------------------------------------------------------------------------------------------------------------- tables
def test_rows_of_the_table_are_there_at_once(tmp_path):
    sink = CsvSink(tmp_path / "predictions.csv", {0: 'a "cat", 猫', 1: "b"})
    sink.write(found())
    sink.write(found("clip", ROWS, number=7))
    with open(tmp_path / "predictions.csv", encoding="utf-8", newline="") as stream:  # before close()
        rows = list(csv.reader(stream))
    sink.close()
    assert rows[0][:3] == ["Image Name", "Prediction", "Confidence"]
    assert rows[1] == ["clip.mp4", 'a "cat", 猫', "0.9000", "7", "10", "10", "30", "40"]
    assert len(rows) == 4


def test_json_is_whole_after_each_frame(tmp_path):
    file = tmp_path / "predictions.json"
    sink = JsonSink(file, NAMES)
    assert json.loads(file.read_bytes()) == []
    counts = []
    for each in (found("000000000042", ROWS[:1]), found("bus"), found("clip", ROWS[1:], number=7)):
        sink.write(each)
        counts.append(len(json.loads(file.read_bytes())))
    sink.close()
    assert counts == [1, 1, 3]
    first, _, last = json.loads(file.read_bytes())
    assert first == {
        **{"image_id": 42, "file_name": "000000000042.jpg", "category_id": 0},
        **{"bbox": [10, 10, 20, 30], "score": 0.9},
    }
    assert (last["image_id"], last["file_name"], last["category_id"]) == ("clip_7", "clip.mp4", 1)
    assert last["score"] == 0.12346


def test_coco_classes_have_cocos_numbers(tmp_path):
    names = {0: "person", **{cls: f"class{cls}" for cls in range(1, 79)}, 79: "toothbrush"}
    sink = JsonSink(tmp_path / "p.json", names)
    sink.write(found(rows=[[0, 0, 1, 1, 0.5, 79]]))
    sink.close()
    assert json.loads((tmp_path / "p.json").read_bytes())[0]["category_id"] == COCO_CATEGORIES[79] == 90


# -------------------------------------------------------------------------------------------------------------- windows
@pytest.fixture
def screen(monkeypatch):
    """What is shown: a list of (call, window, ...); screen.key is the key that is pressed."""

    class Screen(list):
        key = -1

    shown = Screen()
    monkeypatch.setattr(cv2, "namedWindow", lambda title, flags: shown.append(("open", title)))
    monkeypatch.setattr(cv2, "resizeWindow", lambda title, width, height: shown.append(("size", title, width, height)))
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(("show", title)))
    monkeypatch.setattr(cv2, "waitKey", lambda milliseconds: shown.key)
    return shown


def test_each_stream_has_its_window_no_larger_than_a_screen(screen):
    sink = WindowSink()
    for number in (1, 2):
        sink.write(found("left", number=number, size_hw=(3000, 2000)))
        sink.write(found("right", number=number))
    opened = [("open", "left"), ("size", "left", 533, 800), ("show", "left")]
    assert screen == [*opened, ("open", "right"), ("size", "right", 64, 48), ("show", "right")] + [
        ("show", "left"),
        ("show", "right"),
    ]


@pytest.mark.parametrize(("key", "ends"), [(-1, False), (ord("x"), False), (ord("q"), True), (27, True)])
def test_q_and_escape_end_the_run(screen, key, ends):
    screen.key = key
    if not ends:
        WindowSink().write(found())
        return
    with pytest.raises(KeyboardInterrupt):
        WindowSink().write(found())


# ------------------------------------------------------------------------------------------------------------- failures
FULL = OSError(28, "No space left on device")


class Failing:
    """Fails for one stem, and at the end."""

    def __init__(self, error=FULL):
        self.error, self.written = error, []

    def write(self, found):
        self.written.append(found.numbered_stem)
        if found.stem == "bad":
            raise self.error

    def close(self):
        raise self.error


class Sound(Failing):
    def __init__(self):
        super().__init__()
        self.closed = False

    def write(self, found):
        self.written.append(found.numbered_stem)

    def close(self):
        self.closed = True


def test_no_sinks():
    with Sinks({}) as sinks:
        sinks.write(found())
    assert sinks.failed == []
    assert list(sinks) == []


def test_a_failing_sink_costs_neither_others_nor_other_pictures(capsys):
    failing, sound = Failing(), Sound()
    with Sinks({"labels": failing, "crops": sound}) as sinks:
        for each in (found("a"), found("bad", number=1), found("bad", number=2), found("b")):
            sinks.write(each)
    assert failing.written == ["a", "bad_1", "b"]
    assert sound.written == ["a", "bad_1", "bad_2", "b"]
    assert sound.closed
    assert sinks.failed == ["writing labels of bad", "finishing labels"]
    assert list(sinks) == [failing, sound]
    told = capsys.readouterr().err
    assert told.count("No space left") == 2
    assert "writing labels of bad failed" in told


def test_ctrl_c_passes_and_everything_is_closed():
    failing, sound = Failing(KeyboardInterrupt()), Sound()
    failing.close = lambda: None
    with pytest.raises(KeyboardInterrupt), Sinks({"window": failing, "crops": sound}) as sinks:
        sinks.write(found("bad"))
    assert sound.closed


def test_a_directory_that_is_gone_is_told_and_the_table_is_complete(tmp_path, capsys):
    gone = tmp_path / "gone"
    with Sinks({"pictures": AnnotatedSink(gone), "table": CsvSink(tmp_path / "p.csv", NAMES)}) as sinks:
        for each in (found("a", ROWS), found("clip", ROWS, number=1), found("clip", ROWS, number=2)):
            sinks.write(each)
    assert sinks.failed == ["writing pictures of a", "writing pictures of clip"]
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 10
    assert str(gone / "clip.mp4") in capsys.readouterr().err


def test_videos_that_cannot_be_finished_do_not_keep_others_from_it(tmp_path, monkeypatch):
    sink = AnnotatedSink(tmp_path, live=True)
    for stem in ("a", "b", "c"):
        sink.write(found(stem, number=1))
    monkeypatch.setattr(sink._videos["b"], "close", lambda: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        sink.close()
    assert len(list(read_video(tmp_path / "a.mp4"))) == len(list(read_video(tmp_path / "c.mp4"))) == 1


def test_a_picture_that_no_format_holds_is_told(tmp_path):
    with pytest.raises(InputError, match=r"a\.webp"):
        AnnotatedSink(tmp_path).write(found(size_hw=(1, 20_000), suffix=".webp"))


# ------------------------------------------------------------------------------------------------------------ full disk
@contextmanager
def full_after(size):
    """No file can become larger than that many bytes: the write that goes beyond fails, after what still fits."""
    resource = pytest.importorskip("resource", reason="needs a limit for the size of files, which Windows has not")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (LabelSink, ["bus.txt"]),
        (lambda folder: CropSink(folder, NAMES), ["cat/bus.jpg"]),
        (AnnotatedSink, ["bus.jpg"]),
    ],
    ids=["labels", "crops", "pictures"],
)
def test_a_file_is_whole_or_not_there_where_the_disk_is_full(make, names, tmp_path):
    sink = make(tmp_path)
    with full_after(10), pytest.raises(OSError, match="File too large"):
        sink.write(found("bus", ROWS[:1]))
    assert names_in(tmp_path) == []
    sink.write(found("bus", ROWS[:1]))
    assert names_in(tmp_path) == names


def test_json_is_whole_where_the_disk_is_full(tmp_path):
    file = tmp_path / "predictions.json"
    sink = JsonSink(file, NAMES)
    sink.write(found("a", ROWS[:1]))
    with full_after(file.stat().st_size + 50), pytest.raises(OSError, match="File too large"):
        sink.write(found("b", ROWS))
    assert [row["image_id"] for row in json.loads(file.read_bytes())] == ["a"]
    sink.write(found("c", ROWS[:1]))
    sink.close()
    assert [row["image_id"] for row in json.loads(file.read_bytes())] == ["a", "c"]


def test_a_table_that_could_not_grow_has_all_rows_once_there_is_room(tmp_path):
    sink = CsvSink(tmp_path / "p.csv", NAMES)
    with full_after(80), pytest.raises(OSError, match="File too large"):
        sink.write(found("a", ROWS))
    sink.write(found("b", ROWS[:1]))
    sink.close()
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as stream:
        assert [row[0] for row in csv.reader(stream)][1:] == ["a.jpg"] * 3 + ["b.jpg"]
