"""Hostile and broken data: data YAMLs, archives, images, label files, lists, folders and caches. Each is refused in one
sentence, or set aside with one, and nothing hangs."""

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.hostile.child import attempt, bounded
from tests.hostile.test_yamls import VALUES, result
from utils.data_config import KEYS, load_data_config
from utils.images import read_image
from utils.label_files import image_files, label_path, verify
from utils.labels import ARRAYS, cache_file, fingerprint, index_labels, write_cache
from utils.media_files import FileSource, find_media
from utils.video import read_video


def picture(file: Path, size_wh=(40, 30)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_wh, "teal").save(file)
    return file


def good_set(folder: Path, count: int = 3) -> list[str]:
    for i in range(count):
        label = Path(label_path(str(picture(folder / "images" / f"{i}.png"))))
        label.parent.mkdir(exist_ok=True)
        label.write_text("0 0.5 0.5 0.2 0.2\n")
    return sorted(map(str, (folder / "images").iterdir()))


# -------------------------------------------------------------------------------------------------------- data YAMLs
@pytest.mark.parametrize("key", [*KEYS, "__class__", "", 1])
def test_values_of_wrong_types_in_data_yamls(key, ground):
    good_set(ground)
    (ground / "hyp.yaml").write_text("lr0: 1")
    values = [
        *VALUES,
        ["x"] * 5,
        "a\0b",
        "x" * 5000,
        "/dev/zero",
        "~nobody-at-all/x",
        "../" * 500,
        ["images", 1],
        "[",
        "**",
    ]

    def trying() -> str:
        told = []
        for value in values:
            content = {"train": "images", "val": "images", "nc": 1, key: value}
            (ground / "data.yaml").write_text(yaml.safe_dump(content))
            told.append(result(load_data_config, ground / "data.yaml"))
        return "; ".join(told)

    bounded(attempt(trying, ground), ends=("returned",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nc": 2}, "expected as many as nc=2, got 1"),
        ({"names": {1: "a"}}, "expected the class ids 0 to 0, got 1"),
        ({"nc": 10**12, "names": None}, "whole number from 1 to 100000"),
        ({"train": "nowhere"}, "What to do"),
        ({"train": None, "val": None}, "at least one of the keys"),
        ({"download": "builtin:../../canary"}, "one of builtin:digits"),
        ({"train": "nowhere", "val": "nowhere", "download": "touch ../canary"}, "What to do"),
        ({"train": "nowhere", "val": "nowhere", "download": "import os; os.mkdir('../canary')"}, "What to do"),
        ({"train": "nowhere", "val": "nowhere", "download": "http://127.0.0.1:9/x.zip"}, "nothing is fetched"),
        ({"hyp": "nowhere.yaml"}, "no such file"),
    ],
    ids=str,
)
def test_data_yamls_that_say_what_to_do(change, told, ground):
    good_set(ground)
    content = {"train": "images", "val": "images", "nc": 1, "names": ["a"], **change}
    (ground / "data.yaml").write_text(yaml.safe_dump({key: item for key, item in content.items() if item is not None}))
    if change.get("train") == "nowhere" and "val" not in change:
        (ground / "data.yaml").write_text(yaml.safe_dump({**content, "val": "nowhere"}))
    assert told in bounded(attempt(lambda: load_data_config(ground / "data.yaml"), ground))


# ---------------------------------------------------------------------------------------------------------- archives
DATA = b"train: images\nval: images\nnc: 1\n"


def packed(file: Path, members: dict[str, bytes], packing=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", packing) as stream:
        for name, content in members.items():
            stream.writestr(name, content)
    return file


def left(ground: Path) -> list[str]:
    return sorted(path.name for path in ground.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "../canary",
        "../../canary",
        "/canary",
        "a/../../../canary",
        "..\\canary",
        "C:\\canary",
        "C:/canary",
        "./../canary",
    ],
)
def test_archives_with_names_that_lead_out(name, ground):
    packed(ground / "set.zip", {"data.yaml": DATA, name: b"I was here"})
    assert "outside of its folder" in bounded(attempt(lambda: load_data_config(ground / "set.zip"), ground))
    assert left(ground) == ["set.zip"]


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archive_bombs(packing, ground):
    packed(ground / "set.zip", {"data.yaml": DATA, "images/0.bmp": b"\0" * 2**27}, packing)
    outcome = attempt(lambda: load_data_config(ground / "set.zip"), ground)
    assert "would become" in bounded(outcome)
    assert left(ground) == ["set.zip"]


