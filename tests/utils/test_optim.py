import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from tests.conftest import ROOT
from utils.errors import InputError
from utils.hyp import Hyp, load_hyp
from utils.optim import (
    EarlyStopping,
    Warmup,
    accumulate_steps,
    build_optimizer,
    lr_lambda,
    parameter_groups,
    scaled_weight_decay,
    temperature_at,
)

LOW = load_hyp(ROOT / "data/hyps/hyp.scratch-low.yaml")


def hyp_with(**changes) -> Hyp:
    return replace(LOW, **changes)


def names_of(model: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return [by_id[id(parameter)] for parameter in parameters]


def test_groups_of_a_model_without_parameters():
    assert parameter_groups(nn.Identity()) == ([], [], [])


def test_every_parameter_is_in_one_group():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.LayerNorm(4), nn.MultiheadAttention(4, 1), shared)
    model.append(shared)
    model.register_parameter("w", nn.Parameter(torch.ones(2)))
    norm, weights, biases = (names_of(model, group) for group in parameter_groups(model))
    assert norm == ["1.weight", "2.weight"]
    assert weights == ["w", "0.weight", "3.in_proj_weight", "3.out_proj.weight", "4.weight"]
    assert biases == ["0.bias", "1.bias", "2.bias", "3.in_proj_bias", "3.out_proj.bias", "4.bias"]


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n_dynamic", "yolov5s-transformer"])
def test_groups_agree_with_the_reference(name, golden_json):
    yolo = pytest.importorskip("models.yolo")
    expected = golden_json("schedule")["param_groups"][name]
    folder = ROOT / "models" / ("hub" if "transformer" in name else "")
    model = yolo.DetectionModel(folder / f"{name}.yaml", nc=80)
    left_out = set(expected["parameters_in_no_group"])  # of the transformer block: ours trains them
    groups = [names_of(model, group) for group in parameter_groups(model)]
    for ours, key in zip(groups, ("g0_names", "g1_names", "g2_names"), strict=True):
        assert [parameter for parameter in ours if parameter not in left_out] == expected[key]
    assert left_out <= {*groups[1], *groups[2]}


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_only_the_weights_decay(name):
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    optimizer = build_optimizer(name, model, LOW, weight_decay=0.25)
    assert type(optimizer).__name__ == name
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0.25, 0]
    assert [group["lr"] for group in optimizer.param_groups] == [LOW.lr0] * 3
    if name == "SGD":
        assert all(group["momentum"] == 0.937 and group["nesterov"] for group in optimizer.param_groups)
    else:
        assert all(group["betas"] == (0.937, 0.999) for group in optimizer.param_groups)


def test_unknown_optimizers_are_refused():
    with pytest.raises(InputError, match="SGD, Adam, AdamW was expected, got 'Lion'"):
        build_optimizer("Lion", nn.Linear(1, 1), LOW, weight_decay=0)


def test_sgd_without_momentum():
    build_optimizer("SGD", nn.Linear(1, 1), hyp_with(momentum=0), weight_decay=0)


def test_learning_rate_curves_agree_with_the_reference(golden_json):
    for key, curves in golden_json("schedule")["lr_lambda"].items():
        epochs = int(key.removeprefix("epochs="))
        for cos, name in ((False, "linear"), (True, "cosine")):
            factor = lr_lambda(epochs, curves["lrf"], cos)
            assert [factor(epoch) for epoch in range(epochs + 1)] == pytest.approx(curves[name], abs=1e-9)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
        scheduler = LambdaLR(optimizer, lr_lambda(epochs, curves["lrf"]))
        for expected in curves["scheduler_lr_linear_lr0_0p01"]:
            assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, abs=1e-9)
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("case", range(5))
def test_warm_up_agrees_with_the_reference(case, golden_json):
    golden = golden_json("schedule")["warmup"][case]
    hyp = hyp_with(**golden["hyp"], nominal_batch=golden["nominal_batch"])
    batches, batch_size, epochs = (golden[k] for k in ("number_of_batches_per_epoch", "batch_size", "epochs"))
    factor = lr_lambda(epochs, hyp.lrf, golden["cos_lr"])
    warmup = Warmup(hyp=hyp, factor=factor, batches=batches, batch_size=batch_size, minimum=1000)
    assert warmup.iterations == golden["nw"]
    assert accumulate_steps(batch_size, hyp.nominal_batch) == golden["initial_accumulate"]
    assert scaled_weight_decay(hyp, batch_size) == pytest.approx(golden["scaled_weight_decay"], abs=1e-12)

    for row in golden["rows"]:
        settings = warmup.at(row["ni"])
        assert settings.lr == pytest.approx(row["lr_g0_g1_g2"], abs=1e-9)
        assert settings.momentum == pytest.approx(row["momentum"], abs=1e-9)
        assert settings.accumulate == row["accumulate"]

    changes, stepped, last, previous = [], [], -1, None
    for step in range(epochs * batches):
        accumulate = warmup.at(step).accumulate
        if accumulate != previous:
            changes.append([step, accumulate])
            previous = accumulate
        if step - last >= accumulate:
            stepped.append(step)
            last = step
    assert changes == golden["accumulate_changes_at_ni"]
    assert len(stepped) == golden["optimizer_steps_total"]
    assert stepped[:60] == golden["optimizer_step_ni_first_60"]
    assert stepped[-10:] == golden["optimizer_step_ni_last_10"]


