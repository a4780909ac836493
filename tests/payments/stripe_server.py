"""A server that speaks the part of Stripe's API that the gateway uses, and injects faults.

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
from itertools import count
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)  # with this option `close` sends RST, see socket(7)
_GARBAGE: Final = b'<html>\xff\x00{"object": "payment_intent"'

Json = dict[str, Any]

DECLINES: Final = {
    "pm_card_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", None),
}


class Fault(Enum):
    LOST_BEFORE = auto()  # the connection ends; nothing was done
    LOST_AFTER = auto()  # the connection ends after the effect
    RESET_BEFORE = auto()
    RESET_AFTER = auto()
    SILENT_BEFORE = auto()  # no answer, until the client gives up
    SILENT_AFTER = auto()
    RATE_LIMITED = auto()
    KEY_IN_USE = auto()
    SERVER_ERROR_BEFORE = auto()  # 500, stored for the idempotency key
    SERVER_ERROR_AFTER = auto()
    GATEWAY_ERROR_AFTER = auto()  # 502 of a proxy, which stores nothing
    GARBAGE = auto()
    NO_OBJECT = auto()
    WRONG_AMOUNT = auto()
    WRONG_CURRENCY = auto()
    OTHER_OBJECT = auto()  # the object of another operation
    UNKNOWN_STATUS = auto()


class _NoAnswer(Exception):
    def __init__(self, *, reset: bool = False) -> None:
        self.reset = reset


class StripeError(Exception):
    def __init__(self, status: int, type_: str, code: str | None = None, **fields: Any) -> None:
        self.status = status
        self.body: Json = {
            "error": {"type": type_, "message": "a message", **fields}
            | ({"code": code} if code else {})
        }


@dataclass
class _Stored:
    request: tuple[str, Json]
    answer: tuple[int, Json]


class StripeServer:
    """The state is that of one Stripe account."""

    def __init__(self) -> None:
        self.intents: dict[str, Json] = {}
        self.refunds: dict[str, Json] = {}
        self.events: list[Json] = []
        self.requests: Counter[str] = Counter()
        self.authorizations: set[str] = set()
        self.search_is_behind = False
        self.is_down = False
        self._keys: dict[str, _Stored] = {}
        self._faults: dict[str, deque[Fault]] = {}
        self._ids = count(1)
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What a test does and sees

    def fail(self, name: str, *faults: Fault) -> None:
        """Let the next requests of this name fail: create, confirm, get, cancel, capture, …"""
        self._faults.setdefault(name, deque()).extend(faults)

    def forget_keys(self) -> None:
        """Forget the idempotency keys, as Stripe does after 24 hours."""
        self._keys.clear()

    def totals(self, payment_id: object) -> tuple[int, int, int]:
        """Return the number of charges of a payment, and the captured and refunded amounts."""
        intents = [
            one for one in self.intents.values()
            if one["metadata"].get("markethall_payment_id") == str(payment_id)
        ]  # fmt: skip
        ids = {one["id"] for one in intents}
        refunds = [one for one in self.refunds.values() if one["payment_intent"] in ids]
        return (
            sum(one["amount_received"] > 0 for one in intents),
            sum(one["amount_received"] for one in intents),
            sum(one["amount"] for one in refunds if one["status"] == "succeeded"),
        )

    def intent_of(self, operation_id: object) -> Json:
        """Return the intent of a charge or authorization."""
        (intent,) = [
            one for one in self.intents.values()
            if one["metadata"].get("markethall_operation_id") == str(operation_id)
        ]  # fmt: skip
        return intent

    def finish_action(self, intent: Json, *, decline: str | None = None) -> None:
        """Let the customer authenticate, or fail to."""
        if decline:
            self._decline(intent, decline, None)
        else:
            self._approve(intent)

    def require_action(self, intent: Json) -> None:
        """Let the customer try another card in the browser, which requires an action."""
        self._require_action(intent, {"use_stripe_sdk": "true"})

    def build_event(self, type_: str, object_: Json) -> Json:
        return {
            "id": f"evt_{next(self._ids)}",
            "object": "event",
            "type": type_,
            "created": 1,
            "livemode": False,
            "data": {"object": copy.deepcopy(object_)},
        }

    # HTTP

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
        fault = self._faults[name].popleft() if self._faults.get(name) else None
        await self._fail_before(fault)
        if not headers.get("authorization", "").startswith("Bearer sk_test_"):
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

    async def _fail_after(self, fault: Fault | None) -> None:
        if fault in {Fault.LOST_AFTER, Fault.RESET_AFTER}:
            raise _NoAnswer(reset=fault is Fault.RESET_AFTER)
        if fault is Fault.SILENT_AFTER:
            await self._closing.wait()
            raise _NoAnswer

    def _run_once(
        self, key: str | None, path: str, parameters: Json, name: str, id_: str, fault: Fault | None
    ) -> tuple[int, Json]:
        """Run the request, or repeat the answer that is stored for the idempotency key."""
        stored = self._keys.get(key or "")
        if stored:
            if stored.request != (path, parameters):
                return 400, {"error": {"type": "idempotency_error", "message": "other parameters"}}
            self._is_replayed = True
            return stored.answer
        answer = self._run(name, id_, parameters, fault)
        # a request that is not valid is not stored
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
            case Fault.UNKNOWN_STATUS:
                return _encode(status, answer | {"status": "on_the_moon"})
        return _encode(status, answer)

    # PaymentIntents

    def _create(self, _: str, parameters: Json) -> Json:
        amount = int(parameters["amount"])
        if amount < 1:
            raise StripeError(400, "invalid_request_error", "amount_too_small")
        intent = {
            "id": f"pi_{next(self._ids)}",
            "object": "payment_intent",
            "status": "requires_payment_method",
            "amount": amount,
            "amount_received": 0,
            "currency": parameters["currency"],
            "capture_method": parameters["capture_method"],
            "cancellation_reason": None,
            "client_secret": f"pi_{next(self._ids)}_secret_1",
            "latest_charge": None,
            "last_payment_error": None,
            "metadata": parameters["metadata"],
            "next_action": None,
            "payment_method_types": parameters["payment_method_types"],
        }
        self.intents[intent["id"]] = intent
        return intent

    def _get(self, id_: str, _: Json) -> Json:
        if id_ not in self.intents:
            raise StripeError(404, "invalid_request_error", "resource_missing")
        return self.intents[id_]

    def _search(self, _: str, parameters: Json) -> Json:
        key, value = parameters["query"].removeprefix("metadata['").removesuffix("'").split("']:'")
        found = [one for one in self.intents.values() if one["metadata"].get(key) == value]
        return {"object": "search_result", "data": [] if self.search_is_behind else found}

    def _update(self, id_: str, parameters: Json) -> Json:
        intent = self._get(id_, {})
        intent["metadata"] |= parameters["metadata"]
        return intent

    def _confirm(self, id_: str, parameters: Json) -> Json:
        intent = self._get(id_, {})
        self._require_status(intent, "requires_payment_method", "requires_confirmation")
        method = parameters.get("payment_method") or parameters["confirmation_token"]
        if method == "pm_missing":
            raise StripeError(400, "invalid_request_error", "resource_missing")
        if method in DECLINES:
            error = self._decline(intent, *DECLINES[method])
            raise StripeError(402, **error, payment_intent=intent)
        if method == "pm_card_authenticationRequired":
            self._require_action(intent, parameters)
        elif method == "pm_processing":
            intent["status"] = "processing"
        else:
            self._approve(intent)
        return intent

    def _capture(self, id_: str, parameters: Json) -> Json:
        intent = self._get(id_, {})
        self._require_status(intent, "requires_capture")
        amount = int(parameters["amount_to_capture"])
        if not 0 < amount <= intent["amount"]:
            raise StripeError(400, "invalid_request_error", "amount_too_large")
        intent["metadata"] |= parameters["metadata"]
        intent |= {"status": "succeeded", "amount_received": amount}
        self._emit("payment_intent.succeeded", intent)
        return intent

    def _cancel(self, id_: str, parameters: Json) -> Json:
        intent = self._get(id_, {})
        self._require_status(
            intent, "requires_payment_method", "requires_confirmation", "requires_action",
            "requires_capture",
        )  # fmt: skip
        intent |= {
            "status": "canceled",
            "cancellation_reason": parameters["cancellation_reason"],
            "next_action": None,
        }
        self._emit("payment_intent.canceled", intent)
        return intent

    def _require_status(self, intent: Json, *statuses: str) -> None:
        if intent["status"] not in statuses:
            raise StripeError(
                400, "invalid_request_error", "payment_intent_unexpected_state",
                payment_intent=intent,
            )  # fmt: skip

    def _approve(self, intent: Json) -> None:
        intent |= {
            "latest_charge": f"ch_{next(self._ids)}",
            "last_payment_error": None,
            "next_action": None,
        }
        if intent["capture_method"] == "manual":
            intent["status"] = "requires_capture"
            self._emit("payment_intent.amount_capturable_updated", intent)
        else:
            intent |= {"status": "succeeded", "amount_received": intent["amount"]}
            self._emit("payment_intent.succeeded", intent)

    def _decline(self, intent: Json, code: str, decline_code: str | None) -> Json:
        error = {"type_": "card_error", "code": code, "decline_code": decline_code}
        intent |= {
            "status": "requires_payment_method",
            "latest_charge": f"ch_{next(self._ids)}",
            "last_payment_error": {
                "type": "card_error",
                "code": code,
                "decline_code": decline_code,
            },
            "next_action": None,
        }
        self._emit("payment_intent.payment_failed", intent)
        return error

    def _require_action(self, intent: Json, parameters: Json) -> None:
        action: Json = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
        if "return_url" in parameters:
            url = f"https://hooks.stripe.com/{intent['id']}?to={parameters['return_url']}"
            action = {"type": "redirect_to_url", "redirect_to_url": {"url": url}}
        intent |= {"status": "requires_action", "next_action": action}
        self._emit("payment_intent.requires_action", intent)

    # Refunds

    def _refund(self, _: str, parameters: Json) -> Json:
        intent = self._get(parameters["payment_intent"], {})
        refunded = sum(
            one["amount"] for one in self.refunds.values() if one["payment_intent"] == intent["id"]
        )
        amount = int(parameters["amount"])
        if refunded and refunded == intent["amount_received"]:
            raise StripeError(400, "invalid_request_error", "charge_already_refunded")
        if not 0 < amount <= intent["amount_received"] - refunded:
            raise StripeError(400, "invalid_request_error")
        refund = {
            "id": f"re_{next(self._ids)}",
            "object": "refund",
            "status": "succeeded",
            "amount": amount,
            "currency": intent["currency"],
            "payment_intent": intent["id"],
            "metadata": parameters["metadata"],
        }
        self.refunds[refund["id"]] = refund
        self._emit("refund.created", refund)
        return refund

    def _list_refunds(self, _: str, parameters: Json) -> Json:
        """List the newest first, in pages of two, so that the client has to follow them."""
        found = [
            one for one in reversed(self.refunds.values())
            if one["payment_intent"] == parameters["payment_intent"]
        ]  # fmt: skip
        if after := parameters.get("starting_after"):
            ids = [one["id"] for one in found]
            found = found[ids.index(after) + 1 :]
        return {"object": "list", "data": found[:2], "has_more": len(found) > 2}

    def _emit(self, type_: str, object_: Json) -> None:
        self.events.append(self.build_event(type_, object_))


_SERVER_ERROR: Final = {"error": {"type": "api_error", "message": "a message"}}
_EARLY_ERRORS: Final[Mapping[Fault | None, tuple[int, Json]]] = {
    Fault.RATE_LIMITED: (429, {"error": {"type": "invalid_request_error", "code": "rate_limit"}}),
    Fault.KEY_IN_USE: (
        409,
        {"error": {"type": "idempotency_error", "code": "idempotency_key_in_use"}},
    ),
}
_ACTIONS: Final = {"confirm", "capture", "cancel"}


def _route(method: str, path: str) -> tuple[str, str]:
    """Return the name of the request, and the id in its path."""
    _, version, collection, *rest = path.split("/")
    assert version == "v1", path
    match method, collection, rest:
        case "POST", "payment_intents", []:
            return "create", ""
        case "GET", "payment_intents", ["search"]:
            return "search", ""
        case "GET", "payment_intents", [id_]:
            return "get", id_
        case "POST", "payment_intents", [id_]:
            return "update", id_
        case "POST", "payment_intents", [id_, action] if action in _ACTIONS:
            return action, id_
        case "POST", "refunds", []:
            return "refund", ""
        case "GET", "refunds", []:
            return "list_refunds", ""
    raise AssertionError(f"{method} {path}")


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
