"""A fake of the part of Stripe's HTTP API that the gateway uses. It can inject faults.

async with StripeServer() as server:     # StripeSettings(stripe_api_base=server.url, …)
    server.fail("confirm", Fault.SERVER_ERROR_AFTER)
"""

import asyncio
import copy
import json
import struct
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

from tests.payments.stripe_account import Json, StripeAccount, StripeError
from tests.payments.stripe_balance import BalanceOfAccount

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)  # makes `close` send a RST, see socket(7)
_GARBAGE: Final = b'<html>\xff\x00{"object": "payment_intent"'


class Fault(Enum):
    LOST_BEFORE = auto()  # the connection ends; nothing was done
    LOST_AFTER = auto()  # the connection ends after the effect
    RESET_BEFORE = auto()
    RESET_AFTER = auto()
    SILENT_BEFORE = auto()  # no answer before the timeout of the client
    SILENT_AFTER = auto()
    DELAYED = auto()  # no answer; the request takes effect when `release` is called
    RATE_LIMITED = auto()
    KEY_IN_USE = auto()
    SERVER_ERROR_BEFORE = auto()  # a 500, which is stored for the idempotency key
    SERVER_ERROR_AFTER = auto()
    GATEWAY_ERROR_AFTER = auto()  # a 502 of a proxy, which stores nothing
    GARBAGE = auto()
    NO_OBJECT = auto()
    WRONG_AMOUNT = auto()
    WRONG_CURRENCY = auto()
    OTHER_OBJECT = auto()  # the answer is the object of another operation
    DUPLICATE_ID = auto()  # the answer has the id of the first intent of the account
    UNKNOWN_STATUS = auto()


class _NoAnswer(Exception):
    def __init__(self, *, reset: bool = False) -> None:
        self.reset = reset


@dataclass
class _Stored:
    request: tuple[str, Json]
    answer: tuple[int, Json]


