"""Files of Core ML, NCNN, TFLite and TensorFlow of a tiny dynamic network: what they compute in their runtimes, and
what the backends make of files that are none. Each is tested where its packages are installed."""

import sys
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
import torch

from models import export_tensorflow
from models.backends import BACKENDS, load_backend
from models.export_formats import EXPORTERS, export_formats
from models.export_metadata import Metadata
from models.runtime_tensorrt import LENGTH_BYTES, split
from models.runtime_tflite import dequantized, quantized
from models.weights import load_model
from tests.models.exporting import CPU, NAMES, exported, tiny_model
from tests.models.mil import predict
from utils.augmentations import letterbox
from utils.errors import InputError
from utils.nms import non_max_suppression

RUN_HERE = ("ncnn", "saved_model", "pb", "tflite")
CONFIGS = ("yolov5n.yaml", "yolov5n_dynamic.yaml", "yolov5n_dyconv.yaml")
SIZE = (64, 96)  # of the exported files


def check_packages(kind: str) -> None:
    """Skips where one is missing. They are not imported here: TensorFlow must not come before triton."""
    missing = [package for package in EXPORTERS[kind].packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install -r {EXPORTERS[kind].requirements}")


@pytest.fixture(params=RUN_HERE)
def kind(request):
    """Each format that runs here."""
    check_packages(request.param)
    return request.param


def images(batch: int) -> torch.Tensor:
    return torch.rand(batch, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def differences(backend, model, batch: int, summary=torch.max) -> tuple[float, float]:
    """Of boxes, in pixels, and of scores: the largest, or their mean."""
    wanted, found = model(images(batch))[0], backend(images(batch))
    assert (found.shape, found.dtype) == (wanted.shape, torch.float32)
    apart = (found - wanted).abs()
    return float(summary(apart[..., :4])), float(summary(apart[..., 4:]))


# -------------------------------------------------------------------------------------------------------------- numbers
@pytest.mark.slow
@pytest.mark.parametrize("cfg", CONFIGS)
def test_a_file_predicts_what_pytorch_predicts(kind, cfg, tmp_path):
    backend = load_backend(exported(tiny_model(cfg), kind, tmp_path), CPU)
    assert (backend.names, backend.stride, backend.fixed_hw, backend.fixed_batch) == (NAMES, 32, SIZE, 1)
    for count in (1, 3):
        box_px, score = differences(backend, tiny_model(cfg), count)
        assert box_px < 0.01
        assert score < 1e-4


@pytest.mark.slow
def test_published_weights_on_a_photograph(kind, shared, tmp_path):
    model, photograph = load_model(shared("weights/yolov5n.pt")), cv2.imread(str(shared("images/bus.jpg")))
    pixels = letterbox(photograph, (320, 256))[0][..., ::-1].transpose(2, 0, 1)  # RGB, (3, H, W)
    inputs = torch.from_numpy(pixels.copy()).unsqueeze(0).float() / 255
    backend = load_backend(exported(model, kind, tmp_path, imgsz_hw=(320, 256)), CPU)
    wanted, found = non_max_suppression(model(inputs)[0])[0], non_max_suppression(backend(inputs))[0]
    assert len(wanted) > 3
    torch.testing.assert_close(found, wanted, atol=0.01, rtol=0)


def test_a_relative_path_is_enough(tmp_path, monkeypatch):
    check_packages("ncnn")
    monkeypatch.chdir(tmp_path)
    file = exported(tiny_model(), "ncnn", Path())
    assert not file.is_absolute()
    assert {each.name for each in file.iterdir()} >= {"model.ncnn.param", "model.ncnn.bin"}


@pytest.mark.slow
def test_several_images_at_a_time(kind, tmp_path):
    if kind == "ncnn":
        with pytest.raises(InputError, match="--batch-size 1"):
            exported(tiny_model(), kind, tmp_path, batch_size=2)
        return
    backend = load_backend(exported(tiny_model(), kind, tmp_path, batch_size=2), CPU)
    assert backend.fixed_batch == 2
    assert max(differences(backend, tiny_model(), 3)) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "box_px", "score", "smaller"),
    [
        ("ncnn", {"half": True}, 0.1, 0.001, 0.6),
        ("tflite", {"half": True}, 0.1, 0.001, 0.8),
        ("tflite", {"int8": True, "calibration": lambda: iter(images(4).split(1))}, 5, 0.05, 0.7),
    ],
)
def test_fewer_bits(kind, options, box_px, score, smaller, tmp_path):
    check_packages(kind)
    (tmp_path / "float32").mkdir()
    whole = exported(tiny_model(), kind, tmp_path / "float32")
    file = exported(tiny_model(), kind, tmp_path, **options)
    assert megabytes(file) < smaller * megabytes(whole)
    backend = load_backend(file, CPU)
    apart = differences(backend, tiny_model(), 2, torch.mean)
    assert apart[0] < box_px
    assert apart[1] < score
    assert max(differences(backend, tiny_model(), 2)) > 0.01, "it is as exact as float32"


