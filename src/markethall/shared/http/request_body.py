"""Request bodies: limits of size and time, and strict validation of JSON and forms."""

import asyncio
import re
from collections.abc import Callable
from itertools import islice
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from starlette.types import Message, Receive

from markethall.shared.http.card_number_check import FileCheck, check_form
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    MalformedRequest,
    Overloaded,
    RequestTimeout,
    ValidationFailed,
)
from markethall.shared.kernel.strict_json import parse_strict_json

MAX_DEPTH: Final = 64
MAX_FORM_FIELDS: Final = 20
# a streamed body that arrives at a lower average rate times out
MIN_BYTES_PER_SECOND: Final = 16 * 1024
# members are the names in objects and the elements of arrays, counted in the whole document
MAX_MEMBERS: Final = 5000

# Matches the text up to the start of the next member: a comma, or the opening bracket of an array
# or object that is not empty. Because of possessive quantifiers (`++`), the time of the search is
# linear in the length of every input.
_MEMBER: Final = re.compile(
    r'(?:[^",\[{]++|"(?:[^"\\]++|\\.)*+"?|[\[{](?=\s*+[\]}]))*+([,\[{])?', re.DOTALL
)


class BodyBudget:
    """Limits the sum of all bodies that are in the memory of this process at the same time."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0

    def open_share(self) -> "BodyShare":
        return BodyShare(self)


class BodyShare:
    """The bytes of the budget that one body uses."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def add(self, count: int) -> None:
        """Use bytes of the budget. Raises Overloaded if the budget is exhausted."""
        if self._budget.used_bytes + count > self._budget.max_bytes:
            raise Overloaded(retry_after=1)
        self._budget.used_bytes += count
        self._bytes += count

    def close(self) -> None:
        """Return all bytes to the budget."""
        self._budget.used_bytes -= self._bytes
        self._bytes = 0


async def read_body(receive: Receive, limit: int, share: BodyShare) -> bytes:
    """Read the whole body.

    Raises BodyTooLarge above `limit` bytes, Overloaded if the budget of `share` is exhausted, and
    MalformedRequest if the client disconnects.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedRequest("The client went away.")
        chunk = message.get("body", b"")
        if len(body) + len(chunk) > limit:
            raise BodyTooLarge(limit=limit)
        share.add(len(chunk))
        body += chunk
        if not message.get("more_body"):
            return bytes(body)


class LimitedBodyStream:
    """An ASGI `receive` for a streamed body, limited in size and time.

    The time limit is `timeout_seconds`, plus the received bytes divided by MIN_BYTES_PER_SECOND.
    Only the newest chunk counts towards `share`, because the route has stored the earlier ones.
    Raises MalformedRequest, BodyTooLarge, Overloaded, RequestTimeout, CardNumberRefused. Calls
    `on_timeout` before it raises RequestTimeout.
    """

    def __init__(
        self,
        receive: Receive,
        limit: int,
        timeout_seconds: float,
        on_timeout: Callable[[], None],
        share: BodyShare,
        *,
        checks_card_numbers: bool = True,
    ) -> None:
        self._file_check = FileCheck() if checks_card_numbers else None
        self._receive = receive
        self._limit = limit
        self._deadline = asyncio.get_running_loop().time() + timeout_seconds
        self._on_timeout = on_timeout
        self._share = share
        self._received_bytes = 0
        self._is_complete = False

    async def __call__(self) -> Message:
        if self._is_complete:
            return await self._receive()
        message = await self._receive_before_deadline()
        if message["type"] == "http.disconnect":
            raise MalformedRequest("The client went away.")
        chunk_bytes = len(message.get("body", b""))
        self._received_bytes += chunk_bytes
        if self._received_bytes > self._limit:
            raise BodyTooLarge(limit=self._limit)
        self._share.close()
        self._share.add(chunk_bytes)
        self._is_complete = not message.get("more_body")
        if self._file_check:
            self._file_check.check(message.get("body", b""), is_last=self._is_complete)
        return message

    async def _receive_before_deadline(self) -> Message:
        try:
            async with asyncio.timeout_at(
                self._deadline + self._received_bytes / MIN_BYTES_PER_SECOND
            ):
                return await self._receive()
        except TimeoutError:
            self._on_timeout()
            raise RequestTimeout from None


def validate_json(body: bytes, max_members: int = MAX_MEMBERS) -> Any:
    """Return the parsed body. Raises MalformedRequest, ValidationFailed.

    Unlike Pydantic, it rejects repeated names, deep nesting, NUL characters and lone surrogates. It
    rejects more than `max_members` members before it parses the text, because the parsed objects
    take up to a hundred times the memory of the text.
    """
    try:
        text = body.decode()
        _check_member_count(text, max_members)
        value = parse_strict_json(text)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"The body is not JSON: {_describe_parse_error(error)}.") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    if "\\u" in text:
        _check_texts(value)
    return value


def _check_member_count(text: str, limit: int) -> None:
    # a fast upper bound: it also counts these characters within strings
    if text.count(",") + text.count("{") + text.count("[") <= limit:
        return
    members = (match for match in _MEMBER.finditer(text) if match[1])
    if next(islice(members, limit, None), None) is not None:
        message = f"must not have more than {limit} members"
        raise ValidationFailed(
            f"The body {message}.",
            errors=[{"field": "", "code": "too_many_members", "message": message}],
        )


def _describe_parse_error(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return str(error)[:120]


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        children = (child for item in level for child in _children(item))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise MalformedRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _check_texts(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        pending += _children(item)
        texts = [item] if isinstance(item, str) else item if isinstance(item, dict) else ()
        for text in texts:
            _check_text(text)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _text_invalid("a lone surrogate") from None
    if "\x00" in text:
        raise _text_invalid("a NUL character")


def _text_invalid(defect: str) -> ValidationFailed:
    message = f"must not contain {defect}"
    return ValidationFailed(
        f"A text {message}.", errors=[{"field": "", "code": "text_invalid", "message": message}]
    )


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def normalize_form(body: bytes) -> bytes:
    """Check the fields of a form, and return them encoded again.

    So FastAPI parses exactly the fields that were checked, even if the parser of FastAPI differs
    from the one used here. Raises MalformedRequest, ValidationFailed, CardNumberRefused.
    """
    try:
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError as error:
        raise MalformedRequest(f"The body is not a form: {_describe_parse_error(error)}.") from None
    if len(dict(fields)) != len(fields):
        raise MalformedRequest("The body is not a form: it repeats a name.")
    for name, value in fields:
        _check_text(name)
        _check_text(value)
    check_form(fields)
    return urlencode(fields).encode()
