"""Label files and the index, against the golden verification cases and small sets made here."""

import base64
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.label_index import in_child, synthetic_index, unique_memory, walked_in_parts
from utils import labels
from utils.errors import InputError
from utils.findings import ARRAYS as FINDINGS
from utils.labels import (
    ARRAYS,
    LabelIndex,
    cache_file,
    fingerprint,
    image_files,
    index_labels,
    label_path,
    stat_threads,
    verify,
    write_cache,
)

# Where ours reads better than the reference (docs/differences.md); every other golden case must agree in full.
BETTER = {
    "whitespace_only_line_between": {"rows": [[0, 0.5, 0.5, 0.2, 0.3], [1, 0.1, 0.2, 0.05, 0.06]]},
    "fractional_class": {"rejected": "whole numbers"},
    "segment_and_box_mixed": {"rows": [[0, 0.25, 0.3, 0.3, 0.4], [1, 0.5, 0.5, 0.2, 0.3]]},
    "segment_duplicates": {"rows": [[0, 0.25, 0.3, 0.3, 0.4]]},
    "segments_different_with_same_box": {"rows": [[0, 0.25, 0.3, 0.3, 0.4]]},
    "utf8_bom": {"rows": [[0, 0.5, 0.5, 0.2, 0.3]]},
    "exif_orientation_5": {"size_wh": (36, 48)},
    "jpeg_trailing_garbage": {"file_kept": True},
    "exif6_trailing_garbage": {"file_kept": True},
}


def write_set(root: Path, labels: dict[str, str | None], size_wh=(40, 30)) -> list[str]:
    """Images below root/images and their label files (None: no file). Returns the images' paths, sorted."""
    for name, text in labels.items():
        image = root / "images" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size_wh).save(image)
        label = Path(label_path(str(image)))
        label.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            label.write_text(text)
    return sorted(str(root / "images" / name) for name in labels)


def assert_agrees(record, case, better, *, file_changed):
    """The golden case, overruled by what `better` names."""
    if "rejected" in better:
        assert record.counts.corrupt
        assert better["rejected"] in record.note
        return
    if not case["accepted"] and "rows" not in better:
        assert record.counts._asdict() == case["counts"]
        assert not len(record.rows)
        assert record.note
        return
    assert record.counts._asdict() == {**case["counts"], "corrupt": 0}
    assert record.size_wh == tuple(better.get("size_wh", case["image_size_wh"] or (40, 30)))
    np.testing.assert_allclose(record.rows, np.reshape(better.get("rows", case["rows"]), (-1, 5)), atol=1e-6)
    assert record.rows.dtype == np.float32
    assert not file_changed
    if "rows" in better:
        assert len(record.segments) in (0, len(record.rows))
        return
    assert len(record.segments) == len(case["segments"])
    for polygon, expected in zip(record.segments, case["segments"], strict=True):
        np.testing.assert_allclose(polygon, expected, atol=1e-6)


def test_golden_label_cases(golden_json, tmp_path):
    for name, case in golden_json("label_verification")["label_cases"].items():
        image = Path(*write_set(tmp_path / name, {"im.png": None}))
        label = label_path(str(image))
        if "label_bytes_base64" in case:
            Path(label).write_bytes(base64.b64decode(case["label_bytes_base64"]))
        elif case["label_text"] is not None:
            Path(label).write_bytes(case["label_text"].encode())
        before = image.read_bytes()
        record = verify(str(image), label)
        assert_agrees(record, case, BETTER.get(name, {}), file_changed=image.read_bytes() != before)


def test_golden_image_cases(golden_json, tmp_path):
    label = tmp_path / "label.txt"
    label.write_text("0 0.5 0.5 0.2 0.3")
    for name, case in golden_json("label_verification")["image_cases"].items():
        image = tmp_path / case["file_name"]
        before = base64.b64decode(case["image_base64"])
        image.write_bytes(before)
        record = verify(str(image), str(label))
        assert case["image_file_rewritten"] is bool(BETTER.get(name, {}).get("file_kept"))
        assert_agrees(record, case, BETTER.get(name, {}), file_changed=image.read_bytes() != before)


