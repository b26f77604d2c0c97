import json
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.common import Dynamic_conv2d, dynamic_layers
from models.summary import dynamic_costs, dynamic_table, gflops, log_summary, model_summary, model_table
from models.yolo import DetectionModel
from tests.conftest import GOLDEN, ROOT

STATIC = json.loads((GOLDEN / "model_tables.json").read_text())["static"]
SMALL = [name for name, facts in STATIC.items() if facts["parameters"] < 2e7]
LARGE = [name for name in STATIC if name not in SMALL]
DYNAMIC = [f"models/yolov5{size}_dynamic.yaml" for size in "nsm"]


@pytest.fixture(scope="module")
def nano() -> DetectionModel:
    return DetectionModel(ROOT / "models/yolov5n.yaml")


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_static_models_agree_with_the_reference(name):
    facts = STATIC[name]
    model = DetectionModel(ROOT / "models" / name)
    summary = model_summary(model)
    assert summary[:3] == (facts["summary_layers"], facts["parameters"], facts["gradients"])
    assert summary.gflops == pytest.approx(facts["thop_gflops_640_exact"], rel=1e-9)
    assert f"{summary.gflops:.1f}" == str(facts["gflops_printed_640"])
    assert [row[:4] for row in facts["layers"]] == [list(row)[:4] for row in model.rows]
    assert [row[4].split(".")[-1] for row in facts["layers"]] == [row.type for row in model.rows]
    fused = model_summary(model.fuse())
    assert fused[:2] == (facts["fused"]["summary_layers"], facts["fused"]["parameters"])
    assert f"{fused.gflops:.1f}" == str(facts["fused"]["gflops_printed_640"])


@pytest.mark.parametrize("path", DYNAMIC)
def test_dynamic_models_agree_with_the_reference(path, golden_json):
    facts = golden_json("model_tables")["dynamic"][path.split("/")[-1].removesuffix(".yaml")]
    summary = model_summary(DetectionModel(ROOT / path, nc=80))
    assert summary[:3] == (facts["summary_layers"], facts["parameters"], facts["gradients"])
    torch_count = facts["torch_flopcounter_total_640_b1_unfused"] / 1e9
    assert summary.gflops == pytest.approx(torch_count, rel=0.025)  # thop also counts batch normalisation, upsampling


LAYERS = {
    "1x1, as in yolov5_dynamic": (Dynamic_conv2d(256, 128, 1, 1), (1, 256, 20, 20)),
    "one pixel": (Dynamic_conv2d(16, 8, 1), (1, 16, 1, 1)),
    "batch of 3": (Dynamic_conv2d(16, 8, 3, padding=1), (3, 16, 9, 7)),
    "few outputs": (Dynamic_conv2d(64, 4, 3, padding=1, bias=False), (1, 64, 40, 40)),
    "stride, groups, K": (Dynamic_conv2d(32, 64, 3, stride=2, groups=4, K=6), (2, 32, 21, 20)),
    "dilation": (Dynamic_conv2d(8, 8, 3, dilation=2, K=1), (1, 8, 16, 16)),
    "from an image": (Dynamic_conv2d(3, 16, 6, stride=2), (1, 3, 64, 64)),
}


@pytest.mark.parametrize("case", LAYERS)
def test_each_dynamic_layer_counts_as_torch_counts_it(case):
    from thop import profile

    from models.summary import _count_dynamic

    layer, shape = LAYERS[case]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.rand(shape))
    macs, _ = profile(
        nn.Sequential(deepcopy(layer)),
        inputs=(torch.rand(shape),),
        custom_ops={Dynamic_conv2d: _count_dynamic},
        verbose=False,
    )
    assert 2 * macs == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("row", [[-1, 1, "DyConv", [24, 3]], [-1, 2, "C3Dy", [16]]], ids=["DyConv", "C3Dy"])
def test_dynamic_layers_inside_blocks_count(row):
    description = {
        "nc": 1,
        "depth_multiple": 1.0,
        "width_multiple": 1.0,
        "anchors": [[10, 13]],
        "backbone": [[-1, 1, "Conv", [16, 3, 32]], row],
        "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
    }
    model = DetectionModel(description).eval().fuse()  # thop counts batch normalisation, torch does not
    assert dynamic_layers(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 3, 640, 640))
    assert gflops(model) == pytest.approx(counter.get_total_flops() / 1e9, rel=0.01)


