"""AutoShape around networks that see what they are told, around tiny ones, and against the reference's detections."""

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import detect
from models.autoshape import AutoShape, as_asked, common_shape
from models.backend import Backend
from models.backends import load_backend
from models.ensemble import Ensemble
from models.runtime_torch import TorchBackend
from models.yolo import DetectionModel
from utils.detections import Detections
from utils.errors import InputError

CPU = torch.device("cpu")
ROWS = [[10, 10, 30, 40, 0.9, 0], [60, 20, 100, 50, 0.8, 1], [61, 21, 99, 51, 0.7, 2], [100, 0, 127, 20, 0.3, 0]]


class Seer(Backend):
    """Finds rows [x1, y1, x2, y2, confidence, class] in every image, in pixels of the network's input, and remembers
    what it was shown."""

    def __init__(self, rows, **bounds):
        super().__init__({0: "cat", 1: "bus", 2: "box"}, 32, CPU, **bounds)
        self.pred = torch.zeros(len(rows), 8)
        for index, (x1, y1, x2, y2, confidence, cls) in enumerate(rows):
            self.pred[index, :5] = torch.tensor(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, confidence))
            self.pred[index, 5 + cls] = 1

    def _infer(self, images):
        self.shown = images
        return self.pred.expand(len(images), -1, -1).clone()


@pytest.fixture(scope="module")
def tiny():
    """An untrained two-class nano model with dynamic layers."""
    torch.manual_seed(0)
    return AutoShape(DetectionModel("yolov5n_dynamic.yaml", nc=2, names=["circle", "square"]).requires_grad_(False))


def picture(height, width):
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), np.uint8)


# --------------------------------------------------------------------------------------------------------------- shapes
@pytest.mark.parametrize(
    ("sizes_hw", "size", "expected"),
    [
        ([(1, 1)], 1, (32, 32)),
        ([(1080, 810)], 640, (640, 480)),
        ([(720, 1280)], 640, (384, 640)),
        ([(1080, 810), (720, 1280)], 640, (640, 640)),
        ([(1080, 810)], 600, (608, 480)),
        ([(640, 481)], 640, (640, 512)),
        ([(5, 4000)], 640, (32, 640)),
    ],
)
def test_the_least_common_shape(sizes_hw, size, expected):
    assert common_shape(sizes_hw, size, 32) == expected


def test_shapes_are_exact_fractions_rounded_up():
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = [tuple(hw) for hw in rng.integers(1, 3000, (3, 2)).tolist()]
        size = int(rng.integers(1, 1500))
        scaled = [[Fraction(side * size, max(hw)) for side in hw] for hw in sizes]
        expected = tuple(math.ceil(max(sides) / 32) * 32 for sides in zip(*scaled, strict=True))
        assert common_shape(sizes, size, 32) == expected


def test_a_size_below_a_pixel_is_told():
    with pytest.raises(InputError, match="size: at least 1 pixel was expected, got 0"):
        AutoShape(Seer([]))(picture(64, 64), size=0)


def test_every_kind_of_image_is_shown_alike(tmp_path):
    image = picture(48, 64)
    file = tmp_path / "a.png"
    Image.fromarray(image).save(file)
    model = AutoShape(Seer([]))
    shown = []
    for source in (image, file, str(file), Image.open(file), image.transpose(2, 0, 1), [image], (file,)):
        model(source, size=128)
        shown.append(model.model.shown)
    assert shown[0].shape == (1, 3, 96, 128)
    assert all(torch.equal(shown[0], other) for other in shown)
    model(image, size=64)  # nothing to resize: the pixels themselves, on a grey border
    assert torch.equal(model.model.shown[0, :, 8:56], torch.from_numpy(image).permute(2, 0, 1) / 255)
    assert torch.all(model.model.shown[0, :, :8] == 114 / 255)


def test_a_batch_of_mixed_images_has_boxes_in_pixels_of_each(tmp_path):
    images = [picture(100, 200), picture(300, 150), picture(64, 64)]
    Image.fromarray(images[1]).save(tmp_path / "tall.png")
    model = AutoShape(Seer([[0, 0, 256, 256, 0.9, 0], [100, 120, 140, 130, 0.8, 1]]))
    found = model([images[0], tmp_path / "tall.png", Image.fromarray(images[2])], size=256)
    assert model.model.shown.shape == found.s == (3, 3, 256, 256)
    assert found.files == ["image0.jpg", "tall.jpg", "image2.jpg"]
    for image, rows in zip(images, found.xyxy, strict=True):
        height, width = image.shape[:2]
        scale = 256 / max(height, width)
        left, top = (256 - width * scale) / 2, (256 - height * scale) / 2
        inner = torch.tensor([(100 - left) / scale, (120 - top) / scale, (140 - left) / scale, (130 - top) / scale])
        torch.testing.assert_close(rows[0, :4], torch.tensor([0.0, 0, width, height]))
        torch.testing.assert_close(rows[1, :4], inner, atol=1e-3, rtol=1e-4)