def test_every_better_case_is_a_golden_case(golden_json):
    golden = golden_json("label_verification")
    assert set(BETTER) <= set(golden["label_cases"]) | set(golden["image_cases"])


def test_image_files_of_directory_list_and_glob(tmp_path):
    names = ["b/2.JPG", "a.png", "[x]/ü 1.webp", "b/3.bmp"]
    images = write_set(tmp_path, dict.fromkeys(names))
    folder = tmp_path / "images"
    (folder / "notes.txt").write_text("no image")
    (folder / "._a.png").write_bytes(b"a macOS resource fork")
    assert image_files(folder) == images
    assert image_files([folder / "b", folder / "[x]"]) == sorted(x for x in images if not x.endswith("a.png"))
    assert image_files(f"{folder}/b/*") == [x for x in images if f"{os.sep}b{os.sep}" in x]
    assert image_files(folder / "a.png") == [str(folder / "a.png")]
    listed = tmp_path / "list.txt"
    listed.write_text(f"./images/b/2.JPG\n\n{folder}/a.png\nreadme.md\n", encoding="utf-8")
    assert image_files([listed]) == sorted([str(folder / "b/2.JPG"), str(folder / "a.png")])


@pytest.mark.parametrize("sources", [[], ["nowhere"], ["empty"], ["bytes.dat"]])
def test_image_files_raises_where_there_is_nothing(sources, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes.dat").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=sources[0] if sources else "got none"):
        image_files([tmp_path / source for source in sources])


def test_golden_file_order(golden_json, shared):
    """Without rect the reference keeps the sorted order of the paths; the sizes are those of the files as shown."""
    golden = golden_json("dataset")["coco8_train_square"]
    index = index_labels(image_files(shared("datasets/coco8/images/train")), nc=80)
    assert [Path(index.path(i)).name for i in range(len(index))] == golden["files"]
    assert index.sizes_wh.tolist() == golden["shapes_wh"]
    assert len(index.rows) == golden["labels_total"]


MIXED = {
    "a.png": "1 0.5 0.5 0.2 0.3\n0 0.1 0.1 0.1 0.1\n",
    "b.png": None,
    "c.png": "",
    "d.png": "0 0.5 0.5 2 0.3",
    "é.png": "1 0.1 0.1 0.4 0.1 0.4 0.5 0.1 0.5\n0 0.1 0.2 0.3 0.4 0.4 0.2\n",
}


def assert_same(one: LabelIndex, other: LabelIndex) -> None:
    assert one.report.counts == other.report.counts
    for name in FINDINGS:
        np.testing.assert_array_equal(getattr(one.report.findings, name), getattr(other.report.findings, name))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


def test_index_counts_and_gives_back_each_image(tmp_path):
    images = write_set(tmp_path, MIXED)
    index = index_labels(images, nc=2)
    assert index.report.counts._asdict() == {"missing": 1, "found": 4, "empty": 1, "corrupt": 1}
    assert [index.path(i) for i in range(len(index))] == [x for x in images if not x.endswith("d.png")]
    for i in range(len(index)):
        record = verify(index.path(i), label_path(index.path(i)))
        np.testing.assert_array_equal(index.labels(i), record.rows)
        assert len(index.segments(i)) == len(record.segments)
        for polygon, expected in zip(index.segments(i), record.segments, strict=True):
            np.testing.assert_array_equal(polygon, expected)
    assert list(index.summary()) == ["missing label file", "empty label file", "coordinates out of range"]
    assert "d.txt: expected coordinates normalised to 0..1, got 2" in index.summary()["coordinates out of range"]
    assert index_labels(images, single_cls=True).rows[:, 0].tolist() == [0, 0, 0, 0]


def test_index_over_several_chunks_keeps_order(tmp_path, monkeypatch):
    images = write_set(tmp_path, MIXED)
    whole = index_labels(images)
    monkeypatch.setattr("utils.labels.CHUNK", 2)
    assert_same(index_labels(images, workers=3), whole)


def test_class_beyond_nc_stops_in_one_sentence(tmp_path):
    """The duplicate is dropped and the rows are sorted: the line is that of the file all the same."""
    label = "2 .5 .5 .1 .1\n0 .5 .5 .1 .1\n\n 7 .5 .5 .1 .1\n2 .5 .5 .1 .1\n7 .1 .1 .1 .1\n"
    images = write_set(tmp_path, {"a.png": None, "b.png": label})
    with pytest.raises(InputError, match=r"b\.txt: line 4: class 7 .* nc=3 classes, 0 to 2"):
        index_labels(images, nc=3)
    assert len(index_labels(images, nc=8)) == 2
    assert len(index_labels(images, nc=1, single_cls=True)) == 2


def test_nothing_usable_or_nothing_labelled_stops(tmp_path):
    with pytest.raises(InputError, match="empty"):
        index_labels([])
    with pytest.raises(InputError, match="none among the 1"):
        index_labels([str(tmp_path / "images" / "gone.png")])
    images = write_set(tmp_path, {"a.png": None})
    with pytest.raises(InputError, match=r"labels.a\.txt"):
        index_labels(images, need_labels=True)
    assert len(index_labels(images).rows) == 0


def test_cache_is_used_and_is_plain_data(tmp_path, monkeypatch):
    images = write_set(tmp_path, {f"train/{name}": text for name, text in MIXED.items()})
    cache = cache_file([tmp_path / "images" / "train"], images)
    assert cache == tmp_path / "labels" / "train.cache"
    first = index_labels(images, cache=cache)
    with np.load(cache, allow_pickle=False) as stored:
        assert set(stored.files) == {"told", *ARRAYS, *(f"findings_{name}" for name in FINDINGS)}
    monkeypatch.setattr("utils.labels._verify_all", None)  # a second verification would raise
    assert_same(index_labels(images, cache=cache), first)


@pytest.mark.parametrize("spoil", ["label", "image", "new_label", "truncated", "pickle", "text"])
def test_cache_is_made_anew_when_stale_or_damaged(spoil, tmp_path):
    images = write_set(tmp_path, MIXED)
    cache = tmp_path / "labels.cache"
    index_labels(images, cache=cache)
    labels = tmp_path / "labels"
    if spoil == "label":
        (labels / "a.txt").write_text("1 0.5 0.5 0.2 0.3\n")
    elif spoil == "image":
        Image.new("RGB", (60, 50)).save(images[0])
    elif spoil == "new_label":
        (labels / "b.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    elif spoil == "truncated":
        cache.write_bytes(cache.read_bytes()[:-100])
    elif spoil == "pickle":
        with open(cache, "wb") as handle:
            np.save(handle, {"version": 0.6}, allow_pickle=True)
    else:
        cache.write_text("not a cache")
    assert_same(index_labels(images, cache=cache), index_labels(images))
    before = cache.stat().st_mtime_ns
    index_labels(images, cache=cache)
    assert cache.stat().st_mtime_ns == before


def test_cache_that_cannot_be_written_is_only_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("utils.labels.LOGGER.propagate", True)
    images = write_set(tmp_path, MIXED)
    index = index_labels(images, cache=tmp_path / "no such folder" / "x.cache")
    assert len(index) == 4
    assert "cannot be written" in caplog.text


def test_what_is_missing_and_wrong_is_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("utils.labels.LOGGER.propagate", True)
    index_labels(write_set(tmp_path, MIXED), prefix="val: ")
    assert "val: 4 of 5 images are usable; labels: 4 found, 1 missing, 1 empty, 1 corrupt" in caplog.text
    assert str(tmp_path / "labels" / "b.txt") in caplog.text
    assert str(tmp_path / "labels" / "d.txt") in caplog.text


# -------------------------------------------------------------------------------------------------------------- scale
linux = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells what is not shared")


def listed_index(images: int, boxes: int, root: Path) -> LabelIndex:
    """The index of so many images that exist nowhere, from its cache."""
    paths = [f"{root}/images/train/{i // 1000:04d}/{i:012d}.jpg" for i in range(images)]
    write_cache(root / "train.cache", fingerprint(paths), synthetic_index(paths, boxes))
    return index_labels(paths, cache=root / "train.cache")


@pytest.fixture(scope="module")
def million(tmp_path_factory) -> LabelIndex:
    """1,000,000 images with 8,000,000 boxes; train.cache beside the images' folder."""
    return listed_index(1_000_000, 8_000_000, tmp_path_factory.mktemp("million"))


@pytest.mark.parametrize(("images", "boxes"), [(1, 0), (2_000, 16_000)])
def test_an_index_from_its_cache_is_small(images, boxes, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.labels._verify_all", None)  # it comes from its cache, or this raises
    index = listed_index(images, boxes, tmp_path)
    assert (len(index), len(index.rows)) == (images, boxes)
    assert index.path(images - 1) == f"{tmp_path}/images/train/{(images - 1) // 1000:04d}/{images - 1:012d}.jpg"
    assert sum(len(index.labels(i)) for i in range(images)) == boxes
    a_image = 2 * 8 + 2 * 4 + len(index.path(0))  # bytes
    assert sum(getattr(index, name).nbytes for name in ARRAYS) <= images * a_image + boxes * 5 * 4 + 2 * 8


@linux
@pytest.mark.slow
def test_a_million_images_come_from_the_cache_in_400_mb(million):
    """What the process's resident memory grows by at most, the list of paths not counted."""
    paths = [million.path(i) for i in range(len(million))]
    cache = Path(paths[0].partition(f"{os.sep}images")[0]) / "train.cache"
    _, _, peak, _, length = in_child(lambda: len(index_labels(paths, cache=cache)))
    assert length == "1000000"
    assert peak < 400e6


def growth(walk) -> int:
    """Bytes that a forked worker has more of its own after the walk than before its second half."""
    first, last = map(int, in_child(lambda: " ".join(map(str, walk())))[-1].split())
    return last - first


@linux
def test_a_worker_that_walks_the_index_copies_nothing(tmp_path):
    index = listed_index(20_000, 160_000, tmp_path)
    assert growth(lambda: walked_in_parts(index)) < 500_000


@linux
@pytest.mark.slow
def test_a_worker_that_walks_a_million_images_copies_nothing(million):
    assert growth(lambda: walked_in_parts(million)) < 500_000


@linux
def test_a_worker_that_walks_python_objects_copies_them():
    """That the test above would see it."""
    held = [f"{i:060d}" for i in range(20_000)]

    def walk():
        for part in (held[:1], held):
            for text in part:
                len(text)
            yield unique_memory()

    assert growth(walk) > 1_000_000


def test_workers_that_are_not_forked_share_the_index(tmp_path):
    index = listed_index(2_000, 16_000, tmp_path)
    first, second = (bytes(ForkingPickler.dumps(index)) for _ in range(2))
    assert max(len(first), len(second)) < 20_000  # the arrays would be 400,000
    for copy in (pickle.loads(first), pickle.loads(second), pickle.loads(pickle.dumps(index))):
        assert_same(copy, index)
        assert copy.path(7) == index.path(7)


@pytest.mark.parametrize(
    ("wall", "processor", "threads"),
    [(0, 0, 1), (0.002, 0.002, 1), (0.004, 0.002, 1), (0.5, 0.002, 16)],  # the last: 2 ms for each of 256 files
)
def test_several_threads_look_files_up_only_where_answers_come_late(wall, processor, threads):
    assert stat_threads(wall, processor) == threads


def test_the_fingerprint_does_not_depend_on_the_threads(tmp_path, monkeypatch):
    for number in range(300):
        (tmp_path / f"{number}.jpg").touch()
    images = image_files((tmp_path,))
    keys = []
    for threads in (1, 16):
        monkeypatch.setattr(labels, "stat_threads", lambda *_, threads=threads: threads)
        keys.append(fingerprint(images))
    assert keys[0] == keys[1]
