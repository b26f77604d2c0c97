"""val.py --task compare: on synthetic pictures, and with official weights and their twin."""

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import val
from engine import comparer
from engine.comparer import MatchCollector, interleaved_ms, with_differences
from models.backend import Backend
from models.weights import build_model, read_checkpoint, save_checkpoint
from models.yolo import DetectionModel
from utils.comparison import Measured, table
from utils.errors import InputError
from utils.tally import ImageResult, Tally

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["circle", "square"]
QUALITY = ("precision", "recall", "map50", "map")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data YAML whose validation split has three pictures of a disc, and whose training split none with labels."""
    root = tmp_path_factory.mktemp("discs")
    for split, count in (("train", 2), ("val", 3)):
        for number in range(count):
            image = np.full((48, 64, 3), 60, np.uint8)
            cv2.circle(image, (20 + 8 * number, 24), 12, (200, 220, 90), -1)
            for folder in ("images", "labels"):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), image)
            if split == "val":
                (root / "labels" / split / f"{number}.txt").write_text(f"0 {(20 + 8 * number) / 64} 0.5 0.375 0.5\n")
    file = root / "discs.yaml"
    splits = {split: f"images/{split}" for split in ("train", "val")}
    file.write_text(yaml.safe_dump({"path": str(root), **splits, "nc": 2, "names": NAMES, "imgsz": 64}))
    return file


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Untrained nano models, static and dynamic, as checkpoints of two runs."""
    files = []
    for seed, cfg in enumerate(("yolov5n", "yolov5n_dynamic")):
        torch.manual_seed(seed)
        files.append(tmp_path_factory.mktemp("runs") / cfg / "weights" / "best.pt")
        files[-1].parent.mkdir(parents=True)
        save_checkpoint(files[-1], model=DetectionModel(f"{cfg}.yaml", nc=2, names=NAMES), epoch=0, best_fitness=0.0)
    return files


@pytest.fixture
def quick(monkeypatch):
    """Fewer resamples and rounds."""
    for name, value in {"RESAMPLES": 50, "ROUNDS": 3, "WARMUP_ROUNDS": 1}.items():
        monkeypatch.setattr(comparer, name, value)


def random_results(images: int = 40, permuted: bool = False) -> list[ImageResult]:
    """Images with two labels each, found for the most part and with boxes of varied precision."""
    rng, results = np.random.default_rng(0), []
    for number in range(images):
        labels = torch.tensor([[cls, 50.0 * cls, 0, 50 * cls + 40, 40] for cls in rng.integers(0, 3, 2)])
        boxes = labels[:, 1:] + torch.from_numpy(rng.uniform(-3, 3, (2, 4))).float()
        classes = (labels[:, :1] + permuted) % 3
        detections = torch.cat((boxes, torch.from_numpy(rng.uniform(0.2, 1, (2, 1))).float(), classes), 1)
        results.append(ImageResult(f"{number}.png", (40, 150), detections[: rng.integers(0, 3)], labels.float()))
    return results


def collected(results: list[ImageResult]):
    collector = MatchCollector(3)
    for result in results:
        collector.add(result)
    return collector.matches()


def test_a_twin_with_permuted_classes_is_told_from_a_model_and_the_model_from_itself_is_not():
    model, twin = collected(random_results()), collected(random_results(permuted=True))
    blank = [Measured(name, Path(name), 0, None, None) for name in ("model", "itself", "twin")]
    first, itself, other = with_differences(blank, [model, model, twin])
    assert first.differences is None
    assert (itself.differences.map.low, itself.differences.map.value, itself.differences.map.high) == (0, 0, 0)
    assert other.differences.map.high < 0
    tally = Tally(3)
    for result in random_results():
        tally.add(result)
    assert other.differences.map.value == pytest.approx(-tally.average_precision().map)