class StripeServer(BalanceOfAccount, StripeAccount):
    """Serves the account over HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self.is_down = False
        self.rejects_key = False
        self._keys: dict[str, _Stored] = {}
        self._answers: dict[str, tuple[int, bytes]] = {}
        self._faults: dict[str, deque[Fault]] = {}
        self._closing = asyncio.Event()
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delayed: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        self._released.set()
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Methods for tests

    def fail(self, name: str, *faults: Fault) -> None:
        """Let the next requests of this name fail, one for each fault. `_ROUTES` has the names."""
        self._faults.setdefault(name, deque()).extend(faults)

    def answer(self, name: str, status: int, body: bytes) -> None:
        """Respond to the next request of this name with this body, without any effect."""
        self._answers[name] = (status, body)

    async def release(self) -> None:
        """Let the delayed requests take effect. Their clients do not wait for the answers."""
        waiting = set(self._delayed)
        self._released.set()
        await asyncio.gather(*waiting, return_exceptions=True)

    def forget_keys(self) -> None:
        """Forget the idempotency keys, as Stripe does after 24 hours."""
        self._keys.clear()

    # The HTTP protocol

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            while await self._serve(reader, writer):
                pass
        except (_NoAnswer, OSError, asyncio.IncompleteReadError) as error:
            if isinstance(error, _NoAnswer) and error.reset:
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _LINGER_ZERO)
                writer.transport.abort()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await self._unless_closing(reader.readuntil(b"\r\n\r\n"))
        if head is None or self.is_down:
            return False
        lines = head.decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        status, content = await self._answer(method, target, headers, body.decode())
        reason = HTTPStatus(status).phrase
        replayed = "Idempotent-Replayed: true\r\n" if self._is_replayed else ""
        writer.write(
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n{replayed}"
            f"Request-Id: req_1\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        return True

    async def _unless_closing(self, read: Any) -> bytes | None:
        reading, closing = asyncio.ensure_future(read), asyncio.ensure_future(self._closing.wait())
        await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if not reading.done():
            reading.cancel()
            return None
        result: bytes = reading.result()
        return result

    async def _answer(
        self, method: str, target: str, headers: Mapping[str, str], body: str
    ) -> tuple[int, bytes]:
        self._is_replayed = False
        parts = urlsplit(target)
        parameters = _parse_form(body or parts.query)
        name, id_ = _route(method, parts.path)
        self.requests[name] += 1
        if name in self._answers:
            return self._answers.pop(name)
        fault = self._faults[name].popleft() if self._faults.get(name) else None
        await self._fail_before(fault)
        is_known = headers.get("authorization", "").startswith("Bearer sk_test_")
        if self.rejects_key or not is_known:
            return _encode(401, {"error": {"type": "invalid_request_error"}})
        if fault in _EARLY_ERRORS:
            return _encode(*_EARLY_ERRORS[fault])
        key = headers.get("idempotency-key") if method == "POST" else None
        status, answer = self._run_once(key, parts.path, parameters, name, id_, fault)
        await self._fail_after(fault)
        return self._distort(status, answer, fault)

    async def _fail_before(self, fault: Fault | None) -> None:
        if fault in {Fault.LOST_BEFORE, Fault.RESET_BEFORE}:
            raise _NoAnswer(reset=fault is Fault.RESET_BEFORE)
        if fault is Fault.SILENT_BEFORE:
            await self._closing.wait()
            raise _NoAnswer
        if fault is Fault.DELAYED:
            self._delayed |= self._tasks & {asyncio.current_task()}
            await self._released.wait()

    async def _fail_after(self, fault: Fault | None) -> None:
        if fault in {Fault.LOST_AFTER, Fault.RESET_AFTER}:
            raise _NoAnswer(reset=fault is Fault.RESET_AFTER)
        if fault is Fault.SILENT_AFTER:
            await self._closing.wait()
            raise _NoAnswer
        if fault is Fault.DELAYED:
            raise _NoAnswer

    def _run_once(
        self, key: str | None, path: str, parameters: Json, name: str, id_: str, fault: Fault | None
    ) -> tuple[int, Json]:
        """Run the request, or return the answer that is stored for its idempotency key."""
        stored = self._keys.get(key or "")
        if stored:
            if stored.request != (path, parameters):
                return 400, {"error": {"type": "idempotency_error", "message": "other parameters"}}
            self._is_replayed = True
            return stored.answer
        answer = self._run(name, id_, parameters, fault)
        # Stripe does not store the answer to an invalid request
        if key and answer[0] not in {400, 404}:
            self._keys[key] = _Stored((path, parameters), answer)
        return answer

    def _run(self, name: str, id_: str, parameters: Json, fault: Fault | None) -> tuple[int, Json]:
        if fault is Fault.SERVER_ERROR_BEFORE:
            return 500, _SERVER_ERROR
        try:
            answer = 200, copy.deepcopy(getattr(self, f"_{name}")(id_, parameters))
        except StripeError as error:
            answer = error.status, copy.deepcopy(error.body)
        return (500, _SERVER_ERROR) if fault is Fault.SERVER_ERROR_AFTER else answer

    def _distort(self, status: int, answer: Json, fault: Fault | None) -> tuple[int, bytes]:
        match fault:
            case Fault.GATEWAY_ERROR_AFTER:
                return 502, b"<html>Bad Gateway</html>"
            case Fault.GARBAGE:
                return status, _GARBAGE
            case Fault.NO_OBJECT:
                return _encode(status, [answer])
            case Fault.WRONG_AMOUNT:
                return _encode(status, answer | {"amount": 1, "amount_received": 1})
            case Fault.WRONG_CURRENCY:
                return _encode(status, answer | {"currency": "xxx"})
            case Fault.OTHER_OBJECT:
                other = {"markethall_operation_id": "00000000-0000-7000-8000-000000000000"}
                return _encode(status, answer | {"metadata": other})
            case Fault.DUPLICATE_ID:
                return _encode(status, answer | {"id": next(iter(self.intents))})
            case Fault.UNKNOWN_STATUS:
                return _encode(status, answer | {"status": "on_the_moon"})
        return _encode(status, answer)


_SERVER_ERROR: Final = {"error": {"type": "api_error", "message": "a message"}}
_EARLY_ERRORS: Final[Mapping[Fault | None, tuple[int, Json]]] = {
    Fault.RATE_LIMITED: (429, {"error": {"type": "invalid_request_error", "code": "rate_limit"}}),
    Fault.KEY_IN_USE: (
        409,
        {"error": {"type": "idempotency_error", "code": "idempotency_key_in_use"}},
    ),
}
# the requests, by method and path; "*" stands for an id
_ROUTES: Final = {
    "POST payment_intents": "create",
    "GET payment_intents/search": "search",
    "GET payment_intents/*": "get",
    "POST payment_intents/*": "update",
    "POST payment_intents/*/confirm": "confirm",
    "POST payment_intents/*/capture": "capture",
    "POST payment_intents/*/cancel": "cancel",
    "POST refunds": "refund",
    "GET refunds": "list_refunds",
    "GET balance_transactions": "list_balance",
    "GET disputes/*": "get_dispute",
    "POST customers": "create_customer",
    "GET customers/*": "get_customer",
    "GET payment_methods/*": "get_method",
    "POST payment_methods/*/detach": "detach",
}


def _route(method: str, path: str) -> tuple[str, str]:
    """Return the name of the request, and the id in its path."""
    _, version, collection, *rest = path.split("/")
    assert version == "v1", path
    exact = " ".join((method, "/".join((collection, *rest))))
    if exact in _ROUTES:
        return _ROUTES[exact], ""
    id_, *action = rest
    return _ROUTES[" ".join((method, "/".join((collection, "*", *action))))], id_


def _parse_form(text: str) -> Json:
    """Parse `metadata[a]=1` into a dictionary of dictionaries; indexes of lists are keys too."""
    form: Json = {}
    for name, value in parse_qsl(text, strict_parsing=bool(text)):
        first, *rest = name.replace("]", "").split("[")
        target = form
        for part in rest:
            target = target.setdefault(first, {})
            first = part
        target[first] = value
    return form


def _encode(status: int, answer: object) -> tuple[int, bytes]:
    return status, json.dumps(answer).encode()
