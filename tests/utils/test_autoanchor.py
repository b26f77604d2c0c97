"""utils/autoanchor.py against golden recalls and fitness, and the order of levels against the reference's."""

import logging

import numpy as np
import pytest
import torch

from utils.anchors import in_stride_order
from utils.autoanchor import (
    GOOD_RECALL,
    anchor_fitness,
    best_possible_recall,
    check_anchors,
    cluster_sizes,
    evolve,
    kmean_anchors,
    label_sizes,
)
from utils.log import LOGGER

SETS = ["bccd_train_640", "coco8_train_640", "bccd_train_poor_anchors"]
STRIDES = torch.tensor([8.0, 16.0, 32.0])
ORDER_DIFFERS = {2}  # the reference compares areas in cells and swaps levels whose areas in pixels rise as they should


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("autoanchor")


@pytest.fixture(scope="module")
def facts(golden_json):
    return golden_json("autoanchor")


@pytest.fixture
def log(caplog):
    """The captured log; the project's logger does not propagate by itself."""
    LOGGER.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, LOGGER.name)
    yield caplog
    LOGGER.removeHandler(caplog.handler)


def make_rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", SETS)
def test_label_sizes_golden(golden, name):
    shapes, rows, counts = (golden[f"{name}/{key}"] for key in ("shapes_wh", "labels_concat", "labels_per_image"))
    found = label_sizes(shapes, rows, np.concatenate(([0], counts.cumsum())), imgsz=640)
    np.testing.assert_allclose(found, golden[f"{name}/wh_pixels"], atol=1e-3)


def test_label_sizes_of_nothing():
    assert label_sizes(np.zeros((0, 2)), np.zeros((0, 5)), np.array([0]), imgsz=640).shape == (0, 2)
    assert label_sizes(np.ones((2, 2)), np.zeros((0, 5)), np.array([0, 0, 0]), imgsz=640).shape == (0, 2)


@pytest.mark.parametrize("thr", [4.0, 2.0, 2.91])
@pytest.mark.parametrize("name", SETS)
def test_recall_golden(golden, facts, name, thr):
    anchors = np.array(facts[name]["anchors_pixels"], np.float32)
    found = best_possible_recall(golden[f"{name}/wh_pixels"], anchors, thr)
    assert found == pytest.approx([facts[name][f"{key}_thr{thr}"] for key in ("bpr", "aat")], abs=1e-4)


@pytest.mark.parametrize("name", SETS)
def test_fitness_golden(golden, facts, name):
    anchors = np.array(facts[name]["anchors_pixels"], np.float32)
    found = anchor_fitness(golden[f"{name}/wh_pixels"], anchors, 4.0)
    assert found == pytest.approx(facts[name]["fitness_of_given_anchors_thr4"], abs=1e-4)


@pytest.mark.parametrize("name", SETS[:2])
def test_new_anchors_are_as_fit_as_the_reference(golden, facts, name):
    wh = golden[f"{name}/wh_pixels"]
    anchors = kmean_anchors(wh, 9, imgsz=640, generations=300, rng=make_rng())
    assert anchors.shape == (9, 2)
    assert (np.diff(anchors.prod(1)) >= 0).all()
    assert anchor_fitness(wh, anchors, 4.0) >= facts[name]["kmeans_fitness_range"][0] - 0.02
    assert best_possible_recall(wh, anchors, 4.0)[0] == 1
    again = kmean_anchors(wh, 9, imgsz=640, generations=300, rng=make_rng())
    np.testing.assert_array_equal(again, anchors)


@pytest.mark.parametrize("wh", [[[20.0, 30.0]], [[20.0, 30.0]] * 50, [[3.0, 3.0], [600.0, 600.0]]])
def test_fewer_sizes_than_anchors(wh):
    wh = np.array(wh, np.float32)
    assert cluster_sizes(wh, 9, imgsz=640, rng=make_rng()).shape == (9, 2)
    anchors = kmean_anchors(wh, 9, imgsz=640, generations=50, rng=make_rng())
    assert np.isfinite(anchors).all()
    assert (anchors >= 2).all()


