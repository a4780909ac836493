"""Retries: which requests are repeated, how often, after which wait, and with which key."""

from datetime import UTC, datetime
from uuid import UUID

import httpx2
import pytest

from markethall_client import (
    AsyncMarkethall,
    Markethall,
    Operation,
    ProblemError,
    UnexpectedResponseError,
)
from markethall_client.models import Health, OrderStatus, RevocationForm
from markethall_client.operations import deliver_fulfilment, get_health, revoke_token
from markethall_client.retries import parse_retry_after

Answer = httpx2.Response | httpx2.TransportError


class Network:
    """Answers requests in turn, and records the requests and the waits between them."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = iter(answers)
        self.keys: list[str | None] = []
        self.waits: list[float] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.keys.append(request.headers.get("Idempotency-Key"))
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def wait_async(self, seconds: float) -> None:
        self.waits.append(seconds)

    def client(self) -> Markethall:
        transport = httpx2.MockTransport(self.answer)
        return Markethall("http://shop.example", transport=transport, wait=self.waits.append)

    def async_client(self) -> AsyncMarkethall:
        transport = httpx2.MockTransport(self.answer)
        return AsyncMarkethall("http://shop.example", transport=transport, wait=self.wait_async)


def busy(status: int = 503, retry_after: str | None = "1") -> httpx2.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return httpx2.Response(status, headers=headers)


def healthy() -> httpx2.Response:
    return httpx2.Response(200, json={"status": "ok"})


def delivery(key: str) -> Operation[object]:
    return deliver_fulfilment(UUID(int=1), idempotency_key=key)


def test_read_is_repeated_after_the_wait_that_the_shop_asks_for() -> None:
    network = Network(busy(503, "2"), busy(429, "7"), healthy())

    health = network.client().call(get_health())

    assert health == Health("ok")
    assert network.waits == [2, 7]


async def test_asynchronous_read_is_repeated_in_the_same_way() -> None:
    network = Network(busy(503, "2"), httpx2.ConnectError("lost"), busy(429, "7"), healthy())

    health = await network.async_client().call(get_health())

    assert health == Health("ok")
    assert (network.waits[0], network.waits[2]) == (2, 7)


def test_command_with_a_key_is_repeated_with_the_same_key() -> None:
    lost = httpx2.ReadError("connection lost")
    network = Network(busy(), lost, busy(409), httpx2.Response(204))

    response = network.client().send(delivery("one"))

    assert response.status_code == 204
    assert network.keys == ["one"] * 4


@pytest.mark.parametrize("answer", [busy(), httpx2.ReadError("lost")], ids=["busy", "lost"])
def test_command_without_a_key_is_never_repeated(answer: Answer) -> None:
    network = Network(answer)

    with pytest.raises((UnexpectedResponseError, httpx2.ReadError)):
        network.client().call(revoke_token(body=RevocationForm("token")))

    assert network.keys == [None]


def test_last_answer_is_raised_when_the_retries_are_used_up() -> None:
    network = Network(busy(), busy(), busy(), busy(429))

    with pytest.raises(UnexpectedResponseError) as raised:
        network.client().call(get_health())

    assert raised.value.status == 429


def test_answer_that_asks_for_a_long_wait_is_raised_at_once() -> None:
    network = Network(busy(429, "31"))

    with pytest.raises(UnexpectedResponseError):
        network.client().call(get_health())

    assert network.waits == []


@pytest.mark.parametrize("status", [400, 404, 409, 500])
def test_other_errors_are_raised_at_once(status: int) -> None:
    network = Network(busy(status, None))

    with pytest.raises(UnexpectedResponseError):
        network.client().call(delivery("one"))

    assert network.keys == ["one"]


def test_problem_without_a_required_member_is_an_unexpected_response() -> None:
    network = Network(httpx2.Response(404, json={"code": "orders.not_found"}))

    with pytest.raises(UnexpectedResponseError) as raised:
        network.client().call(get_health())

    assert not isinstance(raised.value, ProblemError)


def test_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert parse_retry_after("12") == 12
    assert parse_retry_after("Thu, 01 Jan 2026 00:00:05 GMT", now) == 5
    assert parse_retry_after("Wed, 31 Dec 2025 00:00:00 GMT", now) == 0
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None


def test_unknown_value_of_an_enum_is_kept() -> None:
    status = OrderStatus("awaiting_moon")

    assert status.value == "awaiting_moon"
    assert isinstance(status, OrderStatus)
    assert status not in list(OrderStatus)
