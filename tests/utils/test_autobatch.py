"""AutoBatch: the fit on synthetic measurements, and one real choice on the CPU."""

import pytest
import torch
from torch import nn

from models.yolo import DetectionModel
from utils import autobatch
from utils.autobatch import FALLBACK, TRIED, MemoryMeter, auto_batch_size, choose_batch_size, fitted_batch_size
from utils.errors import InputError
from utils.memory import peak_memory, resident_memory


@pytest.mark.parametrize(
    ("sizes", "peaks", "limit", "expected"),
    [
        ((), (), 1000, None),
        ((1,), (100,), 1000, None),
        (TRIED, (100,) * 5, 1000, None),  # does not grow
        (TRIED, (500, 100, 90, 80, 70), 1000, None),  # shrinks
        (TRIED, [50 + 10 * n for n in TRIED], 50 + 10 * 33.1, 33),
        (TRIED, [50 + 10 * n for n in TRIED], 50 + 10 * 33.9, 33),
        ((1, 2), (60, 70), 1055, 100),
        (TRIED, [50 + 10 * n for n in TRIED], 20, 1),  # nothing fits: one image is the least
    ],
)
def test_fit(sizes, peaks, limit, expected):
    assert fitted_batch_size(sizes, peaks, limit) == expected


class Machine:
    """Memory of which a step with n images takes fixed + n * an_image; a step beyond `free` fails as CUDA does."""

    def __init__(self, *, free, fixed=0, an_image=10, tells=True):
        self.free, self.fixed, self.an_image, self.tells = free, fixed, an_image, tells
        self.steps, self.last = [], 0

    def step(self, n: int) -> None:
        self.steps.append(n)
        self.last = self.fixed + self.an_image * n
        if self.last > self.free:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def peak_of(self, run) -> int | None:
        run()
        return 1000 + self.last if self.tells else None

    def meter(self, fraction=0.9, most=1024) -> MemoryMeter:
        return MemoryMeter(lambda: 1000 if self.tells else None, lambda: self.free, self.peak_of, fraction, most)


@pytest.mark.parametrize(
    ("machine", "options", "expected", "tried"),
    [
        ({"free": 1005}, {}, 90, [1, 1, 2, 4, 8, 16]),
        ({"free": 1005, "fixed": 100}, {}, 80, [1, 1, 2, 4, 8, 16]),
        ({"free": 1005}, {"multiple": 4}, 88, [1, 1, 2, 4, 8, 16]),
        ({"free": 100_000}, {}, 1024, [1, 1, 2, 4, 8, 16]),
        ({"free": 60}, {}, 5, [1, 1, 2, 4]),  # 8 might not fit, so it is not tried
        ({"free": 15}, {}, 1, [1, 1]),
        ({"free": 15}, {"multiple": 4}, 4, [1, 1]),
        ({"free": 60, "fixed": 11}, {}, 4, [1, 1, 2]),
        ({"free": 1000, "an_image": 0}, {}, FALLBACK, [1, 1, 2, 4, 8, 16]),
        ({"free": 1000, "tells": False}, {}, FALLBACK, [1]),
    ],
)
def test_choice(machine, options, expected, tried):
    machine = Machine(**machine)
    assert choose_batch_size(machine.step, machine.meter(), **options) == expected
    assert machine.steps == tried


def test_stops_at_the_first_size_that_does_not_fit():
    machine = Machine(free=35)  # it says that more is free
    limited = MemoryMeter(lambda: 1000, lambda: 1005, machine.peak_of, 0.9, 1024)
    assert choose_batch_size(machine.step, limited) == 90
    assert machine.steps == [1, 1, 2, 4]


def test_one_image_too_many_is_an_error():
    machine = Machine(free=5)
    with pytest.raises(InputError, match="not even one image"):
        choose_batch_size(machine.step, machine.meter())


def test_a_fallback_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(autobatch.LOGGER, "warning", told.append)
    machine = Machine(free=1000, an_image=0)
    choose_batch_size(machine.step, machine.meter())
    assert "cannot be measured" in told[0]


def test_a_device_that_does_not_tell_gets_the_fallback(monkeypatch):
    monkeypatch.setattr(autobatch, "METERS", {})
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(0, 0))
    assert auto_batch_size(model, imgsz=32, device=torch.device("cpu"), dtype=None) == FALLBACK


CFG = {
    "nc": 2,
    "depth_multiple": 0.33,
    "width_multiple": 0.25,
    "anchors": [[10, 13, 16, 30, 33, 23]],
    "backbone": [[-1, 1, "Conv", [64, 6, 2, 2]], [-1, 1, "Dynamic_conv2d", [128, 3, 1]]],
    "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
}


@pytest.mark.skipif(resident_memory() is None, reason="this system does not tell a process's memory")
def test_real_steps_on_the_cpu(monkeypatch):
    model = DetectionModel(CFG)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    monkeypatch.setattr(autobatch, "memory_share", lambda: 2**30)  # half of it is filled
    size = auto_batch_size(model, imgsz=256, device=torch.device("cpu"), dtype=None)
    assert 4 <= size <= 64
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    used = resident_memory()
    step = autobatch.trial_step(model, imgsz=256, device=torch.device("cpu"), dtype=None)
    peak = autobatch.cpu_meter().peak_of(lambda: step(size))
    assert peak - used < 2**30
    assert peak <= peak_memory()
