"""The helpers of the benchmarks behind docs/speed.md. What they measure is no test's affair."""

import subprocess
import sys
import time

import pytest
import torch

from benchmarks import infer, loader, nms, startup, train_epoch, train_step
from benchmarks.timing import Elsewhere, Ratio, speed_table, spread, three_digits
from utils.log import LOGGER


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """What a benchmark sets for its own process stays out of the other tests'."""
    level = LOGGER.level
    for benchmark in (infer, train_step):
        monkeypatch.setattr(benchmark, "keep_freed_memory", lambda: False)
    yield
    LOGGER.setLevel(level)


@pytest.mark.parametrize(
    ("number", "text"), [(0.0, "0.00"), (0.012345, "0.0123"), (1, "1.00"), (12.345, "12.3"), (1234.5, "1234")]
)
def test_three_digits(number, text):
    assert three_digits(number) == text


@pytest.mark.parametrize(("ratio", "text"), [(Ratio(1, 1, 1), "1.00"), (Ratio(0.5, 0.45, 0.52), "0.50 (0.45-0.52)")])
def test_a_spread_is_shown_where_there_is_one(ratio, text):
    assert spread(ratio) == text


def test_speeds_are_told_against_the_reference():
    table = speed_table({"old": [0.2, 0.4], "new": [0.1, 0.2]}, "old", what="step", images=16)
    assert table.splitlines()[2:] == [
        "| old | 300 | 53.3 | 1.00 | 1.00 |",
        "| new | 150 | 107 | 0.50 | 2.00 |",
    ]


def made_counter(first):
    numbers = [first]
    return lambda: numbers.append(numbers[-1] + 1)


def test_a_function_elsewhere_is_called_and_ends():
    step = Elsewhere(made_counter, 5)
    step()
    step()
    peak = step.end()
    assert peak is None or peak > 2**20


@pytest.mark.parametrize(("text", "size"), [("320x16", (320, 16)), ("640x8", (640, 8))])
def test_sizes(text, size):
    assert train_step.size_of(text) == size


@pytest.mark.parametrize("name", [train_step.REFERENCE, train_step.OURS])
def test_a_step_of_each_kind_trains(name):
    step = train_step.made_step(train_step.VARIANTS[name], "n", 32, 2, "cpu")
    step()
    step()


def test_stages_add_up_to_the_innermost():
    clock = train_epoch.StageClock()
    clock.begin_epoch()
    with clock.stage("outer"):
        time.sleep(0.002)
        clock.timed("inner", time.sleep)(0.004)
    outer, inner = (clock.epochs[0][name] for name in ("outer", "inner"))
    assert outer >= 0.002
    assert inner >= 0.004


def test_an_epochs_table_has_a_row_for_each_cache():
    stages = dict.fromkeys(train_epoch.STAGES, 1.0)
    lines = train_epoch.table({"none": train_epoch.Speed(10.0, 8.0, stages)}).splitlines()
    assert lines[2] == "| none | 100 | 125 | 80% |"
    assert lines[-1].count("| 1.00 ") == len(stages)
    assert lines[-1].endswith("| 5.00 |")  # 10 ms less the five stages of the training part


@pytest.mark.parametrize("crowded", [False, True])
def test_every_box_is_a_candidate(crowded):
    pred = nms.predictions(50, crowded=crowded)
    assert pred.shape == (1, 50, 5 + nms.NC)
    assert (pred[..., 4] * pred[..., 5:].amax(-1) > 0.25).all()
    assert (pred[..., 2:4] >= 2).all() or crowded


def test_a_start_is_measured_and_a_failure_told():
    found = startup.started([sys.executable, "-S", "-c", "pass"])
    assert found.seconds > 0
    assert found.peak_bytes > 2**20
    with pytest.raises(subprocess.CalledProcessError):
        startup.started([sys.executable, "-S", "-c", "raise SystemExit(3)"])


def test_the_options_of_every_benchmark_have_defaults():
    for benchmark in (infer, loader, nms, startup, train_epoch, train_step):
        assert vars(benchmark.parse_opt([]))


def test_a_network_of_each_kind_runs():
    for name in (infer.REFERENCE, "--half", "dyconv"):
        infer.made_forward(infer.VARIANTS[name], "n", 64, 1, "cpu")()
    assert torch.is_grad_enabled()