@pytest.mark.parametrize(
    "damage", ["cut", "crc", "not a zip", "empty", "no members", "locked", "method", "long name", "link"]
)
def test_broken_archives(damage, ground):
    file = packed(ground / "set.zip", {"data.yaml": DATA, "images/0.txt": b"0 0.5 0.5 0.1 0.1\n" * 100})
    content = bytearray(file.read_bytes())
    entry = content.find(b"PK\x01\x02")
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "crc":
        content[content.find(DATA[:0] + b"data.yaml") + 12] ^= 255
    elif damage == "not a zip":
        content = bytearray(b"train: images")
    elif damage == "empty":
        content = bytearray()
    elif damage == "no members":
        content = bytearray(b"PK\x05\x06" + b"\0" * 18)
    elif damage == "locked":
        content[6] |= 1
        content[entry + 8] |= 1
    elif damage == "method":
        content[8], content[entry + 10] = 99, 99
    file.write_bytes(content)
    if damage == "long name":
        packed(file, {"data.yaml": DATA, "x" * 400: b""})
    elif damage == "link":
        with zipfile.ZipFile(file, "w") as stream:
            member = zipfile.ZipInfo("images")
            member.external_attr = 0o120777 << 16
            stream.writestr(member, "/etc")
            stream.writestr("data.yaml", DATA)
    bounded(attempt(lambda: load_data_config(file), ground), ends=("refused", "returned"))
    assert not any(path.is_symlink() for path in ground.rglob("*"))
    assert not any(path.name.endswith(".tmp") for path in ground.iterdir())


# ------------------------------------------------------------------------------------------------------------ images
def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encoded(mode: str, kind: str, size_wh=(40, 30), **options) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size_wh).save(stream, kind, **options)
    return stream.getvalue()


