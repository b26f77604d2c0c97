"""Ten iterations of the training step (warm-up, accumulation, SGD with Nesterov momentum, average of weights), put
together from the same pieces as the trainer's, against the reference's losses and final weights. Without gradient
clipping, which the reference does not have."""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from models.yolo import DetectionModel
from utils.ema import ModelEma
from utils.hyp import load_hyp
from utils.loss import DetectionLoss
from utils.optim import Warmup, build_optimizer, scaled_weight_decay
from utils.torch_utils import to_channels_last_, to_unit_float

CPU = torch.device("cpu")
ITERATIONS = 10


class Iteration(NamedTuple):
    lr: list[float]
    momentum: float
    accumulate: int
    stepped: bool
    loss: float
    parts: list[float]


def train(golden: dict, arrays: dict, channels_last: bool) -> tuple[list[Iteration], DetectionModel, ModelEma]:
    """The stored batches through a model that starts from the stored weights."""
    model = DetectionModel(golden["yaml"])
    start = {key.removeprefix("sd0/"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith("sd0/")}
    model.load_state_dict(start)
    if channels_last:
        to_channels_last_(model)
    hyp = load_hyp(golden["hyp_after_scaling"] | {"nominal_batch": golden["nominal_batch"]})
    batch_size = golden["batch_size"]
    warmup = Warmup(
        hyp=replace(hyp, warmup_epochs=0),
        factor=lambda epoch: 1.0,
        batches=ITERATIONS,
        batch_size=batch_size,
        minimum=golden["nw"],
    )
    loss_fn = DetectionLoss(model.detect.anchors, nc=model.nc, hyp=hyp, strides=model.stride)
    optimizer = build_optimizer("SGD", model, hyp, weight_decay=scaled_weight_decay(hyp, batch_size))
    ema = ModelEma(model)
    history, last_step = [], -1
    model.train()
    for step in range(ITERATIONS):
        accumulate = warmup.apply(optimizer, step)
        images = to_unit_float(torch.from_numpy(arrays[f"it{step}/images_u8"]), CPU, channels_last)
        loss, parts = loss_fn(model(images), torch.from_numpy(arrays[f"it{step}/targets"]))
        loss.backward()
        stepped = step - last_step >= accumulate
        if stepped:
            optimizer.step()
            optimizer.zero_grad()
            ema.update(model)
            last_step = step
        groups = optimizer.param_groups
        rates = [group["lr"] for group in groups]
        history.append(
            Iteration(rates, groups[0]["momentum"], accumulate, stepped, float(loss.detach()), parts.tolist())
        )
    return history, model, ema


def compare_tensors(state: dict[str, Tensor], golden: dict[str, dict]) -> None:
    state = {name: tensor for name, tensor in state.items() if not name.endswith("temperature")}
    assert list(state) == list(golden)
    for name, expected in golden.items():
        tensor = state[name].double()
        tolerance = 5e-3 * (expected["norm"] + 1e-3)
        assert float(tensor.norm()) == pytest.approx(expected["norm"], abs=tolerance), name
        assert float(tensor.sum()) == pytest.approx(expected["sum"], abs=tolerance * max(1, tensor.numel() ** 0.5)), (
            name
        )
        first = tensor.flatten()[:3].tolist()
        assert first == pytest.approx(expected["first3"], abs=max(tolerance, 1e-3)), name


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("case", ["static", "dynamic"])
def test_ten_iterations_agree_with_the_reference(case, channels_last, golden_json, golden_npz):
    golden = golden_json(f"train_trace_{case}")
    history, model, ema = train(golden, golden_npz(f"train_trace_{case}"), channels_last)
    for step, (got, expected) in enumerate(zip(history, golden["iterations"], strict=True)):
        assert got.lr == pytest.approx(expected["lr"], abs=1e-9)
        assert got.momentum == pytest.approx(expected["momentum"], abs=1e-9)
        assert got.accumulate == expected["accumulate"]
        assert got.stepped == expected["optimizer_step"]
        tolerance = 1e-5 if step == 0 else 5e-4
        assert got.loss == pytest.approx(expected["loss_times_bs"], rel=tolerance)
        # rounding grows from step to step; in float64 both layouts agree to 1e-8
        assert got.parts == pytest.approx(expected["box_obj_cls"], rel=10 * tolerance)
    assert ema.updates == golden["ema_updates"]
    compare_tensors(model.state_dict(), golden["final_model"])
    compare_tensors(ema.ema.state_dict(), golden["final_ema"])
