"""Reads multipart/form-data as it arrives: pictures and fields, in memory alone. Not for what is in them:
engine/service_pictures.py, engine/service_options.py.

Frameworks write large uploads into temporary files, and count them once they are there. Here nothing is written, and a
body that is too large is refused at its first byte too many, whatever its Content-Length claims.
"""

from collections.abc import AsyncIterable
from dataclasses import dataclass, field

from engine.service_limits import Limits, ServiceError, Share, quoted
from engine.service_multipart import Multipart, MultipartError, Take, header_parameters

PICTURES = "pictures"  # the field's name
MAX_FIELDS, MAX_FIELD_BYTES = 16, 10_000
MAX_NAME = 100  # characters of a file name that is echoed


@dataclass
class Upload:
    """One file: its sanitised name, for messages alone, and its content."""

    name: str
    content: bytearray = field(default_factory=bytearray)


@dataclass
class Form:
    """The pictures in their order, and the other fields by name."""

    pictures: list[Upload] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


async def read_form(content_type: str, chunks: AsyncIterable[bytes], limits: Limits, share: Share) -> Form:
    """The form of a body that arrives in chunks. Raises ServiceError: 415 for another kind of body, 400 for a broken
    one, 413 for more bytes or pictures than the limits allow, 422 for fields that are not clear, 503 without memory."""
    reader = _FormReader(_boundary(content_type), limits)
    async for chunk in chunks:
        share.add(len(chunk))
        if share.bytes > limits.bytes:
            raise ServiceError(413, f"at most {limits.bytes} bytes a request were expected, got more")
        reader.feed(chunk)
    return reader.result()


def safe_name(name: str, number: int) -> str:
    """What a client calls a file as a short printable name without folders; picture1, ... where nothing is left."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable()).strip(" .")[:MAX_NAME] or f"picture{number}"


def _boundary(content_type: str) -> bytes:
    kind, parameters = header_parameters(content_type)
    if kind != "multipart/form-data":
        raise ServiceError(415, f"a body of multipart/form-data was expected, got {quoted(content_type)}")
    if not parameters.get("boundary"):
        raise ServiceError(400, "multipart/form-data with a boundary was expected, got none")
    return parameters["boundary"].encode("latin-1", "replace")


class _FormReader:
    """Puts the pieces together that the parser of multipart messages calls out."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self.limits, self.form = limits, Form()
        self._raw_fields: dict[str, bytearray] = {}
        try:
            self._parts = Multipart(boundary, self._begin_part)
        except MultipartError as error:
            raise _broken(str(error)) from error

    def feed(self, chunk: bytes) -> None:
        try:
            self._parts.feed(chunk)
        except MultipartError as error:
            raise _broken(str(error)) from error

    def result(self) -> Form:
        if not self._parts.ended:
            raise _broken("it ends before its last boundary")
        if not self.form.pictures:
            got = (
                f"other fields alone, the first {quoted(next(iter(self._raw_fields)))}" if self._raw_fields else "none"
            )
            raise ServiceError(422, f"at least one file in the field {PICTURES!r} was expected, got {got}")
        for name, value in self._raw_fields.items():
            try:
                self.form.fields[name] = value.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ServiceError(400, f"{quoted(name)}: text in UTF-8 was expected, got other bytes") from error
        return self.form

    def _begin_part(self, disposition: str) -> Take:
        kind, parameters = header_parameters(disposition)
        name, filename = parameters.get("name", ""), parameters.get("filename", "")
        if kind != "form-data" or not name:
            raise MultipartError("a part of it has no name")
        if name == PICTURES:
            return self._new_picture(filename)
        if filename:
            raise ServiceError(422, f"files in the field {PICTURES!r} were expected, got one in {quoted(name)}")
        return self._new_field(name)

    def _new_picture(self, filename: str) -> Take:
        number = len(self.form.pictures) + 1
        if number > self.limits.pictures:
            raise ServiceError(413, f"at most {self.limits.pictures} pictures a request were expected, got more")
        upload = Upload(safe_name(filename, number))
        self.form.pictures.append(upload)
        return upload.content.extend

    def _new_field(self, name: str) -> Take:
        if name in self._raw_fields:
            raise ServiceError(422, f"{quoted(name)}: one value was expected, got several")
        if len(self._raw_fields) == MAX_FIELDS:
            raise ServiceError(413, f"at most {MAX_FIELDS} fields were expected, got more")
        value = self._raw_fields[name] = bytearray()

        def take(data: bytes) -> None:
            value.extend(data)
            if len(value) > MAX_FIELD_BYTES:
                raise ServiceError(413, f"{quoted(name)}: at most {MAX_FIELD_BYTES} bytes were expected, got more")

        return take


def _broken(told: str) -> ServiceError:
    return ServiceError(400, f"a whole body of multipart/form-data was expected, got a broken one: {told}")