def test_a_file_of_one_image_size_gets_that(tmp_path):
    model = AutoShape(Seer([[0, 0, 96, 64, 0.9, 0]], fixed_hw=(64, 96), fixed_batch=2))
    found = model([picture(64, 96), picture(32, 48), picture(64, 96)], size=640)
    assert found.s == (3, 3, 64, 96)
    assert [rows[0, :4].tolist() for rows in found.pred] == [[0, 0, 96, 64], [0, 0, 48, 32], [0, 0, 96, 64]]


# ----------------------------------------------------------------------------------------------------------- attributes
@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, [0, 1, 2, 0]),
        ({"conf": 0.95}, []),
        ({"conf": 0.75}, [0, 1]),
        ({"classes": [0]}, [0, 0]),
        ({"classes": ["bus", 2]}, [1, 2]),
        ({"max_det": 1}, [0]),
        ({"agnostic": True}, [0, 1, 0]),
        ({"agnostic": True, "iou": 0.99}, [0, 1, 2, 0]),
    ],
)
def test_attributes(attributes, expected):
    model = AutoShape(Seer(ROWS))
    for name, value in attributes.items():
        setattr(model, name, value)
    (rows,) = model(picture(64, 128), size=128).pred
    assert rows[:, 5].tolist() == expected


def test_a_box_of_several_classes():
    model = AutoShape(Seer(ROWS[:1]))
    model.model.pred[0, 6] = 0.5
    assert len(model(picture(64, 128), size=128).pred[0]) == 1
    model.multi_label = True
    (rows,) = model(picture(64, 128), size=128).pred
    torch.testing.assert_close(rows[:, 4:], torch.tensor([[0.9, 0], [0.45, 1]]))


def test_names_that_people_set_are_used():
    model = AutoShape(Seer(ROWS))
    assert model.names == {0: "cat", 1: "bus", 2: "box"}
    model.names, model.classes = ["Katze", "Bus", "Kiste"], ["Kiste"]
    assert "1 Kiste" in str(model(picture(64, 128), size=128))


# -------------------------------------------------------------------------------------------------------------- tensors
def test_a_tensor_gives_the_networks_predictions(tiny):
    images = torch.rand(2, 3, 64, 96)
    decoded = tiny(images)
    assert decoded.shape == (2, 3 * (8 * 12 + 4 * 6 + 2 * 3), 7)
    torch.testing.assert_close(decoded, tiny.model.model.eval()(images)[0])
    assert not decoded.requires_grad


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(0, 3, 64, 64),
        torch.rand(3, 64, 64),
        torch.rand(1, 4, 64, 64),
        torch.rand(1, 3, 64, 65),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
    ],
)
def test_a_tensor_that_no_network_takes_is_told(images, tiny):
    with pytest.raises(InputError, match=r"multiples of 32, got torch\.\w+ \("):
        tiny(images)


@pytest.mark.parametrize("source", [[], (), [torch.rand(3, 64, 64)], [[picture(8, 8)]], {}])
def test_what_is_no_image_is_told(source):
    with pytest.raises(InputError, match="expected an image|expected a path"):
        AutoShape(Seer([]))(source)


# ------------------------------------------------------------------------------------------------ devices, types, torch
def test_it_is_a_torch_module(tiny):
    assert sum(1 for _ in tiny.parameters()) == sum(1 for _ in tiny.model.model.parameters()) > 100
    assert tiny.to("cpu") is tiny.cpu() is tiny.eval() is tiny.train() is tiny
    assert isinstance(tiny(picture(64, 64), size=64), Detections)  # train() does no harm


def test_it_moves_with_to(tiny):
    moved = copy.deepcopy(tiny).to("meta")
    assert {parameter.device.type for parameter in moved.model.model.parameters()} == {"meta"}
    assert next(tiny.parameters()).device.type == "cpu"


@pytest.mark.parametrize("change", [lambda model: model.half(), lambda model: model.to(torch.bfloat16)])
def test_weights_of_16_bits(tiny, change):
    images = torch.rand(1, 3, 64, 64)
    halved = change(copy.deepcopy(tiny))
    assert next(halved.parameters()).dtype != torch.float32
    decoded = halved(images)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, tiny(images), atol=2, rtol=0.1)
    assert isinstance(halved(picture(64, 64), size=64), Detections)


