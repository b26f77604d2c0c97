"""TorchScript, ONNX and OpenVINO files of a tiny dynamic network: what they compute in their runtimes, how their shapes
are, and what the backends make of files that strangers wrote."""

import pytest
import torch

from models.backends import BACKENDS, load_backend
from models.export_formats import CHOICES, EXPORTERS, export_formats
from models.export_options import Suppression
from tests.models.exporting import CPU, NAMES, exported, tiny_model
from utils.errors import InputError
from utils.nms import non_max_suppression

MODELS = ("yolov5n.yaml", "yolov5n_dynamic.yaml", "yolov5n_dyconv.yaml", "yolov5n_c3dy.yaml")


@pytest.fixture(
    params=["torchscript", "onnx", pytest.param("openvino", marks=[pytest.mark.slow, pytest.mark.openvino])]
)
def kind(request):
    """Each format of this file, where its packages are here."""
    for package in EXPORTERS[request.param].packages:
        pytest.importorskip(package)
    return request.param


def images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def assert_same(backend, model, batch: int, height: int, width: int, *, px: float = 0.05, score: float = 2e-4) -> None:
    inputs = images(batch, height, width)
    wanted, found = model(inputs)[0], backend(inputs)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found[..., :4], wanted[..., :4], atol=px, rtol=0)
    torch.testing.assert_close(found[..., 4:], wanted[..., 4:], atol=score, rtol=0)


# ------------------------------------------------------------------------------------------------------------- numbers
def test_a_free_file_takes_every_batch_and_image_size(kind, tmp_path):
    backend = load_backend(exported(tiny_model(), kind, tmp_path, dynamic=True), CPU)
    assert (backend.fixed_hw, backend.fixed_batch) == (None, None)
    for size in ((1, 64, 96), (4, 64, 96), (1, 256, 416), (4, 32, 32)):
        assert_same(backend, tiny_model(), *size)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_file_takes_its_size_and_any_number_of_images(kind, tmp_path, batch):
    backend = load_backend(exported(tiny_model(), kind, tmp_path, batch_size=batch), CPU)
    assert (backend.fixed_hw, backend.fixed_batch) == ((64, 96), batch)
    assert (backend.names, backend.nc, backend.stride) == (NAMES, 2, 32)
    for count in (1, 2, 3):
        assert_same(backend, tiny_model(), count, 64, 96)
    with pytest.raises(InputError, match="64 x 96"):
        backend(images(1, 96, 64))


@pytest.mark.slow
@pytest.mark.parametrize("cfg", MODELS)
def test_kinds_of_layers(kind, tmp_path, cfg):
    backend = load_backend(exported(tiny_model(cfg), kind, tmp_path, dynamic=True), CPU)
    for size in ((1, 64, 64), (3, 96, 64)):
        assert_same(backend, tiny_model(cfg), *size)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("torchscript", {"half": True}),
        ("torchscript", {"optimize": True}),
        ("torchscript", {"inplace": True}),
        ("torchscript", {"verbose": True}),
        ("onnx", {"half": True}),
        ("onnx", {"simplify": True}),
        ("onnx", {"simplify": True, "dynamic": True}),
        ("onnx", {"opset": 12, "dynamic": True}),
        ("onnx", {"opset": 18}),
        pytest.param("onnx", {"opset": 18, "dynamic": True}, marks=pytest.mark.slow),
        ("onnx", {"opset": 23, "half": True}),
        ("openvino", {"half": True}),
    ],
)
def test_options(kind, options, tmp_path):
    for package in (*EXPORTERS[kind].packages, *(["onnxslim"] if "simplify" in options else [])):
        pytest.importorskip(package)
    file = exported(tiny_model(), kind, tmp_path, **options)
    tolerance = {"px": 4.0, "score": 0.02} if options.get("half") else {}
    assert_same(load_backend(file, CPU), tiny_model(), 2, 64, 96, **tolerance)
    if kind == "onnx":
        import onnx

        model = onnx.load(file)
        assert model.opset_import[0].version == options.get("opset", 17)
        assert [entry.name for entry in (*model.graph.input, *model.graph.output)] == ["images", "output"]
        dimensions = model.graph.output[0].type.tensor_type.shape.dim
        assert dimensions[2].dim_value == 7
        assert (dimensions[0].dim_value == 0) == options.get("dynamic", False)


