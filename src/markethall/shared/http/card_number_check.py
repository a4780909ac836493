"""Refuses requests that contain a card number, so that none is stored, logged or passed on."""

from codecs import getincrementaldecoder
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus

from markethall.shared.kernel.card_numbers import (
    card_number_spans,
    contains_card_number,
    find_card_number,
    may_contain_card_number,
)
from markethall.shared.kernel.errors import CardNumberRefused

# The headers that this application reads, except those that it only verifies or parses, such as
# Authorization. Headers that it does not read are not checked, because proxies add ids that look
# like card numbers, such as X-Datadog-Trace-Id.
_CHECKED_HEADERS: Final = frozenset(
    {
        b"content-type",
        b"idempotency-key",
        b"if-match",
        b"if-none-match",
        b"user-agent",
        b"x-request-id",
    }
)
_MAX_CACHED_LENGTH: Final = 256
# number of characters before and after a card number that tell whether it is part of an id
_CONTEXT_LENGTH: Final = 128


def check_head(path: str, query: bytes, headers: Mapping[bytes, bytes]) -> None:
    """Check the path, the query and the headers of a request. Raises CardNumberRefused."""
    # most requests pass this fast check, so the slower checks rarely run
    if (
        _may_contain_card_number(path)
        or (query and (b"%" in query or _may_contain_card_number(query)))
        or any(
            _may_contain_card_number(headers[name]) for name in _CHECKED_HEADERS & headers.keys()
        )
    ):
        _check_parts(path, query.decode("latin-1"), headers)


def check_json(body: bytes, value: Any, unchecked_fields: frozenset[str]) -> None:
    """Check a JSON body and the value parsed from it. Raises CardNumberRefused.

    Members of the outermost object with a name of `unchecked_fields` are not checked.
    """
    # an escape such as \u0034 may be a digit
    if b"\\u" not in body and not may_contain_card_number(body):
        return
    pointer = find_card_number(value, unchecked_fields)
    if pointer is not None:
        raise card_number_refused(pointer)


def check_form(fields: Sequence[tuple[str, str]]) -> None:
    """Check the names and values of a form. Raises CardNumberRefused."""
    _check_fields("", fields)


def card_number_refused(pointer: str) -> CardNumberRefused:
    message = "must not contain a card number"
    errors = [{"field": pointer, "code": "card_number", "message": message}]
    return CardNumberRefused(f"{pointer or 'The body'}: {message}.", errors=errors)


class FileCheck:
    """Checks a UTF-8 file that arrives in chunks.

    A number at the end of a chunk may continue in the next chunk and turn out to be an id. So the
    end of a chunk is checked together with the next chunk.
    """

    def __init__(self) -> None:
        self._decode = getincrementaldecoder("utf-8")("replace").decode
        self._tail = ""
        # number of characters at the start of the tail that are already checked; number of the line
        # on which the tail begins
        self._checked_length = 0
        self._line_number = 1

    def check(self, chunk: bytes, *, is_last: bool) -> None:
        """Check the next chunk. Raises CardNumberRefused, which names the line."""
        text = self._tail + self._decode(chunk, final=is_last)
        end = len(text) if is_last else len(text) - _CONTEXT_LENGTH
        if may_contain_card_number(text):
            self._check_text(text, end)
        tail_start = max(0, len(text) - 2 * _CONTEXT_LENGTH)
        self._line_number += text.count("\n", 0, tail_start)
        self._tail = text[tail_start:]
        self._checked_length = max(0, end - tail_start)

    def _check_text(self, text: str, end: int) -> None:
        for start, stop in card_number_spans(text):
            if self._checked_length < stop <= end:
                line_number = self._line_number + text.count("\n", 0, start)
                raise card_number_refused(f"/line/{line_number}")


def _may_contain_card_number(part: str | bytes) -> bool:
    if len(part) > _MAX_CACHED_LENGTH:
        return may_contain_card_number(part)
    return _cached_may_contain_card_number(part)


# the same paths and headers recur; the cache makes their check four times as fast
_cached_may_contain_card_number: Final = lru_cache(maxsize=4096)(may_contain_card_number)


def _check_parts(path: str, query: str, headers: Mapping[bytes, bytes]) -> None:
    if contains_card_number(path):
        raise card_number_refused("/path")
    pairs = (pair.partition("=") for pair in query.split("&"))
    _check_fields("/query", [(unquote_plus(name), unquote_plus(value)) for name, _, value in pairs])
    for name in sorted(_CHECKED_HEADERS):
        if contains_card_number(headers.get(name, b"").decode("latin-1")):
            raise card_number_refused(f"/header/{name.decode()}")


def _check_fields(prefix: str, fields: Iterable[tuple[str, str]]) -> None:
    for name, value in fields:
        if contains_card_number(name):
            raise card_number_refused(prefix)
        if contains_card_number(value):
            raise card_number_refused(f"{prefix}/{name[:100]}")
