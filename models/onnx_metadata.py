"""The pairs of texts in an ONNX file, read without the packages onnx and onnxruntime: OpenCV runs such files, but does
not show their metadata. Not for what the texts mean: models/export_metadata.py."""

from collections.abc import Iterator
from pathlib import Path

from utils.errors import InputError

METADATA_FIELD, KEY_FIELD, VALUE_FIELD = 14, 1, 2  # of onnx.proto: ModelProto.metadata_props, StringStringEntryProto
EMPTY = memoryview(b"")
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # protobuf's wire types


def texts_of(file: Path) -> Iterator[tuple[str, str]]:
    """The pairs of texts of an ONNX file. Raises InputError where it is none."""
    content = memoryview(file.read_bytes())
    try:
        for number, value in _fields(content):
            if number == METADATA_FIELD:
                pair = dict(_fields(value))
                yield _text(pair.get(KEY_FIELD, EMPTY)), _text(pair.get(VALUE_FIELD, EMPTY))
    except (IndexError, ValueError, TypeError) as error:
        raise InputError(f"{file}: it is no ONNX file: {error}") from error


def _text(value: memoryview | int) -> str:
    if isinstance(value, int):
        raise TypeError("a number where a text should be")
    return bytes(value).decode()


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(number, value) of each field of a protobuf message. Raises ValueError or IndexError for what is none."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _varint(content, place)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            value, place = content[place : place + size], place + size
        elif kind == LENGTH:
            size, place = _varint(content, place)
            value, place = content[place : place + size], place + size
        else:
            raise ValueError(f"wire type {kind} at byte {place}")
        if place > len(content):
            raise ValueError("it ends in the middle of a field")
        yield number, value


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    """The number at the place, 7 bits a byte, and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError(f"a number of more than 10 bytes at byte {place}")