def test_a_comparison_of_a_static_a_dynamic_and_the_same_model(data, weights, tmp_path, quick):
    files = [*weights, weights[0]]
    settings = {"data": data, "workers": 0, "device": "cpu", "project": tmp_path, "conf_thres": 0}
    found = val.run(weights=files, task="compare", **settings)
    assert [model.name for model in found.models] == ["yolov5n/best", "yolov5n_dynamic/best", "yolov5n/best (2)"]
    static, dynamic, again = found.models
    assert found.imgsz == 64
    assert static.parameters == again.parameters < dynamic.parameters
    assert static.latency_ratio == 1
    assert min(model.latency_ms for model in found.models) > 0
    assert again.differences.map.low == again.differences.map.high == 0
    for model in (static, dynamic):
        alone = val.run(weights=model.weights, **settings)
        assert [getattr(model.metrics, key) for key in QUALITY] == [getattr(alone, key) for key in QUALITY]
        assert model.metrics.per_class == alone.per_class
    assert dynamic.differences.map.value == pytest.approx(dynamic.metrics.map - static.metrics.map, abs=1e-9)
    lines = {line[:12].strip(): line.split()[1:] for line in table(found).splitlines()[1:]}
    assert lines["precision"] == [f"{model.metrics.precision:.3f}" for model in found.models]
    assert {file.name for file in found.run_dir.iterdir()} == {"compare.csv", "compare.png"}
    with open(found.run_dir / "compare.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["quantity"] == "mAP50-95" and row["class"] == "circle"]
    assert [row["verdict"] for row in rows][::2] == ["", "no difference shown"]


@pytest.mark.parametrize("options", [{"single_cls": True}, {"half": True, "imgsz": 70}, {"batch_size": 1}])
def test_options(data, weights, tmp_path, quick, options):
    found = val.run(data=data, weights=weights, task="compare", workers=0, device="cpu", project=tmp_path, **options)
    assert found.models[0].metrics.images == 3
    assert found.imgsz == (96 if "imgsz" in options else 64)


def test_through_the_shell(data, weights, tmp_path):
    command = [sys.executable, str(ROOT / "val.py"), "--task", "compare", "--weights", weights[0], weights[0]]
    command += ["--data", data, "--project", tmp_path, "--device", "cpu", "--workers", "0"]
    answer = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert "no difference shown between yolov5n/best (2) and yolov5n/best in mAP50-95: +0.0000" in answer.stderr
    assert "they come from 3 images" in answer.stderr
    assert "\nx N beside a latency: N times that of yolov5n/best, the median over rounds " in answer.stderr
    assert (tmp_path / "exp" / "compare.png").exists()


ERRORS = {
    # case: (arguments, what the message tells)
    "no weights": ({"weights": None}, "two or more --weights were expected, got 0"),
    "one": ({"weights": "a.pt"}, "two or more --weights were expected, got 1"),
    "a flag for one model": ({"save_txt": True}, "--save-txt: leave it out beside --task compare"),
    "out of range": ({"conf_thres": 2}, "--conf-thres: 0 to 1 was expected"),
    "number of classes": ({"data": "three.yaml"}, r"best\.pt knows 2 classes, but .*three\.yaml has 3"),
    "no labels": ({"data": "bare.yaml"}, "two or more images with labels were expected, got 2 with 0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_compared_is_told(data, weights, tmp_path, monkeypatch, case):
    arguments, message = ERRORS[case]
    content = yaml.safe_load(data.read_text())
    (tmp_path / "three.yaml").write_text(yaml.safe_dump({**content, "nc": 3, "names": ["a", "b", "c"]}))
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump({**content, "val": content["train"]}))
    monkeypatch.chdir(tmp_path)
    settings = {"data": data, "weights": weights, "task": "compare", "workers": 0, "device": "cpu"}
    with pytest.raises(InputError, match=message):
        val.run(**{**settings, **arguments})
    assert not (tmp_path / "runs").exists()


def test_rounds_take_turns(quick):
    """Every model once a round, each round beginning with another one."""

    class Named(Backend):
        def __init__(self, name: str) -> None:
            super().__init__({}, 32, torch.device("cpu"))
            self.name = name

        def _infer(self, images):
            assert images.shape == (1, 3, 32, 32)
            calls.append(self.name)
            return images

    calls = []
    rounds = interleaved_ms([Named("a"), Named("b")], torch.zeros(1, 3, 32, 32))
    assert rounds.shape == (3, 2)
    assert (rounds > 0).all()
    assert "".join(calls) == "ba" + "ab" + "ba" + "ab"


def test_official_weights_against_their_twin_with_permuted_classes(shared, tmp_path, quick):
    file, twin = shared("weights/yolov5n.pt"), tmp_path / "twin.pt"
    model = build_model(read_checkpoint(file))
    with torch.no_grad():
        for conv in model.detect.m:
            for tensor in (conv.weight, conv.bias):
                rows = tensor.view(model.detect.na, model.nc + 5, -1)
                rows[:, 5:] = rows[:, 5:].roll(1, 1)
    save_checkpoint(twin, model=model, epoch=0)
    data = shared("datasets/coco8/coco8.yaml")
    found = val.run(
        weights=[file, twin], data=data, task="compare", imgsz=320, workers=0, device="cpu", project=tmp_path
    )
    change = found.models[1].differences
    assert not change.map.covers_zero
    assert not change.map50.covers_zero
    assert change.map.value == pytest.approx(found.models[1].metrics.map - found.models[0].metrics.map, abs=1e-9)
