import copy
import math
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from models.common import Conv, DyConv, Fusable
from models.model_yaml import ANCHOR_SETS, read_model_yaml
from models.yolo import BLOCKS, DetectionModel, Model
from tests.conftest import ROOT
from utils.errors import InputError
from utils.hyp import Hyp
from utils.loss import DetectionLoss

SMALL = [
    "yolov5n",
    "yolov5s",
    "hub/yolov3-tiny",
    "hub/yolov5-p34",
    "hub/yolov5n6",
    "hub/yolov5s-ghost",
    "hub/yolov5s-transformer",
    "hub/yolov5s6",
]
LARGE = [
    "yolov5m",
    "yolov5l",
    "yolov5x",
    "hub/yolov3-spp",
    "hub/yolov3",
    "hub/yolov5-bifpn",
    "hub/yolov5-fpn",
    "hub/yolov5-p2",
    "hub/yolov5-p6",
    "hub/yolov5-p7",
    "hub/yolov5-panet",
    "hub/yolov5l6",
    "hub/yolov5m6",
    "hub/yolov5x6",
]
SIZES = "nsmlx"
ANCHORS = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]


def tiny(head_rows=None, **changes):
    """The description of a network of a few layers with one level."""
    head = head_rows or [[[-1], 1, "Detect", ["nc", "anchors"]]]
    description = {
        "nc": 2,
        "depth_multiple": 0.5,
        "width_multiple": 0.5,
        "anchors": [[4, 5, 8, 10]],
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 3, "C3", [32]]],
        "head": head,
    }
    return {**description, **changes}


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_static_models_have_v61s_tables(name, golden_json):
    expected = golden_json("model_tables")["static"][f"{name}.yaml"]
    model = DetectionModel(f"models/{name}.yaml")
    assert [list(row) for row in model.rows] == expected["layers"]
    assert [layer.np for layer in model.model] == [row[3] for row in expected["layers"]]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected["parameters"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected["gradients"]
    assert sum(1 for _ in model.modules()) == expected["summary_layers"]
    assert model.stride.tolist() == expected["strides"]
    assert model.save == sorted(set(expected["save_list"]))
    assert len(model.state_dict()) == expected["state_dict_entries"]
    detect = {key: getattr(model.detect, key) for key in ("nc", "nl", "na", "no")}
    anchors_px = model.detect.anchors * model.stride.view(-1, 1, 1)
    assert {**detect, "anchors_pixels": anchors_px.tolist()} == expected["detect"]
    model.fuse()
    assert sum(parameter.numel() for parameter in model.parameters()) == expected["fused"]["parameters"]
    assert sum(1 for _ in model.modules()) == expected["fused"]["summary_layers"]


def test_no_model_is_forgotten(golden_json):
    tables = golden_json("model_tables")["static"]
    assert {f"{name}.yaml" for name in [*SMALL, *LARGE]} == set(tables)


@pytest.mark.parametrize("size", ["n", "s", *(pytest.param(size, marks=pytest.mark.slow) for size in "mlx")])
def test_dynamic_models_have_the_published_tables(size, golden_json):
    expected = golden_json("model_tables")["dynamic"][f"yolov5{size}_dynamic"]
    model = DetectionModel(f"models/yolov5{size}_dynamic.yaml")
    assert [list(row) for row in model.rows] == expected["layers"]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected["parameters"]
    assert sum(1 for _ in model.modules()) == expected["summary_layers"]
    assert model.stride.tolist() == expected["strides"]


def test_the_tutorials_model_is_size_l():
    read = lambda name: DetectionModel(f"models/{name}.yaml").rows  # noqa: E731
    assert read("yolov5_dynamic") == read("yolov5l_dynamic")


@pytest.mark.parametrize("size", ["n", *(pytest.param(size, marks=pytest.mark.slow) for size in "smlx")])
def test_dyconv_models_differ_from_static_ones_in_two_layers(size):
    static, dynamic = (DetectionModel(f"models/yolov5{size}{kind}.yaml") for kind in ("", "_dyconv"))
    differing = [row.number for row, other in zip(static.rows, dynamic.rows, strict=True) if row.type != other.type]
    assert differing == [10, 14]
    assert [dynamic.rows[index].type for index in differing] == ["DyConv", "DyConv"]
    assert [static.rows[i].arguments for i in differing] == [dynamic.rows[i].arguments for i in differing]


@pytest.mark.parametrize("stem", ["yolov5n_yaml_nc80", "yolov5n_dynamic_nc80"])
def test_state_dict_has_the_published_names_in_order(stem, golden_json):
    name = "yolov5n_dynamic" if "dynamic" in stem else "yolov5n"
    state = DetectionModel(f"models/{name}.yaml").state_dict()
    ours = [
        [key, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for key, tensor in state.items()
        if not key.endswith("temperature")
    ]
    assert ours == golden_json(f"state_dict_{stem}")


def tiny_model(kind, golden_json, golden_npz):
    facts, arrays = golden_json(f"tiny_{kind}"), golden_npz(f"tiny_{kind}")
    model = DetectionModel(facts["yaml"])
    stored = {key.removeprefix("sd/"): torch.from_numpy(a) for key, a in arrays.items() if key.startswith("sd/")}
    model.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in stored.items()})
    return model, torch.from_numpy(arrays["x_u8"]).float() / 255, facts, arrays


