"""Reading, resizing and caching pictures."""

import os
import pickle
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils import images
from utils.errors import InputError
from utils.images import (
    IMAGE_STORES,
    DiskImageStore,
    ImageStore,
    RamImageStore,
    fit_image,
    fitted_hw,
    read_image,
)


class Paths:
    """From number to path, as LabelIndex.path; can be pickled."""

    def __init__(self, files):
        self.files = files

    def __call__(self, i: int) -> str:
        return str(self.files[i])


def make_pictures(folder: Path, sizes_wh) -> tuple[Paths, np.ndarray]:
    """Random pictures of those sizes, without loss."""
    rng, files = np.random.default_rng(0), []
    folder.mkdir(parents=True, exist_ok=True)
    for i, (width, height) in enumerate(sizes_wh):
        files.append(folder / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(files[-1])
    return Paths(files), np.array(sizes_wh, np.int32)


SIZES_WH = [(64, 48), (20, 30), (32, 32), (100, 10)]


# ------------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("name", ["plain.png", "mit Leerzeichen.png", "数字/画像.png", "снимок.png"])
def test_reads_paths_in_any_script(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (3, 2), (10, 20, 30)).save(file)
    assert read_image(file).tolist() == [[[30, 20, 10]] * 3] * 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_reads_any_mode_as_three_channels(tmp_path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").shape == (3, 4, 3)
    assert read_image(tmp_path / "x.png").dtype == np.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_upright_as_exif_says(tmp_path, orientation):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16] = 255
    exif = Image.Exif()
    exif[274] = orientation
    file = tmp_path / "x.jpg"
    Image.fromarray(pixels).save(file, exif=exif, quality=100)
    with Image.open(file) as image:
        turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)  # PIL's operations by number
        expected = np.asarray(image if turned is None else image.transpose(Image.Transpose(turned)))
    np.testing.assert_allclose(read_image(file).astype(int), expected, atol=3)


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\xff\xd8\xff\xe0 cut off"])
def test_names_the_file_that_is_no_picture(tmp_path, content):
    file = tmp_path / "broken.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.jpg"):
        read_image(file)


# ----------------------------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize(
    ("size_hw", "imgsz", "expected"),
    [
        ((1, 1), 32, (32, 32)),
        ((480, 640), 640, (480, 640)),
        ((500, 381), 640, (640, 487)),  # 487.68, cut off
        ((1000, 2), 320, (320, 1)),
        ((720, 1280), 320, (180, 320)),
    ],
)
def test_fitted_size(size_hw, imgsz, expected):
    assert fitted_hw(size_hw, imgsz) == expected
    assert fit_image(np.zeros((*size_hw, 3), np.uint8), imgsz, smooth=True).shape[:2] == expected


