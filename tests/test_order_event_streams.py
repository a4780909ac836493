"""Streams of order events behind the gateway: the end of the token, slots, HEAD."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from markethall.app import Gateway, create_app
from markethall.orders.service.status_streams import StatusStreams
from markethall.settings import read_settings
from tests.containers import orders_of
from tests.shared.cache_fixtures import until
from tests.test_app import ADMIN
from tests.test_order_status_wait import admission_of, http, order

__all__ = ["http", "order"]


@pytest.fixture
async def app(tmp_path: Any) -> AsyncIterator[Gateway]:
    app = create_app(
        read_settings(
            storage="memory",
            data_dir=tmp_path,
            cache="off",
            # one slot: a stream that held the slot would block all other requests
            max_concurrent_requests=1,
            token_ttl=60,
            order_stream_heartbeat_seconds=0.05,
            **ADMIN,
        )
    )
    async with app.lifespan():
        yield app


def streams_in(app: Gateway) -> int:
    streams = orders_of(app.container).status_streams()
    assert isinstance(streams, StatusStreams)
    return streams.open_streams


async def test_stream_ends_with_its_token_and_holds_no_slot(
    app: Gateway, http: httpx2.AsyncClient, order: dict[str, Any]
) -> None:
    stream = asyncio.create_task(http.get(f"/orders/{order['order_id']}/events"))
    await until(lambda: streams_in(app) == 1)
    admission = admission_of(app)
    in_use = {b.name: b.in_use for kind in admission.bulkheads.values() for b in kind}
    clients = dict(admission.clients.in_use)

    # an empty key set, so that the token can no longer be verified
    verifier: Any = app.container.process.user_token_verifier()
    verifier._verifier._verifier._get_key_set = lambda: {"keys": []}
    async with asyncio.timeout(20):
        text = (await stream).text

    assert set(in_use.values()) == {0}
    assert clients == {}
    assert text.count("event: status") == 1
    assert streams_in(app) == 0


async def test_head_of_a_stream_has_no_body_and_ends_at_once(
    app: Gateway, http: httpx2.AsyncClient, order: dict[str, Any]
) -> None:
    response = await http.head(f"/orders/{order['order_id']}/events")

    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert streams_in(app) == 0
