import asyncio

import pytest

from engine.service_form import MAX_FIELDS, read_form, safe_name
from engine.service_limits import Limits, ServiceError, UploadMemory
from engine.service_options import DetectOptions, parse_fields

KIND = "multipart/form-data; boundary=XX"
LIMITS = Limits(pictures=2, bytes=100_000)


def part(name: str, content: bytes | str, filename: str | None = None) -> bytes:
    content = content if isinstance(content, bytes) else content.encode()
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--XX\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XX--\r\n"


def read(body: bytes, kind: str = KIND, size: int = 7, memory: UploadMemory | None = None):
    async def chunks():
        for start in range(0, len(body), size):
            yield body[start : start + size]

    with (memory or UploadMemory(10**6)).share() as share:
        return asyncio.run(read_form(kind, chunks(), LIMITS, share))


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([], "in the field 'pictures' was expected, got none"),
        ([part("file", "text")], "got other fields alone, the first 'file'"),
        ([part("image", b"1" * 50_000, "a.jpg")], "files in the field 'pictures' were expected, got one in 'image'"),
        ([part("conf", "1"), part("file", b"1", "a.jpg")], "got one in 'file'"),
        ([part("pictures", b"1", "a.jpg"), part("pictures[]", b"1", "b.jpg")], "got one in 'pictures[]'"),
        ([part("\x1b" + "x" * 500, b"1", "b.jpg")], "got one in '\\x1b" + "x" * 59 + "...'"),
    ],
)
def test_files_in_another_field_are_told_with_its_name(parts, told):
    with pytest.raises(ServiceError) as refused:
        read(form(*parts))
    assert refused.value.status == 422
    assert told in refused.value.told


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
def test_pictures_and_fields_are_read_however_they_arrive(size):
    content = bytes(range(256)) + b"\r\n--X\r\n--\r\n"
    body = form(part("pictures", content, "a.jpg"), part("conf", "0.5"), part("pictures", b"", "ü.png"), part("x", ""))
    found = read(body, size=size)
    assert [(upload.name, bytes(upload.content)) for upload in found.pictures] == [("a.jpg", content), ("ü.png", b"")]
    assert found.fields == {"conf": "0.5", "x": ""}


PICTURE = part("pictures", b"1", "a")
FILE = part("image", b"1" * 50_000, "a.jpg")
REFUSED = {
    "nothing": (b"", KIND, 400),
    "no parts": (b"--XX--\r\n", KIND, 422),
    "fields alone": (form(part("conf", "1")), KIND, 422),
    "a picture in another field": (form(FILE), KIND, 422),
    "not a form": (b"{}", "application/json", 415),
    "no kind": (b"{}", "", 415),
    "urlencoded": (b"a=1", "application/x-www-form-urlencoded", 415),
    "no boundary": (form(PICTURE), "multipart/form-data", 400),
    "an empty boundary": (form(PICTURE), "multipart/form-data; boundary=", 400),
    "a boundary that is too long": (form(PICTURE), f"multipart/form-data; boundary={'x' * 300}", 400),
    "another boundary": (form(PICTURE), "multipart/form-data; boundary=YY", 400),
    "cut in the head": (PICTURE[:30], KIND, 400),
    "cut in the content": (PICTURE[:-2], KIND, 400),
    "no last boundary": (PICTURE, KIND, 400),
    "no name": (form(b"--XX\r\nContent-Disposition: form-data\r\n\r\n1\r\n"), KIND, 400),
    "an empty name": (form(part("", "1"), PICTURE), KIND, 400),
    "no disposition": (form(b"--XX\r\nContent-Type: image/png\r\n\r\n1\r\n"), KIND, 400),
    "an attachment": (form(b'--XX\r\nContent-Disposition: attachment; name="pictures"\r\n\r\n1\r\n'), KIND, 400),
    "a head without end": (b"--XX\r\nContent-Disposition: " + b"x" * 9000, KIND, 400),
    "many heads": (b"--XX\r\n" + b"A: b\r\n" * 1000, KIND, 400),
    "a field twice": (form(PICTURE, part("conf", "1"), part("conf", "0")), KIND, 422),
    "a field that is no text": (form(PICTURE, part("classes", b"\xff\xfe")), KIND, 400),
    "a long field": (form(PICTURE, part("classes", "1" * 20_000)), KIND, 413),
    "many fields": (form(PICTURE, *(part(f"f{i}", "") for i in range(MAX_FIELDS + 1))), KIND, 413),
    "many pictures": (form(PICTURE, PICTURE, PICTURE), KIND, 413),
    "many bytes": (form(part("pictures", b"1" * 100_000, "a")), KIND, 413),
    "text before the first part": (b"hello\r\n" + form(PICTURE), KIND, 400),
    "text behind a boundary": (b"--XX hello\r\n" + PICTURE, KIND, 400),
    "two dispositions": (
        form(b"--XX\r\n" + 2 * b'Content-Disposition: form-data; name="a"\r\n' + b"\r\n1\r\n"),
        KIND,
        400,
    ),
    "many bytes before the first part": (b"1" * 200_000, KIND, 400),
}