def test_warm_up_lengths(golden_json):
    for row in golden_json("schedule")["nw_examples"]:
        hyp = hyp_with(warmup_epochs=row["warmup_epochs"])
        lengths = [
            Warmup(hyp=hyp, factor=float, batches=row["nb"], batch_size=1, minimum=minimum).iterations
            for minimum in (1000, 100)
        ]
        assert lengths == [row["nw"], max(round(row["warmup_epochs"] * row["nb"]), 100)]


@pytest.mark.parametrize("minimum", [0, 100])
def test_without_warm_up_epochs(minimum):
    warmup = Warmup(hyp=hyp_with(warmup_epochs=0), factor=lambda _: 1, batches=7, batch_size=16, minimum=minimum)
    assert warmup.at(0).lr == ((0.01, 0.01, 0.01) if minimum == 0 else (0, 0, 0.1))
    assert warmup.at(minimum) == ((0.01, 0.01, 0.01), 0.937, 4)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_apply_writes_what_at_says(name):
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    optimizer = build_optimizer(name, model, LOW, weight_decay=0)
    warmup = Warmup(hyp=LOW, factor=lr_lambda(10, 0.01), batches=40, batch_size=16)
    for step in (0, 1, 60, 99, 100, 399):
        assert warmup.apply(optimizer, step) == warmup.at(step).accumulate
        assert tuple(group["lr"] for group in optimizer.param_groups) == warmup.at(step).lr
        for group in optimizer.param_groups:
            assert group.get("momentum", warmup.at(step).momentum) == warmup.at(step).momentum


@pytest.mark.parametrize(
    ("fitnesses", "patience", "stops_at"),
    [
        ([], 3, None),
        ([0.1] * 50, 0, None),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, None),
        ([0.1, 0.1, 0.1, 0.1, 0.1], 3, 3),
        ([0.0, 0.0, 0.0, 0.0], 2, 2),
        ([0.1, 0.3, 0.2, 0.2, 0.31, 0.2, 0.2, 0.2], 3, 7),
        ([0.1, math.nan, math.nan, math.nan], 3, 3),
    ],
)
def test_early_stopping(fitnesses, patience, stops_at):
    stopper = EarlyStopping(patience)
    stops = [stopper(epoch, fitness) for epoch, fitness in enumerate(fitnesses)]
    assert (stops.index(True) if True in stops else None) == stops_at


def test_early_stopping_agrees_with_the_reference_where_no_fitness_repeats(golden_json):
    stopper = EarlyStopping(3)
    rows = golden_json("schedule")["early_stopping_patience3"]
    for row in rows:
        if row["epoch"] == 3:
            row["fitness"] += 1e-9  # equal to the best so far: no improvement in ours, one in the reference
        stop = stopper(row["epoch"], row["fitness"])
        assert (stop, stopper.is_over(row["epoch"] + 1), stopper.best_epoch) == (
            row["stop"], row["possible_stop"], row["best_epoch"])  # fmt: skip


def test_early_stopping_goes_on_after_a_resume():
    stopper = EarlyStopping(3)
    stopper.best_fitness, stopper.best_epoch = 0.5, 4  # as a checkpoint has them
    assert [stopper(epoch, 0.4) for epoch in (5, 6, 7)] == [False, False, True]


@pytest.mark.parametrize(
    ("epochs", "changes", "expected"),
    [
        (300, {"temperature_epochs": 0}, [1, 1, 1]),
        (300, {}, [34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1, 1]),
        (12, {}, [34, 25.75, 17.5, 9.25, 1, 1]),
        (1, {}, [34]),
        (300, {"temperature": 1}, [1, 1]),
        (300, {"temperature_epochs": -1}, [34] * 300),
        (2, {"temperature_epochs": -1, "temperature": 10}, [10, 10]),
        (2, {"temperature_epochs": -1, "temperature": 1}, [1, 1]),
        (300, {"temperature": 10, "temperature_epochs": 3}, [10, 7, 4, 1, 1]),
    ],
)
def test_temperature(epochs, changes, expected):
    hyp = hyp_with(**changes)
    assert [temperature_at(epoch, epochs, hyp) for epoch in range(len(expected))] == pytest.approx(expected)