def megabytes(file: Path) -> float:
    files = file.rglob("*") if file.is_dir() else [file]
    return sum(each.stat().st_size for each in files if each.is_file()) / 1e6


# -------------------------------------------------------------------------------------------------------------- Core ML
@pytest.mark.slow
@pytest.mark.parametrize("cfg", CONFIGS)
@pytest.mark.parametrize(
    ("options", "box_px", "score"), [({}, 1e-3, 1e-5), ({"half": True}, 0.5, 1e-3), ({"int8": True}, 2, 0.01)]
)
def test_a_core_ml_program_computes_what_pytorch_computes(cfg, options, box_px, score, tmp_path):
    """By tests/models/mil.py, as Core ML is on macOS alone; on average, as 16 and 8 bits move single boxes."""
    check_packages("coreml")
    file = exported(tiny_model(cfg), "coreml", tmp_path, **options)
    pixels = (images(1) * 255).round()
    apart = (predict(file, pixels) - tiny_model(cfg)(pixels / 255)[0]).abs()
    assert apart[..., :4].mean() < box_px
    assert apart[..., 4:].mean() < score


@pytest.mark.slow
def test_a_core_ml_package_takes_an_image_and_tells_its_classes(tmp_path):
    check_packages("coreml")
    file = exported(tiny_model(), "coreml", tmp_path)
    import coremltools

    spec = coremltools.models.MLModel(str(file), skip_model_load=True).get_spec()
    (image,), (output,) = spec.description.input, spec.description.output
    assert (image.name, image.type.imageType.height, image.type.imageType.width) == ("image", *SIZE)
    assert (output.name, list(output.type.multiArrayType.shape)) == ("output", [1, 378, 7])
    assert dict(spec.description.metadata.userDefined)["names"] == repr(NAMES)
    if sys.platform != "darwin":
        with pytest.raises(InputError, match="macOS"):
            load_backend(file, CPU)


# ------------------------------------------------------------------------------------------------- what cannot be done
def test_the_table_has_every_format_of_the_reference():
    names = [row.name for row in export_formats()]
    assert set(names) >= {"torchscript", "onnx", "openvino", "engine", "coreml", "saved_model", "pb", "tflite"}
    assert set(names) >= {"edgetpu", "tfjs", "ncnn"}
    suffixes = {row.suffix for row in export_formats()} - {"_web_model", "_edgetpu.tflite"}  # run by no Python
    assert suffixes <= BACKENDS.keys()


def test_the_compiler_for_edge_tpus_is_nothing_to_install(tmp_path):
    with pytest.raises(InputError, match="edgetpu_compiler is no package.*tflite --int8"):
        exported(tiny_model(), "edgetpu", tmp_path)


def test_tensorflow_js_asks_for_its_virtual_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(export_tensorflow, "TFJS_VENV", tmp_path / ".venv-tfjs")
    with pytest.raises(InputError, match=r"python -m venv \.venv-tfjs && .*requirements-tfjs\.txt"):
        exported(tiny_model(), "tfjs", tmp_path)