TINY = ["dynamic", "ghost", "transformer"]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", TINY)
def test_tiny_models_in_eval_mode(kind, fused, golden_json, golden_npz):
    model, images, _, arrays = tiny_model(kind, golden_json, golden_npz)
    model.eval()
    if fused:
        model.fuse()
    with torch.no_grad():
        decoded, raw = model(images)
    torch.testing.assert_close(decoded, torch.from_numpy(arrays["decoded_eval"]), rtol=0, atol=1e-3)
    for level, output in enumerate(raw):
        torch.testing.assert_close(output, torch.from_numpy(arrays[f"raw_eval_{level}"]), rtol=0, atol=5e-4)


@pytest.mark.parametrize("kind", TINY)
def test_tiny_models_in_train_mode(kind, golden_json, golden_npz):
    model, images, facts, arrays = tiny_model(kind, golden_json, golden_npz)
    raw = model.train()(images)
    for level, output in enumerate(raw):
        torch.testing.assert_close(output, torch.from_numpy(arrays[f"raw_train_{level}"]), rtol=0, atol=5e-4)
    state = model.state_dict()
    for key, statistics in facts["bn_running_stats_after_one_train_forward"].items():
        assert float(state[key].mean()) == pytest.approx(statistics["mean"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", TINY)
def test_tiny_models_loss_and_gradients(kind, golden_json, golden_npz):
    model, images, facts, arrays = tiny_model(kind, golden_json, golden_npz)
    values = {key: value for key, value in facts["hyp_after_scaling"].items() if key != "iou_t"}
    loss = DetectionLoss(model.detect.anchors, nc=model.nc, hyp=Hyp(**values), strides=model.stride)
    total, parts = loss(model.train()(images), torch.from_numpy(arrays["targets"]))
    assert float(total.detach()) == pytest.approx(facts["loss_times_bs"], rel=1e-5)
    assert parts.tolist() == pytest.approx(facts["loss_items_box_obj_cls"], rel=1e-5)
    total.backward()
    norms = {name: float(parameter.grad.norm()) for name, parameter in model.named_parameters()}
    assert norms.keys() == facts["grads"].keys()
    for name, expected in facts["grads"].items():
        assert norms[name] == pytest.approx(expected["norm"], rel=3e-3, abs=1e-5), name


def test_importing_the_models_loads_no_picture_or_table_library():
    code = "import sys, models.yolo; print([m for m in ('cv2', 'matplotlib', 'pandas', 'PIL') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_names_of_v61():
    assert Model is DetectionModel
    model = DetectionModel(tiny())
    assert model.model[0].type == "models.common.Conv"
    assert model.model[-1].type == "models.yolo.Detect"
    assert [model.model[1].i, model.model[1].f] == [1, -1]


def test_construction_leaves_normalisation_as_new():
    model = DetectionModel(tiny())
    for bn in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        assert (bn.eps, bn.momentum) == (1e-3, 0.03)
        assert bn.num_batches_tracked == 0
        assert (bn.running_var == 1).all()


def test_start_of_the_heads_biases():
    torch.manual_seed(0)
    model = DetectionModel(tiny(nc=80))
    bias = model.detect.m[0].bias.detach().view(2, 85)
    bound = 1 / math.sqrt(16)  # torch's own start of a bias of 16 inputs
    assert bias[:, :4].abs().max() <= bound
    assert (bias[:, 4] - math.log(8 / (640 / 2) ** 2)).abs().max() <= bound
    assert (bias[:, 5:] - math.log(0.6 / (80 - 0.999999))).abs().max() <= bound


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_output_shapes(batch):
    model = DetectionModel(tiny())
    images = torch.rand(batch, 3, 8, 12)
    with torch.no_grad():
        decoded, raw = model.eval()(images)
    assert decoded.shape == (batch, 2 * 4 * 6, 7)
    assert [level.shape for level in raw] == [(batch, 2, 4, 6, 7)]


def test_decoding_by_hand():
    """The rows are anchors, rows, columns, and follow the formula of the v6.1 head."""
    torch.manual_seed(0)
    model = DetectionModel(tiny()).eval()
    with torch.no_grad():
        decoded, (raw,) = model(torch.rand(1, 3, 8, 12))
    y = raw.sigmoid()
    row = 0
    for anchor, (width, height) in enumerate([(4, 5), (8, 10)]):
        for j in range(4):
            for i in range(6):
                s = y[0, anchor, j, i]
                xy = [(s[0] * 2 - 0.5 + i) * 2, (s[1] * 2 - 0.5 + j) * 2]
                wh = [(s[2] * 2) ** 2 * width, (s[3] * 2) ** 2 * height]
                assert decoded[0, row].tolist() == pytest.approx([float(v) for v in [*xy, *wh, *s[4:]]], rel=1e-5)
                row += 1


def test_grids_follow_the_image_size_dtype_and_are_kept():
    model = DetectionModel(tiny()).eval()
    with torch.no_grad():
        for size in ((8, 12), (12, 8), (8, 12)):
            assert torch.equal(model(torch.ones(1, 3, *size))[0], copy.deepcopy(model)(torch.ones(1, 3, *size))[0])
        grid = model.detect._grids[0]
        model(torch.ones(1, 3, 8, 12))
        assert model.detect._grids[0] is grid
        assert model.double()(torch.ones(1, 3, 8, 12, dtype=torch.float64))[0].dtype == torch.float64


def test_boxes_stay_precise_in_bfloat16():
    model = DetectionModel(tiny()).eval().bfloat16()
    with torch.no_grad():
        decoded, raw = model(torch.rand(1, 3, 64, 640).bfloat16())
    assert raw[0].dtype == torch.bfloat16
    assert decoded.dtype == torch.float32
    cells = decoded[0, :, 0].view(2, 32, 320)
    assert (cells[..., 1:] - cells[..., :-1]).min() > -2  # neighbours in order, within a cell


def test_gradients_flow_through_the_decoded_boxes():
    model = DetectionModel(tiny()).eval()
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    model(images)[0].sum().backward()
    assert images.grad.abs().sum() > 0


def test_grids_made_in_inference_mode_serve_gradients_too():
    model = DetectionModel(tiny()).eval()
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    with torch.inference_mode():
        model(images)
    model(images)[0].sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore")  # the tracer's remarks on constants, which are constants
@pytest.mark.parametrize("block", ["Dynamic_conv2d", "DyConv", "C3Dy"])
def test_a_traced_model_is_free_in_batch_and_image_size(block):
    torch.manual_seed(0)
    head = [[-1, 1, block, [32, 1]], [[-1], 1, "Detect", ["nc", "anchors"]]]
    model = DetectionModel(tiny(head)).eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.rand(1, 3, 8, 8), check_trace=False, strict=False)
        images = torch.rand(3, 3, 12, 16)
        torch.testing.assert_close(traced(images)[0], model(images)[0], rtol=1e-5, atol=1e-5)


def test_fusing_the_whole_model():
    torch.manual_seed(0)
    model = DetectionModel("models/yolov5n_dyconv.yaml")
    model.train()(torch.rand(2, 3, 64, 64))
    model.eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        before = model(images)[0]
        assert model.fuse() is model
        after = model(images)[0]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-3)
    assert all(part.bn is None for part in model.modules() if isinstance(part, Fusable))


