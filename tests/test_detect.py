"""detect.py as people call it: through the shell on tiny data, and against the reference's detections."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import detect
from tests.shell import shell

GOLDEN_CASES = (
    "yolov5n_640",
    "yolov5n_640_augment",
    "ensemble_yolov5n_twice",
    "yolov5n_320",
    "yolov5n_640_conf0.1_iou0.6_agnostic",
    "yolov5n_classes0_maxdet2",
    "ppe_640",
    "duckie_640",
    "ppe_640_conf0.05",
    "duckie_640_conf0.05",
)


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory):
    """An untrained two-class nano model as a checkpoint."""
    from models.weights import save_checkpoint
    from models.yolo import DetectionModel

    file = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(file, model=DetectionModel("yolov5n_dynamic.yaml", nc=2, names=["circle", "square"]), epoch=0)
    return file


@pytest.fixture
def folder(tmp_path):
    """A picture and a file that is none."""
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "grey.png"), np.full((48, 64, 3), 90, np.uint8))
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    return tmp_path


def test_a_directory_with_a_broken_file(folder, tiny_weights):
    answer = shell(
        "detect.py",
        *("--weights", tiny_weights, "--source", "in", "--imgsz", 64, "--conf-thres", 0, "--max-det", 3),
        *("--save-txt", "--save-conf", "--save-crop", "--save-csv", "--device", "cpu"),
        cwd=folder,
    )
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"image 1/2 skipped: .*broken\.jpg", answer.stderr)
    assert re.search(r"image 2/2 \S*grey\.png: 64x64 (\d \w+, )+\d+\.\dms", answer.stderr)
    assert "1 of 2 files could not be read" in answer.stderr
    run_dir = folder / "runs" / "detect" / "exp"
    assert {file.name for file in run_dir.iterdir()} == {"grey.png", "labels", "crops", "predictions.csv"}
    assert len((run_dir / "labels" / "grey.txt").read_text().splitlines()) == 3


def test_the_attention_of_each_picture(folder, tiny_weights):
    options = {"imgsz": 64, "device": "cpu", "visualize": True, "nosave": True, "project": folder}
    result = detect.run(weights=tiny_weights, source=folder / "in" / "grey.png", **options)
    names = {file.name for file in (result.save_dir / "grey").iterdir()}
    assert {"attention.png", "stage10_Dynamic_conv2d_features.png"} <= names


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], r"python train\.py"),
        (["--source", "nowhere/*.jpg"], r"nowhere"),
        (["--weights", "nowhere.pt"], r"nowhere\.pt"),
        (["--conf-thres", "2"], r"--conf-thres"),
    ],
)
def test_unusable_input_ends_with_one_sentence(folder, arguments, told, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    arguments = arguments if "--source" in arguments else [*arguments, "--source", "in"]
    with pytest.raises(SystemExit) as end:
        detect.main(detect.parse_opt(arguments))
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert re.search(told, message)
    assert message.strip().count("\n") <= 1  # the device may be named first
    assert not (folder / "runs").exists()


def jpeg(rng: np.random.Generator) -> bytes:
    return cv2.imencode(".jpg", rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))[1].tobytes()


BREAKAGES = {
    "empty": lambda data, rng: b"",
    "text": lambda data, rng: b"<html>404 Not Found</html>",
    "zeros": lambda data, rng: bytes(len(data)),
    "noise": lambda data, rng: rng.bytes(len(data)),
    "header alone": lambda data, rng: data[:20],
    "another format's name": lambda data, rng: b"\x89PNG\r\n\x1a\n" + data[8:],
}


@pytest.fixture(scope="module")
def broken_folder(tmp_path_factory):
    """broken_folder(number) -> a directory of ten pictures, two of them broken, in other ways for other numbers."""

    def make(number: int) -> tuple[Path, list[str], list[str]]:
        rng, folder = np.random.default_rng(number), tmp_path_factory.mktemp(f"mixed{number}") / "in"
        folder.mkdir()
        kinds, broken = list(BREAKAGES), rng.choice(10, 2, replace=False)
        for index in range(10):
            data = jpeg(rng)
            data = BREAKAGES[rng.choice(kinds)](data, rng) if index in broken else data
            (folder / f"{index}.jpg").write_bytes(data)
        names = [[f"{index}.jpg" for index in range(10) if (index in broken) is side] for side in (False, True)]
        return folder, *names

    return make


@pytest.mark.slow
def test_a_hundred_runs_with_a_fifth_of_the_files_broken(broken_folder, tiny_weights, tmp_path, capsys):
    for number in range(100):
        folder, whole, broken = broken_folder(number)
        arguments = ["--weights", tiny_weights, "--source", folder, "--imgsz", 64, "--project", tmp_path, "--save-txt"]
        arguments += ["--name", f"run{number}", "--conf-thres", 0, "--max-det", 2, "--device", "cpu", "--save-csv"]
        detect.main(detect.parse_opt([str(argument) for argument in arguments]))
        run_dir, told = tmp_path / f"run{number}", capsys.readouterr().err
        assert "2 of 10 files could not be read and were skipped" in told
        assert sorted(file.name for file in run_dir.glob("*.jpg")) == whole
        assert sorted(file.stem + ".jpg" for file in (run_dir / "labels").iterdir()) == whole
        assert {line.split(",")[0] for line in (run_dir / "predictions.csv").read_text().splitlines()[1:]} == {*whole}
        assert all(f"{folder / name}" in told for name in broken)


def test_a_run_on_broken_files_ends_well_in_the_shell(broken_folder, tiny_weights, tmp_path):
    folder, whole, _ = broken_folder(1000)
    options = ("--imgsz", 64, "--project", tmp_path, "--device", "cpu")
    answer = shell("detect.py", "--weights", tiny_weights, "--source", folder, *options)
    assert answer.returncode == 0, answer.stderr
    assert "2 of 10 files could not be read and were skipped" in answer.stderr
    assert sorted(file.name for file in (tmp_path / "exp").iterdir()) == whole


def test_what_is_not_built_is_not_offered():
    text = shell("detect.py", "--help").stdout
    flags = set(re.findall(r"--[a-z-]+", text))
    assert {"--source", "--save-csv", "--vid-stride", "--imgsz", "--img", "--img-size"} <= flags
    assert "--bucket" not in flags


def golden_source(case: dict, shared, folder: Path) -> Path:
    """A list file of the case's pictures, in its order."""
    places = {file.name: file for file in shared("datasets/coco8").rglob("*.jpg")}
    places |= {file.name: file for file in shared("images").glob("*.jpg")}
    list_file = folder / "pictures.txt"
    list_file.write_text("\n".join(str(places[image["file"]]) for image in case["images"]))
    return list_file


