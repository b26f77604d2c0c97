"""val.py as people call it: through the shell on tiny data, and from Python."""

import inspect
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import val
from tests.shell import shell
from utils.errors import InputError

NAMES = ["circle", "square"]
LEFT = {
    *(f"{name}_curve.png" for name in ("F1", "P", "R", "PR")),
    *("confusion_matrix.png", "val_batch0_labels.jpg", "val_batch0_pred.jpg"),
    "val_findings.csv",  # one of the tiny set's pictures has no label file
}


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory):
    """A data YAML with two training, two validation and one test picture, the second of each without a label file."""
    root = tmp_path_factory.mktemp("tiny")
    for split, count in (("train", 2), ("val", 2), ("test", 1)):
        for number in range(count):
            image = np.full((48, 64, 3), 60, np.uint8)
            cv2.circle(image, (20, 24), 12, (200, 220, 90), -1)
            for folder in ("images", "labels"):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), image)
            if number == 0:
                (root / "labels" / split / "0.txt").write_text("0 0.3125 0.5 0.375 0.5\n")
    splits = {split: f"images/{split}" for split in ("train", "val", "test")}
    file = root / "tiny.yaml"
    file.write_text(yaml.safe_dump({"path": str(root), **splits, "nc": 2, "names": NAMES, "imgsz": 64}))
    return file


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory):
    """An untrained two-class nano model as a checkpoint."""
    from models.weights import save_checkpoint
    from models.yolo import DetectionModel

    file = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(file, model=DetectionModel("yolov5n.yaml", nc=2, names=NAMES), epoch=0, best_fitness=0.0)
    return file


def test_everything_a_run_leaves(tiny_data, tiny_weights, tmp_path):
    answer = shell(
        "val.py",
        *("--data", tiny_data, "--weights", tiny_weights, "--project", tmp_path, "--conf-thres", 0, "--max-det", 5),
        *("--save-txt", "--save-conf", "--save-json", "--device", "cpu", "--workers", 0),
    )
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"Class +Images +Labels +P +R +mAP@\.5 +mAP@\.5:\.95", answer.stderr)
    assert re.search(r"^ +all +2 +1 ", answer.stderr, re.M)
    assert "64" in answer.stderr  # the data YAML's own image size was taken
    run_dir = tmp_path / "exp"
    assert {file.name for file in run_dir.iterdir()} == LEFT | {"labels", "tiny_predictions.json"}
    for number in range(2):
        rows = np.loadtxt(run_dir / "labels" / f"{number}.txt", ndmin=2)
        assert rows.shape == (5, 6)
        assert ((rows >= 0) & (rows <= 1)).all()
    rows = json.loads((run_dir / "tiny_predictions.json").read_text())
    assert {row["image_id"] for row in rows} == {0, 1}
    assert len(rows) == 10
    val.run(data=tiny_data, weights=tiny_weights, project=tmp_path, workers=0, device="cpu")
    assert {file.name for file in (tmp_path / "exp2").iterdir()} == LEFT


def test_the_attention_of_a_dynamic_model(tiny_data, tmp_path, capsys):
    from models.weights import save_checkpoint
    from models.yolo import DetectionModel

    file = tmp_path / "dynamic.pt"
    save_checkpoint(file, model=DetectionModel("yolov5n_dyconv.yaml", nc=2, names=NAMES))
    val.run(data=tiny_data, weights=file, project=tmp_path, workers=0, device="cpu", attention=True)
    assert {file.name for file in (tmp_path / "exp").iterdir()} == LEFT | {"attention.png", "attention.csv"}
    assert "layer model.14.conv: entropy " in capsys.readouterr().err
    rows = (tmp_path / "exp" / "attention.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 4 * 2  # layers, kernels, all and one class


@pytest.mark.parametrize(("task", "images"), [("train", 2), ("val", 2), ("test", 1)])
def test_tasks(tiny_data, tiny_weights, tmp_path, task, images):
    metrics = val.run(data=tiny_data, weights=tiny_weights, task=task, project=tmp_path, workers=0, device="cpu")
    assert (metrics.images, metrics.labels) == (images, 1)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"half": True}, {"exist_ok": True}, {"imgsz": 70}])
