"""Test that applications in one process are isolated like separate processes."""

import asyncio
from contextvars import ContextVar

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from markethall.contexts import context_names
from tests.partitions.in_process import AsgiNetwork, address_of, remotes_of
from tests.partitions.partitions import FULL_SPLIT, MONOLITH, PARTITIONS

CALLER_STATE: ContextVar[str] = ContextVar("caller_state", default="nothing")


class SlowApp:
    """An app that waits for `may_respond`, then responds with the `CALLER_STATE` that it sees."""

    def __init__(self) -> None:
        self.may_respond = asyncio.Event()
        self.done = asyncio.Event()

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        assert scope["path"] == "/state"
        await self.may_respond.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": CALLER_STATE.get().encode()})
        self.done.set()


@pytest.fixture
def slow_app() -> SlowApp:
    return SlowApp()


@pytest.fixture
def http(slow_app: SlowApp) -> httpx2.AsyncClient:
    network = AsgiNetwork()
    network.register("slow.test", slow_app)
    return httpx2.AsyncClient(transport=network)


async def test_context_variables_do_not_cross_calls(
    http: httpx2.AsyncClient, slow_app: SlowApp
) -> None:
    CALLER_STATE.set("a secret of the caller")
    slow_app.may_respond.set()

    answer = await http.get("http://slow.test/state")

    assert answer.text == "nothing"


async def test_caller_timeout_does_not_undo_work(
    http: httpx2.AsyncClient, slow_app: SlowApp
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await http.get("http://slow.test/state")

    slow_app.may_respond.set()

    async with asyncio.timeout(5):
        await slow_app.done.wait()


async def test_outside_addresses_are_unreachable(http: httpx2.AsyncClient) -> None:
    with pytest.raises(httpx2.ConnectError):
        await http.get("http://127.0.0.1/state")


async def test_internal_error_is_a_response(http: httpx2.AsyncClient, slow_app: SlowApp) -> None:
    slow_app.may_respond.set()

    assert (await http.get("http://slow.test/other")).status_code == 500


def test_each_context_knows_only_its_dependencies() -> None:
    monolith, split = PARTITIONS[MONOLITH], PARTITIONS[FULL_SPLIT]
    blocks = {context: block for block in split for context in block}

    assert remotes_of(monolith[0], monolith) == {}
    assert set(remotes_of(blocks["orders"], split)) == set(context_names()) - {"orders"}
    assert remotes_of(blocks["inventory"], split) == {
        context: address_of((context,)) for context in ("users", "orders")
    }
