"""The loop of detect.py around a network that sees the same boxes in every picture."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import detect
from engine import predictor as predictor_module
from engine.inputs import image_sides
from models.runtime_torch import TorchBackend
from utils.annotator import class_colour
from utils.errors import InputError
from utils.outputs import Found, label_lines, safe_file_name, unique_stems, write_image
from utils.sources import Frame
from utils.video import VideoSink, read_video

SIZE_HW = (64, 128)  # of the pictures: no resizing at --imgsz 128, no border with 32-pixel strides


class Seer(nn.Module):
    """Finds rows [x1, y1, x2, y2, confidence, class] in every picture, in pixels of the network's input."""

    names = {0: "cat", 1: "bus", 2: "../a/b"}
    stride = torch.tensor([8.0, 16, 32])

    def __init__(self, rows):
        super().__init__()
        self.pred = nn.Parameter(torch.zeros(1, max(len(rows), 1), 8), requires_grad=False)
        for index, (x1, y1, x2, y2, confidence, cls) in enumerate(rows):
            sides = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, confidence)
            self.pred[0, index, :5] = torch.tensor(sides)
            self.pred[0, index, 5 + cls] = 1

    def layer_outputs(self, images):
        yield 0, "models.common.Conv", images[:, :1]
        yield 1, "models.yolo.Detect", (self.pred.clone(), [])

    def forward(self, images):
        *_, (_, _, output) = self.layer_outputs(images)
        return output


ROWS = [[10, 10, 30, 40, 0.9, 0], [60, 20, 100, 50, 0.8, 1], [61, 21, 99, 51, 0.7, 1], [100, 0, 127, 20, 0.5, 2]]


@pytest.fixture
def seeing(monkeypatch):
    """seeing(rows): the network of the next runs."""
    return lambda rows: monkeypatch.setattr(predictor_module, "load_backend", lambda *_, **__: TorchBackend(Seer(rows)))


