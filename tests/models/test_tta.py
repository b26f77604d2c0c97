"""Test-time augmentation against the reference's, and its geometry."""

import numpy as np
import pytest
import torch

from models.runtime_torch import load_torch
from models.tta import augmented_forward, scaled
from models.yolo import DetectionModel

CPU = torch.device("cpu")


@pytest.mark.parametrize(("stem", "weights"), [("tta_yolov5n", "yolov5n.pt"), ("tta_ppe", "ppe_v61_model_class.pt")])
def test_golden(golden_npz, shared, stem, weights):
    stored = golden_npz(stem)
    backend = load_torch(shared(f"weights/{weights}"), CPU, augment=True)
    with torch.inference_mode():
        found = backend(torch.from_numpy(stored["input_u8"]) / 255).numpy()
    assert found.shape == stored["pred_augmented"].shape
    np.testing.assert_allclose(found[..., :4], stored["pred_augmented"][..., :4], atol=3e-3)
    np.testing.assert_allclose(found[..., 4:], stored["pred_augmented"][..., 4:], atol=1e-5)


@pytest.mark.parametrize(
    ("scale", "size_hw", "inner", "outer"),
    [
        (1, (32, 32), (32, 32), (32, 32)),
        (0.83, (64, 96), (53, 79), (64, 96)),
        (0.67, (320, 192), (214, 128), (224, 160)),
    ],
)
def test_scaled_images_are_padded_to_strides(scale, size_hw, inner, outer):
    images = torch.ones(2, 3, *size_hw)
    view = scaled(images, scale, 32)
    assert view.shape == (2, 3, *outer)
    torch.testing.assert_close(view[..., : inner[0], : inner[1]], torch.ones(2, 3, *inner))
    assert torch.allclose(view[..., inner[0] :, :], torch.tensor(0.447))
    assert torch.allclose(view[..., inner[1] :], torch.tensor(0.447))


@pytest.mark.parametrize("batch", [1, 2])
def test_views_give_up_a_level_and_predict_in_pixels_of_the_image(batch):
    """A network that sees a box in the middle of every cell, so that a view's centres are its cells', scaled back."""
    model = DetectionModel("yolov5n.yaml", nc=2).eval()
    with torch.no_grad():
        for conv in model.detect.m:
            conv.weight.zero_()
            conv.bias.zero_()
        found = augmented_forward(model, torch.zeros(batch, 3, 64, 96))
        plain = model(torch.zeros(batch, 3, 64, 96))[0]
    finest, middle, coarsest = 3 * 8 * 12, 3 * 4 * 6, 3 * 2 * 3
    counts = (finest + middle, finest + middle + coarsest, middle + coarsest)
    assert found.shape == (batch, sum(counts), 7)
    full, mirrored, small = found.split(counts, dim=1)
    torch.testing.assert_close(full, plain[:, : counts[0]])
    torch.testing.assert_close(mirrored[..., 0], 96 - plain[..., 0] / 0.83)  # as wide: 96 * 0.83 is padded to 96
    torch.testing.assert_close(mirrored[..., 1:4], plain[..., 1:4] / 0.83)
    torch.testing.assert_close(small[..., :4], plain[:, finest:, :4] / 0.67)