@pytest.mark.parametrize("imgsz", [64, 320, 1280])
def test_what_does_not_depend_on_the_size_is_not_scaled(imgsz):
    """Two sizes determine constant and slope; any third must lie on that line."""
    model = DetectionModel(ROOT / "models/yolov5n_dynamic.yaml")
    at = {side: gflops(model, side) for side in (128, 640, imgsz)}
    slope = (at[640] - at[128]) / (640**2 - 128**2)
    constant = at[640] - slope * 640**2
    parameters = sum(parameter.numel() for _, layer in dynamic_layers(model) for parameter in layer.parameters())
    assert at[imgsz] == pytest.approx(constant + slope * imgsz**2, rel=1e-9)
    assert constant == pytest.approx(2 * parameters / 1e9, rel=1e-6), "attention and mixing: once for each parameter"


@pytest.mark.parametrize(("cfg", "names"), [("", []), ("_dynamic", ["10", "14"]), ("_dyconv", ["10.conv", "14.conv"])])
@pytest.mark.parametrize("imgsz", [64, 100, 320])
def test_each_dynamic_layer_is_told_with_its_cost(cfg, names, imgsz):
    model = DetectionModel(ROOT / f"models/yolov5n{cfg}.yaml")
    costs = dynamic_costs(model, imgsz)
    assert [cost.name for cost in costs] == [f"model.{name}" for name in names]
    assert [cost.parameters for cost in costs] == [
        sum(p.numel() for p in layer.parameters()) for _, layer in dynamic_layers(model)
    ]
    assert not any(layer._forward_hooks for layer in model.modules())
    lines = dynamic_table(model, imgsz)
    assert len(lines) == (len(names) + 1 if names else 0)
    for name, cost, line in zip(names, costs, lines[1:], strict=True):
        assert line.split()[0] == name
        assert f"{cost.parameters:,} parameters, {cost.gflops:.3f} GFLOPs" in line


def test_the_costs_of_dynamic_layers_are_what_the_total_counts(monkeypatch):
    model = DetectionModel(ROOT / "models/yolov5n_dynamic.yaml")
    with_them = gflops(model, 320)
    monkeypatch.setattr("models.summary._dynamic_macs", lambda *_: 0)
    without = gflops(model, 320)
    monkeypatch.undo()
    assert sum(cost.gflops for cost in dynamic_costs(model, 320)) == pytest.approx(with_them - without, rel=1e-6)


@pytest.mark.parametrize(("imgsz", "factor"), [(640, 1), (320, 0.25), (1, 1 / 640**2), (100, (100 / 640) ** 2)])
def test_static_cost_goes_with_the_area(imgsz, factor, nano):
    assert gflops(nano, imgsz) == pytest.approx(gflops(nano) * factor, rel=1e-9)


def test_the_model_is_left_alone(nano):
    nano.train()
    before = {name: tensor.clone() for name, tensor in nano.state_dict().items()}
    model_summary(nano)
    assert nano.training
    assert list(before) == list(nano.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in nano.state_dict().items())
    for module in nano.modules():
        assert not module._forward_hooks
        assert not {"total_ops", "total_params"} & {*module._buffers, *vars(module)}
    assert {parameter.device.type for parameter in nano.parameters()} == {"cpu"}


def test_frozen_parameters_have_no_gradients(nano):
    model = deepcopy(nano)
    model.model[0].requires_grad_(False)
    summary = model_summary(model)
    assert summary.parameters - summary.gradients == sum(p.numel() for p in model.model[0].parameters())


def test_the_look_of_table_and_line(nano, monkeypatch):
    lines = []
    monkeypatch.setattr("models.summary.LOGGER.info", lines.append)
    log_summary(nano, name="models/yolov5n.yaml")
    table = lines[0].split("\n")
    assert table[1].split() == ["from", "n", "params", "module", "arguments"]
    assert len(table) == 2 + 25
    assert table[2].rstrip() == (
        "  0                -1  1      1760  models.common.Conv                      [3, 16, 6, 2, 2]"
    )
    assert lines[1] == "YOLOv5n summary: 270 layers, 1872157 parameters, 1872157 gradients, 4.6 GFLOPs\n"
    log_summary(nano.eval(), table=False)
    assert len(lines) == 3
    assert model_table(nano) == lines[0]


@pytest.mark.parametrize(("imgsz", "cost"), [(640, "4.6 GFLOPs"), (320, "1.1 GFLOPs at 320 pixels")])
def test_a_size_that_is_not_the_usual_one_is_told(nano, imgsz, cost):
    assert str(model_summary(nano, imgsz)).split(", ")[-1] == cost


def test_without_thop_the_rest_is_told(nano, monkeypatch):
    monkeypatch.setitem(sys.modules, "thop", None)
    summary = model_summary(nano)
    assert summary.gflops is None
    assert str(summary) == "270 layers, 1872157 parameters, 1872157 gradients"


@pytest.mark.slow
def test_nothing_is_printed_or_warned():
    code = "from models.summary import *; gflops(DetectionModel('models/yolov5n.yaml'))"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