@pytest.mark.parametrize(("body", "kind", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_usable_form_is_refused_in_a_sentence(body, kind, status):
    with pytest.raises(ServiceError, match="expected") as refused:
        read(body, kind)
    assert refused.value.status == status
    assert refused.value.told.isprintable()
    assert len(refused.value.told) < 300


def test_uploads_together_stay_below_the_memory_and_give_it_back():
    memory = UploadMemory(1000)
    with memory.share() as first:
        first.add(950)
        with pytest.raises(ServiceError) as refused:
            read(form(PICTURE), memory=memory)
        assert refused.value.status == 503
        assert memory.held == 950
    assert memory.held == 0
    assert len(read(form(PICTURE), memory=memory).pictures) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "picture3"),
        ("a.jpg", "a.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\a.png", "a.png"),
        ("/", "picture3"),
        ("..", "picture3"),
        ("a\0b\nc\x1b[31m.png", "abc[31m.png"),
        ("\u202egnp.exe", "gnp.exe"),
        ("人 1.jpg", "人 1.jpg"),
        ("x" * 500, "x" * 100),
    ],
)
def test_names_of_files_are_harmless(given, told):
    assert safe_name(given, 3) == told


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, DetectOptions()),
        ({"conf": "", "classes": " , ", "model": " "}, DetectOptions()),
        ({"conf": "0", "iou": "1"}, DetectOptions(conf=0, iou=1)),
        ({"conf": "1e-3", "max_det": "1"}, DetectOptions(conf=0.001, max_det=1)),
        ({"classes": "0, dog ,7"}, DetectOptions(classes=("0", "dog", "7"))),
        ({"model": "best-2", "attention": "True"}, DetectOptions(model="best-2", attention=True)),
        ({"attention": "0"}, DetectOptions()),
    ],
)
def test_fields_become_options(fields, options):
    assert parse_fields(fields) == options


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"conf": "x"}, 400),
        ({"conf": "-0.1"}, 400),
        ({"conf": "1.1"}, 400),
        ({"conf": "nan"}, 400),
        ({"iou": "inf"}, 400),
        ({"iou": "0,5"}, 400),
        ({"max_det": "0"}, 400),
        ({"max_det": "3001"}, 400),
        ({"max_det": "1.5"}, 400),
        ({"max_det": "²"}, 400),
        ({"max_det": "9" * 5000}, 400),
        ({"attention": "perhaps"}, 400),
        ({"confidence": "0.5"}, 422),
        ({"url": "http://example.com/a.jpg"}, 422),
        ({"x" * 5000: ""}, 422),
    ],
)
def test_values_that_are_none_are_refused(fields, status):
    with pytest.raises(ServiceError, match="expected, got") as refused:
        parse_fields(fields)
    assert refused.value.status == status
    assert len(refused.value.told) < 200