def test_outputs_of_each_layer():
    model = DetectionModel(tiny()).eval()
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        seen = list(model.layer_outputs(images))
        assert [(index, kind) for index, kind, _ in seen] == [(layer.i, layer.type) for layer in model.model]
        assert seen[1][2].shape == (1, 16, 4, 4)
        assert torch.equal(seen[-1][2][0], model(images)[0])


def test_channels_last_model():
    model = DetectionModel("models/yolov5n_dynamic.yaml").eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)[0]
        model.to(memory_format=torch.channels_last)
        out = model(images.to(memory_format=torch.channels_last))[0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-3)


def test_classes_and_anchors_can_be_overridden():
    model = DetectionModel(tiny(), ch=1, nc=5, anchors=3, names=list("abcde"))
    assert (model.nc, model.detect.na, model.yaml["ch"], model.yaml["nc"], model.yaml["anchors"]) == (5, 3, 1, 5, 3)
    assert model.names == {0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}
    assert model.eval()(torch.rand(1, 1, 8, 8))[0].shape[-1] == 10


def test_the_yaml_of_a_model_builds_it_again():
    model = DetectionModel(tiny(), ch=1, nc=5)
    again = DetectionModel(model.yaml)
    assert again.rows == model.rows
    again.load_state_dict(model.state_dict())