def test_sizes_of_one_width():
    wh = np.stack((np.full(40, 16.0), np.linspace(5, 50, 40)), 1).astype(np.float32)
    assert anchor_fitness(wh, kmean_anchors(wh, 3, imgsz=64, generations=20, rng=make_rng()), 4.0) > 0.8


def test_evolution_never_loses_fitness():
    wh = make_rng().uniform(5, 300, (500, 2)).astype(np.float32)
    start = np.full((6, 2), 40.0)
    fitness = [
        anchor_fitness(wh, evolve(start, wh, thr=4.0, generations=count, rng=make_rng()), 4.0) for count in (0, 20, 80)
    ]
    assert fitness[0] == anchor_fitness(wh, start, 4.0)
    assert fitness == sorted(fitness)
    assert fitness[2] > fitness[0]


def test_good_anchors_stay(golden, facts, log):
    name = "bccd_train_640"
    anchors = np.array(facts[name]["anchors_pixels"], np.float32).reshape(3, 3, 2)
    assert check_anchors(golden[f"{name}/wh_pixels"], anchors, imgsz=640, rng=make_rng()) is anchors
    assert "5.78 anchors/target, 1.000 best possible recall" in log.text


def test_poor_anchors_are_replaced(golden, facts, log):
    name = "bccd_train_poor_anchors"
    wh, poor = golden[f"{name}/wh_pixels"][::10], np.array(facts[name]["anchors_pixels"], np.float32).reshape(3, 3, 2)
    before = poor.copy()
    found = check_anchors(wh, poor, imgsz=640, rng=make_rng())
    assert found.shape == poor.shape
    assert found.dtype == poor.dtype
    assert best_possible_recall(wh, found.reshape(-1, 2), 4.0)[0] > GOOD_RECALL
    np.testing.assert_array_equal(poor, before)
    assert "new anchors" in log.text


@pytest.mark.parametrize("wh", [np.zeros((0, 2), np.float32), np.ones((5, 2), np.float32)])
def test_nothing_to_fit_to(wh, log):
    anchors = np.full((1, 1, 2), 100.0, np.float32)
    assert check_anchors(wh, anchors, imgsz=640, rng=make_rng()) is anchors
    assert "no label of 2 px or more" in log.text
    with pytest.raises(ValueError, match="anchors need labels of 2 px or more"):
        kmean_anchors(wh, 1, imgsz=640, rng=make_rng())


def test_many_labels_are_sampled(monkeypatch):
    monkeypatch.setattr("utils.autoanchor.SAMPLE", 100)
    wh = make_rng().uniform(5, 300, (5000, 2)).astype(np.float32)
    assert best_possible_recall(wh, kmean_anchors(wh, 9, imgsz=320, generations=50, rng=make_rng()), 4.0)[0] > 0.95


@pytest.mark.parametrize("case", range(4))
def test_order_of_levels_golden(facts, case):
    """Levels are swapped where the reference swaps them, but before the division by the strides: the reference swaps
    anchors in cells, which then stand for other sizes in pixels."""
    order = facts["check_anchor_order"][case]
    pixels = torch.tensor(order["anchors_pixels_in"], dtype=torch.float32).view(3, 3, 2)
    cells = torch.tensor(order["anchors_grid_units_out"])
    reference_swaps = not torch.equal(cells, pixels / STRIDES.view(3, 1, 1))
    assert torch.equal(cells, (pixels / STRIDES.view(3, 1, 1)).flip(0)) == reference_swaps
    swaps = reference_swaps and case not in ORDER_DIFFERS
    assert torch.equal(in_stride_order(pixels, STRIDES), pixels.flip(0) if swaps else pixels)


def test_recall_of_many_labels_goes_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    wh, anchors = rng.uniform(2, 300, (1001, 2)), rng.uniform(10, 200, (9, 2))
    whole = best_possible_recall(wh, anchors, 4.0)
    for size in (1, 7, 1000, 1001):
        monkeypatch.setattr("utils.autoanchor.SAMPLE", size)
        assert best_possible_recall(wh, anchors, 4.0) == pytest.approx(whole, rel=1e-12)
