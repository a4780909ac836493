"""Request bodies: read within their limits, and checked for what the parsers let through."""

import asyncio
import json
from collections.abc import Callable
from math import isinf
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from starlette.types import Message, Receive

from markethall.shared.errors import Invalid, Malformed, RequestTimeout, TooLarge

DEEPEST: Final = 64
MOST_FIELDS: Final = 20
# of a body that is read as it comes: who is slower, in bytes a second, is not waited for
SLOWEST: Final = 16 * 1024


async def read_body(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Malformed("The client went away.")
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLarge(limit=limit)
        if not message.get("more_body"):
            return bytes(body)


class Streamed:
    """A `receive` for a body that is read as it comes, bounded in size and in time. Raises
    Malformed, TooLarge, RequestTimeout; `on_slow` is called before the last.
    """

    def __init__(
        self, receive: Receive, limit: int, seconds: float, on_slow: Callable[[], None]
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._until = asyncio.get_running_loop().time() + seconds
        self._on_slow = on_slow
        self._size = 0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        message = await self._next()
        if message["type"] == "http.disconnect":
            raise Malformed("The client went away.")
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise TooLarge(limit=self._limit)
        self._whole = not message.get("more_body")
        return message

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout_at(self._until + self._size / SLOWEST):
                return await self._receive()
        except TimeoutError:
            self._on_slow()
            raise RequestTimeout from None


def check_json(body: bytes) -> None:
    """What the parser would let through and should not. Raises Malformed, Invalid."""
    try:
        text = body.decode()
        value = parsed_json(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"The body is not JSON: {_short(error)}.") from None
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    if "\\u" in text:
        _check_texts(value)


def parsed_json(text: str) -> Any:
    """Strictly: names once, numbers finite. Raises ValueError, RecursionError."""
    return _STRICT.decode(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 leaves the meaning of a repeated name open; we do not guess."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object repeats a name")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError("a number is out of range")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


# made once: json.loads makes one for each call, which takes as long as a short text does
_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)


def _short(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return str(error)[:120]


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        children = (child for item in level for child in _children(item))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise Malformed(f"The body is nested deeper than {DEEPEST} levels.")


def _check_texts(value: Any) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        waiting += _children(item)
        texts = [item] if isinstance(item, str) else item if isinstance(item, dict) else ()
        for text in texts:
            _check_text(text)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _bad_text("a lone surrogate") from None
    if "\x00" in text:
        raise _bad_text("a NUL character")


def _bad_text(what: str) -> Invalid:
    message = f"must not contain {what}"
    return Invalid(
        f"A text {message}.", errors=[{"field": "", "code": "text_invalid", "message": message}]
    )


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def checked_form(body: bytes) -> bytes:
    """The form in one way of writing it, so that whoever reads it next reads the same.

    Raises Malformed, Invalid.
    """
    try:
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError as error:
        raise Malformed(f"The body is not a form: {_short(error)}.") from None
    if len(dict(fields)) != len(fields):
        raise Malformed("The body is not a form: it repeats a name.")
    for name, value in fields:
        _check_text(name)
        _check_text(value)
    return urlencode(fields).encode()
