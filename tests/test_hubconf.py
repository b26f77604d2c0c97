"""torch.hub's entry points as people call them, and beside modules of theirs that bear our packages' names."""

import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import hubconf
from models.autoshape import AutoShape
from models.backend import Backend
from models.common import dynamic_layers
from models.ensemble import Ensemble
from models.export_metadata import Metadata
from models.export_onnx import export_onnx
from models.export_options import ExportOptions
from models.export_torchscript import export_torchscript
from models.weights import load_model, save_checkpoint
from models.yolo import DetectionModel
from tests.conftest import ROOT
from utils import official_weights as published
from utils.errors import InputError
from utils.log import LOGGER

NAMES = ("circle", "square")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained two-class nano model as a checkpoint."""
    file = tmp_path_factory.mktemp("weights") / "best.pt"
    save_checkpoint(file, model=DetectionModel("yolov5n_dyconv.yaml", nc=2, names=list(NAMES)), epoch=0)
    return file


@pytest.fixture
def nothing_published(tmp_path, monkeypatch):
    """No published weights but those that a test puts into the working directory, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(published, "ROOT", tmp_path / "repository")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(published, "RELEASE", "http://127.0.0.1:1/v6.1")


def load(entry, *args, **options):
    return torch.hub.load(str(ROOT), entry, *args, source="local", **options)


