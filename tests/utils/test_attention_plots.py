import cv2
import numpy as np
import pytest

from utils.attention import LayerAttention
from utils.attention_plots import (
    MAX_CLASSES,
    classes_with_most_labels,
    kernel_colours,
    plot_attention,
    plot_image_attention,
)

NAMES = {cls: f"class ${cls}" for cls in range(80)}


def layers(count, *, images=20, kernels=4):
    rng = np.random.default_rng(0)
    return [
        LayerAttention(f"model.{i}.cv2.conv", rng.dirichlet(np.ones(kernels), images), np.eye(kernels))
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "images", "kernels", "nc"),
    [(1, 0, 4, 2), (1, 1, 1, 1), (2, 20, 4, 3), (5, 20, 2, 80), (13, 5, 8, 2)],
)
def test_pictures_of_any_number_of_layers_images_kernels_and_classes(tmp_path, count, images, kernels, nc):
    counts = np.random.default_rng(1).integers(0, 3, (images, nc))
    plot_attention(layers(count, images=images, kernels=kernels), counts, NAMES, tmp_path / "attention.png")
    height, width = cv2.imread(str(tmp_path / "attention.png")).shape[:2]
    assert 300 < height < 4000
    assert 1000 < width < 4000


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (np.zeros((0, 3), int), []),
        (np.zeros((2, 3), int), []),
        (np.array([[0, 5, 1], [0, 0, 1]]), [1, 2]),
        (np.arange(1, 81)[None], list(range(80 - MAX_CLASSES, 80))),
    ],
)
def test_classes_with_most_labels(counts, expected):
    assert classes_with_most_labels(counts) == expected


@pytest.mark.parametrize("kernels", [1, 4, 16])
def test_the_attention_of_one_image(tmp_path, kernels):
    attention = {"model.10": np.full(kernels, 1 / kernels), "model.14": np.eye(kernels)[0]}
    plot_image_attention(attention, tmp_path / "attention.png")
    assert cv2.imread(str(tmp_path / "attention.png")).shape[1] > 500


def test_kernels_have_different_colours():
    assert [len(set(kernel_colours(kernels))) for kernels in (1, 4, 16)] == [1, 4, 16]
