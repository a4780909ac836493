"""Reads the file of a multipart body with one part (RFC 7578) in chunks, without storing it."""

import re
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from markethall.shared.kernel.errors import (
    MalformedRequest,
    UnsupportedMediaType,
    ValidationFailed,
)

FIELD_NAME: Final = "file"
_MEDIA_TYPE: Final = "multipart/form-data"
# RFC 2046, section 5.1.1, without the space
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=?-]{1,70}")


async def file_chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the content of the part named `file`, which must be the only part.

    The name and the content type of the file are ignored. Raises UnsupportedMediaType,
    MalformedRequest, ValidationFailed, and the errors of reading the body.
    """
    reader = _FilePartReader(_boundary_of(request.headers.get("content-type", "")))
    async for chunk in request.stream():
        for part in reader.read(chunk):
            yield part
    reader.check_complete()


def _boundary_of(content_type: str) -> bytes:
    """Raises UnsupportedMediaType, MalformedRequest."""
    media_type, options = parse_options_header(content_type)
    if media_type.lower() != _MEDIA_TYPE.encode():
        raise UnsupportedMediaType(supported=[_MEDIA_TYPE])
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise MalformedRequest("The content type has no valid boundary.")
    return boundary


class _FilePartReader:
    def __init__(self, boundary: bytes) -> None:
        self._chunks: list[bytes] = []
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._part_count = 0
        self._is_complete = False
        callbacks: Any = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_to_name,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_headers,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def read(self, chunk: bytes) -> list[bytes]:
        """Return the content of the file in this chunk of the body."""
        self._chunks = []
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MalformedRequest(f"The multipart body is not valid: {error}"[:200]) from None
        return self._chunks

    def check_complete(self) -> None:
        if not self._is_complete:
            raise MalformedRequest("The multipart body is incomplete.")
        if not self._part_count:
            raise _invalid("missing", "is required")

    def _begin_part(self) -> None:
        self._part_count += 1
        if self._part_count > 1:
            raise _invalid("too_many_parts", "must be the only part of the body")
        self._headers = {}

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _check_headers(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if disposition.lower() != b"form-data" or options.get(b"name") != FIELD_NAME.encode():
            raise _invalid("missing", "is required, and must be the only part of the body")
        if b"filename" not in options:
            raise _invalid("not_a_file", "must be a file, not a text")
        # Rejected, because we do not decode such content. RFC 7578, section 4.7, deprecates the
        # header.
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() != b"binary":
            raise _invalid("encoded", "must have no Content-Transfer-Encoding")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def _end(self) -> None:
        self._is_complete = True


def _invalid(code: str, message: str) -> ValidationFailed:
    errors = [{"field": f"/{FIELD_NAME}", "code": code, "message": message}]
    return ValidationFailed(f"/{FIELD_NAME}: {message}.", errors=errors)
