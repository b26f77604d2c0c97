"""What export.py makes of its flags, and what becomes of files that are wrong."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import export
from engine import comparer, exporter
from models.backends import load_backend
from models.export_formats import EXPORTERS
from models.weights import save_checkpoint
from models.yolo import DetectionModel
from tests.models.exporting import CPU, NAMES
from utils.errors import InputError

IMGSZ = 64


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, value in {"WARMUP_ROUNDS": 1, "ROUNDS": 3, "FEWEST_ROUNDS": 1}.items():
        monkeypatch.setattr(comparer, name, value)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained dynamic model."""
    file = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(file, model=DetectionModel("yolov5n_dyconv.yaml", nc=2, names=NAMES))
    return file


@pytest.fixture
def weights(checkpoint, tmp_path):
    """The model in a folder of its own."""
    file = tmp_path / "models" / "tiny.pt"
    file.parent.mkdir()
    file.write_bytes(checkpoint.read_bytes())
    return file


@pytest.fixture
def data(tmp_path):
    """A data YAML with two training and two validation pictures."""
    root = tmp_path / "data"
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for number in range(2):
            image = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), image)
            (root / "labels" / split / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    file = root / "my.yaml"
    splits = {split: f"images/{split}" for split in ("train", "val")}
    file.write_text(yaml.safe_dump({"path": str(root), **splits, "nc": 2, "names": list(NAMES.values())}))
    return file


def run(weights, **options):
    return export.run(**{"weights": weights, "include": "torchscript", "imgsz": IMGSZ, **options})


def beside(weights: Path) -> set[str]:
    return {file.name for file in weights.parent.iterdir()} - {weights.name}


# --------------------------------------------------------------------------------------------------------------- files
def test_a_file_and_its_proof_stand_beside_the_weights(weights, data, capsys):
    (made,) = run(weights, data=data)
    assert made.file == weights.with_suffix(".torchscript")
    assert beside(weights) == {"tiny.torchscript", "tiny.torchscript.proof.json"}
    assert made.megabytes == pytest.approx(made.file.stat().st_size / 1e6)
    proof = json.loads((weights.parent / "tiny.torchscript.proof.json").read_text())
    assert proof["faults"] == []
    assert proof["images"] == 2
    backend = load_backend(made.file, CPU)
    assert (backend.names, backend.fixed_hw, backend.fixed_batch) == (NAMES, (IMGSZ, IMGSZ), 1)
    told = capsys.readouterr().err
    assert "MB" in told
    assert f"Detect:   python detect.py --weights {made.file} --imgsz 64\n" in told
    assert f"Validate: python val.py --weights {made.file} --imgsz 64 --data {data}\n" in told


@pytest.mark.parametrize(
    ("size_hw", "dynamic", "known", "given", "detect", "validate"),
    [
        ((64, 64), False, False, "", "64", None),
        ((64, 64), False, True, "", "64", ["64"]),
        ((64, 64), True, True, "my.yaml", "64", ["64", "--data", "my.yaml"]),
        ((32, 64), False, True, "my.yaml", "32 64", None),
        ((32, 64), True, True, "", "32 64", ["64"]),
    ],
)
def test_the_commands_that_are_told_can_be_given(size_hw, dynamic, known, given, detect, validate):
    job = Namespace(options=Namespace(imgsz_hw=size_hw, dynamic=dynamic), data=object() if known else None)
    commands = exporter.next_commands(Path("a b.onnx"), job, given)
    assert commands.pop("Detect") == ["python", "detect.py", "--weights", "a b.onnx", "--imgsz", *detect.split()]
    expected = {"Validate": ["python", "val.py", "--weights", "a b.onnx", "--imgsz", *validate]} if validate else {}
    assert commands == expected


@pytest.mark.parametrize(
    ("given", "trained_at", "expected", "told"),
    [(None, None, 640, False), (None, 96, 96, True), (None, 640, 640, False), ([64], 96, [64], False)],
)
def test_the_image_size_is_that_of_the_training(given, trained_at, expected, told, capsys):
    assert exporter.with_image_size(Namespace(imgsz=given), trained_at).imgsz == expected
    assert ("what the weights were trained at" in capsys.readouterr().err) is told


def test_what_the_file_tells_of_the_training(data, tmp_path):
    file = tmp_path / "own.pt"
    model = DetectionModel("yolov5n.yaml", nc=2, names=NAMES)
    save_checkpoint(file, model=model, info={"opt": {"data": str(data), "single_cls": False, "epochs": 3}})
    (made,) = run(file, dynamic=True)  # compared on the images of that data
    backend = load_backend(made.file, CPU)
    assert backend.trained_with == {"data": str(data), "single_cls": False}
    assert backend.fixed_hw is None
    assert made.proof.images == 2


@pytest.mark.openvino
def test_another_export_takes_its_place(weights, data, capsys):
    pytest.importorskip("openvino")
    (weights.parent / "tiny_openvino_model").mkdir()
    (weights.parent / "tiny_openvino_model" / "old.xml").touch()
    run(weights, data=data, include=["torchscript", "openvino"])
    told = capsys.readouterr().err
    assert "tiny_openvino_model replaces an older one" in told
    assert "tiny.torchscript replaces" not in told
    first = weights.with_suffix(".torchscript").read_bytes()
    run(weights, data=data, imgsz=[32, 64])
    assert "tiny.torchscript replaces an older one" in capsys.readouterr().err
    assert weights.with_suffix(".torchscript").read_bytes() != first
    assert {file.name for file in (weights.parent / "tiny_openvino_model").iterdir()} == {"tiny.xml", "tiny.bin"}
    assert len(beside(weights)) == 4


def broken(model, file, options):
    """An export whose network is another one."""
    model.detect.m[0].bias.data.add_(0.05)
    return EXPORTERS["torchscript"].export(model, file, options)


def failing(model, file, options):
    """An export that ends in the middle."""
    file.write_bytes(b"half a file")
    raise RuntimeError("out of luck")


@pytest.mark.parametrize("before", [None, b"an older export"])
def test_a_file_that_does_not_find_what_pytorch_finds_is_rejected(weights, data, monkeypatch, capsys, before):
    if before:
        weights.with_suffix(".torchscript").write_bytes(before)
    row = replace(EXPORTERS["torchscript"], export=broken)
    monkeypatch.setattr(exporter, "EXPORTERS", {"torchscript": row})
    with pytest.raises(InputError, match=r"not what PyTorch finds: .*tiny_rejected\.torchscript: .* px .*allowed"):
        run(weights, data=data)
    rejected = {"tiny_rejected.torchscript", "tiny_rejected.torchscript.proof.json"}
    assert beside(weights) == rejected | ({"tiny.torchscript"} if before else set())
    if before:
        assert weights.with_suffix(".torchscript").read_bytes() == before
    told = capsys.readouterr().err
    assert "tiny_rejected.torchscript" in told
    assert "REJECTED" in told
    assert "Detect:" not in told


def test_an_export_that_fails_leaves_nothing(weights, data, monkeypatch):
    monkeypatch.setattr(exporter, "EXPORTERS", {"torchscript": replace(EXPORTERS["torchscript"], export=failing)})
    with pytest.raises(RuntimeError, match="out of luck"):
        run(weights, data=data)
    assert beside(weights) == set()


def test_a_file_that_cannot_be_run_here_is_not_compared(weights, data, monkeypatch, capsys):
    row = replace(EXPORTERS["torchscript"], why_not_run=lambda: "there is no such machine")
    monkeypatch.setattr(exporter, "EXPORTERS", {"torchscript": row})
    (made,) = run(weights, data=data)
    assert made.proof is None
    assert beside(weights) == {"tiny.torchscript"}
    told = capsys.readouterr().err
    assert "tiny.torchscript is not compared with PyTorch: there is no such machine" in told
    assert "not compared" in told


# --------------------------------------------------------------------------------------------------------------- flags
def test_what_8_bits_cost_is_measured_where_there_are_labels(weights, data, capsys):
    (made,) = run(weights, data=data)
    opt = {**vars(export.parse_opt([])), "weights": weights, "imgsz": [IMGSZ]}
    scores = exporter.scores_of(made.file, exporter.prepared(Namespace(**{**opt, "data": data})))
    assert (scores.first.images, scores.first.map, scores.change.map.value) == (2, scores.second.map, 0)
    assert "tiny.torchscript: mAP50-95 0.0" in capsys.readouterr().err
    assert set(exporter.scores_told(scores)) == {"map_pytorch", "map", "map_difference"}
    assert exporter.scores_of(made.file, exporter.prepared(Namespace(**opt))) is None
    assert "What 8 bits cost in mAP is not measured: no data are known" in capsys.readouterr().err
    assert exporter.scores_told(None) == {}


def test_what_is_made_before_a_failure_is_told(weights, data, monkeypatch, capsys):
    def fail(*_):
        raise InputError("the second one fails")

    broken = replace(EXPORTERS["torchscript"], name="second", suffix=".second", export=fail)
    monkeypatch.setitem(EXPORTERS, "second", broken)
    with pytest.raises(InputError, match="the second one fails"):
        run(weights, data=data, include=["torchscript", "second"])
    assert f"{weights.with_suffix('.torchscript')}: " in capsys.readouterr().err


def test_train(weights):
    (made,) = run(weights, train=True)
    assert made.proof is None
    raw = torch.jit.load(str(made.file))(torch.rand(2, 3, IMGSZ, IMGSZ))
    assert [level.shape for level in raw] == [(2, 3, cells, cells, 7) for cells in (8, 4, 2)]
    assert any("running_mean" in name for name, _ in torch.jit.load(str(made.file)).named_buffers())


def test_inplace_and_optimize(weights, data):
    def operators(**options) -> str:
        (made,) = run(weights, data=data, **options)
        return str(torch.jit.load(str(made.file)).inlined_graph)

    plain = operators()
    assert "aten::silu(" in plain
    assert "aten::silu_(" in operators(inplace=True)
    assert "prim::GetAttr" in plain
    assert "prim::GetAttr" not in operators(optimize=True)


def test_freeze_attention(weights, data, capsys):
    (made,) = run(weights, data=data, freeze_attention=True)
    assert made.file.name == "tiny_frozen.torchscript"
    assert "Frozen attention, mean of 2 training images" in capsys.readouterr().err
    extra = {"config.txt": ""}
    program = torch.jit.load(str(made.file), _extra_files=extra)
    assert json.loads(extra["config.txt"])["frozen"]["images"] == 2
    assert "softmax" not in str(program.inlined_graph)
    assert made.proof.faults == ()


ERRORS = {
    # case: (arguments, what the message tells)
    "no run": ({"weights": ""}, "python train.py"),
    "an exported file": ({"weights": "a.onnx"}, r"--weights: one \.pt file was expected, got a\.onnx"),
    "two files": ({"weights": ["a.pt", "b.pt"]}, r"--weights: one \.pt file was expected, got a\.pt, b\.pt"),
    "no such file": ({"weights": "nowhere.pt"}, r"nowhere\.pt"),
    "no such format": (
        {"include": ["onyx"]},
        r"--include: expected one or more of .*got onyx \(did you mean onnx\?\)",
    ),
    "no format": ({"include": []}, "--include: .*got none"),
    "no such data": ({"data": "nowhere.yaml"}, r"nowhere\.yaml"),
    "three sides": ({"imgsz": [32, 32, 32]}, "--imgsz: expected one side or height and width"),
    "no side": ({"imgsz": 0}, "--imgsz"),
    "no image": ({"batch_size": 0}, "--batch-size: 1 or more was expected, got 0"),
    "an old opset": ({"include": "onnx", "opset": 9}, "--opset: 12 to 23 was expected, got 9"),
    "no memory": ({"workspace": 0}, "--workspace: more than 0 GiB"),
    "two precisions": ({"half": True, "int8": True}, "--half and --int8"),
    "8 bits of TorchScript": ({"int8": True}, "--int8 does nothing for torchscript; it is for .*openvino"),
    "8 bits without data": ({"int8": True, "include": "openvino", "data": ""}, "--int8 .* --data"),
    "suppression in TorchScript": ({"nms": True}, "--nms does nothing for torchscript; it is for onnx"),
    "simplified TorchScript": ({"simplify": True}, "--simplify does nothing for torchscript; it is for onnx"),
    "opset of TorchScript": ({"opset": 18}, "--opset does nothing for torchscript; it is for onnx"),
    "ONNX to train on": ({"train": True, "include": "onnx"}, "--train does nothing for onnx; it is for torchscript"),
    "trained suppression": ({"train": True, "nms": True}, "--train makes a file to be trained on"),
    "thresholds alone": ({"conf_thres": 0.5, "include": "onnx"}, "--conf-thres are of the suppression"),
    "thresholds out of range": ({"conf_thres": 2, "nms": True, "include": "onnx"}, "--conf-thres: 0 to 1"),
    "no detections": ({"topk_all": 0, "nms": True, "include": "onnx"}, "--topk-all: 1 or more"),
    "frozen without data": ({"freeze_attention": True, "data": ""}, "--freeze-attention .* --data"),
    "EdgeTPU": ({"include": "edgetpu"}, "edgetpu_compiler"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_used_is_told(weights, data, tmp_path, monkeypatch, case):
    arguments, message = ERRORS[case]
    wanted = EXPORTERS.get(str(arguments.get("include")), EXPORTERS["torchscript"])
    for package in wanted.packages:
        pytest.importorskip(package)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match=message):
        run(**{"weights": weights, "data": data, **arguments})
    assert beside(weights) == set()


def test_a_flag_that_only_some_formats_read_is_told(weights, data, capsys):
    pytest.importorskip("onnxslim")
    pytest.importorskip("onnxruntime")
    run(weights, data=data, include=["torchscript", "onnx"], simplify=True)
    assert "WARNING: --simplify does nothing for torchscript" in capsys.readouterr().err


def test_facts_that_a_format_leaves_out_are_not_told(weights):
    options = exporter.options_for(
        replace(EXPORTERS["torchscript"], flags=frozenset()),
        exporter.export_options(
            export.parse_opt(["--nms", "--dynamic", "--half", "--imgsz", "64"]),
            DetectionModel("yolov5n.yaml", nc=2, names=NAMES),
            {},
            None,
        ),
    )
    assert (options.half, options.dynamic, options.nms) == (False, False, None)
    assert (options.metadata.dynamic, options.metadata.nms) == (False, None)


def test_data_that_is_gone_is_told_and_the_shipped_images_serve(tmp_path, capsys):
    file = tmp_path / "own.pt"
    model = DetectionModel("yolov5n.yaml", nc=2, names=NAMES)
    save_checkpoint(file, model=model, info={"opt": {"data": "/nowhere/gone.yaml"}})
    (made,) = run(file)
    assert made.proof.images == 3
    told = capsys.readouterr().err
    assert "The data that the weights were trained on is not used" in told
    assert "data/images" in told
