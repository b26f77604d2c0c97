"""The dataset: golden samples, and sets made here whose labels can be read off the pixels."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.utils.still_hyp import make_hyp
from utils import datasets
from utils.boxes import xywhn2xyxy
from utils.datasets import Chances, DetectionDataset, rect_layout
from utils.errors import InputError
from utils.labels import image_files, index_labels

STRONG = {"hsv_h": 0.1, "hsv_s": 0.5, "hsv_v": 0.4, "translate": 0.1, "scale": 0.5, "fliplr": 0.5, "mosaic": 1.0}


def make_set(root: Path, sizes_wh) -> list[str]:
    """Pictures with one white rectangle on black each, which is their label; every third has none."""
    rng, files = np.random.default_rng(0), []
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for i, (width, height) in enumerate(sizes_wh):
        image = np.zeros((height, width, 3), np.uint8)
        x1, y1 = rng.integers(0, (width // 2, height // 2))
        x2, y2 = x1 + width // 3, y1 + height // 3
        text = ""
        if i % 3 < 2:
            image[y1:y2, x1:x2] = 255
            box = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            text = " ".join(map(str, (i, *box)))
        files.append(str(root / "images" / f"{i:02}.png"))
        Image.fromarray(image).save(files[-1])
        (root / "labels" / f"{i:02}.txt").write_text(text)
    return files


SIZES_WH = [(96, 64), (40, 80), (64, 64), (128, 30), (50, 50), (90, 60), (30, 120)]


@pytest.fixture
def index(tmp_path):
    return index_labels(make_set(tmp_path, SIZES_WH))


def assert_same(first, second):
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.targets, second.targets)
    assert (first.path, first.shapes) == (second.path, second.shapes)


def assert_labels_fit(sample, loose=2.0):
    """Every bright pixel lies in a box, and every box has bright pixels at its sides."""
    bright = sample.image.numpy().min(0) > 127
    inside = np.zeros_like(bright)
    for x1, y1, x2, y2 in xywhn2xyxy(sample.targets[:, 2:].numpy(), bright.shape):
        rows, columns = np.nonzero(bright[int(y1) : round(y2) + 1, int(x1) : round(x2) + 1])
        assert len(rows)
        np.testing.assert_allclose(columns.max() - columns.min() + 1, x2 - x1, atol=loose)
        np.testing.assert_allclose(rows.max() - rows.min() + 1, y2 - y1, atol=loose)
        inside[max(int(y1 - loose), 0) : int(y2 + loose) + 1, max(int(x1 - loose), 0) : int(x2 + loose) + 1] = True
    assert not (bright & ~inside).any()


# ------------------------------------------------------------------------------------------------------------- golden


def test_dataset_golden(golden_json, shared):
    for case in golden_json("dataset").values():
        args = case["args"]
        files = image_files([shared(f"datasets/{case['split']}")])
        index = index_labels(files, single_cls=args.get("single_cls", False))
        dataset = DetectionDataset(
            index, imgsz=args["img_size"], rect=args["rect"], batch_size=args["batch_size"], stride=args["stride"],
            pad=args.get("pad", 0.0),
        )  # fmt: skip
        assert [Path(dataset.path(i)).name for i in range(len(dataset))] == case["files"]
        assert index.sizes_wh[dataset.order].tolist() == case["shapes_wh"]
        assert len(index.rows) == case["labels_total"]
        assert (None if dataset.batch_hw is None else dataset.batch_hw.tolist()) == case["batch_shapes_hw"]
        assert [i // args["batch_size"] for i in range(len(dataset))] == case["batch_index"]
        for i, expected in enumerate(case["first_items"]):
            sample = dataset[i]
            assert Path(sample.path).name == expected["file"]
            assert list(sample.image.shape) == expected["image_chw"]
            assert sample.image.float().mean().item() == pytest.approx(expected["image_mean"], abs=0.1)
            np.testing.assert_allclose(sample.targets.numpy(), expected["labels"], atol=1e-6)
            (original_hw, (ratio, pad)) = sample.shapes
            assert list(original_hw) == expected["shapes"][0]
            assert [list(ratio), list(pad)] == expected["shapes"][1]


# ------------------------------------------------------------------------------------------------------ rect, chances


@pytest.mark.parametrize(
    ("sizes_wh", "pad", "order", "batch_hw"),
    [
        ([(64, 64)], 0.0, [0], [[64, 64]]),
        ([(64, 64)], 0.5, [0], [[96, 96]]),
        ([(10, 40), (40, 10), (20, 20), (40, 20)], 0.0, [1, 3, 2, 0], [[32, 64], [64, 64]]),
        ([(40, 10), (10, 40), (10, 30)], 0.0, [0, 2, 1], [[64, 64], [64, 32]]),
        ([(20, 30)] * 3, 0.0, [0, 1, 2], [[64, 64]] * 2),
    ],
)
def test_rect_layout(sizes_wh, pad, order, batch_hw):
    got = rect_layout(np.array(sizes_wh), batch_size=2, imgsz=64, stride=32, pad=pad)
    assert [part.tolist() for part in got] == [order, batch_hw]


def test_chances_start_alike_and_follow_weights():
    rng, chances = np.random.default_rng(0), Chances(4)
    counts = Counter(chances.draw(rng, 4000).tolist())
    assert set(counts) == {0, 1, 2, 3}
    assert min(counts.values()) > 900
    chances.set([0, 3, 0, 1])
    counts = Counter(chances.draw(rng, 4000).tolist())
    assert set(counts) == {1, 3}
    assert counts[1] == pytest.approx(3000, abs=150)
    chances.set([0, 0, 0, 0])
    assert set(chances.draw(rng, 400).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("weights", [[], [1.0], [1, -1, 1, 1], [1, np.nan, 1, 1], [1, np.inf, 1, 1]])
def test_chances_refuse_what_are_no_weights(weights):
    with pytest.raises(ValueError, match="weights must be 4"):
        Chances(4).set(weights)


# ------------------------------------------------------------------------------------------------------------ samples


@pytest.mark.parametrize("rect", [False, True])
@pytest.mark.parametrize("cache", [None, "ram", "disk"])
def test_plain_samples(index, rect, cache):
    dataset = DetectionDataset(index, imgsz=64, rect=rect, batch_size=3, cache=cache)
    samples = list(dataset)
    assert sorted(sample.path for sample in samples) == [index.path(i) for i in range(7)]
    for sample in samples:
        assert sample.image.dtype == torch.uint8
        assert sample.image.permute(1, 2, 0).is_contiguous()
        assert sample.targets.shape[1:] == (6,)
        assert_labels_fit(sample)
        original_hw, (ratio_yx, pad_xy) = sample.shapes
        inner = [round(side * ratio) for side, ratio in zip(original_hw, ratio_yx, strict=True)]
        assert [inner[0] + 2 * pad_xy[1], inner[1] + 2 * pad_xy[0]] == list(sample.image.shape[1:])
    assert len({sample.image.shape for sample in samples[:3]}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"translate": 0.1, "scale": 0.3, "fliplr": 0.5, "flipud": 0.5},
        {"translate": 0.1, "scale": 0.5, "fliplr": 0.5, "flipud": 0.5, "mosaic": 1},
    ],
)
def test_augmented_labels_stay_on_their_pixels(index, changes):
    dataset = DetectionDataset(index, imgsz=96, hyp=make_hyp(**changes), augment=True)
    for key in range(35):
        sample = dataset[key]
        assert sample.image.shape == (3, 96, 96)
        assert sample.shapes is None
        kept = without_dropped(sample)
        assert_labels_fit(kept, loose=3.0)


def without_dropped(sample):
    """The sample without bright pixels of boxes that were dropped as hardly visible (small, cut off)."""
    image = sample.image.clone()
    height, width = image.shape[1:]
    keep = torch.zeros(height, width, dtype=torch.bool)
    for x1, y1, x2, y2 in xywhn2xyxy(sample.targets[:, 2:].numpy(), (height, width)):
        keep[max(int(y1 - 2), 0) : int(y2 + 3), max(int(x1 - 2), 0) : int(x2 + 3)] = True
    lost = (image.amin(0) > 127) & ~keep
    assert lost.float().mean() < 0.03
    image[:, lost] = 0
    return datasets.Sample(image, sample.targets, sample.path, None, sample.key)


def test_a_sample_depends_on_seed_epoch_and_number_alone(index):
    def make(seed=0):
        return DetectionDataset(index, imgsz=64, hyp=make_hyp(**STRONG, mixup=0.5), augment=True, seed=seed)

    first, second = make(), pickle.loads(pickle.dumps(make()))
    keys = [3, 0, 9, 3]
    for key, sample in zip(keys, [first[key] for key in keys], strict=True):
        assert_same(sample, second[key])
    for other in (first[3 + 7], first[3 + 14], make(seed=1)[3]):
        assert other.path == first[3].path
        assert not torch.equal(other.image, first[3].image)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_caches_do_not_change_samples_nor_samples_caches(index, cache):
    hyp = make_hyp(**STRONG, flipud=0.5, mixup=0.5)
    plain, cached = (DetectionDataset(index, imgsz=64, hyp=hyp, augment=True, cache=kind) for kind in (None, cache))
    for key in (0, 1, 2, 8, 1, 0):
        assert_same(cached[key], plain[key])


def test_mosaic_ends_at_its_epoch(index, monkeypatch):
    made = []
    compose = datasets.compose_mosaic
    monkeypatch.setattr(datasets, "compose_mosaic", lambda *args: made.append(1) or compose(*args))
    dataset = DetectionDataset(index, imgsz=64, hyp=make_hyp(mosaic=1, mixup=1), augment=True, mosaic_until=2)
    counts = []
    for epoch in range(4):
        made.clear()
        assert dataset[epoch * 7].image.shape == (3, 64, 64)
        counts.append(len(made))
    assert counts == [2, 2, 0, 0]  # two for the mixup


def test_mosaic_tiles_follow_the_image_weights(index):
    dataset = DetectionDataset(index, imgsz=64, hyp=make_hyp(mosaic=1), augment=True)
    dataset.chances.set([0, 0, 0, 0, 1, 0, 0])
    classes = torch.cat([dataset[7 * epoch + 2].targets[:, 1] for epoch in range(20)])
    assert classes.unique().tolist() == [4]  # number 2 has no labels


def test_no_mosaic_in_rectangular_batches(index):
    dataset = DetectionDataset(index, imgsz=64, hyp=make_hyp(**STRONG), augment=True, rect=True, batch_size=3, pad=0.5)
    assert [list(sample.image.shape[1:]) for sample in dataset] == [
        dataset.batch_hw[number // 3].tolist() for number in range(7)
    ]


@pytest.mark.parametrize("augment", [False, True])
def test_a_picture_that_breaks_is_told_once_and_replaced(index, monkeypatch, augment):
    Path(index.path(1)).write_bytes(b"")
    told = []
    monkeypatch.setattr(datasets.LOGGER, "warning", told.append)
    dataset = DetectionDataset(index, imgsz=64, hyp=make_hyp(), augment=augment)
    samples = [dataset[1], dataset[1 + 7], dataset[0]]
    assert len(told) == 1
    assert "01.png" in told[0]
    assert [len(sample.targets) for sample in samples] == [0, 0, 1]
    assert samples[0].image.unique().tolist() == [114]


def test_half_of_the_pictures_breaking_is_an_error(tmp_path):
    files = make_set(tmp_path, [(16, 16)] * 24)
    dataset = DetectionDataset(index_labels(files), imgsz=16)
    for file in files[:12]:
        Path(file).unlink()
    assert len(list(dataset)) == 24
    Path(files[12]).unlink()
    with pytest.raises(InputError, match="13 of 24"):
        list(dataset)


def test_polygons_are_copied_and_warped(tmp_path):
    (file,) = make_set(tmp_path, [(64, 64)])
    (tmp_path / "labels" / "00.txt").write_text("0 .1 .1 .3 .1 .3 .3 .1 .3\n1 .05 .6 .2 .6 .2 .9 .1 .95 .05 .9\n")
    index, totals = index_labels([file]), []
    for share in (0, 1):
        hyp = make_hyp(mosaic=1, copy_paste=share, degrees=10, scale=0.2)
        dataset = DetectionDataset(index, imgsz=64, hyp=hyp, augment=True)
        totals.append(sum(len(dataset[key].targets) for key in range(20)))
    assert totals[1] > totals[0] > 0


@pytest.mark.parametrize(
    ("options", "error"), [({"augment": True}, "hyperparameters"), ({"cache": "tape"}, "'ram', 'disk'")]
)
def test_refuses_what_does_not_go_together(index, options, error):
    with pytest.raises(ValueError, match=error):
        DetectionDataset(index, imgsz=64, **options)
