import collections
import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models import unpickling
from models.common import dynamic_layers, set_temperature
from models.weights import (
    build_model,
    load_model,
    read_checkpoint,
    renew_checkpoint,
    save_checkpoint,
    strip_optimizer,
    transfer_weights,
)
from models.yolo import DetectionModel
from tests.conftest import ROOT
from utils.ema import ModelEma
from utils.errors import InputError

PUBLIC = {
    "yolov5n": "yolov5n.pt",
    "ppe": "ppe_v61_model_class.pt",
    "duckie": "duckie_v62_detectionmodel_class.pt",
}
TINY = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 16, 30], [33, 23, 30, 61]],
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [8, 3, 4]],
        [-1, 1, "Dynamic_conv2d", [16, 1, 1]],
        [-1, 1, "Conv", [16, 3, 2]],
    ],  # fmt: skip
    "head": [[[2, 3], 1, "Detect", ["nc", "anchors"]]],
}


@pytest.fixture
def tiny() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(deepcopy(TINY), names=["cat", "dog"])


def unit_float(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).float() / 255


@pytest.mark.parametrize("fuse", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("stem", PUBLIC)
def test_public_checkpoints_predict_what_the_reference_does(stem, fuse, shared, golden_npz):
    golden = golden_npz(f"forward_{stem}")
    model = load_model(shared(f"weights/{PUBLIC[stem]}"), fuse=fuse)
    for size in ("full", "small"):
        with torch.inference_mode():
            decoded, raw = model(unit_float(golden[f"input_{size}_u8"]))
        expected = torch.from_numpy(golden[f"pred_{size}_{'fused' if fuse else 'unfused'}"])
        torch.testing.assert_close(decoded[..., :4], expected[..., :4], rtol=0, atol=3e-3)
        torch.testing.assert_close(decoded[..., 4:], expected[..., 4:], rtol=0, atol=1e-5)
    for level, output in enumerate(raw):
        expected = torch.from_numpy(golden[f"raw_small_unfused_{level}"])
        torch.testing.assert_close(output, expected, rtol=0, atol=2e-4 if fuse else 1e-4)


@pytest.mark.parametrize("stem", PUBLIC)
def test_layer_outputs_agree_with_the_reference(stem, shared, golden_npz, golden_json):
    images = unit_float(golden_npz(f"forward_{stem}")["input_small_u8"])
    stats = {row["i"]: row for row in golden_json(f"forward_{stem}")["layer_stats_small_unfused"]}
    model = load_model(shared(f"weights/{PUBLIC[stem]}"), fuse=False)
    compared = 0
    with torch.inference_mode():
        for index, _, output in model.layer_outputs(images):
            if index in stats and isinstance(output, torch.Tensor):
                row, compared = stats[index], compared + 1
                assert list(output.shape) == row["shape"]
                got = (output.mean(), output.std(), output.abs().max(), *output.flatten()[:8])
                expected = (row["mean"], row["std"], row["abs_max"], *row["first8"])
                assert [float(value) for value in got] == pytest.approx(expected, abs=1e-4)
    assert compared >= 20


@pytest.mark.parametrize("stem", PUBLIC)
def test_checkpoint_facts(stem, shared, golden_json):
    facts = golden_json("checkpoint_facts")[PUBLIC[stem]]
    checkpoint = read_checkpoint(shared(f"weights/{PUBLIC[stem]}"))
    assert checkpoint.source == "v6"
    assert checkpoint.training is None
    assert list(checkpoint.names.values()) == list(
        facts["names"].values() if isinstance(facts["names"], dict) else facts["names"]
    )
    assert list(checkpoint.names) == list(range(facts["nc"]))
    assert checkpoint.yaml["nc"] == facts["nc"]
    assert len(checkpoint.state) == facts["state_dict_entries"] - facts["has_anchor_grid_in_state_dict"]
    assert {tensor.dtype for tensor in checkpoint.state.values()} == {torch.float32, torch.int64}
    model = build_model(checkpoint)
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["parameters"]
    assert model.stride.tolist() == facts["stride"]
    assert model.names == checkpoint.names
    anchors = model.detect.anchors * model.stride.view(-1, 1, 1)
    torch.testing.assert_close(anchors, torch.tensor(facts["anchors_pixels"]))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [{module.eps for module in norms}, {module.momentum for module in norms}] == [
        set(facts["bn_eps"]), set(facts["bn_momentum"])]  # fmt: skip


def test_state_dict_of_the_official_checkpoint(shared, golden_json):
    state = read_checkpoint(shared("weights/yolov5n.pt")).state
    golden = golden_json("state_dict_yolov5n_checkpoint")
    rows = golden if isinstance(golden, list) else golden["entries"]
    expected = [(name, shape) for name, shape, _ in rows if not name.endswith("anchor_grid")]
    assert [(name, list(tensor.shape)) for name, tensor in state.items()] == expected
    assert len(rows) - len(expected) == 1


def test_no_code_of_models_runs_while_unpickling(shared, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a module was made from a pickle")

    monkeypatch.setattr(nn.Module, "__init__", never)
    monkeypatch.setattr(nn.Module, "__setstate__", never)
    assert len(read_checkpoint(shared("weights/yolov5n.pt")).state) == 349


def _v6_file(tmp_path, tiny, monkeypatch, **content) -> Path:
    """A checkpoint as v6 writes it: the module itself, pickled under the name models.yolo.DetectionModel."""
    file = tmp_path / "foreign.pt"
    torch.save({"model": tiny, "ema": None, **content}, file)
    monkeypatch.setattr(  # our own modules' names are not v6's
        unpickling, "STOOD_IN_FOR", re.compile(unpickling.STOOD_IN_FOR.pattern + r"|models\.\w+\.\w+")
    )
    return file


def test_the_average_is_preferred(tmp_path, tiny, monkeypatch):
    average = deepcopy(tiny)
    with torch.no_grad():
        average.model[0].conv.weight.fill_(0.5)
    file = _v6_file(tmp_path, tiny, monkeypatch, ema=average)
    assert torch.equal(read_checkpoint(file).state["model.0.conv.weight"], average.model[0].conv.weight)


def test_other_activations_are_refused(tmp_path, tiny, monkeypatch):
    tiny.model[0].act = nn.LeakyReLU(0.1)
    checkpoint = read_checkpoint(_v6_file(tmp_path, tiny, monkeypatch))
    with pytest.raises(InputError, match=r"model.0.act is LeakyReLU, where YOLOv5 v6 has SiLU"):
        build_model(checkpoint)


def test_weights_that_do_not_fit_the_yaml_are_refused(tmp_path, tiny, monkeypatch):
    tiny.yaml["nc"] = 7
    with pytest.raises(InputError, match="the weights do not fit the network its yaml describes"):
        build_model(read_checkpoint(_v6_file(tmp_path, tiny, monkeypatch)))


@pytest.mark.parametrize("damage", ["yaml", "names", "_modules", "_parameters"])
def test_networks_that_are_not_built_like_one(damage, tmp_path, tiny, monkeypatch):
    tiny.__dict__[damage] = "oops"
    monkeypatch.setattr(nn.Module, "__reduce_ex__", object.__reduce_ex__, raising=False)
    with pytest.raises(InputError, match=r"foreign.pt: its network"):
        read_checkpoint(_v6_file(tmp_path, tiny, monkeypatch))


def test_missing_names_are_filled_in(tmp_path, tiny, monkeypatch):
    tiny.names = ["cat"]
    assert read_checkpoint(_v6_file(tmp_path, tiny, monkeypatch)).names == {0: "cat", 1: "class1"}


@pytest.mark.parametrize("content", [{}, [], 3, {"epoch": 1}, {"model": None}, {"model": {"a": 1}}, torch.ones(1)])
def test_torch_files_that_are_no_checkpoint(content, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(InputError, match=r"file.pt: a checkpoint with a network under 'model' or 'ema' was expected"):
        read_checkpoint(tmp_path / "file.pt")


@pytest.mark.parametrize("wrap", [dict, lambda state: {"model": state}, collections.OrderedDict])
def test_a_bare_state_dict_can_be_transferred_but_not_built(wrap, tmp_path, tiny):
    torch.save(wrap(tiny.state_dict()), tmp_path / "state.pt")
    checkpoint = read_checkpoint(tmp_path / "state.pt")
    assert checkpoint.source == "tensors"
    with pytest.raises(InputError, match="--cfg must say which network"):
        build_model(checkpoint)
    other = DetectionModel(deepcopy(TINY))
    total = len(tiny.state_dict())
    assert transfer_weights(other, checkpoint) == (total, total)
    assert torch.equal(other.model[0].conv.weight, tiny.model[0].conv.weight)


def test_transfer_to_other_classes(shared, monkeypatch):
    lines = []
    monkeypatch.setattr("models.weights.LOGGER.info", lines.append)
    model = DetectionModel(ROOT / "models/yolov5n.yaml", nc=3)
    path = shared("weights/yolov5n.pt")
    checkpoint = read_checkpoint(path)
    head = model.model[24].m[0].weight.clone()
    assert transfer_weights(model, checkpoint, exclude=["anchor"]) == (342, 349)
    assert lines[-1:] == [f"Transferred 342/349 items from {path}"]
    assert torch.equal(model.model[0].conv.weight, checkpoint.state["model.0.conv.weight"])
    assert torch.equal(model.model[24].m[0].weight, head)


def trained(model: DetectionModel) -> tuple[torch.optim.Optimizer, ModelEma]:
    """One real step, so that the optimizer has state and the average differs from the model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ema = ModelEma(model, updates=10)
    sum(output.square().sum() for output in model(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    ema.update(model)
    return optimizer, ema


def assert_equal(got, expected) -> None:
    """Nested dicts and lists with tensors."""
    assert type(got) is type(expected)
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        for key in expected:
            assert_equal(got[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for pair in zip(got, expected, strict=True):
            assert_equal(*pair)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(got, expected)
    else:
        assert got == expected


def test_own_checkpoints_come_back_exactly(tiny, tmp_path):
    optimizer, ema = trained(tiny)
    file = tmp_path / "läst.pt"
    save_checkpoint(
        file,
        model=tiny,
        ema=ema,
        optimizer=optimizer,
        epoch=4,
        best_fitness=np.float64(0.25),
        info={"opt": {"data": Path("data/digits.yaml"), "imgsz": 128, "classes": (1, 2)}},
        training={"last_step": 99},
    )
    checkpoint = read_checkpoint(file)
    assert checkpoint.source == "ours"
    assert checkpoint.names == {0: "cat", 1: "dog"}
    assert_equal(checkpoint.state, {**ema.ema.state_dict()})
    training = checkpoint.training
    assert_equal(training["model"], {**tiny.state_dict()})
    assert_equal(training["optimizer"], optimizer.state_dict())
    rest = [training[key] for key in ("epoch", "best_fitness", "updates", "last_step")]
    assert rest == [4, 0.25, 11, 99]
    assert checkpoint.info["opt"] == {"data": "data/digits.yaml", "imgsz": 128, "classes": (1, 2)}
    rebuilt = build_model(checkpoint)
    assert rebuilt.yaml == tiny.yaml
    assert_equal({**rebuilt.state_dict()}, {**ema.ema.state_dict()})


def test_the_temperature_is_in_the_file(tiny, tmp_path):
    set_temperature(tiny, 7.0)
    save_checkpoint(tmp_path / "last.pt", model=tiny)
    ((_, layer),) = dynamic_layers(load_model(tmp_path / "last.pt"))
    assert layer.attention.temperature == 7


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1, []), (17.5, ["its attention runs at temperature 17.5, not 1: it was saved before the annealing ended"])],
)
def test_a_temperature_that_is_not_annealed_is_told(temperature, expected, tiny, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("models.weights.LOGGER.warning", told.append)
    set_temperature(tiny, temperature)
    save_checkpoint(tmp_path / "last.pt", model=tiny)
    load_model(tmp_path / "last.pt")
    assert len(told) == len(expected)
    assert all(str(tmp_path / "last.pt") in line and part in line for line, part in zip(told, expected, strict=True))


def test_a_static_model_has_no_temperature_to_tell_of(shared, monkeypatch):
    told = []
    monkeypatch.setattr("models.weights.LOGGER.warning", told.append)
    load_model(shared("weights/yolov5n.pt"))
    assert told == []


def test_stripping_keeps_the_temperature_exactly(tiny, tmp_path):
    set_temperature(tiny, 34 - 33 / 11 * 2 / 3)
    save_checkpoint(tmp_path / "best.pt", model=tiny)
    strip_optimizer(tmp_path / "best.pt")
    ((_, layer),) = dynamic_layers(build_model(read_checkpoint(tmp_path / "best.pt")))
    assert layer.attention.temperature == dynamic_layers(tiny)[0][1].attention.temperature


@pytest.mark.parametrize("plain", [None, 7, 7.5])
def test_the_published_layers_temperature_is_a_plain_number(plain, tmp_path, tiny, monkeypatch):
    ((name, layer),) = dynamic_layers(tiny)
    del layer.attention.temperature
    if plain is not None:
        layer.attention.temperature = plain
    checkpoint = read_checkpoint(_v6_file(tmp_path, tiny, monkeypatch))
    assert (f"{name}.attention.temperature" in checkpoint.state) == (plain is not None)
    ((_, rebuilt),) = dynamic_layers(build_model(checkpoint))
    assert rebuilt.attention.temperature == (plain or 34)


def test_own_checkpoints_name_no_class_of_ours(tiny, tmp_path):
    optimizer, ema = trained(tiny)
    save_checkpoint(tmp_path / "last.pt", model=tiny, ema=ema, optimizer=optimizer)
    torch.load(tmp_path / "last.pt", weights_only=True)
    names = unpickling._globals_in(tmp_path / "last.pt")
    assert all(name.startswith(("torch.", "torch._utils.", "collections.")) for name in names)
    assert "torch.nn" not in str(names)


@pytest.mark.parametrize("value", [object(), nn.ReLU(), print, {1, 2}])
def test_what_is_not_plain_data_is_not_written(value, tiny, tmp_path):
    with pytest.raises(TypeError, match="plain data was expected"):
        save_checkpoint(tmp_path / "last.pt", model=tiny, info={"opt": {"x": [value]}})
    assert not list(tmp_path.iterdir())


def test_stripping(tiny, tmp_path):
    optimizer, ema = trained(tiny)
    ema.ema.model[0].bn.running_var[0] = 1e6  # float16 would make it infinite
    file = tmp_path / "best.pt"
    save_checkpoint(file, model=tiny, ema=ema, optimizer=optimizer, epoch=3, info={"data": "data/digits.yaml"})
    complete = file.stat().st_size
    strip_optimizer(file)
    stored = torch.load(file, weights_only=True)
    assert stored["training"] is None
    assert stored["state"]["model.0.conv.weight"].dtype == torch.float16
    assert stored["state"]["model.0.bn.running_var"].dtype == torch.float32
    assert stored["state"]["model.0.bn.num_batches_tracked"].dtype == torch.int64
    checkpoint = read_checkpoint(file)
    assert checkpoint.training is None
    assert (checkpoint.info["data"], checkpoint.info["epoch"]) == ("data/digits.yaml", 3)
    assert file.stat().st_size < complete
    for name, tensor in ema.ema.state_dict().items():
        torch.testing.assert_close(checkpoint.state[name], tensor, rtol=1e-3, atol=1e-4)
    before = file.read_bytes()
    strip_optimizer(file)
    assert len(file.read_bytes()) == len(before), "stripping twice changes nothing"


def test_other_projects_files_are_not_stripped(tmp_path, shared):
    copy = tmp_path / "yolov5n.pt"
    copy.write_bytes(shared("weights/yolov5n.pt").read_bytes())
    with pytest.raises(InputError, match="another project's"):
        strip_optimizer(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "checkpoint version 1 was expected, got 99"),
        ({"version": None}, "checkpoint version 1"),
        ({"state": {}}, "state is missing"),
        ({"state": {"a": 1}}, "state is missing"),
        ({"yaml": ...}, "yaml is missing"),
    ],
)
def test_damaged_or_newer_own_checkpoints(change, message, tiny, tmp_path):
    save_checkpoint(tmp_path / "last.pt", model=tiny)
    content = {**torch.load(tmp_path / "last.pt", weights_only=True), **change}
    torch.save({key: value for key, value in content.items() if value is not ...}, tmp_path / "last.pt")
    with pytest.raises(InputError, match=message):
        read_checkpoint(tmp_path / "last.pt")


def test_a_write_that_fails_leaves_the_old_file(tiny, tmp_path, monkeypatch):
    file = tmp_path / "last.pt"
    save_checkpoint(file, model=tiny)
    before = file.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(file, model=tiny)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_load_model_is_ready_for_inference(tiny, tmp_path):
    save_checkpoint(tmp_path / "last.pt", model=tiny)
    for fuse in (True, False):
        model = load_model(tmp_path / "last.pt", device="cpu", fuse=fuse)
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()) is not fuse


def test_renewing_makes_a_small_checkpoint_of_ours_and_keeps_the_others(shared, tmp_path):
    file = tmp_path / "yolov5n.pt"
    file.write_bytes(shared("weights/yolov5n.pt").read_bytes())
    before = load_model(file)
    renew_checkpoint(file)
    renew_checkpoint(file)  # now one of ours
    checkpoint = read_checkpoint(file)
    assert (checkpoint.source, checkpoint.training, checkpoint.names) == ("ours", None, before.names)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load_model(file)(images)[0], before(images)[0])
    assert (tmp_path / "yolov5n.pt.bak").read_bytes() == shared("weights/yolov5n.pt").read_bytes()


def test_renewing_drops_what_a_training_needs(tmp_path):
    model = DetectionModel("yolov5n.yaml", nc=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save_checkpoint(tmp_path / "last.pt", model=model, optimizer=optimizer, epoch=3)
    renew_checkpoint(tmp_path / "last.pt")
    assert read_checkpoint(tmp_path / "last.pt").training is None
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_published_weights_that_are_not_here_have_an_address(tmp_path):
    with pytest.raises(
        InputError, match=r"no file .*yolov5s\.pt. It is published at https://\S+/v6\.1/yolov5s\.pt: down"
    ):
        read_checkpoint(tmp_path / "yolov5s.pt")
    with pytest.raises(InputError, match=r"no file .*mine\.pt$"):
        read_checkpoint(tmp_path / "mine.pt")
