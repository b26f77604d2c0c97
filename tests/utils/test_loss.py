"""utils/loss.py: each step on hand-made cases, and the whole against golden matches, values and gradients."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils.loss import (
    DetectionLoss,
    Matches,
    binary_loss,
    match_anchors,
    neighbour_cells,
    objectness_target,
    to_matches,
)

VARIANTS = {
    "nc80_64x64": ["base", "ls", "fl", "ls_fl", "empty", "autobalance"],
    "nc80_96x128": ["base"],
    "nc3_96x128": ["base", "ls", "fl", "ls_fl", "pw", "gains", "empty", "autobalance"],
    "nc1_64x64": ["base", "ls", "fl", "pw", "empty", "autobalance"],
    "nc3_96x128_nodup": ["base", "ls", "fl", "empty", "autobalance"],
    "nc1_96x128_imgsz640_nodup": ["base"],
    "nc3_p6_128x192": ["base", "autobalance"],
    "nc2_p34_64x64": ["base"],
}
CASES = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]
HYP = SimpleNamespace(
    box=0.05, obj=1.0, cls=0.5, cls_pw=1.0, obj_pw=1.0, anchor_t=4.0, fl_gamma=0.0, label_smoothing=0.0
)


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("loss")


@pytest.fixture(scope="module")
def facts(golden_json):
    return golden_json("loss")


@pytest.mark.parametrize(
    ("wh", "anchors", "pairs"),
    [
        ([], [[1, 1]], []),
        ([[1, 1]], [[1, 1]], [(0, 0)]),
        ([[4, 1], [3.99, 1], [1, 0.25], [1, 0.26]], [[1, 1]], [(0, 1), (0, 3)]),  # exactly the factor is no match
        ([[1, 1], [9, 9]], [[2, 2], [8, 8], [1, 1]], [(0, 0), (1, 1), (2, 0)]),  # by anchor, then by box
    ],
)
def test_match_anchors(wh, anchors, pairs):
    found = match_anchors(torch.tensor(wh).view(-1, 2), torch.tensor(anchors, dtype=torch.float32), 4.0)
    assert list(zip(*(index.tolist() for index in found), strict=True)) == pairs


@pytest.mark.parametrize(
    ("xy", "cells"),
    [
        (None, []),
        ((5.5, 5.5), [(5, 5)]),  # the middle of a cell has no nearest neighbour
        ((5.2, 5.2), [(5, 5), (4, 5), (5, 4)]),
        ((5.8, 5.8), [(5, 5), (6, 5), (5, 6)]),
        ((5.2, 5.8), [(5, 5), (4, 5), (5, 6)]),
        ((0.2, 0.2), [(0, 0)]),  # none beyond the border
        ((9.9, 7.9), [(9, 7)]),
        ((10.0, 8.0), [(9, 7), (9, 7), (9, 7)]),  # x or y exactly 1: limited to the map
    ],
)
def test_neighbour_cells(xy, cells):
    centres = torch.tensor([xy]) if xy else torch.zeros(0, 2)
    owner, found = neighbour_cells(centres, (8, 10))
    assert [tuple(cell) for cell in found.tolist()] == cells
    assert owner.tolist() == [0] * len(cells)


@pytest.mark.parametrize("name", VARIANTS)
def test_matches_golden(golden, facts, name):
    for level, anchors in enumerate(facts[name]["anchors_grid_units"]):
        grid_hw = golden[f"{name}/pred_{level}"].shape[2:4]
        matches = to_matches(torch.from_numpy(golden[f"{name}/targets"]), torch.tensor(anchors), grid_hw, anchor_t=4.0)
        expected = {key: golden[f"{name}/bt{level}/{key}"] for key in ("tcls", "tbox", "anchors", "indices_b_a_gj_gi")}
        image, row, column, anchor = matches.place
        found = torch.stack((image, anchor, row, column), 1)
        np.testing.assert_array_equal(found, expected["indices_b_a_gj_gi"])
        np.testing.assert_array_equal(matches.label, expected["tcls"])
        np.testing.assert_allclose(matches.xywh, expected["tbox"], atol=1e-6, rtol=1e-6)
        np.testing.assert_array_equal(matches.anchor_wh, expected["anchors"])


def matches_at(places):
    image, row, column, anchor = torch.tensor(places, dtype=torch.long).view(-1, 4).T
    rest = torch.zeros(len(image), 4)
    return Matches(image, anchor, row, column, label=image, xywh=rest, anchor_wh=rest[:, :2])


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], {}),
        ([(1, 0, 2, 3)], {(1, 0, 2, 3): 1}),
        ([(0, 1, 0, 0), (1, 1, 1, 1), (0, 1, 0, 0)], {(0, 1, 0, 0): 3, (1, 1, 1, 1): 2}),
    ],
)
def test_the_last_label_of_a_place_wins(places, expected):
    target = objectness_target(torch.arange(1.0, len(places) + 1), matches_at(places), (2, 2, 3, 4))
    assert {tuple(place): target[tuple(place)].item() for place in target.nonzero().tolist()} == expected


def test_the_last_label_wins_among_many():
    places = torch.randint(0, 2, (20_000, 4), generator=torch.Generator().manual_seed(0))
    values = torch.rand(len(places))
    slow = torch.zeros(2, 2, 2, 2)
    for place, value in zip(places.tolist(), values, strict=True):
        slow[tuple(place)] = value
    assert torch.equal(objectness_target(values, matches_at(places.tolist()), (2, 2, 2, 2)), slow)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_binary_loss_agrees_with_its_definition(gamma):
    logits, target = torch.linspace(-4, 4, 9), torch.linspace(0, 1, 9)
    terms = []
    for logit, wanted in zip(logits.double().tolist(), target.double().tolist(), strict=True):
        p = 1 / (1 + np.exp(-logit))
        entropy = -(2 * wanted * np.log(p) + (1 - wanted) * np.log(1 - p))
        agreement = wanted * p + (1 - wanted) * (1 - p)
        factor = (0.25 * wanted + 0.75 * (1 - wanted)) * (1 - agreement) ** gamma if gamma else 1
        terms.append(entropy * factor)
    assert binary_loss(logits, target, positive_weight=2.0, focal_gamma=gamma).item() == pytest.approx(np.mean(terms))


def loss_and_inputs(golden, facts, name, variant):
    case, expected = facts[name], facts[name]["variants"][variant]
    loss = DetectionLoss(
        torch.tensor(case["anchors_grid_units"]),
        nc=case["nc"],
        hyp=SimpleNamespace(**expected["hyp"]),
        strides=torch.tensor(case["strides"]),
        autobalance=expected["autobalance"],
    )
    raw = [torch.from_numpy(golden[f"{name}/pred_{level}"]).requires_grad_() for level in range(case["nl"])]
    targets = torch.from_numpy(golden[f"{name}/targets"])
    return loss, raw, targets[:0] if variant == "empty" else targets


def assert_loss(total, parts, expected):
    assert total.shape == (1,)
    assert parts.shape == (3,)
    assert not parts.requires_grad
    assert total.item() == pytest.approx(expected["loss_times_bs"], rel=1e-5)
    assert parts.tolist() == pytest.approx([expected[key] for key in ("lbox", "lobj", "lcls")], rel=1e-5)


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_loss_golden(golden, facts, name, variant):
    expected = facts[name]["variants"][variant]
    loss, raw, targets = loss_and_inputs(golden, facts, name, variant)
    total, parts = loss(raw, targets)
    assert_loss(total, parts, expected)
    total.backward()
    for level, maps in enumerate(raw):
        key = f"{name}/grad_{variant}_{level}"
        if key in golden:
            np.testing.assert_allclose(maps.grad, golden[key], atol=1e-6, rtol=0)
    if variant == "autobalance":
        assert loss.balance == pytest.approx(expected["balance_after_call_1"], rel=1e-6)
        assert_loss(*loss([maps * 0.8 - 0.1 for maps in raw], targets), expected["second_call"])
        assert loss.balance == pytest.approx(expected["balance_after_call_2"], rel=1e-6)
    else:
        assert loss.balance == expected["balance"]


def test_every_golden_variant_is_in_the_table(facts):
    assert {name: sorted(variants) for name, variants in VARIANTS.items()} == {
        name: sorted(case["variants"]) for name, case in facts.items()
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computed_in_float32_under_autocast(golden, facts, dtype):
    loss, raw, targets = loss_and_inputs(golden, facts, "nc3_96x128", "base")
    halves = [maps.detach().to(dtype) for maps in raw]
    expected, expected_parts = loss([maps.float() for maps in halves], targets)
    with torch.autocast("cpu", dtype=dtype):
        total, parts = loss([maps.requires_grad_() for maps in halves], targets)
    assert total.dtype == parts.dtype == torch.float32
    assert torch.equal(total, expected)
    assert torch.equal(parts, expected_parts)
    total.backward()
    assert all(maps.grad.isfinite().all() for maps in halves)


@pytest.mark.parametrize("targets", [torch.zeros(0, 6), torch.tensor([[0, 0, 0.5, 0.5, 1e-6, 1e-6]])])
def test_one_cell_and_nothing_that_matches(targets):
    loss = DetectionLoss(torch.ones(1, 1, 2), nc=2, hyp=HYP, strides=torch.tensor([32.0]))
    raw = torch.zeros(1, 1, 1, 1, 7, requires_grad=True)
    total, parts = loss([raw], targets)
    total.backward()
    assert parts[0] == parts[2] == 0
    assert total.item() == pytest.approx(4 * np.log(2))
    assert raw.grad.nonzero()[:, 4].tolist() == [4]


def test_arguments_are_left_alone(golden, facts):
    loss, raw, targets = loss_and_inputs(golden, facts, "nc3_96x128", "base")
    before = [targets.clone(), *(maps.detach().clone() for maps in raw)]
    loss(raw, targets)
    assert all(torch.equal(now, then) for now, then in zip([targets, *raw], before, strict=True))


def test_matches_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        matches_at([]).label = None
