"""Suppression as an ONNX graph against that in Python, on predictions that are put in."""

import numpy as np
import pytest
import torch

from models.export_nms import with_suppression
from models.export_options import Suppression
from utils.nms import non_max_suppression

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
NC = 3


def session(settings: Suppression, *, shape: tuple, opset: int = 17):
    """A network that gives back what it gets, (B, N, 5 + NC), with suppression behind it."""
    value = {name: onnx.helper.make_tensor_value_info(name, 1, shape) for name in ("images", "output")}
    node = onnx.helper.make_node("Identity", ["images"], ["output"])
    graph = onnx.helper.make_graph([node], "network", [value["images"]], [value["output"]])
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    joined = with_suppression(network, settings)
    onnx.checker.check_model(joined, full_check=True)
    return onnxruntime.InferenceSession(joined.SerializeToString(), providers=["CPUExecutionProvider"])


def predictions(batch: int, count: int, seed: int = 0) -> torch.Tensor:
    """Boxes of which many overlap, some too small, some too large."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(50, 250, (batch, count, 2)).round(-1) + rng.normal(0, 2, (batch, count, 2))
    sides = rng.choice([1.0, 30.0, 60.0, 9000.0], (batch, count, 2), p=[0.05, 0.45, 0.45, 0.05])
    rows = np.concatenate((centres, sides, rng.uniform(0, 1, (batch, count, 1 + NC))), 2)
    return torch.from_numpy(rows.astype(np.float32))


def expected(rows: torch.Tensor, settings: Suppression) -> list[torch.Tensor]:
    """Detections in Python, and the first of each class and in all."""
    found = non_max_suppression(
        rows, settings.conf_thres, settings.iou_thres, agnostic=settings.agnostic, max_det=rows.shape[1]
    )
    kept = []
    for detections in found:
        seen: dict[int, int] = {}
        chosen = []
        for row in detections:
            cls = -1 if settings.agnostic else int(row[5])
            seen[cls] = seen.get(cls, 0) + 1
            if seen[cls] <= (settings.topk_all if settings.agnostic else settings.topk_per_class):
                chosen.append(row)
        kept.append(torch.stack(chosen[: settings.topk_all]) if chosen else torch.zeros(0, 6))
    return kept


@pytest.mark.parametrize(
    ("batch", "count", "settings"),
    [
        (1, 1, Suppression(conf_thres=1.0)),  # nothing is found
        (1, 1, Suppression(conf_thres=0.0)),
        (3, 400, Suppression()),
        (2, 400, Suppression(agnostic=True)),
        (2, 400, Suppression(conf_thres=0.05, iou_thres=0.6, topk_per_class=2, topk_all=100)),
        (2, 400, Suppression(conf_thres=0.05, topk_per_class=100, topk_all=4)),
        (2, 400, Suppression(conf_thres=0.05, topk_per_class=3, topk_all=4, agnostic=True)),
    ],
)
@pytest.mark.parametrize("free", [False, True])
def test_it_finds_what_python_finds(batch, count, settings, free):
    rows = predictions(batch, count)
    shape = (None, None, 5 + NC) if free else tuple(rows.shape)
    (output,) = session(settings, shape=shape).run(None, {"images": rows.numpy()})
    assert output.shape == (batch, min(settings.topk_all, count), 6)
    for found, wanted in zip(torch.from_numpy(output), expected(rows, settings), strict=True):
        assert (found[len(wanted) :, 4] == 0).all()  # what is left over is no detection
        torch.testing.assert_close(found[: len(wanted)], wanted, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("opset", [12, 13, 18, 20, 21])
def test_opsets(opset):
    rows = predictions(1, 50)
    (output,) = session(Suppression(), shape=tuple(rows.shape), opset=opset).run(None, {"images": rows.numpy()})
    (wanted,) = expected(rows, Suppression())
    torch.testing.assert_close(torch.from_numpy(output)[0, : len(wanted)], wanted, atol=1e-3, rtol=1e-4)