def golden_arguments(settings: dict) -> list[str]:
    arguments = ["--imgsz", settings["imgsz"], "--conf-thres", settings["conf"], "--iou-thres", settings["iou"]]
    arguments += ["--max-det", settings["max_det"], *(["--agnostic-nms"] if settings["agnostic"] else [])]
    arguments += ["--augment"] if settings["augment"] else []
    arguments += ["--classes", *settings["classes"]] if settings["classes"] else []
    return [str(argument) for argument in arguments]


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_detections_are_those_of_the_reference(name, golden_json, shared, tmp_path):
    case = golden_json("detections")[name]
    files = case["checkpoint"] if isinstance(case["checkpoint"], list) else [case["checkpoint"]]
    detect.main(
        detect.parse_opt(
            [
                *("--weights", *(str(shared(f"weights/{file}")) for file in files)),
                *("--project", str(tmp_path / "runs")),
                *("--source", str(golden_source(case, shared, tmp_path)), "--device", "cpu"),
                *("--save-txt", "--save-conf", "--nosave", *golden_arguments(case["settings"])),
            ]
        )
    )
    for image in case["images"]:
        file = tmp_path / "runs" / "exp" / "labels" / Path(image["file"]).with_suffix(".txt")
        lines = file.read_text().splitlines() if file.exists() else []
        assert len(lines) == image["n"], image["file"]
        if lines:
            rows = np.array([line.split() for line in lines], float)
            expected = np.array([line.split() for line in image["save_txt_lines_with_conf"]], float)
            height, width = image["original_hw"]
            pixels = (1, width, height, width, height, 1)
            np.testing.assert_array_equal(rows[:, 0], expected[:, 0])
            np.testing.assert_allclose(rows[:, 5], expected[:, 5], atol=1e-3)
            np.testing.assert_allclose(rows * pixels, expected * pixels, atol=1.01)


def test_the_pictures_of_the_shell_are_those_of_the_reference(golden_json, shared, tmp_path):
    case = golden_json("detections")["yolov5n_640"]
    answer = shell(
        "detect.py",
        *("--weights", shared("weights/yolov5n.pt"), "--source", shared("images"), "--save-txt", "--save-conf"),
        *("--project", tmp_path, "--device", "cpu"),
    )
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"image 1/2 \S*bus\.jpg: 640x480 4 persons, 1 bus, \d+\.\dms", answer.stderr)
    for image in case["images"][:2]:
        lines = (tmp_path / "exp" / "labels" / Path(image["file"]).with_suffix(".txt")).read_text().splitlines()
        assert [line.split()[:5] for line in lines] == [line.split()[:5] for line in image["save_txt_lines_with_conf"]]
        assert cv2.imread(str(tmp_path / "exp" / image["file"])).shape[:2] == tuple(image["original_hw"])