def jpeg_of(width: int, height: int) -> bytes:
    content = bytearray(encoded("RGB", "JPEG"))
    at = content.find(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


BAD_IMAGES = {
    "empty.jpg": b"",
    "one byte.png": b"\x89",
    "text.jpg": b"I am no picture\n",
    "html.png": b"<html>404</html>",
    "pickle.jpg": b"\x80\x04cposix\nsystem\n(X\x02\0\0\0idtR.",
    "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "script.jpg": b"%!PS-Adobe-3.0\n(touch ../canary) run\n",
    "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(../canary) (w) file\n",
    "a bomb.png": png(60_000, 60_000),
    "a larger bomb.png": png(2**31 - 1, 2**31 - 1),
    "no width.png": png(0, 100),
    "65500 wide.jpg": jpeg_of(65_500, 65_500),
    "no height.jpg": jpeg_of(100, 0),
    "cut.jpg": encoded("RGB", "JPEG", (400, 300))[:200],
    "cut.png": encoded("RGB", "PNG")[:40],
    "cut.webp": encoded("RGB", "WEBP")[:20],
    "cut.tif": encoded("RGB", "TIFF")[:9],
    "tiff in circles.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "tiff of many tags.tif": b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 400,
    "bmp of negative size.bmp": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, -5, -5, 1, 24, 0, 0, 0, 0, 0, 0),
    "bmp of huge size.bmp": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
    "1x1.png": png(1, 1, b"\0\0\0\0"),
    "9x9.png": encoded("RGB", "PNG", (9, 9)),
    "ico.png": encoded("RGB", "ICO"),
    "pdf.jpg": b"%PDF-1.4\n",
}
GOOD_IMAGES = {
    "palette.png": encoded("P", "PNG"),
    "alpha.png": encoded("RGBA", "PNG"),
    "grey alpha.png": encoded("LA", "PNG"),
    "16 bits.png": encoded("I;16", "PNG"),
    "1 bit.png": encoded("1", "PNG"),
    "cmyk.jpg": encoded("CMYK", "JPEG"),
    "grey.jpg": encoded("L", "JPEG"),
    "progressive.jpg": encoded("RGB", "JPEG", progressive=True),
    "float.tif": encoded("F", "TIFF"),
    "png as jpg.jpg": encoded("RGB", "PNG"),
    "jpg as png.png": encoded("RGB", "JPEG"),
    "webp as jpg.jpg": encoded("RGB", "WEBP"),
    "thin.png": encoded("RGB", "PNG", (5000, 10)),
    "10x10.bmp": encoded("RGB", "BMP", (10, 10)),
    "wrong exif.jpg": encoded("RGB", "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 60),
    "exif 9.jpg": encoded(
        "RGB", "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0"
    ),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_set_aside(name, ground):
    (ground / name).write_bytes(BAD_IMAGES[name])
    outcome = attempt(lambda: verify(str(ground / name), str(ground / "none.txt")).note, ground, megabytes=1500)
    assert "set aside" in bounded(outcome, ends=("returned",))
    assert outcome.grown < 200
    outcome = attempt(lambda: read_image(ground / name).shape, ground, megabytes=4000)
    bounded(outcome, ends=("refused", "returned"))
    assert outcome.grown < 400


@pytest.mark.parametrize("name", GOOD_IMAGES)
def test_odd_images_are_read(name, ground):
    (ground / name).write_bytes(GOOD_IMAGES[name])

    def trying() -> str:
        record = verify(str(ground / name), str(ground / "none.txt"))
        image = read_image(ground / name)
        assert image.dtype == np.uint8
        assert record.counts.corrupt or image.shape == (*record.size_wh[::-1], 3)
        return record.note

    bounded(attempt(trying, ground), ends=("returned", "refused"))


# ------------------------------------------------------------------------------------------------------- label files
BAD_LABELS = {
    "nan": b"0 nan 0.5 0.1 0.1\n",
    "inf": b"0 inf 0.5 0.1 0.1\n",
    "a class of nan": b"nan 0.5 0.5 0.1 0.1\n",
    "1e308": b"0 1e308 0.5 0.1 0.1\n",
    "1e999": b"0 1e999 0.5 0.1 0.1\n",
    "negative": b"0 -0.1 0.5 0.1 0.1\n",
    "a negative class": b"-1 0.5 0.5 0.1 0.1\n",
    "a fraction as class": b"0.5 0.5 0.5 0.1 0.1\n",
    "pixels": b"0 320 240 50 50\n",
    "four columns": b"0 0.5 0.5 0.1\n",
    "six columns": b"0 0.5 0.5 0.1 0.1 0.9\n",
    "a polygon of two points": b"0 0.1 0.1 0.2 0.2\n0 0.1 0.1 0.2 0.2 0.3 0.3 0.4 0.4 0.5\n",
    "commas": b"0,0.5,0.5,0.1,0.1\n",
    "words": b"cat 0.5 0.5 0.1 0.1\n",
    "JSON": b'{"boxes": []}',
    "XML": b"<annotation><object/></annotation>",
    "an expression": b"__import__('os').system('touch') 0 0 0 0\n",
    "hexadecimal": b"0x1 0.5 0.5 0.1 0.1\n",
    "NULs": b"0 0.5 0.5 0.1 0.1\n\0\0\0\0",
    "UTF-16": "0 0.5 0.5 0.1 0.1\n".encode("utf-16"),
    "UTF-32": "0 0.5 0.5 0.1 0.1\n".encode("utf-32"),
    "Latin-1": b"0 0.5 0.5 0.1 0.1 \xe9\n",
    "a picture": encoded("RGB", "PNG"),
    "a pickle": b"\x80\x04cposix\nsystem\n(X\x02\0\0\0idtR.",
    "10**6 rows": b"0 0.5 0.5 0.1 0.1\n" * 10**6,
    "a line of 20 MB": b"0 " + b"0.5 " * (5 * 2**20),
    "a word of 10 MB": b"0 " + b"5" * (10 * 2**20),
    "an odd polygon of 100,000": b"0 " + b"0.5 " * 100_001,
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_labels_are_set_aside(name, ground):
    (ground / "label.txt").write_bytes(BAD_LABELS[name])
    image = picture(ground / "image.png")
    outcome = attempt(lambda: verify(str(image), str(ground / "label.txt")).note, ground)
    told = bounded(outcome, ends=("returned",))
    assert "label.txt: set aside" in told
    assert len(told) < 600
    assert outcome.grown < 400


@pytest.mark.parametrize("name", ["image", "label"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop", "dangling", "socket"])
def test_what_is_no_file_in_a_set(name, kind, ground):
    images = good_set(ground)
    place = Path(images[1] if name == "image" else label_path(images[1]))
    place.unlink()
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "socket":
        os.mknod(place, 0o140644)
    else:
        place.symlink_to({"device": "/dev/zero", "loop": place.name, "dangling": "nowhere"}[kind])
    outcome = attempt(lambda: len(index_labels(images)), ground)
    assert bounded(outcome, ends=("returned",)) == ("3" if (name, kind) in MISSING else "2")


MISSING = {("label", "loop"), ("label", "dangling")}  # as in v6.1 an image without a label file is background


def test_a_set_of_broken_files_alone(ground):
    for name, content in BAD_IMAGES.items():
        (ground / name).write_bytes(content)
    told = bounded(attempt(lambda: index_labels(image_files(ground)), ground))
    assert "expected usable images, got none among" in told


# ------------------------------------------------------------------------------------------------- folders and lists
def test_links_in_circles(ground):
    """Two links a folder to its own parent: without a memory of folders that is 2**40 ways."""
    good_set(ground)
    for name in ("a", "b", "c"):
        (ground / "images" / name).symlink_to(ground / "images", target_is_directory=True)
    assert bounded(attempt(lambda: len(image_files(ground)), ground), ends=("returned",)) == "3"


def test_a_linked_folder_is_followed(ground):
    good_set(ground / "far")
    (ground / "near").mkdir()
    (ground / "near" / "link").symlink_to(ground / "far", target_is_directory=True)
    assert len(image_files(ground / "near")) == 3


ODD_NAMES = ["[x].png", "*.png", "%s.png", "a b.png", "-rf.png", "\u00e9\u4e2d.png", "a'b\".png", "$(touch canary).png",
             ";touch canary;.png", "x" * 200 + ".png", "line\nbreak.png", "\udcff.png", "~.png", "#.png",
             "a\tb.png"]  # fmt: skip


def test_odd_names(ground):
    for name in ODD_NAMES:
        picture(ground / "images" / "0.png").rename(ground / "images" / name)
    (ground / "labels").mkdir()

    def trying() -> int:
        images = image_files(ground)
        index = index_labels(images, cache=ground / "labels.cache")
        again = index_labels(images, cache=ground / "labels.cache")
        assert [again.path(i) for i in range(len(again))] == images
        return len(index)

    assert bounded(attempt(trying, ground), ends=("returned",)) == str(len(ODD_NAMES))


LISTS = {
    "itself": b"list.txt\n./list.txt\n",
    "itself as a picture": b"list.txt.png\n",
    "empty": b"",
    "NULs": b"\0" * 1000,
    "binary": bytes(range(256)) * 10,
    "UTF-16": "a.png\n".encode("utf-16"),
    "a line of 5 MB": b"x" * (5 * 2**20) + b".png\n",
    "10**6 lines": b"nowhere.png\n" * 10**5,
    "a device": b"/dev/zero\n/dev/zero.png\n",
    "a command": b"$(touch ../canary).png\n|touch ../canary.png\n",
    "an address": b"http://127.0.0.1:9/a.png\nfile:///etc/passwd.png\n",
    "out of the folder": b"../" * 100 + b"etc/passwd.png\n",
    "a pipe": b"./pipe.png\n",
    "a name with a NUL": b"a\0b.png\n",
}


@pytest.mark.parametrize("reader", ["training", "detection"])
@pytest.mark.parametrize("name", LISTS)
def test_lists(name, reader, ground):
    (ground / "list.txt").write_bytes(LISTS[name])
    os.mkfifo(ground / "pipe.png")

    def training() -> int:
        return len(index_labels(image_files(ground / "list.txt")))

    def detection() -> list:
        source = FileSource(ground / "list.txt")
        return [frame.path for frames in source for frame in frames]

    if reader == "training" or name != "10**6 lines":
        outcome = attempt({"training": training, "detection": detection}[reader], ground)
        bounded(outcome, ends=("refused", "returned"))
        assert outcome.told in ("0", "[]") or outcome.ended == "refused"


@pytest.mark.parametrize(
    "name", ["pipe.jpg", "zero.png", "loop.jpg", "pipe.mp4", "zero.mp4", "folder.mp4", "none.jpg", "", " "]
)
def test_what_is_no_file_for_detection(name, ground):
    os.mkfifo(ground / "pipe.jpg")
    os.mkfifo(ground / "pipe.mp4")
    for suffix in ("png", "mp4"):
        (ground / f"zero.{suffix}").symlink_to("/dev/zero")
    (ground / "loop.jpg").symlink_to("loop.jpg")
    (ground / "folder.mp4").mkdir()
    source = str(ground / name) if name.strip() else name
    bounded(attempt(lambda: [1 for _ in FileSource(source)], ground))


# ------------------------------------------------------------------------------------------------------------ videos
def video() -> bytes:
    return b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\0\x08mdat"


VIDEOS = {
    "empty.mp4": b"",
    "text.mp4": b"I am no video\n",
    "head alone.mp4": video(),
    "a box of 2**63.mp4": video() + b"\0\0\0\x01moov" + b"\x7f" + b"\xff" * 7,
    "a box in itself.mp4": video() + b"\0\0\0\0moov" * 100,
    "a play list.mp4": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "a concat list.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "an AVI.avi": b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xffhdrl" + b"\xff" * 200,
    "a GIF.gif": b"GIF89a\xff\xff\xff\xff\xf7\0\0" + b"\0" * 50,
    "matroska.mkv": b"\x1a\x45\xdf\xa3" + b"\xff" * 100,
    "a picture.mp4": encoded("RGB", "PNG"),
    "noise.mpg": bytes(np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8)),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(name, ground):
    (ground / name).write_bytes(VIDEOS[name])
    outcome = attempt(lambda: sum(1 for _ in read_video(ground / name)), ground)
    bounded(outcome, ends=("refused", "returned"))
    assert outcome.grown < 300


# ------------------------------------------------------------------------------------------------------ label caches
@pytest.fixture
def cached(ground) -> tuple[list[str], Path]:
    images = good_set(ground)
    file = cache_file([ground / "images"], images)
    index_labels(images, cache=file)
    return images, file


class Evil:
    def __reduce__(self):
        return os.mkdir, ("../canary",)


def altered(file: Path, **changes) -> None:
    """The cache with other arrays; its key still is right."""
    with np.load(file) as stored:
        content = {**{name: stored[name] for name in stored.files}, **changes}
    with open(file, "wb") as stream:
        np.savez(stream, **{name: value for name, value in content.items() if value is not None})


def told_as(file: Path, **changes) -> np.ndarray:
    with np.load(file) as stored:
        told = json.loads(stored["told"].tobytes())
    return np.frombuffer(json.dumps({**told, **changes}).encode(), np.uint8)


def compressed(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


CACHES = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("version: 0.6"),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "a pickle": lambda file: file.write_bytes(__import__("pickle").dumps(Evil())),
    "numpy's pickle": lambda file: altered(file, rows=np.array([Evil()], dtype=object)),
    "v6.1's": lambda file: np.save(file.open("wb"), {"hash": Evil()}, allow_pickle=True),
    "claims terabytes": lambda file: file.write_bytes(
        file.read_bytes().replace(b"'shape': (3, 5), }  ", b"'shape': (9**12,5)} ")
    ),
    "a bomb": lambda file: file.write_bytes(compressed(told=told_as(file), rows=np.zeros((2**23, 5), np.float32))),
    "offsets beyond the rows": lambda file: altered(file, offsets=np.array([0, 1, 2, 10**9])),
    "offsets that go back": lambda file: altered(file, offsets=np.array([0, 9, 1, 3])),
    "too few offsets": lambda file: altered(file, offsets=np.array([0])),
    "negative offsets": lambda file: altered(file, path_offsets=np.array([-5, 1, 2, 3])),
    "rows of texts": lambda file: altered(file, rows=np.array([["a"] * 5] * 3)),
    "rows of four": lambda file: altered(file, rows=np.zeros((3, 4), np.float32)),
    "rows of nan": lambda file: altered(file, rows=np.full((3, 5), np.nan, np.float32)),
    "flat rows": lambda file: altered(file, rows=np.zeros(15, np.float32)),
    "one number": lambda file: altered(file, sizes_wh=np.int32(3)),
    "no rows": lambda file: altered(file, rows=None),
    "counts of texts": lambda file: altered(file, told=told_as(file, counts="abc")),
    "counts missing": lambda file: altered(file, told=told_as(file, counts=[])),
    "findings of no kind": lambda file: altered(file, findings_kinds=np.array([99], np.uint8)),
    "findings of float": lambda file: altered(file, findings_kinds=np.array([0.5])),
    "findings without owners": lambda file: altered(file, findings_kinds=np.array([0], np.uint8)),
    "findings of images beyond": lambda file: altered(
        file,
        findings_kinds=np.array([0], np.uint8),
        findings_owners=np.array([10**9], np.int32),
        findings_offsets=np.array([0, 0]),
    ),
    "findings without words": lambda file: altered(
        file,
        findings_kinds=np.array([5], np.uint8),
        findings_owners=np.array([0], np.int32),
        findings_offsets=np.array([0, 0]),
    ),
    "no findings": lambda file: altered(file, findings_kinds=None),
    "no JSON": lambda file: altered(file, told=np.frombuffer(b"{", np.uint8)),
    "deep JSON": lambda file: altered(file, told=np.frombuffer(b"[" * 100_000, np.uint8)),
    "a list as JSON": lambda file: altered(file, told=np.frombuffer(b"[1]", np.uint8)),
    "another zip": lambda file: packed(file, {"rows.npy": b"x", "../../canary": b"x"}),
}


@pytest.mark.parametrize("name", CACHES)
def test_caches_are_made_anew(name, cached, ground):
    images, file = cached
    CACHES[name](file)
    outcome = attempt(lambda: index_labels(images, cache=file).rows.tolist(), ground)
    assert bounded(outcome, ends=("returned",)) == str([np.float32([0, 0.5, 0.5, 0.2, 0.2]).tolist()] * 3)
    assert outcome.grown < 100


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop"])
def test_a_cache_that_is_no_file(kind, cached, ground):
    images, file = cached
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if kind == "device" else file.name)
    if kind in ("folder", "pipe", "loop"):
        assert bounded(attempt(lambda: len(index_labels(images, cache=file)), ground), ends=("returned",)) == "3"


def test_a_cache_is_taken_as_it_is_where_nothing_is_wrong(cached):
    images, file = cached
    before = file.stat().st_mtime_ns
    index = index_labels(images, cache=file)
    assert file.stat().st_mtime_ns == before
    write_cache(file, fingerprint(images), index)
    assert all(np.array_equal(getattr(index_labels(images, cache=file), name), getattr(index, name)) for name in ARRAYS)


@pytest.mark.parametrize("content", [png(13_378, 13_378), png(2**15, 2**14), png(2**16, 2**15)])
def test_pictures_of_more_than_the_limit_are_not_decoded(content, ground):
    """What their head says is enough: nothing of that size is made."""
    (ground / "large.png").write_bytes(content)
    outcome = attempt(lambda: read_image(ground / "large.png").shape, ground)
    assert "large.png: expected at most 178,956,970 pixels" in bounded(outcome)
    assert outcome.grown < 50
    record = verify(str(ground / "large.png"), str(ground / "none.txt"))
    assert [finding.kind for finding in record.findings] == ["image too large"]


@pytest.mark.parametrize("depth", [0, 1, 300])
def test_a_deep_pattern_ends_also_where_links_go_in_circles(depth, ground):
    picture(ground / "image.png")
    (ground / "circle").symlink_to(ground, target_is_directory=True)
    folder = ground
    for _ in range(depth):
        folder /= "d"
        folder.mkdir()
    outcome = attempt(lambda: [path.name for path in find_media(f"{ground}/**/*.png")], ground)
    assert "image.png" in bounded(outcome, ends=("returned",))


def test_opencv_never_takes_more_than_its_limit():
    """What bounds read_image for formats that only OpenCV reads: it refuses pictures of more than 2**30 pixels."""
    claimed = np.frombuffer(png(2**16, 2**15), np.uint8)
    with pytest.raises(cv2.error):
        cv2.imdecode(claimed, cv2.IMREAD_COLOR)
