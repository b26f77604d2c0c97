"""The pairs of texts, the image size and the names of files with weights in an ONNX file, read without the packages
onnx and onnxruntime: OpenCV runs such files, but does not show these. Not for what the texts mean:
models/export_metadata.py."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import InputError

# field numbers of onnx.proto
METADATA, KEY, VALUE = (14,), 1, 2  # ModelProto.metadata_props, and what stands in one
INPUT = (7, 11)  # ModelProto.graph, GraphProto.input
DIMENSIONS, LENGTH_OF_DIMENSION = (2, 1, 2, 1), 1  # ValueInfoProto.type, .tensor_type, .shape, .dim; .dim_value
EXTERNAL, LOCATION = (13,), "location"  # TensorProto.external_data, and the key of the one that names a file
# What messages hold that lead to tensors: message -> {field number: message}
MODEL, GRAPH, FUNCTION, NODE, ATTRIBUTE, SPARSE, TENSOR = range(7)
TO_TENSORS = {
    MODEL: {7: GRAPH, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    FUNCTION: {7: NODE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
}
EMPTY = memoryview(b"")
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # protobuf's wire types


def texts_of(file: Path) -> dict[str, str]:
    """The pairs of texts of an ONNX file. Raises InputError where it is none."""
    with _told(file):
        pairs = [dict(_fields(pair)) for pair in _nested(memoryview(file.read_bytes()), METADATA)]
        return {_text(pair.get(KEY, EMPTY)): _text(pair.get(VALUE, EMPTY)) for pair in pairs}


def image_shape_of(file: Path) -> tuple[int | None, ...]:
    """(batch, channels, height, width) of an ONNX file's first input with four dimensions, None where one is free.
    Raises InputError where it is no such file, or has no such input."""
    with _told(file):
        for entry in _nested(memoryview(file.read_bytes()), INPUT):
            dimensions = [dict(_fields(dimension)).get(LENGTH_OF_DIMENSION) for dimension in _nested(entry, DIMENSIONS)]
            if len(dimensions) == 4:
                return tuple(length if isinstance(length, int) and length else None for length in dimensions)
    raise InputError(f"{file}: one input (B, 3, H, W) was expected, got none of four dimensions")


def check_external_data(file: Path) -> None:
    """Raises InputError where an ONNX file has weights in a file outside of its own folder, as runtimes may read what
    is there."""
    folder = Path(os.path.realpath(file.parent))
    with _told(file):
        for location in _locations(memoryview(file.read_bytes())):
            place = Path(os.path.realpath(folder / location))
            if not place.is_relative_to(folder):
                raise InputError(f"{file} was refused: it has weights in {location[:100]!r}, outside of its folder")
            if not place.is_file():
                raise InputError(f"{file}: it has weights in {location[:100]!r}, and there is no such file")


def _locations(content: memoryview) -> Iterator[str]:
    """The names of files with weights of all tensors in a ModelProto."""
    waiting = [(MODEL, content)]
    while waiting:
        kind, message = waiting.pop()
        if kind == TENSOR:
            pairs = [dict(_fields(pair)) for pair in _nested(message, EXTERNAL)]
            yield from (_text(pair.get(VALUE, EMPTY)) for pair in pairs if _text(pair.get(KEY, EMPTY)) == LOCATION)
            continue
        inside = TO_TENSORS[kind]
        waiting.extend(
            (inside[number], value)
            for number, value in _fields(message)
            if number in inside and not isinstance(value, int)
        )


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (IndexError, ValueError, TypeError) as error:
        raise InputError(f"{file}: it is no ONNX file: {error}") from error


def _nested(content: memoryview, path: tuple[int, ...]) -> Iterator[memoryview]:
    """The messages at a path of field numbers."""
    for number, value in _fields(content):
        if number != path[0]:
            continue
        if isinstance(value, int):
            raise TypeError(f"field {number} is a number, not a message")
        if len(path) == 1:
            yield value
        else:
            yield from _nested(value, path[1:])


def _text(value: memoryview | int) -> str:
    if isinstance(value, int):
        raise TypeError("a number where a text should be")
    return bytes(value).decode()


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(number, value) of each field of a protobuf message. Raises ValueError or IndexError for what is none."""
    place = 0
    value: memoryview | int
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