def test_amp_is_that_of_the_device(tiny, monkeypatch):
    monkeypatch.setattr("models.autoshape.amp_dtype", lambda device: torch.bfloat16)
    model = copy.deepcopy(tiny)
    assert as_asked(model.model, amp=False, augment=False).amp is None
    exact = model(images := torch.rand(1, 3, 64, 64))
    model.amp = True
    rounded = model(images)
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=2, rtol=0.1)


def test_augmentation(tiny):
    assert tiny(torch.rand(1, 3, 128, 128), augment=True).shape[1] > tiny(torch.rand(1, 3, 128, 128)).shape[1]
    both = AutoShape(Ensemble([tiny.model, tiny.model]))
    assert both(torch.rand(1, 3, 128, 128)).shape[1] == 2 * tiny(torch.rand(1, 3, 128, 128)).shape[1]
    assert len(both.networks) == 2
    assert both(torch.rand(1, 3, 128, 128), augment=True).shape[1] > both(torch.rand(1, 3, 128, 128)).shape[1]
    with pytest.raises(InputError, match=r"augment=True .* \.pt weights"):
        AutoShape(Seer([]))(picture(64, 64), augment=True)


def test_profile_logs_every_layer(tiny, capsys):
    tiny(picture(64, 64), size=64, profile=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 + len(tiny.model.model.model)
    assert lines[-1].endswith("24 models.yolo.Detect")
    tiny(torch.rand(1, 3, 64, 64))
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"profile=True .* \.pt"):
        AutoShape(Seer([]))(picture(64, 64), profile=True)


# -------------------------------------------------------------------------------------------------------- the reference
@pytest.mark.parametrize(
    "name",
    [
        "yolov5n_640",
        "yolov5n_640_augment",
        "yolov5n_320",
        "yolov5n_640_conf0.1_iou0.6_agnostic",
        "yolov5n_classes0_maxdet2",
        "ppe_640",
        "duckie_640",
        "ensemble_yolov5n_twice",
    ],
)
def test_detections_are_those_of_the_reference(name, golden_json, shared):
    case = golden_json("detections")[name]
    settings = case["settings"]
    files = [case["checkpoint"]] if isinstance(case["checkpoint"], str) else case["checkpoint"]
    model = AutoShape(load_backend([shared(f"weights/{file}") for file in files], CPU))
    model.conf, model.iou, model.max_det = settings["conf"], settings["iou"], settings["max_det"]
    model.classes, model.agnostic = settings["classes"], settings["agnostic"]
    places = {file.name: file for folder in ("datasets/coco8", "images") for file in shared(folder).rglob("*.jpg")}
    compared = 0
    for image in case["images"]:
        if common_shape([image["original_hw"]], settings["imgsz"], 32) != tuple(image["input_hw"]):
            continue
        compared += 1
        found = model(places[image["file"]], size=settings["imgsz"], augment=settings["augment"])
        rows = found.pred[0].numpy()
        expected = np.array(image["det_int_xyxy_conf_cls"], float).reshape(-1, 6)
        assert found.s[2:] == tuple(image["input_hw"])
        assert len(rows) == image["n"], image["file"]
        np.testing.assert_array_equal(rows[:, 5], expected[:, 5])
        np.testing.assert_allclose(rows[:, 4], expected[:, 4], atol=1e-3)
        np.testing.assert_allclose(
            rows[:, :4], np.array(image["xyxy_unrounded"], float).reshape(-1, 4), atol=1 if image["n"] else 0
        )
    assert compared >= len(case["images"]) - 2


def test_detections_are_those_of_detect(shared, tmp_path):
    weights, folder = shared("weights/yolov5n.pt"), shared("images")
    detect.run(
        weights=weights, source=folder, device="cpu", project=tmp_path, save_txt=True, save_conf=True, nosave=True
    )
    model = AutoShape(load_backend(weights, CPU))
    for file in sorted(folder.glob("*.jpg")):
        found = model(file)
        lines = (tmp_path / "exp" / "labels" / f"{file.stem}.txt").read_text().splitlines()
        told = np.array([line.split() for line in lines], float)[::-1]  # least confident first
        width, height = Image.open(file).size
        (rows,) = found.xyxy
        corners = rows[:, :4].round().double()
        sides = torch.tensor([width, height] * 2)
        centred = torch.cat(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), 1) / sides
        np.testing.assert_array_equal(told[:, 0], rows[:, 5])
        np.testing.assert_allclose(told[:, 1:5], centred, atol=1e-5)
        np.testing.assert_allclose(told[:, 5], rows[:, 4], atol=1e-5)


def test_a_backend_and_its_network_are_the_same(tiny):
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(AutoShape(TorchBackend(tiny.model.model))(images), tiny(images))