@pytest.fixture
def pictures(tmp_path):
    """A directory of two pictures that share a stem, and a video of five frames."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    grey = np.full((*SIZE_HW, 3), 90, np.uint8)
    for name in ("one.png", "one.jpg"):
        cv2.imwrite(str(folder / name), grey)
    with VideoSink(folder / "clip.mp4", fps=10, size_wh=SIZE_HW[::-1]) as sink:
        for _ in range(5):
            sink.write(grey)
    return folder


def run(source, **options):
    beside = source.parents[0 if source.is_dir() else 1] / "runs"
    options = {"weights": "w.pt", "project": beside, "device": "cpu", "imgsz": [128], **options}
    return detect.run(source=source, **options)


def files_below(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_nothing_found_is_told_and_the_pictures_are_saved(pictures, seeing, capsys):
    seeing([])
    result = run(pictures, save_txt=True, save_crop=True)
    assert (result.frames, result.boxes, result.skipped) == (7, 0, ())
    assert files_below(result.save_dir) == {"one.jpg", "one_2.png", "clip.mp4"}
    told = capsys.readouterr().err
    assert f"image 1/3 {pictures / 'one.jpg'}: 64x128 (no detections), " in told
    assert f"video 3/3 (5/5) {pictures / 'clip.mp4'}: 64x128 (no detections), " in told


def test_everything_that_can_be_saved(pictures, seeing, capsys):
    seeing(ROWS)
    result = run(pictures, save_txt=True, save_conf=True, save_crop=True, save_csv=True, visualize=True)
    frames = [f"clip_{number}" for number in range(1, 6)]
    features = {
        f"{stem}/stage0_Conv_features{suffix}" for stem in ("one", "one_2", *frames) for suffix in (".png", ".npy")
    }
    crops = {f"crops/{cls}/{stem}.jpg" for cls in ("cat", "bus", "_a_b") for stem in ("one", "one_2", *frames)}
    labels = {f"labels/{stem}.txt" for stem in ("one", "one_2", *frames)}
    assert files_below(result.save_dir) == {
        *("one.jpg", "one_2.png", "clip.mp4", "predictions.csv"),
        *features,
        *crops,
        *labels,
    }
    assert (result.frames, result.boxes) == (7, 21)
    told = capsys.readouterr().err
    assert "64x128 1 cat, 1 bus, 1 ../a/b, " in told
    assert "Speed: " in told
    assert f"Results saved to {result.save_dir}" in told
    lines = (result.save_dir / "labels" / "one.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["2", "1", "0"]  # least confident first
    assert [float(value) for value in lines[2].split()] == pytest.approx([0, 20 / 128, 25 / 64, 20 / 128, 30 / 64, 0.9])
    with open(result.save_dir / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 21
    assert rows[0] | {"Confidence": ""} == {
        **{"Image Name": "one.jpg", "Prediction": "cat", "Confidence": "", "Frame": ""},
        **{"x1": "10", "y1": "10", "x2": "30", "y2": "40"},
    }
    assert rows[-1]["Frame"] == "5"


def test_the_annotated_picture_has_the_boxes_and_the_crop_has_not(pictures, seeing):
    seeing(ROWS[:1])
    result = run(pictures, save_crop=True, hide_labels=True, line_thickness=1)
    annotated = cv2.imread(str(result.save_dir / "one_2.png"))
    assert annotated[25, 10].tolist() != [90, 90, 90]
    assert annotated[25, 20].tolist() == [90, 90, 90]
    crop = cv2.imread(str(result.save_dir / "crops" / "cat" / "one_2.jpg"))
    assert np.abs(crop.astype(int) - 90).max() <= 2


@pytest.mark.parametrize(("stride", "fps", "count"), [(1, 10, 5), (2, 5, 3)])
def test_videos_play_at_the_speed_of_the_source(pictures, seeing, stride, fps, count):
    seeing(ROWS)
    result = run(pictures / "clip.mp4", vid_stride=stride)
    frames = list(read_video(result.save_dir / "clip.mp4"))
    assert len(frames) == count
    assert frames[0].fps == pytest.approx(fps)
    assert frames[0].image.shape == (*SIZE_HW, 3)


@pytest.mark.parametrize(
    ("options", "boxes"),
    [
        ({"conf_thres": 0.95}, 0),
        ({}, 3),
        ({"conf_thres": 0.6}, 2),
        ({"iou_thres": 0.99}, 4),
        ({"max_det": 1}, 1),
        ({"classes": [1, 2]}, 2),
        ({"agnostic_nms": True}, 3),
    ],
)
def test_thresholds_reach_the_suppression(pictures, seeing, options, boxes):
    seeing(ROWS)
    assert run(pictures / "one.jpg", nosave=True, **options).boxes == boxes


@pytest.mark.parametrize(("agnostic", "boxes"), [(False, 2), (True, 1)])
def test_agnostic_suppression_is_across_classes(pictures, seeing, agnostic, boxes):
    seeing([[10, 10, 50, 50, 0.9, 0], [11, 11, 51, 51, 0.8, 1]])
    assert run(pictures / "one.jpg", nosave=True, agnostic_nms=agnostic).boxes == boxes


@pytest.mark.parametrize(("imgsz", "seen"), [([128], "64x128"), ([64, 128], "64x128"), ([128, 64], "32x64")])
def test_the_network_sees_height_and_width_in_this_order(pictures, seeing, capsys, imgsz, seen):
    seeing(ROWS)
    run(pictures / "one.jpg", nosave=True, imgsz=imgsz)
    assert f"one.jpg: {seen} " in capsys.readouterr().err


def test_the_most_confident_box_is_drawn_on_top(pictures, seeing):
    for first, second in ((0, 1), (1, 0)):
        seeing([[10, 10, 60, 40, 0.9, first], [30, 20, 90, 60, 0.8, second]])
        result = run(pictures / "one.png", hide_labels=True, line_thickness=3)
        crossing = cv2.imread(str(result.save_dir / "one.png"))[40, 30]  # the first one's bottom, the second one's left
        assert tuple(crossing[::-1].tolist()) == class_colour(first)


def test_nosave_leaves_nothing_and_runs_are_numbered(pictures, seeing):
    seeing(ROWS)
    assert run(pictures, nosave=True).save_dir is None
    runs = pictures.parent / "runs"
    assert not runs.exists()
    for name in ("exp", "exp2"):
        assert run(pictures / "one.jpg").save_dir == runs / name
    assert run(pictures / "one.jpg", exist_ok=True).save_dir == runs / "exp"
    assert files_below(run(pictures / "one.jpg", nosave=True, save_csv=True).save_dir) == {"predictions.csv"}


def test_running_again_in_one_place_replaces_labels_and_adds_crops(pictures, seeing):
    options = {"exist_ok": True, "save_txt": True, "save_crop": True}
    seeing(ROWS)
    run(pictures / "one.jpg", **options)
    seeing(ROWS[:1])
    result = run(pictures / "one.jpg", **options)
    assert len((result.save_dir / "labels" / "one.txt").read_text().splitlines()) == 1
    assert files_below(result.save_dir / "crops" / "cat") == {"one.jpg", "one2.jpg"}
    seeing([])
    assert not files_below(run(pictures / "one.jpg", **options).save_dir / "labels")


def test_label_files_of_earlier_runs_are_not_counted(pictures, seeing, capsys):
    seeing(ROWS)
    run(pictures, exist_ok=True, save_txt=True)
    assert ", 7 label files in labels" in capsys.readouterr().err
    run(pictures / "one.jpg", exist_ok=True, save_txt=True)
    assert ", 1 label files in labels" in capsys.readouterr().err
    run(pictures / "one.jpg", exist_ok=True)
    assert "label files" not in capsys.readouterr().err


def test_broken_files_are_counted_and_strips_and_dots_are_no_problem(tmp_path, seeing, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "broken.jpg").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    cv2.imwrite(str(folder / "strip.png"), np.zeros((1, 3000, 3), np.uint8))
    cv2.imwrite(str(folder / "pole.png"), np.zeros((3000, 1, 3), np.uint8))
    seeing(ROWS)
    result = run(folder)
    assert result.frames == 3
    assert [path.name for path in result.skipped] == ["broken.jpg"]
    assert "1 of 4 files could not be read and were skipped" in capsys.readouterr().err
    with pytest.raises(InputError, match="none of the 1 files"):
        run(folder / "broken.jpg")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"conf_thres": 1.5}, "--conf-thres"),
        ({"iou_thres": -0.1}, "--iou-thres"),
        ({"max_det": 0}, "--max-det"),
        ({"vid_stride": 0}, "--vid-stride"),
        ({"line_thickness": 0}, "--line-thickness"),
        ({"imgsz": [1, 2, 3]}, "--imgsz"),
        ({"imgsz": 0}, "--imgsz"),
        ({"classes": [0, 3]}, "--classes: expected numbers or names of 0 cat, 1 bus, 2 ../a/b, got 3"),
        ({"save_conf": True}, "--save-txt"),
    ],
)
def test_options_out_of_range_are_told_in_the_words_of_the_flag(pictures, seeing, options, told):
    seeing(ROWS)
    with pytest.raises(InputError, match=told):
        run(pictures, **options)
    assert not (pictures.parent / "runs").exists()


def test_names_of_the_data_and_a_wrong_number_of_them(pictures, seeing, tmp_path):
    seeing(ROWS)
    for count, names in ((3, "[x, y, z]"), (2, "[x, y]")):
        (tmp_path / f"{count}.yaml").write_text(f"path: {tmp_path}\ntrain: pictures\nval: pictures\nnames: {names}\n")
    result = run(pictures / "one.jpg", data=tmp_path / "3.yaml", save_crop=True)
    assert {file.split("/")[0] for file in files_below(result.save_dir / "crops")} == {"x", "y", "z"}
    with pytest.raises(InputError, match=r"expected the 3 classes of w\.pt, got 2"):
        run(pictures / "one.jpg", data=tmp_path / "2.yaml")


def test_without_weights_and_runs_one_sentence_says_what_to_do(pictures, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"python train\.py.*--weights"):
        run(pictures, weights="")


@pytest.mark.parametrize("weights", ["w.pt", ["w.pt"], ("w.pt",), Path("w.pt")])
def test_weights_may_be_a_list_of_one(pictures, seeing, weights):
    seeing(ROWS)
    assert run(pictures / "one.jpg", weights=weights, nosave=True).boxes == 3


def test_update_of_what_is_no_checkpoint_is_told_at_the_start(pictures, seeing):
    seeing(ROWS)
    with pytest.raises(InputError, match=r"--update renews \.pt weights: leave it out with best\.onnx"):
        run(pictures / "one.jpg", weights="best.onnx", update=True)
    assert not (pictures.parent / "runs").exists()


def test_the_newest_best_is_the_default(pictures, seeing, monkeypatch, tmp_path, capsys):
    file = tmp_path / "runs" / "train" / "exp" / "weights" / "best.pt"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.chdir(tmp_path)
    seeing(ROWS)
    assert run(pictures / "one.jpg", weights="").boxes == 3
    assert str(Path("runs/train/exp/weights/best.pt")) in capsys.readouterr().err


def test_view_img_without_the_means_is_told_and_left_out(pictures, seeing, monkeypatch, capsys):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    seeing(ROWS)
    assert run(pictures / "one.jpg", view_img=True, nosave=True).boxes == 3
    assert "--view-img is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "size"), [(640, (640, 640)), ([640], (640, 640)), ([320, 640], (320, 640)), ((96, 64), (96, 64))]
)
def test_image_sizes(given, size):
    assert image_sides(given) == size


@pytest.mark.parametrize(
    ("paths", "stems"),
    [
        ([], []),
        (["a/bus.jpg", "a/cat.jpg"], ["bus", "cat"]),
        (["a/bus.jpg", "b/BUS.png", "c/bus.mp4", "c/bus_2.jpg"], ["bus", "BUS_2", "bus_3", "bus_2_2"]),
        (["a/bus.jpg", "a/bus.jpg"], ["bus"]),
    ],
)
def test_outputs_of_different_files_have_different_names(paths, stems):
    assert list(unique_stems([Path(path) for path in paths]).values()) == stems


@pytest.mark.parametrize(
    ("name", "safe"),
    [("", "_"), ("..", "_"), ("traffic light", "traffic light"), ("../x\\y:\n", "_x_y__"), ("猫", "猫")],
)
def test_class_names_cannot_lead_out_of_the_directory(name, safe):
    assert safe_file_name(name) == safe


@pytest.mark.parametrize(("name", "written"), [("a.PNG", "a.PNG"), ("a.dng", "a.jpg"), ("a.webp", "a.webp")])
def test_formats_that_cannot_be_written_become_jpg(tmp_path, name, written):
    assert write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8)) == tmp_path / written
    assert cv2.imread(str(tmp_path / written)) is not None


def test_label_lines_of_nothing():
    assert label_lines(np.zeros((0, 6), np.float32), (10, 10), with_confidence=True) == []
    frame = Frame(Path("a.mp4"), np.zeros((1, 1, 3), np.uint8), 1, 1, number=7)
    assert Found(frame, "a", np.zeros((0, 6))).numbered_stem == "a_7"
