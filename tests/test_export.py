"""export.py as people call it: real models to the three formats that every machine runs, then detect.py and val.py on
the files. The formats of other runtimes are in tests/models."""

import inspect
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import detect
import export
import val
from engine import comparer
from models.backends import load_backend
from models.common import set_temperature
from models.export_formats import EXPORTERS
from models.spread import spread_kernels
from models.weights import load_model, read_checkpoint, save_checkpoint, transfer_weights
from models.yolo import DetectionModel
from tests.conftest import ROOT
from tests.shell import shell
from utils.augmentations import letterbox
from utils.images import read_image

CPU = torch.device("cpu")
FORMATS = ("torchscript", "onnx", "openvino")
pytestmark = pytest.mark.openvino  # one export of all three serves most of these tests


def need_packages(*names: str) -> None:
    for name in names:
        for package in EXPORTERS[name].packages:
            pytest.importorskip(package)


def picture(size_hw: tuple[int, int], batch: int) -> torch.Tensor:
    """The shipped digits as a network's input."""
    image = letterbox(read_image(ROOT / "data" / "images" / "digits1.jpg"), size_hw)[0][..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255).repeat(batch, 1, 1, 1)


@pytest.fixture(scope="module", autouse=True)
def _few_rounds():
    """The latency is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WARMUP_ROUNDS": 1, "ROUNDS": 3, "FEWEST_ROUNDS": 1}.items():
            patch.setattr(comparer, name, value)
        yield


@pytest.fixture(scope="module")
def official(shared, tmp_path_factory):
    """yolov5n.pt in a folder that may be written to."""
    folder = tmp_path_factory.mktemp("official")
    return Path(shutil.copyfile(shared("weights/yolov5n.pt"), folder / "yolov5n.pt"))


@pytest.fixture(scope="module")
def free_files(official, shared):
    """The official nano weights in the three formats, with free shapes."""
    need_packages(*FORMATS)
    data = shared("datasets/coco8/coco8.yaml")
    made = export.run(weights=official, data=data, include=FORMATS, dynamic=True, imgsz=320)
    return {each.format: each for each in made}


# ---------------------------------------------------------------------------------------------------- the command line
def test_run_takes_the_flags_of_the_shell():
    parameters = inspect.signature(export.run).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(export.parse_opt([])).items()
    }
    assert defaults == given


def test_every_flag_of_the_help_tells_its_default_and_every_format():
    text = " ".join(export.build_parser().format_help().split())
    assert text.count("(default: ") == len(vars(export.parse_opt([])))
    formats = re.search(r"--include .*?(torchscript.*?)\(default", text)[1]
    assert re.sub(r"\(.*?\)", "", formats).replace(" ", "").strip(",").split(",") == list(EXPORTERS)


def test_the_shell_shows_one_message(tmp_path):
    answer = shell("export.py", "--weights", "nowhere.pt", cwd=tmp_path)
    assert answer.returncode == 1
    assert re.fullmatch(r"Error: .*nowhere\.pt.*\n", answer.stderr.splitlines(keepends=True)[-1])


@pytest.mark.slow
def test_through_the_shell(tmp_path):
    """The newest run's best.pt, to TorchScript; nothing is said but by us."""
    file = tmp_path / "runs" / "train" / "exp" / "weights" / "best.pt"
    file.parent.mkdir(parents=True)
    save_checkpoint(file, model=DetectionModel("yolov5n.yaml", nc=2, names=["a", "b"]))
    answer = shell("export.py", "--include", "torchscript", "--imgsz", 64, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert file.with_suffix(".torchscript").exists()
    assert answer.stdout == ""
    assert "Warning" not in answer.stderr


# -------------------------------------------------------------------------------------------------------------- numbers
@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_official_weights_in_a_free_file(free_files, official, name):
    """Batch 1 to 4 and 320 to 256 x 416 on one file."""
    assert free_files[name].proof.faults == ()
    assert len(free_files[name].proof.cases) == 4
    assert all(case.detections > 0 for case in free_files[name].proof.cases)
    backend, model = load_backend(free_files[name].file, CPU), load_model(official)
    for batch, size_hw in ((1, (320, 320)), (4, (320, 320)), (1, (256, 416)), (4, (256, 416))):
        inputs = picture(size_hw, batch)
        torch.testing.assert_close(backend(inputs), model(inputs)[0], atol=0.02, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_map_is_that_of_pytorch(free_files, official, shared, tmp_path, name):
    data = shared("datasets/coco8/coco8.yaml")
    options = {"data": data, "project": tmp_path, "workers": 0, "device": "cpu", "batch_size": 3}
    wanted, found = (val.run(weights=file, **options) for file in (official, free_files[name].file))
    assert (found.map, found.map50) == pytest.approx((wanted.map, wanted.map50), abs=1e-3)
    assert (found.precision, found.recall) == pytest.approx((wanted.precision, wanted.recall), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FORMATS, "dnn"])
def test_detections_of_a_fixed_file(official, shared, tmp_path, name):
    """On the bus, in a file for 480 x 640 pixels."""
    chosen = "onnx" if name == "dnn" else name
    need_packages(chosen)
    data = shared("datasets/coco8/coco8.yaml")
    (made,) = export.run(weights=official, include=chosen, imgsz=[480, 640], data=data)
    assert made.proof.faults == ()
    runs = [
        detect.run(
            weights=file, source=shared("images/bus.jpg"), imgsz=[480, 640], device="cpu", nosave=True, save_txt=True,
            save_conf=True, project=tmp_path, name=kind, dnn=name == "dnn" and kind == "exported",
        )
        for kind, file in (("exported", made.file), ("torch", official))
    ]  # fmt: skip
    exported, pytorch = (np.loadtxt(run.save_dir / "labels" / "bus.txt", ndmin=2) for run in runs)
    # the file's whole 480 x 640 holds a border that PyTorch is spared: the objects are the same, not their last digits
    assert len(exported) == len(pytorch) >= 4
    assert sorted(exported[:, 0]) == sorted(pytorch[:, 0])


@pytest.mark.slow
def test_suppression_inside_finds_what_detect_finds(official, shared, tmp_path):
    need_packages("onnx")
    data = shared("datasets/coco8/coco8.yaml")
    (made,) = export.run(weights=official, include="onnx", nms=True, dynamic=True, data=data)
    assert made.proof.faults == ()
    runs = [
        detect.run(
            weights=file, source=shared("images"), device="cpu", nosave=True, save_txt=True, project=tmp_path, name=kind
        )
        for kind, file in (("exported", made.file), ("torch", official))
    ]
    for stem in ("bus", "zidane"):
        exported, pytorch = (np.loadtxt(run.save_dir / "labels" / f"{stem}.txt", ndmin=2) for run in runs)
        np.testing.assert_allclose(exported, pytorch, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("cfg", ["yolov5n_dynamic", "yolov5n_dyconv"])
def test_dynamic_models_in_a_free_file(official, shared, tmp_path, cfg):
    """Their kernels spread from the official weights, so that they detect."""
    need_packages(*FORMATS)
    model, start = DetectionModel(f"{cfg}.yaml"), read_checkpoint(official)
    set_temperature(model, 1.0)
    spread = spread_kernels(model, start.state, noise=0.1, rng=np.random.default_rng(0))
    transfer_weights(model, replace(start, state=spread))
    file = tmp_path / f"{cfg}.pt"
    save_checkpoint(file, model=model)
    made = export.run(weights=file, data=shared("datasets/coco8/coco8.yaml"), include=FORMATS, imgsz=320, dynamic=True)
    reference = load_model(file)
    for each in made:
        assert each.proof.faults == ()
        backend = load_backend(each.file, CPU)
        for batch, size_hw in ((1, (320, 320)), (4, (256, 416))):
            inputs = picture(size_hw, batch)
            torch.testing.assert_close(backend(inputs), reference(inputs)[0], atol=0.02, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cfg", ["yolov5s_dyconv", "yolov5m_dynamic", "yolov5l_dyconv", "yolov5x", "yolov5x_dynamic"])
def test_larger_models(tmp_path, cfg):
    need_packages("onnx")
    file = tmp_path / "large.pt"
    save_checkpoint(file, model=DetectionModel(f"{cfg}.yaml", nc=2, names=["a", "b"]))
    (made,) = export.run(weights=file, include="onnx", imgsz=[64, 32], dynamic=True)
    assert made.proof.faults == ()
