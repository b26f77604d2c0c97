import pytest
import torch

from utils.speed import Speed, StageTimers


def test_times_add_up_and_are_shared_among_the_images(monkeypatch):
    timers = StageTimers(torch.device("cpu"))
    assert timers.mean_ms(0) == Speed(0, 0, 0)
    clock = iter([0.0, 0.25, 1.0, 1.5, 2.0, 3.0, 4.0, 4.75])
    monkeypatch.setattr("utils.torch_utils.time_sync", lambda device: next(clock))
    for stage in (timers.preprocess, timers.inference, timers.nms, timers.preprocess):
        with stage:
            pass
    assert timers.mean_ms(4) == pytest.approx(Speed(preprocess=250, inference=125, nms=250))
