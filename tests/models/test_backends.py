"""Which file runs in what, alone and together; batches and sizes that a file is bound to."""

from pathlib import Path

import pytest
import torch

from models.backend import Backend
from models.backends import DetectMultiBackend, load_backend
from models.ensemble import Ensemble
from models.export_metadata import Metadata
from models.exported import ExportedBackend
from models.weights import save_checkpoint
from models.yolo import DetectionModel
from utils.errors import InputError

CPU = torch.device("cpu")


class Counter(Backend):
    """Predicts one row an image, which holds the image's mean; notes how many images came at a time."""

    def __init__(self, stride=32, **bounds) -> None:
        super().__init__({0: "disc"}, stride, CPU, **bounds)
        self.batches = []

    def _infer(self, images):
        self.batches.append(len(images))
        return images.mean((1, 2, 3)).view(-1, 1, 1).expand(-1, 1, 6)


@pytest.mark.parametrize(
    ("fixed", "images", "batches"),
    [(None, 0, [0]), (None, 5, [5]), (1, 3, [1, 1, 1]), (4, 4, [4]), (4, 2, [4]), (4, 5, [4, 4])],
)
def test_a_fixed_batch_is_filled_up_or_cut(fixed, images, batches):
    backend = Counter(fixed_batch=fixed)
    means = torch.arange(images, dtype=torch.float32)
    found = backend(means.view(-1, 1, 1, 1).expand(-1, 3, 32, 32))
    assert found.shape == (images, 1, 6)
    assert found[:, 0, 0].tolist() == means.tolist()
    assert backend.batches == batches


def test_another_size_than_the_one_exported_for_is_told():
    with pytest.raises(InputError, match="images of 32 x 64 pixels .height x width., got 64 x 32"):
        Counter(fixed_hw=(32, 64))(torch.zeros(1, 3, 64, 32))


def test_members_of_an_ensemble_stand_side_by_side():
    together = Ensemble([Counter(stride=32), Counter(stride=64, fixed_hw=(64, 64))])
    assert (together.stride, together.fixed_hw, together.nc) == (64, (64, 64), 1)
    assert together(torch.ones(2, 3, 64, 64)).shape == (2, 2, 6)


def test_an_ensemble_of_two_sizes_is_refused():
    with pytest.raises(InputError, match="one image size"):
        Ensemble([Counter(fixed_hw=(32, 32)), Counter(fixed_hw=(64, 64))])


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[int, Path]:
    """Untrained nano models of one and of two classes."""
    folder = tmp_path_factory.mktemp("weights")
    for nc in (1, 2):
        save_checkpoint(
            folder / f"{nc}.pt", model=DetectionModel("yolov5n.yaml", nc=nc), info={"opt": {"data": "d.yaml"}}
        )
    return {nc: folder / f"{nc}.pt" for nc in (1, 2)}


def test_files_become_backends(weights):
    alone = DetectMultiBackend(weights[2], CPU)
    twice = load_backend([weights[2], str(weights[2])], CPU)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(twice(images), alone(images).repeat(1, 2, 1))
    assert (alone.stride, alone.nc, alone.trained_with) == (32, 2, {"data": "d.yaml"})


def test_what_cannot_be_loaded_is_told(weights, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.pt.*, got .*model\.doc"):
        load_backend(tmp_path / "model.doc", CPU)
    with pytest.raises(InputError, match=r"1\.pt knows 1, .*2\.pt knows 2"):
        load_backend([weights[1], weights[2]], CPU)


@pytest.mark.parametrize(("fast", "amp"), [(False, None), (True, torch.bfloat16)])
def test_half_is_what_the_device_is_fast_at(weights, monkeypatch, capsys, fast, amp):
    monkeypatch.setattr("utils.torch_utils.supports_bf16_cpu", lambda: fast)
    backend = load_backend(weights[2], CPU, half=True)
    assert backend.amp is amp
    assert ("--half is left out" in capsys.readouterr().err) is not fast
    with torch.inference_mode():
        assert backend(torch.rand(1, 3, 64, 64)).dtype == torch.float32


class Suppressed(ExportedBackend):
    """A file with suppression inside, whose output has as many columns as it is told to."""

    def __init__(self, width: int, **known) -> None:
        self.width = width
        super().__init__(Path("some.onnx"), Metadata({0: "disc"}, nms={"topk_all": 1}), CPU, **known)

    def _run(self, images):
        return torch.zeros(len(images), 1, self.width)


@pytest.mark.parametrize("known", [{}, {"columns": 6}])
@pytest.mark.parametrize("width", [5, 6, 7, 85])
def test_a_file_with_suppression_gives_six_columns(width, known):
    if width == 6:
        assert Suppressed(width, **known)(torch.zeros(2, 3, 64, 64)).shape == (2, 1, 6)
        return
    with pytest.raises(InputError, match=rf"some\.onnx: detections \(B, K, 6\) were expected, got \(\d, 1, {width}\)"):
        Suppressed(width, **known)(torch.zeros(2, 3, 64, 64))