def test_the_description_given_is_left_alone():
    description = tiny()
    before = copy.deepcopy(description)
    DetectionModel(description, nc=4, anchors=3)
    assert description == before


def test_names_default_to_numbers():
    assert DetectionModel(tiny()).names == {0: "0", 1: "1"}


def test_levels_are_put_in_the_order_of_the_strides():
    head = [[-1, 1, "Conv", [32, 3, 2]], [[1, 2], 1, "Detect", ["nc", "anchors"]]]
    model = DetectionModel(tiny(head, anchors=[[80, 80], [8, 8]]))
    assert (model.detect.anchors * model.stride.view(-1, 1, 1)).tolist() == [[[8, 8]], [[80, 80]]]


def test_blocks_that_reshape_or_join():
    head = [
        [-1, 1, "Contract", [2]],
        [-1, 1, "Expand", [2]],
        [[-1, 1], 1, "Sum", [2, True]],
        [-1, 1, "nn.BatchNorm2d", []],
        [-1, 1, "nn.Conv2d", [16, 24, 1]],
        [[-1, 1], 1, "Concat", [1]],
        [[-1], 1, "Detect", ["nc", "anchors"]],
    ]
    model = DetectionModel(tiny(head))
    assert model.rows[-1].arguments == "[2, [[4, 5, 8, 10]], [40]]"
    assert model.eval()(torch.rand(1, 3, 8, 8))[0].shape == (1, 32, 7)


def test_repeats_and_widths():
    model = DetectionModel(tiny([[-1, 4, "Bottleneck", [20]], [[-1], 1, "Detect", ["nc", "anchors"]]]))
    assert isinstance(model.model[2], nn.Sequential)
    assert [model.rows[2].repeats, len(model.model[2])] == [2, 2]
    assert model.rows[2].arguments == "[16, 16]"  # 20 * 0.5, up to a multiple of 8
    assert model.model[2].type == "models.common.Bottleneck"


def test_a_width_that_equals_the_heads_outputs_is_not_scaled():
    model = DetectionModel(tiny([[-1, 1, "Conv", [14]], [[-1], 1, "Detect", ["nc", "anchors"]]]))
    assert model.rows[2].arguments == "[16, 14]"  # 2 anchors x (2 classes + 5)


@pytest.mark.parametrize("block", sorted(set(BLOCKS) - {"Detect", "Concat", "Sum", "Contract", "Expand"}))
def test_every_block_can_stand_in_a_yaml(block):
    kernels = {"C3SPP": [[3, 5]], "SPP": [[3, 5]], "MixConv2d": [[1, 3]], "Dynamic_conv2d": [1], "Focus": [1]}
    row = [-1, 2, block, [32, *kernels.get(block, [])]]
    model = DetectionModel(tiny([row, [[-1], 1, "Detect", ["nc", "anchors"]]]))
    loss = sum(level.square().mean() for level in model(torch.rand(2, 3, 16, 16)))
    loss.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


