"""What a training works on, as prepare() makes it, and single steps of the loop on it."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from engine import training_setup
from engine.trainer import begin_epoch
from engine.training_epoch import (
    CLIP_NORM,
    MAX_LOST_IN_ROW,
    TrainingDiverged,
    optimizer_step,
    train_batch,
    train_one_epoch,
)
from engine.training_setup import fit_anchors, prepare
from engine.training_state import TrainState
from models.common import dynamic_layers
from models.yolo import DetectionModel
from tests.conftest import ROOT
from tests.tiny import CFG
from utils.autoanchor import best_possible_recall
from utils.callbacks import Callbacks
from utils.hyp import load_hyp

LOW = load_hyp(Path(__file__).parents[2] / "data/hyps/hyp.scratch-low.yaml")


@pytest.fixture
def prepared(data, tmp_path):
    """prepared(batch_size=4, ...) -> the state of a training on the shapes that has not begun, or that goes on."""

    def run(callbacks: Callbacks | None = None, **options) -> TrainState:
        usual = {"imgsz": 64, "batch_size": 4, "epochs": 12, "workers": 0, "device": "cpu", "noplots": True}
        usual |= {**data, "project": str(tmp_path / "runs")}
        opt = Namespace(**{**vars(train.parse_opt([])), **usual, **options})
        opt.given = sorted(options)
        return prepare(opt, callbacks or Callbacks())

    return run


# -------------------------------------------------------------------------------------------------------------- anchors
def labelled(wh: np.ndarray, imgsz: int) -> Namespace:
    """A loader whose square pictures have a label each of these sizes (m, 2) in pixels."""
    centres = np.full_like(wh, 0.5)
    rows = np.concatenate((np.zeros((len(wh), 1)), centres, wh / imgsz), 1)
    index = Namespace(sizes_wh=np.full((len(wh), 2), 1000), rows=rows, offsets=np.arange(len(wh) + 1))
    return Namespace(dataset=Namespace(index=index))


def anchors_px(model: DetectionModel) -> np.ndarray:
    return (model.detect.anchors * model.detect.stride.view(-1, 1, 1)).numpy()


@pytest.mark.parametrize(("low", "high", "change"), [(12, 100, False), (150, 620, True)])
def test_anchors_change_where_labels_need_others(low, high, change):
    model = DetectionModel(CFG)
    before = anchors_px(model).copy()
    wh = np.random.default_rng(0).uniform(low, high, (60, 1)).repeat(2, 1)
    fit_anchors(model, labelled(wh, 640), LOW, 640)
    after = anchors_px(model)
    assert np.array_equal(before, after) != change
    assert best_possible_recall(wh, after.reshape(-1, 2), LOW.anchor_t)[0] > 0.98
    assert (after.prod(2).mean(1)[1:] > after.prod(2).mean(1)[:-1]).all(), "small anchors belong to small strides"


def edited(file: Path, change) -> str:
    """The checkpoint with `change` made to its content."""
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)
    return str(file)


def test_a_resumed_run_keeps_its_anchors_and_what_it_knows_of_its_classes(tiny, prepared):
    def change(content: dict) -> None:
        for state in (content["state"], content["training"]["model"]):
            state[next(key for key in state if key.endswith("anchors"))].mul_(1.5)
        content["training"]["class_maps"] = [0.25, 0.75]

    before = DetectionModel(CFG).detect.anchors
    last = edited(tiny() / "weights" / "last.pt", change)
    state = prepared(resume=last, epochs=2)
    for anchors in (state.model.detect.anchors, state.ema.ema.detect.anchors, state.loss_fn.anchors):
        assert torch.allclose(anchors, before * 1.5)
    assert state.progress.class_maps.tolist() == [0.25, 0.75]


# ---------------------------------------------------------------------------------------------------- steps of the loop
def test_image_weights_prefer_classes_that_are_found_badly(prepared, monkeypatch):
    state = prepared(image_weights=True)
    drawn = []
    monkeypatch.setattr(state.train_loader.sampler, "set_weights", drawn.append)
    state.progress.class_maps = np.array([0.9, 0.0])
    state.progress.epoch = 1
    begin_epoch(state)
    (weights,) = drawn
    classes = state.train_loader.dataset.index.rows[:, 0]
    assert sorted(set(classes)) == [0, 1]
    assert weights[classes == 1] / weights[classes == 0] == pytest.approx(100)  # as many labels of each


def test_model_and_average_get_the_temperature_of_the_epoch(prepared):
    state = prepared()
    for epoch, temperature in ((0, 34), (1, 25.75), (4, 1)):
        state.progress.epoch = epoch
        begin_epoch(state)
        for model in (state.model, state.ema.ema):
            assert [float(layer.attention.temperature) for _, layer in dynamic_layers(model)] == [temperature]


def gathered(state: TrainState, batch, monkeypatch, *, quad: bool) -> torch.Tensor:
    """The gradient of one batch."""
    state.opt.quad = quad
    state.optimizer.zero_grad()
    monkeypatch.setattr(state, "accumulated", lambda step: False)
    train_batch(state, batch, 0)
    return torch.cat([parameter.grad.flatten() for parameter in state.model.parameters()])


def test_quad_counts_a_batch_four_times(prepared, monkeypatch):
    state = prepared(amp=False)
    batch = next(iter(state.train_loader))
    plain, quad = (gathered(state, batch, monkeypatch, quad=quad) for quad in (False, True))
    assert torch.allclose(quad, plain * 4, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("gradient", "norm"), [(0.0, 0.0), (1e-4, None), (1e6, CLIP_NORM)])
def test_a_huge_gradient_is_clipped(gradient, norm, prepared):
    state = prepared()
    parameters = list(state.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, gradient)
    unclipped = gradient * sum(parameter.numel() for parameter in parameters) ** 0.5
    used = []

    def measure() -> None:
        used.append(float(torch.cat([parameter.grad.flatten() for parameter in parameters]).norm()))

    state.callbacks.register("on_before_zero_grad", measure)
    optimizer_step(state)
    assert used == [pytest.approx(unclipped if norm is None else norm, rel=1e-3)]


# ------------------------------------------------------------------------------------------- losses that are not finite
def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items() if "num_batches" not in name}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_batch_whose_loss_is_not_finite_leaves_no_trace(value, prepared, monkeypatch):
    state = prepared(amp=False)
    state.model.train()
    batch, before = next(iter(state.train_loader)), tensors(state)
    loss_fn = state.loss_fn
    monkeypatch.setattr(state, "loss_fn", lambda *args: (loss_fn(*args)[0] * value, loss_fn(*args)[1] * value))
    train_batch(state, batch, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(state).items())
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert (state.progress.skipped, state.progress.losses.tolist()) == (1, [0, 0, 0])
    monkeypatch.setattr(state, "loss_fn", loss_fn)
    train_batch(state, batch, 1)
    assert state.progress.lost_in_row == 0
    assert state.progress.losses.sum() > 0


def test_gradients_that_are_not_finite_are_dropped(prepared):
    state = prepared(amp=False)
    before = tensors(state)
    for parameter in state.model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer_step(state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(state).items())
    assert (state.progress.skipped, state.progress.dropped, state.ema.updates) == (0, 1, 0)


def test_many_in_a_row_end_the_training_with_advice(prepared, monkeypatch, capfd):
    state = prepared(amp=False, batch_size=1)
    broken = torch.tensor([float("nan")])
    monkeypatch.setattr(state, "loss_fn", lambda *_: (broken, broken.expand(3)))
    train_one_epoch(state)
    assert state.progress.batches == 8
    assert "8 of 8 batches were skipped" in capfd.readouterr().err
    state.progress.next_epoch()
    state.progress.lost_in_row = MAX_LOST_IN_ROW - 3
    advice = r"in epoch 1\. No epoch was saved yet\. Try a lower lr0 \(it is 0\.01\)"
    with pytest.raises(TrainingDiverged, match=advice):
        train_one_epoch(state)
    assert state.progress.batches == 2


# --------------------------------------------------------------------------------------------------------- what is told
@pytest.mark.parametrize(
    ("epochs", "batch_size", "steps", "smaller"),
    [
        (1, 4, 2, "--batch-size"),
        (12, 4, 4, "nominal_batch (it is 64) in the hyperparameters"),
        (79, 4, 9, "nominal_batch (it is 64) in the hyperparameters"),
        (80, 4, 10, None),
        (5, 8, 5, "--batch-size"),
        (300, 8, 37, None),
    ],
)
def test_very_few_optimizer_steps_are_warned_of(epochs, batch_size, steps, smaller, prepared, capfd):
    prepared(epochs=epochs, batch_size=batch_size)
    told = capfd.readouterr().err
    assert f", about {steps} optimizer steps\n" in told
    warning = f"WARNING: A whole training of about {steps} optimizer steps teaches a model next to nothing: "
    assert (warning in told) == (smaller is not None)
    assert smaller is None or f"or a smaller {smaller} (docs/troubleshooting.md, entry 22)" in told
    entry = (ROOT / "docs/troubleshooting.md").read_text().partition("\n### 22. ")[2].partition("\n### ")[0]
    assert "Few optimizer steps" in entry


# ------------------------------------------------------------------------------------------------------------ AutoBatch
def test_autobatch_tells_the_batch_size_that_it_chose(prepared, monkeypatch):
    """How it chooses is tested in tests/utils/test_autobatch.py."""
    heard, callbacks = [], Callbacks()
    callbacks.register("on_params_update", lambda params: heard.append(params))
    monkeypatch.setattr(training_setup, "auto_batch_size", lambda model, **given: heard.append(given) or 2)
    state = prepared(callbacks, batch_size=-1, multi_scale=True, amp=False)
    device = torch.device("cpu")
    assert heard == [{"imgsz": 96, "device": device, "dtype": None, "multiple": 1}, {"batch_size": 2}]
    assert state.opt.batch_size == state.train_loader.batch_size == 2