@pytest.mark.slow
def test_tensorflow_js_gets_a_saved_model(tmp_path):
    check_packages("tfjs")
    if not export_tensorflow.TFJS_VENV.is_dir():
        pytest.skip("needs .venv-tfjs: see requirements-tfjs.txt")
    folder = exported(tiny_model(), "tfjs", tmp_path)
    assert (folder / "model.json").read_text().count("graph-model") == 1
    assert (folder / "metadata.json").is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_tensorrt_needs_a_gpu(tmp_path):
    with pytest.raises(InputError, match="needs an NVIDIA GPU"):
        exported(tiny_model(), "engine", tmp_path)
    (tmp_path / "x.engine").write_bytes(b"x")
    with pytest.raises(InputError, match="needs an NVIDIA GPU"):
        load_backend(tmp_path / "x.engine", CPU)


def test_the_metadata_in_front_of_an_engine(tmp_path):
    file = tmp_path / "x.engine"
    text = Metadata(NAMES).as_json().encode()
    file.write_bytes(len(text).to_bytes(LENGTH_BYTES, "little") + text + b"engine")
    metadata, engine = split(file)
    assert (metadata.names, engine) == (NAMES, b"engine")
    for content in (b"", b"ab", (2**31).to_bytes(LENGTH_BYTES, "little") + b"{}"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="an engine behind its metadata"):
            split(file)


# --------------------------------------------------------------------------------------------------- files of strangers
def test_what_is_no_network_is_told(kind, tmp_path):
    suffix = EXPORTERS[kind].suffix
    missing = tmp_path / f"missing{suffix}"
    with pytest.raises(InputError, match="missing"):
        load_backend(missing, CPU)
    wrong = tmp_path / f"wrong{suffix}"
    if suffix.startswith("_"):
        wrong.mkdir()
        for name in ("model.ncnn.param", "model.ncnn.bin", "saved_model.pb"):
            (wrong / name).write_bytes(b"7767517\nno network")
    else:
        wrong.write_bytes(b"no network at all")
    with pytest.raises(InputError, match="wrong"):
        load_backend(wrong, CPU)


@pytest.mark.slow
def test_the_nodes_of_the_reference_in_a_frozen_graph(tmp_path):
    """x and Identity, further outputs, and nothing told of the classes."""
    check_packages("pb")
    from utils.tensorflow_beside_torch import import_tensorflow

    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (1, *SIZE, 3), "x")
        predictions = tf.reshape(tf.ones(14) / 2 + 0 * tf.reduce_sum(x), (1, 2, 7))
        tf.identity(predictions, "Identity")
        tf.identity(x, "Identity_1")
    file = tmp_path / "v6.pb"
    file.write_bytes(graph.as_graph_def().SerializeToString())
    backend = load_backend(file, CPU)
    assert (backend.names, backend.fixed_hw, backend.fixed_batch) == ({0: "class0", 1: "class1"}, SIZE, 1)
    assert backend(images(1))[0, 0].tolist() == [48, 32, 48, 32, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("kind", "quantization", "whole", "values"),
    [
        ("float32", (0.0, 0), [0.0, 0.5, 1.0], [0.0, 0.5, 1.0]),
        ("uint8", (1 / 255, 0), [0, 128, 255], [0.0, 128 / 255, 1.0]),
        ("int8", (1 / 255, -128), [-128, 0, 127], [0.0, 128 / 255, 1.0]),
    ],
)
def test_inputs_and_outputs_of_eight_bits(kind, quantization, whole, values):
    """As v6.1's --int8 has them."""
    entry = {"dtype": np.dtype(kind).type, "quantization": quantization}
    whole, values = np.array(whole, kind), np.array(values, np.float32)
    assert quantized(values, entry).dtype == whole.dtype
    assert quantized(values, entry).tolist() == whole.tolist()
    assert dequantized(whole, entry).tolist() == pytest.approx(values.tolist())


@pytest.mark.slow
def test_a_tflite_file_without_metadata_has_numbered_classes(tmp_path):
    check_packages("tflite")
    file = exported(tiny_model(), "tflite", tmp_path)
    with ZipFile(file) as archive:
        (entry,) = archive.infolist()
    file.write_bytes(file.read_bytes()[: entry.header_offset])
    assert load_backend(file, CPU).names == {0: "class0", 1: "class1"}