DETECT = [[-1], 1, "Detect", ["nc", "anchors"]]
BROKEN = [
    ({"head": []}, "last layer"),
    ({"head": [[-1, 1, "Cnov", [8]], DETECT]}, "unknown block 'Cnov'.*DyConv"),
    ({"head": [[-1, 1, "Dyconv", [8]], DETECT]}, r"unknown block 'Dyconv' \(did you mean DyConv\?\); known are"),
    ({"head": [[-1, 1, "nn.Nothing", [8]], DETECT]}, "unknown block 'nn.Nothing'"),
    ({"head": [[-1, 1, "nn.functional", []], DETECT]}, "unknown block"),
    ({"head": [[-1, 1, "__import__('os').getcwd()", []], DETECT]}, "unknown block"),
    ({"head": [[2, 1, "Conv", [8]], DETECT]}, "layer 2.*`from` names"),
    ({"head": [[[-1, 7], 1, "Concat", [1]], DETECT]}, r"layer 2.*7.*0 to 1"),
    ({"head": [[-3, 1, "Conv", [8]], DETECT]}, "layer 2"),
    ({"head": [[[], 1, "Concat", [1]], DETECT]}, "layer 2"),
    ({"backbone": [[-2, 1, "Conv", [8]]]}, "layer 0.*the image"),
    ({"head": [[-1, 1, "Conv", []], DETECT]}, "layer 2"),
    ({"head": [[-1, 1, "Conv", ["wide"]], DETECT]}, "layer 2"),
    ({"head": [[-1, 1, "Conv", [8, 1, 1, 0, 3]], DETECT]}, "layer 2"),
    ({"head": [[[-1, 0], 1, "Detect", ["nc", "anchors"]]]}, "anchors for 1 levels"),
    ({"head": [[-1, 1, "Conv", [8, 3, 2]], [[-1, 1], 1, "Concat", [1]], DETECT]}, "layer 3 .Concat. does not fit"),
    ({"head": [["-1", 1, "Conv", [8]]]}, "head must be a list of rows"),
    ({"head": None}, "head must be"),
    ({"nc": 0}, "nc must be"),
    ({"nc": "eighty"}, "nc must be"),
    ({"width_multiple": 0}, "width_multiple"),
    ({"depth_multiple": "deep"}, "depth_multiple"),
    ({"anchors": []}, "anchors"),
    ({"anchors": [[1, 2, 3]]}, "anchors"),
    ({"anchors": [[1, 2], [1, 2, 3, 4]]}, "anchors"),
    ({"anchors": [["a", "b"]]}, "anchors"),
    ({"anchors": 0}, "anchors"),
    ({"activation": "nn.ReLU()"}, "activation"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_a_broken_description_is_told_with_its_row(changes, message):
    with pytest.raises(InputError, match=message):
        DetectionModel(tiny(**changes))


@pytest.mark.parametrize("key", ["nc", "anchors", "backbone", "head", "depth_multiple", "width_multiple"])
def test_missing_keys(key):
    description = tiny()
    del description[key]
    with pytest.raises(InputError, match=f"missing {key}"):
        DetectionModel(description)


def test_names_must_be_as_many_as_classes():
    with pytest.raises(InputError, match="2 class names, got 1"):
        DetectionModel(tiny(), names=["one"])


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ("nowhere.yaml", r"no model YAML nowhere\.yaml; looked for it in .*/models, .*/models/hub$"),
        ("/nowhere/at/all.yaml", r"no model YAML /nowhere/at/all\.yaml$"),
        ("models/yolov5_dynamc.yaml", r"; looked for it in [^;]*/hub \(did you mean yolov5\w?_dynamic\.yaml, "),
        ("yolov5-panett", r"/hub \(did you mean yolov5-panet\.yaml, "),
    ],
)
def test_a_file_that_is_not_there(cfg, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        DetectionModel(cfg)
    assert "models/models" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- a list", "a: [", "\x00"])
def test_a_file_that_is_no_model(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="broken.yaml"):
        DetectionModel(path)


@pytest.mark.parametrize("name", ["yolov5n.yaml", "models/yolov5n.yaml", "yolov3-tiny.yaml"])
def test_models_are_found_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DetectionModel(name).nc == 80


def test_a_model_file_may_have_any_path(tmp_path):
    path = tmp_path / "模型 é.yaml"
    path.write_text((ROOT / "models/yolov5n.yaml").read_text())
    assert DetectionModel(path).nc == 80
    assert DetectionModel(str(path)).nc == 80


def test_every_model_yaml_names_its_rows():
    """The numbers in the comments are those of the layers."""
    for path in sorted({*(ROOT / "models").rglob("*.yaml")} - {ANCHOR_SETS}):
        numbers = re.findall(r"^  - \[.*\]  # (\d+)", path.read_text(), re.MULTILINE)
        description = read_model_yaml(path)
        rows = description["backbone"] + description["head"]
        assert numbers == [str(index) for index in range(len(rows))], path


def test_dyconv_is_a_drop_in_for_conv():
    assert BLOCKS["DyConv"].channels == BLOCKS["Conv"].channels
    assert DyConv(8, 16, 3, 2)(torch.rand(1, 8, 8, 8)).shape == Conv(8, 16, 3, 2)(torch.rand(1, 8, 8, 8)).shape


@pytest.mark.parametrize("downs", [2, 7, 8])
def test_a_stride_of_any_size_is_found(downs):
    cfg = {"nc": 1, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13]]}
    cfg["backbone"] = [[-1, 1, "Conv", [8, 3, 2]] for _ in range(downs)]
    cfg["head"] = [[[downs - 1], 1, "Detect", ["nc", "anchors"]]]
    assert DetectionModel(cfg).stride.tolist() == [2**downs]
