"""The search space, and what a search writes."""

import csv
import math
from dataclasses import asdict, replace

import pytest
import yaml

from tests.conftest import ROOT
from utils.errors import InputError
from utils.evolution import METRICS, RANGES, TrialResult, best_of, drawn_hyp, search_space, write_best, write_table
from utils.hyp import FIELDS, load_hyp

FILES = sorted((ROOT / "data/hyps").glob("hyp.*.yaml"))
LOW = load_hyp(ROOT / "data/hyps/hyp.scratch-low.yaml")


def trial(number, fitness=0.5, state="complete", **changes):
    metrics = {name: fitness for name in METRICS}
    return TrialResult(
        number=number, state=state, epochs=3, fitness=fitness, metrics=metrics, hyp=replace(LOW, **changes)
    )


@pytest.mark.parametrize("name", RANGES)
def test_every_range_is_one_of_valid_hyperparameters(name):
    range_ = RANGES[name]
    assert range_.low < range_.high
    assert range_.low > 0 or not range_.log
    for value in (range_.low, range_.high):
        assert getattr(replace(LOW, **{name: value}), name) == value  # Hyp refuses what is out of its range


def test_all_of_v61_can_be_varied_and_nothing_that_a_flag_sets():
    assert set(FIELDS) - set(RANGES) == {"label_smoothing", "kernel_noise", "nominal_batch"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("dynamic", [True, False])
def test_the_space_holds_the_start_and_leaves_off_what_is_off(file, dynamic):
    start = load_hyp(file)
    space = search_space(start, dynamic=dynamic)
    for name, range_ in space.items():
        assert range_.low <= getattr(start, name) <= range_.high
    off = {name for name, value in asdict(start).items() if not value}
    assert not off & set(space)
    assert {"temperature", "temperature_epochs"} <= set(space) if dynamic else "temperature" not in space
    assert set(space) | off | {"temperature", "temperature_epochs"} >= set(RANGES)


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        ({"obj": 1.0}, 0.2, 4),
        ({"obj": 4.0}, 0.2, 4),
        ({"obj": 12.0}, 0.2, 24),
        ({"obj": 0.1}, 0.05, 4),
        ({"momentum": 0.99}, 0.6, 1),  # Hyp's own limit
        ({"temperature_epochs": 0.5}, 0.25, 30),
    ],
    ids=str,
)
def test_a_start_outside_of_its_range_widens_it(change, low, high):
    (name,) = change
    range_ = search_space(replace(LOW, **change), dynamic=True)[name]
    assert (range_.low, range_.high) == (low, high)


def test_drawn_values_are_rounded_and_the_start_is_not():
    start = replace(LOW, lr0=0.0123456789)
    assert drawn_hyp(start, {}) == start
    assert drawn_hyp(start, {"lr0": 0.0123456789, "box": 0.0654321987}) == replace(start, box=0.065432)
    with pytest.raises(InputError, match="momentum"):
        drawn_hyp(start, {"momentum": 2.0})


@pytest.mark.parametrize(
    ("trials", "number"),
    [
        ([], None),
        ([trial(0, 0.9, "pruned"), trial(1, 0.9, "diverged")], None),
        ([trial(0, 0.1), trial(1, 0.3), trial(2, 0.2)], 1),
        ([trial(0, 0.3), trial(1, 0.3)], 0),
        ([trial(0, 0.1), trial(1, 0.9, "pruned")], 0),
    ],
)
def test_the_best_is_a_complete_trial_and_the_first_of_equals(trials, number):
    best = best_of(trials)
    assert (best and best.number) == number


@pytest.mark.parametrize("trials", [[], [trial(0)], [trial(0), trial(4, 0.25, "pruned", lr0=0.003, anchors=3.4)]])
def test_the_table_has_a_row_a_trial_with_all_hyperparameters(trials, tmp_path):
    write_table(trials, tmp_path / "evolve.csv")
    with open(tmp_path / "evolve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["trial"]), row["state"], float(row["fitness"])) for row in rows] == [
        (one.number, one.state, one.fitness) for one in trials
    ]
    for row, one in zip(rows, trials, strict=True):
        assert {name: float(row[name]) for name in METRICS} == one.metrics
        for name, value in asdict(one.hyp).items():
            if name != "label_smoothing":
                assert (float(row[name]) if row[name] else None) == value


def test_the_best_file_is_a_hyp_file_with_a_comment(tmp_path):
    file = tmp_path / "hyp_evolve.yaml"
    write_best(trial(7, 0.25, lr0=0.003), file, trials=12, command="python train.py --hyp x")
    assert load_hyp(file) == replace(LOW, lr0=0.003)
    comment = [line for line in file.read_text().splitlines() if line.startswith("# ")]
    assert comment[0] == "# Trial 7, the best of 12: fitness 0.25 in 3 epochs"
    assert comment[-1] == "# To train with it: python train.py --hyp x"
    assert [path.name for path in tmp_path.iterdir()] == ["hyp_evolve.yaml"]


def test_figures_that_are_not_finite_stay_readable(tmp_path):
    odd = replace(trial(0), metrics={name: math.nan for name in METRICS})
    write_table([odd], tmp_path / "evolve.csv")
    write_best(odd, tmp_path / "hyp.yaml", trials=1, command="x")
    assert yaml.safe_load((tmp_path / "hyp.yaml").read_text())["lr0"] == LOW.lr0