# --------------------------------------------------------------------------------------------------------- entry points
def test_the_entry_points_and_nothing_else():
    public = {name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    kinds = ("", "6", "_dynamic", "_dyconv")
    assert public == {"custom", *(f"yolov5{size}{kind}" for size in "nsmlx" for kind in kinds)}


@pytest.mark.parametrize("name", ["yolov5s", "yolov5m6", "yolov5n_dynamic", "yolov5x_dyconv"])
def test_arguments_and_help_are_those_of_the_reference(name):
    entry = getattr(hubconf, name)
    defaults = {parameter.name: parameter.default for parameter in inspect.signature(entry).parameters.values()}
    assert list(defaults) == ["pretrained", "channels", "classes", "autoshape", "_verbose", "device", "verbose"]
    assert list(defaults.values()) == [True, 3, 80, True, True, None, True]
    assert entry.__name__ == name
    assert f"{name}.yaml" in entry.__doc__
    assert list(inspect.signature(hubconf.custom).parameters)[:4] == ["path", "autoshape", "_verbose", "device"]


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_a_file_of_ones_own(weights, device):
    model = load("custom", path=weights, device=device)
    assert isinstance(model, AutoShape)
    assert model.names == dict(enumerate(NAMES))
    assert model.stride == 32
    model.conf = 0
    results = model(np.zeros((48, 64, 3), np.uint8), size=64)
    assert set(results.pandas().xyxy[0]["name"]) <= set(NAMES)
    assert str(results).startswith("image 1/1: 48x64 ")


def test_the_network_itself_can_be_trained(weights):
    network = load("custom", str(weights), autoshape=False, device="cpu")
    assert isinstance(network, DetectionModel)
    assert not network.training
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(network(images)[0], load_model(weights)(images)[0], atol=1e-3, rtol=1e-3)
    sum(level.sum() for level in network.train()(torch.rand(2, 3, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_several_files_are_an_ensemble(weights):
    images = torch.rand(1, 3, 64, 64)
    one, two = (load("custom", path=path, device="cpu")(images) for path in (weights, [weights, str(weights)]))
    torch.testing.assert_close(two, torch.cat((one, one), 1))
    assert isinstance(load("custom", path=[weights, weights], autoshape=False), Ensemble)


@pytest.mark.parametrize(
    ("entry", "options", "told"),
    [
        ("custom", {"path": "nowhere.pt"}, r"nowhere\.pt"),
        ("custom", {"path": "a.txt"}, r"a\.txt"),
        ("custom", {"path": "nowhere.pt", "device": "99"}, "--device"),
        ("yolov5n", {"channels": 4, "pretrained": False}, "channels=4 needs autoshape=False"),
        ("yolov5n", {}, r"put it into one of these directories"),
    ],
)
def test_what_cannot_be_loaded_is_told(nothing_published, entry, options, told):
    with pytest.raises(InputError, match=told):
        load(entry, **options)


@pytest.mark.parametrize(
    ("name", "dynamic", "strides"),
    [("yolov5n", 0, [8, 16, 32]), ("yolov5n6", 0, [8, 16, 32, 64]), ("yolov5n_dynamic", 2, [8, 16, 32])],
)
def test_a_model_from_scratch(nothing_published, name, dynamic, strides):
    network = load(name, pretrained=False, classes=3, channels=1, autoshape=False)
    assert (network.nc, network.names[2], network.yaml["ch"]) == (3, "2", 1)
    assert network.stride.tolist() == strides
    assert len(dynamic_layers(network)) == dynamic
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_model_from_scratch_for_images(nothing_published):
    model = load("yolov5n_dyconv", pretrained=False)
    assert len(model.names) == 80
    assert model(Image.new("RGB", (32, 32)), size=32).n == 1


@pytest.mark.parametrize(("options", "quiet"), [({}, False), ({"_verbose": False}, True)])
def test_verbose(weights, options, quiet, capsys):
    model = load("custom", path=weights, device="cpu", **options)
    told = capsys.readouterr().err
    assert ("torch" in told) != quiet
    assert "temperature" in told  # a warning is told in any case
    model(np.zeros((32, 32, 3), np.uint8), size=32).print()
    assert "image 1/1" in capsys.readouterr().err
    hubconf.custom(weights, device="cpu", verbose=not quiet)
    assert ("torch" in capsys.readouterr().err) != quiet
    assert LOGGER.isEnabledFor(20)


# ---------------------------------------------------------------------------------------------------- published weights
@pytest.fixture
def nano(nothing_published, shared, tmp_path):
    """The published weights of yolov5n lie in the working directory; a photograph beside them."""
    (tmp_path / "yolov5n.pt").symlink_to(shared("weights/yolov5n.pt"))
    return shared("images/bus.jpg")


def test_published_weights(nano):
    model = load("yolov5n", device="cpu")
    assert model.names[0] == "person"
    assert "4 persons, 1 bus" in str(model(nano))


def test_published_weights_for_other_classes(nano, capsys):
    network = load("yolov5n", classes=2, autoshape=False)
    assert "Transferred 342/349 items" in capsys.readouterr().err  # all but the three heads, and the anchors
    expected = load_model("yolov5n.pt", fuse=False)
    assert torch.equal(network.model[0].conv.weight, expected.model[0].conv.weight)
    assert network.nc == 2


def test_a_dynamic_model_starts_as_the_published_static_one(nano, capsys):
    model = load("yolov5n_dyconv", _verbose=False)
    assert "yolov5n_dyconv starts from yolov5n.pt: it has no published weights and is to be trained" in (
        capsys.readouterr().err
    )
    expected = load("yolov5n")(nano).xyxy[0]
    found = model(nano).xyxy[0]
    assert found.shape == expected.shape
    torch.testing.assert_close(found[:, :4], expected[:, :4], atol=8, rtol=0)
    torch.testing.assert_close(found[:, 4:], expected[:, 4:], atol=0.05, rtol=0)


# ------------------------------------------------------------------------------------------------------- exported files
@pytest.mark.parametrize(("suffix", "export"), [(".torchscript", export_torchscript), (".onnx", export_onnx)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_an_exported_file(weights, tmp_path, suffix, export, dynamic):
    if suffix == ".onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    network, size_hw = load_model(weights), (64, 96)
    metadata = Metadata(dict(network.names), imgsz=size_hw, dynamic=dynamic)
    file = export(network, tmp_path / f"best{suffix}", ExportOptions(metadata, imgsz_hw=size_hw, dynamic=dynamic))
    model = load("custom", path=file, device="cpu")
    assert model.names == dict(enumerate(NAMES))
    images = torch.rand(3, 3, *size_hw)
    torch.testing.assert_close(model(images), network(images)[0], atol=1e-3, rtol=1e-3)
    assert model([np.zeros((200, 300, 3), np.uint8)] * 2, size=160).s == (2, 3, *((128, 160) if dynamic else size_hw))
    backend = load("custom", path=file, device="cpu", autoshape=False)
    assert isinstance(backend, Backend)
    assert torch.equal(backend(images), model(images))


# ------------------------------------------------------------------------------------------------- beside other modules
def python(code, cwd):
    """What code prints, in a new interpreter in that directory, which is on its path."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-c", f"import torch\nrepo = {str(ROOT)!r}\n{code}"]
    answer = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


LOAD = "model = torch.hub.load(repo, 'custom', path='best.pt', source='local', device='cpu', _verbose=False)\n"
USE = """
import copy, numpy
image = numpy.zeros((40, 60, 3), numpy.uint8)
model.conf = 0
results = copy.deepcopy(model)([image, image], size=64)
results.pandas(), results.render(), results.save(), results.crop(), results[0].xywhn, model(torch.zeros(1, 3, 32, 32))
print(len(results))
"""


@pytest.fixture
def program(tmp_path, weights):
    """A directory with weights and a program's own module `utils`, a package, and `models`, code in a bare folder."""
    (tmp_path / "best.pt").symlink_to(weights)
    for folder, file in (("utils", "__init__.py"), ("utils", "general.py"), ("models", "mine.py")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / file).write_text(f"NAME = '{folder}/{file}'")
    return tmp_path


@pytest.mark.slow
def test_a_programs_own_modules_imported_before(program):
    code = f"import utils.general, models.mine\n{LOAD}{LOAD}{USE}import utils.general as again\n"
    code += "import sys\nprint(again.NAME, utils.NAME, models.mine.NAME, utils.general is again)\n"
    code += "print('utils.boxes' in sys.modules, repo in sys.path)"
    expected = ["2", "utils/general.py", "utils/__init__.py", "models/mine.py", "True", "False", "False"]
    assert python(code, program) == expected


@pytest.mark.slow
def test_a_programs_own_modules_imported_after(program):
    code = f"{LOAD}import utils.general, models.mine\n{USE}print(utils.NAME, models.mine.NAME)"
    assert python(code, program) == ["2", "utils/__init__.py", "models/mine.py"]


@pytest.mark.slow
def test_without_such_modules_ours_stay(tmp_path, weights):
    (tmp_path / "best.pt").symlink_to(weights)
    (tmp_path / "models").mkdir()  # of weights, not of code
    optional = "matplotlib", "seaborn", "thop", "sklearn", "tensorboard", "onnxruntime"  # not in `dependencies`
    code = (
        f"import sys, pickle\nsys.modules.update(dict.fromkeys({optional}))\n{LOAD}assert 'pandas' not in sys.modules"
    )
    code += f"{USE}print('models.yolo' in sys.modules, repo in sys.path)\n"
    code += "print(type(pickle.loads(pickle.dumps(model))).__name__)"
    assert python(code, tmp_path) == ["2", "True", "False", "AutoShape"]
