"""Collation, order, and workers that change nothing."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.utils.still_hyp import make_hyp
from utils.dataloaders import (
    Batch,
    EpochSampler,
    QuadCollate,
    collate,
    create_dataloader,
    enlarged,
    make_dataloader,
    tiled,
    worker_count,
)
from utils.datasets import DetectionDataset, Sample
from utils.errors import InputError
from utils.labels import index_labels

MOSAIC = {"mosaic": 1.0, "mixup": 0.3, "scale": 0.5, "translate": 0.1, "fliplr": 0.5, "hsv_v": 0.4}


@pytest.fixture
def folder(tmp_path):
    """Seven random pictures with a label each."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for i in range(7):
        pixels = rng.integers(0, 256, (int(rng.integers(20, 60)), 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        (tmp_path / "labels" / f"{i}.txt").write_text(f"{i} .5 .5 .6 .6\n")
    return tmp_path / "images"


def make_dataset(folder, **options) -> DetectionDataset:
    index = index_labels(sorted(map(str, folder.glob("*.png"))))
    return DetectionDataset(index, imgsz=32, **options)


def sample(image=None, targets=(), key=0) -> Sample:
    image = torch.zeros(3, 8, 12, dtype=torch.uint8) if image is None else torch.as_tensor(image)
    return Sample(image, torch.tensor(np.reshape(targets, (-1, 6)), dtype=torch.float32), f"{key}.png", None, key)


def batches(loader, epochs=(0,)) -> list[Batch]:
    found = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        found.extend(loader)
    return found


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert one.paths == other.paths


# ---------------------------------------------------------------------------------------------------------- collation


@pytest.mark.parametrize(
    ("counts", "numbers"), [([0], []), ([0, 0], []), ([1], [0]), ([2, 0, 1], [0, 0, 2]), ([0, 1, 3], [1, 2, 2, 2])]
)
def test_collate_numbers_the_targets(counts, numbers):
    samples = [sample(targets=[[0, 5, 0.1, 0.2, 0.3, 0.4]] * count, key=i) for i, count in enumerate(counts)]
    batch = collate(samples)
    assert batch.targets.shape == (len(numbers), 6)
    assert batch.targets[:, 0].tolist() == numbers
    assert batch.images.shape == (len(counts), 3, 8, 12)
    assert batch.paths == tuple(f"{i}.png" for i in range(len(counts)))
    assert len(batch) == len(batch.shapes) == len(counts)
    assert all((item.targets[:, 0] == 0).all() for item in samples)


def golden_samples(arrays, count=8):
    return [sample(arrays[f"quad/in_{i}_image"], arrays[f"quad/in_{i}_labels"], key=i) for i in range(count)]


def test_collate_golden(golden_npz):
    arrays = golden_npz("mosaic")
    batch = collate(golden_samples(arrays))
    np.testing.assert_allclose(batch.targets.numpy(), arrays["quad/plain_collate_labels"], atol=1e-6)


def test_quad_golden(golden_npz, golden_json):
    arrays = golden_npz("mosaic")
    samples, draws = golden_samples(arrays), golden_json("mosaic")["quad"]["random_draws"]
    merged = [
        enlarged(samples[4 * i]) if draw < 0.5 else tiled(samples[4 * i : 4 * i + 4]) for i, draw in enumerate(draws)
    ]
    batch = collate(merged)
    np.testing.assert_array_equal(batch.images.numpy(), arrays["quad/out_images"])
    np.testing.assert_allclose(batch.targets.numpy(), arrays["quad/out_labels"], atol=1e-6)


@pytest.mark.parametrize(("count", "merged"), [(1, 1), (3, 3), (4, 1), (8, 2), (9, 3)])
def test_quad_loses_no_samples(count, merged):
    samples = [sample(targets=[[0, i, 0.5, 0.5, 0.1, 0.1]], key=i) for i in range(count)]
    batch = QuadCollate(0)(samples)
    assert batch.images.shape == (merged, 3, 16, 24)
    left_over = range(count // 4 * 4, count)
    assert set(left_over) <= set(batch.targets[:, 1].int().tolist())


def test_quad_does_both_and_depends_on_seed_and_samples_alone():
    made = []
    for start in range(0, 80, 4):
        samples = [sample(targets=[[0, 0, 0.5, 0.5, 0.1, 0.1]], key=start + i) for i in range(4)]
        assert_same([QuadCollate(3)(samples)], [QuadCollate(3)(samples)])
        made.append(len(QuadCollate(3)(samples).targets))
    assert set(made) == {1, 4}


# -------------------------------------------------------------------------------------------------------------- order


def test_order_is_a_function_of_seed_and_epoch(folder):
    dataset = make_dataset(folder)
    sampler = EpochSampler(dataset, shuffle=True, seed=1)
    orders = []
    for epoch in (0, 1, 2):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(7 * epoch, 7 * epoch + 7))
    again = EpochSampler(dataset, shuffle=True, seed=1)
    again.set_epoch(2)
    assert list(again) == orders[2]
    assert orders[0] != [key - 7 for key in orders[1]]
    assert list(EpochSampler(dataset, shuffle=True, seed=2)) != orders[0]
    assert list(EpochSampler(dataset)) == list(range(7))


def test_weights_draw_with_repetition(folder):
    sampler = EpochSampler(make_dataset(folder), shuffle=True)
    sampler.set_weights([0, 1, 0, 0, 1, 0, 0])
    sampler.set_epoch(3)
    keys = list(sampler)
    assert len(keys) == len(sampler) == 7
    assert {key - 21 for key in keys} == {1, 4}
    assert list(sampler) == keys


def test_weights_and_rectangular_batches_exclude_each_other(folder):
    with pytest.raises(InputError, match="--image-weights and --rect"):
        EpochSampler(make_dataset(folder, rect=True)).set_weights([1] * 7)


# ------------------------------------------------------------------------------------------------------------ loaders


@pytest.mark.parametrize(
    ("workers", "batch_size", "expected"), [(0, 16, 0), (8, 1, 0), (1, 16, 1), (8, 2, 2), (10**6, 10**6, None)]
)
def test_worker_count(monkeypatch, workers, batch_size, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert worker_count(workers, batch_size) == (6 if expected is None else expected)


@pytest.mark.parametrize("quad", [False, True])
def test_workers_change_nothing(folder, quad):
    """Two epochs of the same living workers, with image weights between them, give what the main process gives."""
    found = []
    for workers in (0, 2):
        dataset = make_dataset(folder, augment=True, hyp=make_hyp(**MOSAIC), mosaic_until=2)
        loader = make_dataloader(dataset, batch_size=4, workers=workers, shuffle=True, quad=quad, seed=5)
        found.append(batches(loader, epochs=(0, 1, 2)))
        loader.sampler.set_weights([1, 0, 0, 5, 0, 0, 0])
        found[-1] += batches(loader, epochs=(1, 3))
    assert_same(*found)
    assert len(found[0]) == 10


def test_resuming_gives_the_batches_of_an_unbroken_run(folder):
    def make():
        dataset = make_dataset(folder, augment=True, hyp=make_hyp(**MOSAIC))
        return make_dataloader(dataset, batch_size=3, workers=0, shuffle=True)

    unbroken = batches(make(), epochs=(0, 1, 2))
    assert_same(batches(make(), epochs=(2,)), unbroken[-3:])


def test_loading_leaves_the_global_generators_alone(folder):
    loader = make_dataloader(make_dataset(folder, augment=True, hyp=make_hyp(**MOSAIC)), batch_size=4, workers=0)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    batches(loader)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("cache", [None, "ram"])
def test_spawned_workers(folder, cache):
    """What macOS and Windows do: everything the workers need is pickled, weights set later reach them."""
    dataset = make_dataset(folder, augment=True, hyp=make_hyp(**MOSAIC), cache=cache)
    plain = make_dataloader(dataset, batch_size=4, workers=0, shuffle=True)
    spawned = DataLoader(
        dataset, batch_size=4, sampler=EpochSampler(dataset, shuffle=True), collate_fn=collate, num_workers=1,
        persistent_workers=True, worker_init_fn=plain.worker_init_fn, multiprocessing_context="spawn",
    )  # fmt: skip
    assert_same(batches(spawned), batches(plain))
    spawned.sampler.set_weights([0, 0, 1, 0, 0, 0, 2])
    assert_same(batches(spawned, (1,)), batches(plain, (1,)))


def test_create_dataloader_for_training(folder):
    loader = create_dataloader(
        (folder,), imgsz=32, batch_size=4, nc=7, hyp=make_hyp(**MOSAIC), augment=True, shuffle=True, workers=0
    )
    found = batches(loader)
    assert [len(batch) for batch in found] == [4, 3]
    assert sorted(Path(path).name for batch in found for path in batch.paths) == [f"{i}.png" for i in range(7)]
    assert (folder.parent / "labels.cache").exists()


@pytest.mark.parametrize("rect", [False, True])
def test_create_dataloader_for_validation(folder, rect):
    loader = create_dataloader((folder,), imgsz=64, batch_size=100, rect=rect, shuffle=True, pad=0.5, workers=0)
    (batch,) = loader
    assert batch.images.shape == ((7, 3, 96, 96) if rect else (7, 3, 64, 64))
    assert batch.images.dtype == torch.uint8
    assert batch.targets[:, 0].tolist() == list(range(7))
    for shapes in batch.shapes:
        assert shapes[0][1] == 40


def test_create_dataloader_tells_what_is_wrong(folder, tmp_path):
    with pytest.raises(InputError, match="nc=3"):
        create_dataloader((folder,), imgsz=32, batch_size=4, nc=3, workers=0)
    with pytest.raises(InputError, match="nowhere"):
        create_dataloader((tmp_path / "nowhere",), imgsz=32, batch_size=4)
    for file in (folder.parent / "labels").iterdir():
        file.write_text("")
    with pytest.raises(InputError, match="labels"):
        create_dataloader((folder,), imgsz=32, batch_size=4, augment=True, hyp=make_hyp(), workers=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_batch():
    batch = collate([sample(targets=[[0, 1, 0.5, 0.5, 0.1, 0.1]])]).pin_memory()
    assert batch.images.is_pinned()
    assert batch.targets.is_pinned()


# -------------------------------------------------------------------------------------------------------------- sharing
@pytest.mark.parametrize(
    ("images", "batch_size", "skip", "shares"),
    [
        (1, 2, 0, [[0], [0]]),
        (8, 4, 0, [[0, 1, 4, 5], [2, 3, 6, 7]]),
        (8, 4, 1, [[4, 5], [6, 7]]),
        (8, 4, 2, [[], []]),
        (7, 4, 0, [[0, 1, 4, 5], [2, 3, 6, 4]]),
        (5, 4, 0, [[0, 1, 4], [2, 3, 4]]),
    ],
)
def test_each_process_takes_its_share_of_every_batch(images, batch_size, skip, shares):
    unweighted = type("Chances", (), {"weighted": False})
    dataset = type("Dataset", (), {"__len__": lambda _: images, "chances": unweighted})()
    for rank, expected in enumerate(shares):
        sampler = EpochSampler(dataset, batch_size=batch_size, share=(rank, 2))
        whole = len(sampler)
        sampler.set_epoch(0, skip_batches=skip)
        assert list(sampler) == expected
        assert whole == len(expected) + skip * batch_size // 2