def test_smooth_shrinking_averages_and_enlarging_is_linear():
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[:, ::2] = 255
    assert (np.abs(fit_image(stripes, 10, smooth=True).astype(int) - 128) <= 1).all()
    for smooth, size in ((False, 10), (True, 80)):
        linear = cv2.resize(stripes, (size, size), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(fit_image(stripes, size, smooth=smooth), linear)


# ---------------------------------------------------------------------------------------------- decoding at small size


def gradient(width: int, height: int) -> Image.Image:
    """A picture that JPEG keeps well at any size, unlike in each direction."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack((across, down, 255 - across), -1).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "size_wh", "smooth", "divisor"),
    [
        ("1.jpg", (1, 1), False, 1),
        ("small.jpg", (127, 90), False, 1),
        ("twice.jpg", (128, 90), False, 2),
        ("odd.JPEG", (99, 131), False, 2),
        ("large.jpg", (300, 257), False, 4),
        ("huge.jpg", (2000, 1001), False, 8),
        ("validated.jpg", (300, 257), True, 1),
        ("whole.png", (300, 257), False, 1),
    ],
)
def test_training_decodes_large_jpegs_at_reduced_size(tmp_path, monkeypatch, name, size_wh, smooth, divisor):
    gradient(*size_wh).save(tmp_path / name, quality=95)
    store = ImageStore(Paths([tmp_path / name]), np.array([size_wh]), 64, smooth=smooth)
    divisors = []
    monkeypatch.setattr(images, "read_image", lambda path, at=1: divisors.append(at) or read_image(path, at))
    image, original_hw = store.get(0)
    assert divisors == [divisor]
    assert original_hw == size_wh[::-1]
    whole = cv2.resize(read_image(tmp_path / name), image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert image.shape[:2] == fitted_hw(original_hw, 64)
    assert np.abs(image.astype(int) - whole).mean() < 2.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_pictures_are_upright_too(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    gradient(301, 200).save(tmp_path / "x.jpg", exif=exif, quality=95)
    whole = read_image(tmp_path / "x.jpg")
    image, original_hw = ImageStore(Paths([tmp_path / "x.jpg"]), np.array([whole.shape[1::-1]]), 64).get(0)
    assert original_hw == whole.shape[:2]
    expected = cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - expected).mean() < 2.5


def test_another_picture_than_the_index_knows_is_read_whole(tmp_path):
    gradient(400, 100).save(tmp_path / "changed.jpg", quality=95)
    image, original_hw = ImageStore(Paths([tmp_path / "changed.jpg"]), np.array([(300, 300)]), 64).get(0)
    assert (image.shape[:2], original_hw) == ((16, 64), (100, 400))


def test_truncated_pictures_keep_their_size(tmp_path):
    gradient(300, 200).save(tmp_path / "cut.jpg", quality=95)
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) * 2 // 3])
    image, original_hw = ImageStore(Paths([tmp_path / "cut.jpg"]), np.array([(300, 200)]), 64).get(0)
    assert (image.shape[:2], original_hw) == ((42, 64), (200, 300))
    whole = fit_image(read_image(tmp_path / "cut.jpg"), 64, smooth=True)
    assert np.abs(image[:20].astype(int) - whole[:20]).mean() < 3


# ------------------------------------------------------------------------------------------------------------ caching


@pytest.mark.parametrize("kind", IMAGE_STORES)
@pytest.mark.parametrize("smooth", [False, True])
def test_stores_give_the_same_pictures(tmp_path, kind, smooth):
    paths, sizes_wh = make_pictures(tmp_path / "a b", SIZES_WH)
    store = IMAGE_STORES[kind](paths, sizes_wh, 32, smooth=smooth)
    store.fill()
    store = pickle.loads(pickle.dumps(store))
    for i, (width, height) in enumerate(SIZES_WH):
        image, original_hw = store.get(i)
        assert original_hw == store.original_hw(i) == (height, width)
        np.testing.assert_array_equal(image, fit_image(read_image(paths(i)), 32, smooth=smooth))


@pytest.mark.parametrize("kind", IMAGE_STORES)
def test_stores_of_no_pictures(kind):
    store = IMAGE_STORES[kind](Paths([]), np.zeros((0, 2), np.int32), 32)
    store.fill()
    assert len(store) == 0


def test_ram_needs_no_files_afterwards(tmp_path):
    paths, sizes_wh = make_pictures(tmp_path, SIZES_WH)
    store = RamImageStore(paths, sizes_wh, 32)
    store.fill()
    for file in paths.files:
        file.unlink()
    assert [store.get(i)[0].shape[:2] for i in range(4)] == [(24, 32), (32, 21), (32, 32), (3, 32)]


def test_ram_leaves_out_what_is_broken_or_not_of_the_expected_size(tmp_path):
    paths, sizes_wh = make_pictures(tmp_path, SIZES_WH)
    paths.files[0].write_bytes(b"")
    sizes_wh[1] = (30, 20)
    store = RamImageStore(paths, sizes_wh, 32)
    store.fill()
    with pytest.raises(InputError, match=r"0\.png"):
        store.get(0)
    assert store.get(1)[0].shape == (32, 21, 3)
    assert store.get(1)[1] == (30, 20)


def test_ram_cache_stays_empty_where_memory_is_short(tmp_path, monkeypatch):
    paths, sizes_wh = make_pictures(tmp_path, SIZES_WH)
    told = []
    monkeypatch.setattr(images, "memory_share", lambda: 1000)
    monkeypatch.setattr(images.LOGGER, "warning", told.append)
    store = RamImageStore(paths, sizes_wh, 32)
    store.fill("train: ")
    assert "train: Images are not cached in RAM: they need 0.0 GiB" in told[0]
    assert "0.0 GiB are free" in told[0]
    paths.files[0].unlink()
    with pytest.raises(InputError):
        store.get(0)


@pytest.mark.parametrize(("spare", "cached"), [(-1, False), (0, True), (None, True)])
def test_ram_cache_wants_a_fifth_more_than_it_needs(tmp_path, monkeypatch, spare, cached):
    paths, sizes_wh = make_pictures(tmp_path, [(32, 32)] * 5)
    least = 5 * 32 * 32 * 3 * 12 // 10
    monkeypatch.setattr(images, "memory_share", lambda: None if spare is None else least + spare)
    store = RamImageStore(paths, sizes_wh, 32)
    store.fill()
    paths.files[0].unlink()
    if cached:
        assert store.get(0)[0].shape == (32, 32, 3)
    else:
        with pytest.raises(InputError):
            store.get(0)


def test_disk_reads_what_it_wrote(tmp_path):
    paths, sizes_wh = make_pictures(tmp_path, SIZES_WH)
    store = DiskImageStore(paths, sizes_wh, 32)
    store.fill()
    assert sorted(path.name for path in (tmp_path / ".cache_32").iterdir()) == [f"{i}.png.npy" for i in range(4)]
    np.save(store.file(2), np.full((32, 32, 3), 7, np.uint8))
    os.utime(store.file(2), ns=(0, paths.files[2].stat().st_mtime_ns))
    assert (store.get(2)[0] == 7).all()


def test_disk_keeps_sizes_and_filters_apart(tmp_path):
    paths, sizes_wh = make_pictures(tmp_path, SIZES_WH)
    stores = [DiskImageStore(paths, sizes_wh, size, smooth=smooth) for size in (16, 32) for smooth in (False, True)]
    assert len({store.file(0) for store in stores}) == 4


@pytest.mark.parametrize("damage", ["newer picture", "older picture", "cut off", "pickle", "other size", "empty"])
def test_disk_notices_what_is_stale_or_damaged(tmp_path, damage):
    paths, sizes_wh = make_pictures(tmp_path, [(32, 32)])
    store = DiskImageStore(paths, sizes_wh, 32)
    store.fill()
    time = paths.files[0].stat().st_mtime_ns
    if damage in ("newer picture", "older picture"):
        Image.new("RGB", (32, 32), (1, 2, 3)).save(paths.files[0])
        time += 10**9 if damage == "newer picture" else -(10**9)
        os.utime(paths.files[0], ns=(time, time))
    else:
        content = store.file(0).read_bytes()
        if damage == "pickle":
            np.save(store.file(0), np.array([{"a": 1}]), allow_pickle=True)
        elif damage == "other size":
            np.save(store.file(0), np.zeros((16, 32, 3), np.uint8))
        else:
            store.file(0).write_bytes(content[: len(content) // 2] if damage == "cut off" else b"")
        os.utime(store.file(0), ns=(time, time))
    expected = read_image(paths(0))
    np.testing.assert_array_equal(store.get(0)[0], expected)
    store.fill()
    np.testing.assert_array_equal(np.load(store.file(0), allow_pickle=False), expected)


def test_disk_goes_on_where_it_cannot_write(tmp_path, monkeypatch):
    paths, sizes_wh = make_pictures(tmp_path, SIZES_WH)
    (tmp_path / ".cache_32").write_text("a file where the folder would be")
    told = []
    monkeypatch.setattr(images.LOGGER, "warning", told.append)
    store = DiskImageStore(paths, sizes_wh, 32)
    store.fill()
    assert "not all cached on disk" in told[0]
    assert store.get(0)[0].shape == (24, 32, 3)


def test_disk_leaves_room_for_the_results(tmp_path, monkeypatch):
    paths, sizes_wh = make_pictures(tmp_path, SIZES_WH)
    told = []
    monkeypatch.setattr(images.LOGGER, "warning", told.append)
    monkeypatch.setattr(images.shutil, "disk_usage", lambda _: images.shutil._ntuple_diskusage(1000, 0, 1000))
    store = DiskImageStore(paths, sizes_wh, 32)
    store.fill("val: ")
    assert "val: Images are not all cached" in told[0]
    assert not store.file(0).exists()
    assert store.get(0)[0].shape == (24, 32, 3)


def test_disk_writes_nothing_twice(tmp_path):
    paths, sizes_wh = make_pictures(tmp_path, SIZES_WH)
    store = DiskImageStore(paths, sizes_wh, 32)
    store.fill()
    paths.files[1].unlink()
    inodes = [store.file(i).stat().st_ino for i in range(4)]
    store.fill()
    assert [store.file(i).stat().st_ino for i in range(4)] == inodes


def test_the_plain_store_reads_each_time(tmp_path):
    paths, sizes_wh = make_pictures(tmp_path, SIZES_WH)
    store = ImageStore(paths, sizes_wh, 32)
    store.fill()
    paths.files[0].unlink()
    with pytest.raises(InputError):
        store.get(0)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.5, 0.99])
def test_a_truncated_picture_is_read_as_far_as_it_goes(tmp_path, capsys, suffix, part):
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    picture = cv2.resize(picture, (192, 128))
    content = cv2.imencode(suffix, picture)[1].tobytes()
    file = tmp_path / f"cut{suffix}"
    file.write_bytes(content[: int(len(content) * part)])
    image = read_image(file)
    assert image.shape == picture.shape
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_allclose(image[:32].astype(int), whole[:32].astype(int), atol=3)  # BGR, and the right way up
    read_image(file)
    assert capsys.readouterr().err.count(f"{file} is truncated") == 1


def test_a_picture_of_too_many_pixels_is_no_way_in(tmp_path):
    """A PNG whose header claims a billion pixels, and which ends there."""
    header = b"IHDR" + (40000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(InputError, match="cannot be decoded|expected a picture"):
        read_image(tmp_path / "bomb.png")