def test_options_that_change_no_count(tiny_data, tiny_weights, tmp_path, options):
    metrics = val.run(data=tiny_data, weights=tiny_weights, project=tmp_path, workers=0, device="cpu", **options)
    assert (metrics.images, metrics.labels) == (2, 1)
    assert (tmp_path / "exp" / "confusion_matrix.png").exists()


def test_the_speed_task_measures_and_leaves_nothing(tiny_data, tiny_weights, tmp_path, capsys):
    metrics = val.run(data=tiny_data, weights=tiny_weights, task="speed", project=tmp_path, workers=0, device="cpu")
    assert metrics.images == 2
    assert min(metrics.speed_ms) > 0
    assert re.search(
        r"Speed: [\d.]+ ms preprocess, [\d.]+ ms inference, .* at batch size \d+ and 64 pixels", capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def test_the_study_of_image_sizes(tiny_data, tiny_weights, tmp_path, monkeypatch, capsys):
    from engine import size_study

    monkeypatch.setattr(size_study, "IMAGE_SIZES", (64, 96))
    weights = [tiny_weights, tiny_weights]
    points = val.run(data=tiny_data, weights=weights, task="study", project=tmp_path, workers=0, device="cpu")
    assert [(point.model, point.imgsz) for point in points] == [
        (name, size) for name in ("tiny", "tiny (2)") for size in (64, 96)
    ]
    assert {file.name for file in (tmp_path / "exp").iterdir()} == {"study.csv", "study.png"}
    rows = (tmp_path / "exp" / "study.csv").read_text().splitlines()
    assert rows[0].startswith("model,imgsz,precision,recall,map50,map,")
    assert [row.split(",")[:2] for row in rows[1:]] == [[point.model, str(point.imgsz)] for point in points]
    assert re.search(r"^ +tiny \(2\) +96 ", capsys.readouterr().err, re.M)


def test_augmentation_and_ensembles_see_more(tiny_data, tiny_weights, tmp_path):
    options = {"data": tiny_data, "project": tmp_path, "workers": 0, "device": "cpu", "save_txt": True}
    options |= {"conf_thres": 0, "max_det": 100_000, "iou_thres": 1}
    counts = []
    for more in ({}, {"augment": True}, {"weights": [tiny_weights, tiny_weights]}):
        val.run(**{"weights": tiny_weights, **options, **more})
        file = sorted(tmp_path.iterdir(), key=lambda path: len(path.name) * 10 + int(path.name[3:] or 1))[-1]
        counts.append(len((file / "labels" / "0.txt").read_text().splitlines()))
    assert counts[0] < counts[1]
    assert counts[2] == 2 * counts[0]


def test_hybrid_label_files_have_the_labels_first(tiny_data, tiny_weights, tmp_path):
    options = {"save_hybrid": True, "save_conf": True, "conf_thres": 0.9}
    val.run(data=tiny_data, weights=tiny_weights, project=tmp_path, workers=0, device="cpu", **options)
    rows = np.loadtxt(tmp_path / "exp" / "labels" / "0.txt", ndmin=2)
    np.testing.assert_allclose(rows[-1], [0, 0.3125, 0.5, 0.375, 0.5, 1], atol=1e-4)  # least confident first
    assert not (tmp_path / "exp" / "labels" / "1.txt").exists()  # nothing known, nothing found


def test_single_cls_takes_weights_of_any_number_of_classes(tiny_data, tiny_weights, tmp_path):
    metrics = val.run(data=tiny_data, weights=tiny_weights, project=tmp_path, workers=0, device="cpu", single_cls=True)
    assert metrics.maps.shape == (1,)


def test_the_newest_run_is_the_default(tiny_data, tiny_weights, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "train" / "exp" / "weights"
    folder.mkdir(parents=True)
    (folder / "best.pt").write_bytes(tiny_weights.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert val.run(data=tiny_data, workers=0, device="cpu").images == 2
    assert (tmp_path / "runs" / "val" / "exp" / "PR_curve.png").exists()


def test_the_data_of_the_training_is_the_default(tiny_data, tmp_path):
    from models.weights import save_checkpoint, strip_optimizer
    from models.yolo import DetectionModel

    file, model = tmp_path / "own.pt", DetectionModel("yolov5n.yaml", nc=2, names=NAMES)
    save_checkpoint(file, model=model, info={"opt": {"data": str(tiny_data)}})
    strip_optimizer(file)
    assert val.run(weights=file, project=tmp_path, workers=0, device="cpu").images == 2


def test_weights_trained_with_single_cls_are_validated_with_it(tiny_data, tiny_weights, tmp_path, monkeypatch, capsys):
    from engine import comparer
    from models.weights import save_checkpoint
    from models.yolo import DetectionModel

    for name, value in {"RESAMPLES": 50, "ROUNDS": 3, "WARMUP_ROUNDS": 1}.items():
        monkeypatch.setattr(comparer, name, value)
    file, model = tmp_path / "one.pt", DetectionModel("yolov5n.yaml", nc=1, names=["item"])
    save_checkpoint(file, model=model, info={"opt": {"data": str(tiny_data), "single_cls": True}})
    settings = {"project": tmp_path, "workers": 0, "device": "cpu"}
    assert val.run(weights=file, **settings).maps.shape == (1,)
    assert f"--single-cls is what {file} was trained with: the 2 classes of " in capsys.readouterr().err
    compared = val.run(weights=[tiny_weights, file], data=tiny_data, task="compare", **settings)
    assert [model.metrics.maps.shape for model in compared.models] == [(1,), (1,)]


ERRORS = {
    # case: (arguments beside data and weights, what the message tells)
    "no run": ({"weights": None}, "python train.py"),
    "no weights file": ({"weights": "nowhere.pt"}, r"nowhere\.pt"),
    "no data file": ({"data": "nowhere.yaml"}, r"nowhere\.yaml"),
    "number of classes": ({"data": "three.yaml"}, r"tiny\.pt knows 2 classes, but .*three\.yaml has 3"),
    "no such split": ({"data": "no_test.yaml", "task": "test"}, r"--task test: .*no_test\.yaml"),
    "confidence": ({"conf_thres": 2}, "--conf-thres: 0 to 1 was expected, got 2"),
    "batch size": ({"batch_size": 0}, "--batch-size: 1 or more was expected, got 0"),
    "conf without txt": ({"save_conf": True}, "--save-txt"),
    "attention of a static model": ({"attention": True}, "has no dynamic layer"),
    "files of a study": ({"task": "study", "save_txt": True}, "--save-txt: leave it out beside --task study"),
    "attention of a study": ({"task": "study", "attention": True}, "--attention: leave it out beside --task study"),
    "files of a speed": ({"task": "speed", "save_json": True}, "--save-json: leave it out beside --task speed"),
    "no such task": ({"task": "train2"}, "--task: one of train, val, test, speed, study, compare was expected"),
    "no runtime": ({"weights": "model.doc"}, r"expected a file or folder that ends in \.pt"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_used_is_told(tiny_data, tiny_weights, tmp_path, monkeypatch, case):
    arguments, message = ERRORS[case]
    content = yaml.safe_load(tiny_data.read_text())
    without_test = {key: value for key, value in content.items() if key != "test"}
    (tmp_path / "three.yaml").write_text(yaml.safe_dump({**content, "nc": 3, "names": ["a", "b", "c"]}))
    (tmp_path / "no_test.yaml").write_text(yaml.safe_dump(without_test))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        val.run(**{"data": tiny_data, "weights": tiny_weights, "workers": 0, "device": "cpu", **arguments})
    assert not (tmp_path / "runs").exists()  # nothing is left behind


def test_the_shell_shows_one_message(tmp_path):
    answer = shell("val.py", "--weights", "nowhere.pt", cwd=tmp_path)
    assert answer.returncode == 1
    assert re.fullmatch(r"YOLOv5 with .*\nError: .*nowhere\.pt.*\n", answer.stderr)


def test_run_takes_the_flags_of_the_shell():
    parameters = inspect.signature(val.run).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == vars(val.parse_opt([]))
    with pytest.raises(TypeError, match="image_size"):
        val.run(image_size=64)


# ------------------------------------------------------------------------------------------ golden, through the script
def test_golden_through_the_shell(shared, golden_json, tmp_path):
    """P, R and mAP of the official nano weights on coco8, as the reference has them."""
    weights, data = shared("weights/yolov5n.pt"), shared("datasets/coco8/coco8.yaml")
    expected = next(run for run in golden_json("val") if run["split"] == "val" and run["dataset"] == "coco8")
    answer = shell(
        "val.py", "--weights", weights, "--data", data, "--project", tmp_path, "--device", "cpu", "--workers", 0
    )
    assert answer.returncode == 0, answer.stderr
    (cells,) = re.findall(r"^ +all +(.*)$", answer.stderr, re.M)
    figures = [float(cell) for cell in cells.split()]
    keys = ("images", "labels", "P", "R", "mAP50", "mAP50_95")
    assert figures == pytest.approx([expected[key] for key in keys], abs=1e-3)


@pytest.mark.parametrize("number", range(6))
def test_golden_runs(shared, golden_json, tmp_path, number):
    """All stored validations, class by class, with the number of predictions and the confusion matrix."""
    expected = golden_json("val")[number]
    weights = shared(f"weights/{expected['checkpoint']}")
    data = shared(f"datasets/{expected['dataset']}/{expected['dataset']}.yaml")
    settings = {key: expected["settings"][key] for key in ("imgsz", "batch_size", "conf_thres", "iou_thres")}
    metrics = val.run(
        weights=weights,
        data=data,
        task=expected["split"],
        single_cls=expected["settings"]["single_cls"],
        augment=expected["settings"]["augment"],
        project=tmp_path,
        device="cpu",
        workers=0,
        save_json=True,
        **settings,
    )
    found = (metrics.precision, metrics.recall, metrics.map50, metrics.map)
    assert found == pytest.approx([expected[key] for key in ("P", "R", "mAP50", "mAP50_95")], abs=1e-3)
    assert (metrics.images, metrics.labels) == (expected["images"], expected["labels"])
    assert [row.cls for row in metrics.per_class] == [row["cls"] for row in expected["per_class"]]
    for row, reference in zip(metrics.per_class, expected["per_class"], strict=True):
        values = (row.labels, row.precision, row.recall, row.map50, row.map)
        keys = ("labels", "P", "R", "AP50", "AP50_95")
        assert values == pytest.approx([reference[key] for key in keys], abs=1e-3), row.name
    (file,) = (tmp_path / "exp").glob("*_predictions.json")
    assert len(json.loads(file.read_text())) == expected["n_predictions_after_nms"]


def coco_annotations(dataset: Path, split: str, names: dict[int, str]) -> dict:
    """COCO's annotation format made from label files."""
    rows, images = [], []
    for file in sorted((dataset / "images" / split).glob("*.jpg")):
        height, width = cv2.imread(str(file)).shape[:2]
        images.append({"id": int(file.stem), "file_name": file.name, "width": width, "height": height})
        for cls, x, y, w, h in np.loadtxt(dataset / "labels" / split / f"{file.stem}.txt", ndmin=2):
            box = {"bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]}
            row = {"id": len(rows) + 1, "image_id": int(file.stem), "category_id": int(cls) + 500, "iscrowd": 0}
            rows.append({**row, **box, "area": w * width * h * height})
    kinds = [{"id": cls + 500, "name": name} for cls, name in names.items()]
    return {"images": images, "annotations": rows, "categories": kinds}


def test_coco_score_of_coco8(shared, golden_json, tmp_path, capsys):
    """With annotations beside the data, --save-json is scored by COCO's rules."""
    pytest.importorskip("faster_coco_eval", reason="needs the optional package faster-coco-eval")
    expected, dataset = golden_json("dataset_facts")["coco_ap"], shared("datasets/coco8")
    shutil.copytree(dataset, tmp_path / "coco8", copy_function=shutil.copyfile)
    content = yaml.safe_load((dataset / "coco8.yaml").read_text())
    (tmp_path / "coco8").chmod(0o755)
    (tmp_path / "coco8" / "annotations").mkdir()
    annotations = json.dumps(coco_annotations(dataset, "val", content["names"]))
    (tmp_path / "coco8" / "annotations" / "instances_val2017.json").write_text(annotations)
    metrics = val.run(
        weights=shared("weights/yolov5n.pt"), data=tmp_path / "coco8" / "coco8.yaml", project=tmp_path, workers=0,
        device="cpu", save_json=True,
    )  # fmt: skip
    assert metrics.coco == pytest.approx((expected["AP"], expected["AP50"]), abs=5e-3)
    table = re.findall(r"Average (?:Precision|Recall) .* = (-?[\d.]+)", capsys.readouterr().err)
    assert [float(cell) for cell in table[:2]] == pytest.approx(metrics.coco, abs=1e-3)
    assert len(table) >= 12
    assert metrics.map == pytest.approx(0.4039, abs=1e-3)  # our own sum stays beside it
