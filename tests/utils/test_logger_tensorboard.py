from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from utils.callbacks import Callbacks
from utils.logger_tensorboard import TensorBoardLogger, traced


def read(directory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    return events


def test_scalars_and_pictures(tmp_path):
    callbacks = Callbacks()
    cv2.imwrite(str(tmp_path / "labels.jpg"), np.zeros((8, 8, 3), np.uint8))  # of an older run in this directory
    callbacks.register_all(TensorBoardLogger(tmp_path))
    cv2.imwrite(str(tmp_path / "train_batch0.jpg"), np.zeros((8, 8, 3), np.uint8))
    for epoch in range(2):
        callbacks.run("on_fit_epoch_end", epoch=epoch, values={"train/box_loss": 0.5, "x/lr0": 0.1})
    cv2.imwrite(str(tmp_path / "results.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "F1_curve.png").write_bytes(b"cut off")
    callbacks.run("on_train_end", save_dir=tmp_path, metrics=None)
    callbacks.run("teardown")
    tags = read(tmp_path).Tags()
    assert set(tags["scalars"]) == {"train/box_loss", "x/lr0"}
    assert [event.step for event in read(tmp_path).Scalars("train/box_loss")] == [0, 1]
    assert set(tags["images"]) == {"train_batch0", "results"}
    assert not tags["graph"]


class Moody(nn.Module):
    """A model whose forward can't be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("model", "step", "has_graph"),
    [(nn.Conv2d(3, 2, 1), 0, True), (nn.Conv2d(3, 2, 1), 1, False), (Moody(), 0, False)],
)
def test_the_graph_is_added_at_the_runs_first_batch_and_costs_nothing_where_it_fails(
    tmp_path, capfd, model, step, has_graph
):
    logger = TensorBoardLogger(tmp_path)
    logger.on_train_batch_end(step, SimpleNamespace(images=torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), model)
    logger.on_fit_epoch_end(0, {"x/lr0": 0.1})
    logger.teardown()
    assert read(tmp_path).Tags()["graph"] == has_graph
    assert read(tmp_path).Tags()["scalars"] == ["x/lr0"]
    assert ("RuntimeError: not today" in capfd.readouterr().err) == isinstance(model, Moody)


def test_tracing_leaves_model_and_random_state_alone():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    before, random = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = traced(model, image)(image)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(out, model.eval()(image))
