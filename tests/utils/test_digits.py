"""The built-in digits: disjoint scans, tight boxes, the same files every time, all or nothing."""

import filecmp
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.digits import HEIGHT_PX, MOST_OVERLAP, Scans, draw_digit, draw_picture, load_scans, make_digits
from utils.hyp import load_hyp
from utils.labels import image_files, index_labels

ROOT = Path(__file__).resolve().parents[2]
FEW = {"train": 6, "val": 3}


@pytest.fixture(scope="module")
def scans() -> dict[str, Scans]:
    return load_scans()


def test_train_and_val_share_no_scan(scans):
    train, val = ({scan.tobytes() for scan in scans[split].ink} for split in ("train", "val"))
    assert not train & val
    assert len(scans["train"].digit) + len(scans["val"].digit) == 1797
    for split, least in (("train", 135), ("val", 33)):
        assert np.bincount(scans[split].digit, minlength=10).min() >= least


@pytest.mark.parametrize("height", [1, 24, 64])
def test_drawn_digit_is_cut_to_its_ink(height, scans):
    opacity = draw_digit(np.random.default_rng(height), scans["train"].ink[0], height)
    assert opacity.shape[0] == height
    assert opacity.dtype == np.float32
    assert opacity.min() >= 0
    assert opacity.max() <= 1
    if height > 1:
        for edge in (opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]):
            assert edge.max() > 0.2


@pytest.mark.parametrize(("digits", "size_hw"), [((0, 0), (96, 128)), ((1, 1), (128, 128)), ((2, 6), (128, 128))])
def test_picture_and_its_labels(digits, size_hw, scans):
    for seed in range(5):
        image, labels = draw_picture(np.random.default_rng(seed), scans["val"], size_hw, digits=digits)
        assert image.shape == (*size_hw, 3)
        assert image.dtype == np.uint8
        assert digits[0] <= len(labels) <= digits[1]
        size_px = labels[:, 3:] * size_hw[::-1]
        corners = np.concatenate((labels[:, 1:3] * size_hw[::-1] - size_px / 2, size_px), 1).round().astype(int)
        heights = corners[:, 3]
        assert ((heights >= HEIGHT_PX[0]) & (heights <= HEIGHT_PX[1])).all()
        for left, top, width, height in corners:
            assert left >= 1
            assert top >= 1
            inside = image[top : top + height, left : left + width].max(2)
            assert np.quantile(inside, 0.9) > 110  # bright ink on a dim ground


def test_digits_hardly_overlap(scans):
    _, labels = draw_picture(np.random.default_rng(3), scans["train"], digits=(6, 6))
    low, high = labels[:, 1:3] - labels[:, 3:] / 2, labels[:, 1:3] + labels[:, 3:] / 2
    for i in range(len(labels)):
        for j in range(i):
            common = (np.minimum(high[i], high[j]) - np.maximum(low[i], low[j])).clip(0).prod()
            assert common <= (MOST_OVERLAP + 1e-4) * min(labels[i, 3:].prod(), labels[j, 3:].prod())


def test_same_files_every_time_and_all_usable(tmp_path):
    roots = [make_digits(tmp_path / name, FEW) for name in ("one", "two")]
    files = sorted(file.relative_to(roots[0]) for file in roots[0].rglob("*.*"))
    assert len(files) == 2 * sum(FEW.values())
    assert filecmp.cmpfiles(*roots, map(str, files), shallow=False)[0] == list(map(str, files))
    for split, count in FEW.items():
        index = index_labels(image_files(roots[0] / "images" / split), nc=10)
        assert index.report.counts == (0, count, 0, 0)
        assert (index.sizes_wh == 128).all()


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "digits").mkdir()
    make_digits(tmp_path / "digits", FEW)
    assert not list((tmp_path / "digits").iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_making_leaves_nothing(error, tmp_path, monkeypatch):
    calls = []

    def fail_late(*arguments):
        calls.append(arguments)
        if len(calls) > 4:
            raise error
        return True, np.zeros(3, np.uint8)

    monkeypatch.setattr(cv2, "imencode", fail_late)
    with pytest.raises(error):
        make_digits(tmp_path / "digits", FEW)
    assert len(calls) == 5
    assert not list(tmp_path.iterdir())


def test_loser_of_a_race_keeps_the_winners_set(tmp_path, monkeypatch):
    def other_process_wins(self, target):
        target.mkdir()
        (target / "theirs").touch()
        raise OSError("not empty")

    monkeypatch.setattr(Path, "rename", other_process_wins)
    make_digits(tmp_path / "digits", FEW)
    assert [file.name for file in tmp_path.rglob("*")] == ["digits", "theirs"]


def test_hyperparameters_of_the_digits_load():
    hyp = load_hyp(ROOT / "data" / "hyps" / "hyp.digits.yaml")
    assert (hyp.flipud, hyp.fliplr, hyp.nominal_batch) == (0, 0, 16)


def test_sample_pictures_are_there():
    pictures = image_files(ROOT / "data" / "images")
    assert 2 <= len(pictures) <= 3
    assert all(max(cv2.imread(picture).shape) == 640 for picture in pictures)
