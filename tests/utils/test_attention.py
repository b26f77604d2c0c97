import csv

import numpy as np
import pytest

from utils.attention import (
    COLUMNS,
    LayerAttention,
    class_share,
    describe,
    gram_matrix,
    kernel_cosines,
    kernel_distances,
    label_counts,
    largest_share,
    mean_of_pairs,
    normalised_entropy,
    write_table,
)

NAMES = {0: "cat", 1: "dog, brown", 2: "owl"}
ORTHOGONAL = np.eye(4)  # Gram matrix of unrelated kernels of length 1


def layer(attention, gram=ORTHOGONAL, name="model.10"):
    return LayerAttention(name, np.asarray(attention, float), np.asarray(gram, float))


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        (np.zeros((0, 4)), []),
        ([[1.0]], [0]),
        ([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]], [1, 0, 0.5]),
        ([[0.35, 0.25, 0.2, 0.2]], [0.9794]),  # the figures beside UNIFORM
        ([[0.4, 0.3, 0.2, 0.1]], [0.9232]),
    ],
)
def test_entropy(attention, expected):
    np.testing.assert_allclose(normalised_entropy(np.asarray(attention, float)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kernels", "distance", "cosine"),
    [
        ([[1, 2]], 0, 0),  # no pair
        ([[0, 0], [0, 0]], 0, 0),
        ([[1, 2], [1, 2]], 0, 1),
        ([[1, 0], [0, 1]], 2**0.5, 0),
        ([[3, 0], [-3, 0]], 2, -1),
        ([[1, 0], [0, 0]], 2**0.5, 0),  # |a - 0| over |a| / sqrt(2)
        ([[1, 0], [2, 0]], 1 / 2.5**0.5, 1),
    ],
)
def test_how_far_kernels_differ(kernels, distance, cosine):
    gram = gram_matrix(np.array(kernels, float))
    assert mean_of_pairs(kernel_distances(gram)) == pytest.approx(distance)
    assert mean_of_pairs(kernel_cosines(gram)) == pytest.approx(cosine)


def test_largest_share():
    assert largest_share(np.zeros((0, 2))).tolist() == [0, 0]
    assert largest_share(np.array([[0.6, 0.4], [0.1, 0.9], [0.5, 0.5], [0.3, 0.7]])).tolist() == [0.5, 0.5]


def test_mixture_change_is_that_of_the_mixed_kernels():
    rng = np.random.default_rng(0)
    attention, kernels = softmax(rng.normal(size=(50, 3))), rng.normal(size=(3, 20))
    mixed = attention @ kernels  # (50, 20), one by one
    mean = mixed.mean(0)
    expected = np.sqrt(((mixed - mean) ** 2).sum(1).mean()) / np.linalg.norm(mean)
    assert layer(attention, gram_matrix(kernels)).mixture_change == pytest.approx(expected)


def test_variation_of_a_switch():
    switch = layer([[1, 0, 0, 0], [0, 1, 0, 0]] * 10)
    assert switch.variation == pytest.approx(0.5)
    assert switch.kernels_used == pytest.approx(2)
    assert switch.entropy == 0
    assert switch.std.tolist() == [0.5, 0.5, 0, 0]
    assert switch.mixture_change == pytest.approx(1)  # (+-1, -+1) / 2 is as long as (1, 1) / 2


VERDICTS = {
    # case: (attention of 20 images, Gram matrix, verdict)
    "no image": (np.zeros((0, 4)), ORTHOGONAL, "too few images"),
    "nine images": (np.tile([1.0, 0, 0, 0], (9, 1)), ORTHOGONAL, "too few images"),
    "one kernel": (np.ones((20, 1)), np.eye(1), "collapsed to kernel 0"),
    "uniform": (np.full((20, 4), 0.25), ORTHOGONAL, "uniform"),
    "collapsed": (np.tile([0.02, 0.02, 0.95, 0.01], (20, 1)), ORTHOGONAL, "collapsed to kernel 2"),
    "uneven": (np.tile([0.1, 0.3, 0.1, 0.5], (20, 1)), ORTHOGONAL, "fixed mixture"),
    "switch": (np.tile([[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0]], (10, 1)), ORTHOGONAL, "specialised"),
    "alike": (
        np.tile([[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0]], (10, 1)),
        np.full((4, 4), 0.995) + 0.005 * np.eye(4),
        "little effect",
    ),
    "equal": (np.tile([[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0]], (10, 1)), np.ones((4, 4)), "equal kernels"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdicts(case):
    attention, gram, verdict = VERDICTS[case]
    assert layer(attention, gram).verdict == verdict


def test_the_log_line():
    uniform = layer(np.full((20, 4), 0.25), gram_matrix(1 + 0.1 * np.eye(4)))
    told = describe(uniform, np.zeros((20, 2), int))
    assert told.startswith("layer model.10: entropy 1.00 of 1, 4.0 of 4 kernels used, kernels differ by 7 %, ")
    assert told.endswith("mixed kernel varies by 0 %: uniform")


def test_label_counts():
    assert label_counts([], 3).shape == (0, 3)
    assert label_counts([[], [1], [2, 2, 0]], 3).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 2]]


def test_class_share():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 2, (300, 2))
    by_class = np.where(counts[:, :1] > 0, [0.9, 0.1], [0.2, 0.8])
    by_chance = softmax(rng.normal(size=(300, 2)))
    shares = [class_share(layer(rows, np.eye(2)), counts) for rows in (by_class, (by_class + by_chance) / 2, by_chance)]
    assert shares[0] == pytest.approx(1)
    assert 0.3 < shares[1] < 0.95
    assert shares[2] < 0.03


@pytest.mark.parametrize(
    ("attention", "counts"),
    [
        (np.zeros((0, 2)), np.zeros((0, 3), int)),
        (softmax(np.arange(10.0).reshape(5, 2)), np.eye(5, 3, dtype=int)),  # too few for the fit
        (np.full((40, 2), 0.5), np.ones((40, 1), int)),  # nothing to explain
    ],
)
def test_class_share_of_what_cannot_be_fitted(attention, counts):
    assert class_share(layer(attention, np.eye(2)), counts) is None


def test_the_table(tmp_path):
    attention = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    write_table(tmp_path / "none.csv", [], np.zeros((0, 3), int), NAMES)
    assert (tmp_path / "none.csv").read_text().strip() == ",".join(COLUMNS)
    counts = label_counts([[0], [0, 1, 1], []], 3)
    write_table(tmp_path / "a.csv", [layer(attention, np.eye(2))], counts, NAMES)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["class"], row["name"], row["kernel"], row["images"]) for row in rows] == [
        *(("all", "all", "0", "3"), ("all", "all", "1", "3")),
        *(("0", "cat", "0", "2"), ("0", "cat", "1", "2")),
        *(("1", "dog, brown", "0", "1"), ("1", "dog, brown", "1", "1")),
    ]
    assert [float(row["mean"]) for row in rows] == pytest.approx([0.5, 0.5, 0.7, 0.3, 0.6, 0.4])
    assert [float(row["largest"]) for row in rows[:2]] == pytest.approx([2 / 3, 1 / 3], abs=1e-5)
    assert float(rows[2]["std"]) == pytest.approx(0.1)
    assert float(rows[4]["entropy"]) == pytest.approx(0.971, abs=1e-3)
    assert {row["kernel_distance"] for row in rows} == {"1.41421"}
    assert {row["class_share"] for row in rows} == {""}
    assert {row["verdict"] for row in rows} == {"too few images"}
