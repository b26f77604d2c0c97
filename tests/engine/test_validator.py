"""The validator against detections that are right, wrong or missing by construction."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.validator import ValOptions, image_results, validate
from models.backend import Backend
from models.runtime_torch import TorchBackend
from models.yolo import DetectionModel
from utils.boxes import xyxy2xywhn
from utils.callbacks import HOOKS, Callbacks
from utils.dataloaders import Batch
from utils.hyp import load_hyp
from utils.loss import DetectionLoss
from utils.tally import Metrics, table_row

NAMES = {0: "circle", 1: "square", 2: "star"}
ROOT = Path(__file__).resolve().parents[2]
SIDE = 64  # of the letterboxed images


class Oracle(Backend):
    """Detects what it was told to: rows (n, 6) [xyxy, confidence, class] in pixels of the input, a list for each image
    in the order of the loader."""

    def __init__(self, detections: list[list[list[float]]]) -> None:
        super().__init__(NAMES, 32, torch.device("cpu"))
        self.detections, self.seen = list(detections), 0

    def _infer(self, images):
        decoded = torch.zeros(len(images), 20, 5 + self.nc)
        for image in range(len(images)):
            for row, (x1, y1, x2, y2, confidence, cls) in enumerate(self.detections[self.seen]):
                decoded[image, row, :5] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, confidence])
                decoded[image, row, 5 + int(cls)] = 1
            self.seen += 1
        return decoded

    def with_raw(self, images):
        return self(images), [torch.zeros(len(images), 3, 8, 8, 5 + self.nc)]


def make_batch(labels: list[list[list[float]]], *, size_hw=(SIDE, SIDE), pad_wh=(0.0, 0.0), ratio=1.0) -> Batch:
    """A batch of grey images with labels [cls, x1, y1, x2, y2] in pixels of the input."""
    rows = [torch.zeros(0, 6)]
    for image, boxes in enumerate(labels):
        for cls, *xyxy in boxes:
            xywhn = xyxy2xywhn(torch.tensor([xyxy], dtype=torch.float32), (SIDE, SIDE))
            rows.append(torch.cat((torch.tensor([[image, float(cls)]]), xywhn), 1))
    shapes = tuple((size_hw, ((ratio, ratio), pad_wh)) for _ in labels)
    images = torch.full((len(labels), 3, SIDE, SIDE), 114, dtype=torch.uint8)
    return Batch(images, torch.cat(rows), tuple(f"images/{i}.jpg" for i in range(len(labels))), shapes)


BOX_A, BOX_B = [4, 4, 24, 24], [30, 30, 60, 50]

SCENES = {
    # name: (labels an image, detections an image, precision, recall, map50, map)
    "no images": ([], [], 0, 0, 0, 0),
    "no labels, no detections": ([[]], [[]], 0, 0, 0, 0),
    "no labels": ([[]], [[[*BOX_A, 0.9, 0]]], 0, 0, 0, 0),
    "no detections": ([[[0, *BOX_A]]], [[]], 0, 0, 0, 0),
    "perfect": ([[[0, *BOX_A], [1, *BOX_B]]], [[[*BOX_A, 0.99, 0], [*BOX_B, 0.98, 1]]], 1, 1, 0.995, 0.995),
    "wrong class": ([[[0, *BOX_A]]], [[[*BOX_A, 0.9, 1]]], 0, 0, 0, 0),
    "one of two classes": ([[[0, *BOX_A], [1, *BOX_B]]], [[[*BOX_A, 0.99, 0]]], 0.5, 0.5, 0.4975, 0.4975),
    "empty image among full ones": ([[], [[2, *BOX_B]]], [[], [[*BOX_B, 0.99, 2]]], 1, 1, 0.995, 0.995),
    # IoU of [4..24] and [4..20] is .8: right at .5 .55 .6 .65 .7 .75, and at .8 within rounding or not
    "loose box": ([[[0, *BOX_A]]], [[[4, 4, 19.9, 24, 0.99, 0]]], 1, 1, 0.995, 0.597),
}


@pytest.mark.parametrize("scene", SCENES)
def test_metrics_of_known_scenes(scene):
    labels, detections, *expected = SCENES[scene]
    loader = [make_batch(labels)] if labels else []
    found = validate(Oracle(detections), loader, names=NAMES)
    assert isinstance(found, Metrics)
    assert (found.precision, found.recall, found.map50, found.map) == pytest.approx(expected, abs=2e-3)
    assert (found.images, found.labels) == (len(labels), sum(map(len, labels)))
    assert found.maps.shape == (3,)
    assert found.loss == (0, 0, 0)
    assert {row.cls for row in found.per_class} == {row[0] for image in labels for row in image}


def test_batches_of_one_equal_one_batch():
    labels = [[[0, *BOX_A]], [], [[1, *BOX_B], [2, *BOX_A]]]
    detections = [[[*BOX_A, 0.8, 0]], [[*BOX_B, 0.7, 2]], [[*BOX_B, 0.6, 1]]]
    together = validate(Oracle(detections), [make_batch(labels)], names=NAMES)
    alone = validate(Oracle(detections), [make_batch([image]) for image in labels], names=NAMES)
    assert (together.precision, together.map) == (alone.precision, alone.map)
    assert together.per_class == alone.per_class
    np.testing.assert_array_equal(together.maps, alone.maps)


def test_per_class_rows_and_class_without_labels():
    labels, detections = [[[0, *BOX_A], [2, *BOX_B]]], [[[*BOX_A, 0.99, 0]]]
    found = validate(Oracle(detections), [make_batch(labels)], names=NAMES)
    first, last = found.per_class
    assert (first.cls, first.name, first.labels, last.cls, last.name) == (0, "circle", 1, 2, "star")
    assert (first.map50, last.map50) == pytest.approx((0.995, 0))
    np.testing.assert_allclose(found.maps, [0.995, 0.4975, 0], atol=1e-6)  # class 1 has none: the mean


def test_single_cls_counts_every_class_as_one():
    labels, detections = [[[0, *BOX_A]]], [[[*BOX_A, 0.9, 2]]]
    apart = validate(Oracle(detections), [make_batch(labels)], names=NAMES)
    merged = validate(Oracle(detections), [make_batch(labels)], names={0: "item"}, single_cls=True)
    assert (apart.map50, merged.map50) == pytest.approx((0, 0.995))


def test_boxes_are_compared_in_pixels_of_the_file():
    """A 32 x 16 picture enlarged twice into 64 x 64, with 16 px above and below."""
    batch = make_batch([[[1, 8, 20, 40, 44]]], size_hw=(16, 32), pad_wh=(0.0, 16.0), ratio=2.0)
    (result,) = image_results(batch, [torch.tensor([[8.0, 20, 40, 44, 0.5, 1]])])
    assert result.size_hw == (16, 32)
    torch.testing.assert_close(result.labels, torch.tensor([[1.0, 4, 2, 20, 14]]))
    torch.testing.assert_close(result.detections, torch.tensor([[4.0, 2, 20, 14, 0.5, 1]]))


def test_loss_is_the_mean_over_batches():
    parts = iter([torch.tensor([1.0, 2, 3]), torch.tensor([3.0, 2, 1])])
    found = validate(
        Oracle([[], [], []]),
        [make_batch([[], []]), make_batch([[]])],
        names=NAMES,
        loss_fn=lambda raw, targets: (torch.zeros(1), next(parts)),
    )
    assert found.loss == (2, 2, 2)


def test_callbacks_are_called_in_order():
    calls, results = [], []
    callbacks = Callbacks()
    for hook in HOOKS:
        callbacks.register(hook, lambda hook=hook, **_: calls.append(hook))
    callbacks.register("on_val_image_end", lambda result: results.append(result.path))
    validate(Oracle([[], []]), [make_batch([[], []])], names=NAMES, callbacks=callbacks)
    image = "on_val_image_end"
    assert calls == ["on_val_start", "on_val_batch_start", image, image, "on_val_batch_end", "on_val_end"]
    assert results == ["images/0.jpg", "images/1.jpg"]


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="conf_threshold"):
        validate(Oracle([]), [], names=NAMES, conf_threshold=0.1)
    assert ValOptions().conf_thres == 0.001


@pytest.mark.parametrize("empty", [True, False])
def test_pictures(tmp_path, empty):
    labels = [[]] if empty else [[[0, *BOX_A], [1, *BOX_B]]]
    detections = [[]] if empty else [[[*BOX_A, 0.9, 0], [*BOX_B, 0.4, 2]]]
    validate(Oracle(detections), [make_batch(labels)], names=NAMES, plots=True, save_dir=tmp_path)
    curves = {f"{name}_curve.png" for name in ("F1", "P", "R", "PR")}
    batches = {"val_batch0_labels.jpg", "val_batch0_pred.jpg"}
    assert {file.name for file in tmp_path.iterdir()} == curves | batches | {"confusion_matrix.png"}


def test_table_rows_line_up():
    head, row = table_row("Class", "Images", "P"), table_row("all", 128, 0.98765)
    assert row == "all".rjust(20) + "128".rjust(11) + "0.988".rjust(11)
    assert len(head) == len(row)


def test_a_model_trains_on_after_its_validation():
    """A real network and loss: finite losses in eval mode, and a gradient for every parameter afterwards."""
    hyp = load_hyp(ROOT / "data/hyps/hyp.scratch-low.yaml")
    model = DetectionModel("yolov5n.yaml", nc=3)
    loss_fn = DetectionLoss(
        model.detect.anchors, nc=3, hyp=hyp.scaled(nl=3, nc=3, imgsz=SIDE), strides=model.detect.stride
    )
    batch = make_batch([[[0, *BOX_A], [1, *BOX_B]], []])
    found = validate(TorchBackend(model), [batch], names=NAMES, loss_fn=loss_fn)
    assert all(0 < part < 10 for part in found.loss)
    loss, _ = loss_fn(model.train()(batch.images / 255), batch.targets)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