def test_simplify_and_half_make_files_smaller(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxslim")

    def made(name: str, **options):
        (tmp_path / name).mkdir()
        return exported(tiny_model(), "onnx", tmp_path / name, dynamic=True, **options)

    plain, simple, half = made("plain"), made("simple", simplify=True), made("half", half=True)
    assert len(onnx.load(simple).graph.node) < len(onnx.load(plain).graph.node)
    assert half.stat().st_size < 0.7 * plain.stat().st_size


@pytest.mark.openvino
@pytest.mark.slow
def test_int8_of_openvino(tmp_path):
    for package in ("openvino", "nncf"):
        pytest.importorskip(package)
    calibration = [images(1, 64, 96)]
    file = exported(tiny_model(), "openvino", tmp_path, int8=True, calibration=lambda: iter(calibration))
    assert b"FakeQuantize" in (file / "tiny.xml").read_bytes()
    inputs = images(1, 64, 96)
    difference = (load_backend(file, CPU)(inputs) - tiny_model()(inputs)[0])[..., 4:].abs()
    assert 0 < difference.mean() < 0.05


@pytest.mark.openvino
@pytest.mark.slow
def test_openvino_runs_in_16_bits_where_asked(tmp_path, capsys):
    pytest.importorskip("openvino")
    file, inputs = exported(tiny_model(), "openvino", tmp_path), images(1, 64, 96)
    exact, half = load_backend(file, CPU), load_backend(file, CPU, half=True)
    difference = (half(inputs) - exact(inputs))[..., 4:].abs().mean()
    assert difference < 0.02
    assert (difference == 0) == ("--half is left out" in capsys.readouterr().err)


def test_a_file_to_train_on(tmp_path):
    from models.yolo import DetectionModel

    model = DetectionModel("yolov5n.yaml", nc=2).train()
    reference = DetectionModel("yolov5n.yaml", nc=2).train()
    reference.load_state_dict(model.state_dict())
    file = exported(model, "torchscript", tmp_path, train=True)
    program = torch.jit.load(str(file))
    inputs = images(2, 64, 96)
    for found, wanted in zip(program(inputs), reference(inputs), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    sum(level.sum() for level in program(inputs)).backward()
    assert all(parameter.grad is not None for parameter in program.parameters() if parameter.requires_grad)
    with pytest.raises(InputError, match="exported with --train"):
        load_backend(file, CPU)


# -------------------------------------------------------------------------------------------- suppression inside a file
@pytest.mark.parametrize("settings", [Suppression(), Suppression(conf_thres=0.6, topk_all=5, agnostic=True)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_detections_of_a_file_with_suppression(tmp_path, capsys, settings, dynamic):
    for package in EXPORTERS["onnx"].packages:
        pytest.importorskip(package)
    file = exported(tiny_model(), "onnx", tmp_path, nms=settings, dynamic=dynamic, batch_size=1 if dynamic else 2)
    backend = load_backend(file, CPU)
    assert "its own suppression inside (conf_thres" in capsys.readouterr().err
    inputs = images(2, 64, 96)
    thresholds = {"agnostic": settings.agnostic, "max_det": settings.topk_all}
    wanted = non_max_suppression(tiny_model()(inputs)[0], settings.conf_thres, settings.iou_thres, **thresholds)
    found = non_max_suppression(backend(inputs), settings.conf_thres, settings.iou_thres, **thresholds)
    assert all(len(rows) for rows in wanted)
    for ours, theirs in zip(wanted, found, strict=True):
        torch.testing.assert_close(theirs, ours, atol=0.05, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------- OpenCV and others
def test_opencv_reads_what_onnx_runtime_reads(tmp_path):
    for package in EXPORTERS["onnx"].packages:
        pytest.importorskip(package)
    backend = load_backend(exported(tiny_model(), "onnx", tmp_path, batch_size=2), CPU, dnn=True)
    assert (backend.fixed_hw, backend.fixed_batch, backend.names) == ((64, 96), 2, NAMES)
    assert_same(backend, tiny_model(), 3, 64, 96)


@pytest.mark.parametrize(
    "suffix", sorted(BACKENDS.keys() - {"_openvino_model", ".xml"})
)  # these have a test of their own
def test_half_is_told_to_do_nothing_where_a_file_keeps_its_precision(suffix, tmp_path, capsys):
    with pytest.raises(InputError):
        load_backend(tmp_path / f"missing{suffix}", CPU, half=True)
    assert ("--half is left out" in capsys.readouterr().err) is (suffix not in (".pt", "_ncnn_model"))


def test_flags_that_do_nothing_are_told(tmp_path, capsys):
    file = exported(tiny_model(), "torchscript", tmp_path)
    load_backend(file, CPU, half=True)
    assert "--half is left out" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"--dnn runs \.onnx files"):
        load_backend(file, CPU, dnn=True)
    with pytest.raises(InputError, match="--augment"):
        load_backend(file, CPU, augment=True)


def test_a_file_of_v61_is_read(tmp_path):
    """Names as a list, four outputs, no other facts."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    file = exported(tiny_model(), "onnx", tmp_path)
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"stride": "32", "names": "['circle', 'square']"})
    raw = next(node for node in model.graph.node if node.op_type == "Conv").output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(raw, 1, [1, None, None, None]))
    onnx.save(model, file)
    for dnn in (False, True):
        backend = load_backend(file, CPU, dnn=dnn)
        assert backend.names == NAMES
        assert_same(backend, tiny_model(), 2, 64, 96)


def test_opencv_refuses_free_sizes(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "nms").mkdir()
    with pytest.raises(InputError, match="--dnn: OpenCV cannot run the suppression inside"):
        load_backend(exported(tiny_model(), "onnx", tmp_path / "nms", nms=Suppression()), CPU, dnn=True)
    with pytest.raises(InputError, match="--dnn takes files of one image size"):
        load_backend(exported(tiny_model(), "onnx", tmp_path, dynamic=True), CPU, dnn=True)


def test_a_file_without_facts_is_read(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    file = exported(tiny_model(), "onnx", tmp_path, dynamic=True)
    model = onnx.load(file)
    del model.metadata_props[:]
    for dimension in model.graph.output[0].type.tensor_type.shape.dim:
        dimension.dim_param = "anything"
    onnx.save(model, file)
    backend = load_backend(file, CPU)
    assert backend.names == {0: "class0", 1: "class1"}
    assert_same(backend, tiny_model(), 2, 32, 64)


# ------------------------------------------------------------------------------------------------ files that are broken
def onnx_of(tmp_path, shape, dtype=1, columns=7, texts=None):
    """An ONNX file that passes on its input, which has the given shape."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = [onnx.helper.make_tensor_value_info(name, dtype, shape) for name in ("images", "output")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["images"], ["output"])], "g", *([v] for v in value)
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, texts or {})
    onnx.save(model, tmp_path / "other.onnx")
    return tmp_path / "other.onnx"


@pytest.mark.parametrize(
    ("shape", "dtype", "texts", "message"),
    [
        ([1, 7], 1, {}, r"one input \(B, 3, H, W\) of floats was expected, got images tensor\(float\) \[1, 7\]"),
        ([1, 3, 64, 64], 7, {}, r"one input .* got images tensor\(int64\)"),
        ([1, 3, 64, 64], 1, {}, r"predictions \(B, N, 5 \+ classes\) were expected, got \(1, 3, 64, 64\)"),
        ([1, 3, 64, 64], 1, {"names": "3"}, "wrong names"),
        ([1, 3, 64, 64], 1, {"train": "true"}, "exported with --train"),
    ],
)
def test_networks_that_are_no_detectors_are_told(tmp_path, shape, dtype, texts, message):
    with pytest.raises(InputError, match=rf"other\.onnx.*{message}"):
        load_backend(onnx_of(tmp_path, shape, dtype, texts=texts), CPU)


@pytest.mark.parametrize("suffix", [".onnx", ".torchscript", ".xml", "_openvino_model"])
@pytest.mark.parametrize("content", [None, b"", b"garbage", b"PK\x03\x04garbage", b"<?xml version='1.0'?><net/>"])
def test_files_that_are_none_are_told(tmp_path, suffix, content):
    if "onnx" in suffix:
        pytest.importorskip("onnxruntime")
    if "xml" in suffix or "openvino" in suffix:
        pytest.importorskip("openvino")
    file = tmp_path / f"a{suffix}"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=rf"a{suffix}"):
        load_backend(file, CPU)


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_opencv_tells_of_them_too(tmp_path, content):
    if content is not None:
        (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.onnx"):
        load_backend(tmp_path / "a.onnx", CPU, dnn=True)


def test_half_a_file_is_told(kind, tmp_path):
    file = exported(tiny_model(), kind, tmp_path)
    damaged = file / "tiny.bin" if file.is_dir() else file
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(InputError, match="tiny"):
        load_backend(file, CPU)


def test_a_program_that_is_no_network_is_told(tmp_path):
    class Text(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> str:
            return "no"

    torch.jit.script(Text()).save(str(tmp_path / "a.torchscript"))
    with pytest.raises(InputError, match=r"a\.torchscript: it should give a tensor of predictions, got str"):
        load_backend(tmp_path / "a.torchscript", CPU)


# ----------------------------------------------------------------------------------------------------------- the table
def test_formats_are_told_apart_by_their_suffixes():
    rows = export_formats()
    assert [row.name for row in rows] == list(EXPORTERS)
    assert len({row.suffix for row in rows}) == len(rows)
    assert set().union(*(row.flags for row in rows)) == set(CHOICES)


def test_a_missing_package_is_told_with_its_command(monkeypatch):
    from dataclasses import replace

    row = replace(EXPORTERS["onnx"], packages=("onnx", "no_such_package"))
    with pytest.raises(
        InputError, match="--include onnx needs .*no_such_package.*pip install -r requirements-export.txt"
    ):
        row.check_packages()


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
def test_the_grid_of_a_trace_follows_the_images_to_their_device():
    detect = tiny_model().detect
    traced = torch.jit.trace(lambda sigmoids: sigmoids + detect._grid(0, sigmoids), torch.rand(1, 3, 4, 5, 2))
    assert traced(torch.rand(2, 3, 6, 7, 2, device="meta")).device.type == "meta"
