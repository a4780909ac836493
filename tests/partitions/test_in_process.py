"""The way between the applications of one process is as strange as the one between two."""

import asyncio
from contextvars import ContextVar

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from markethall.contexts import context_names
from tests.partitions.in_process import AsgiNetwork, address_of, remotes_of
from tests.partitions.partitions import APART, PARTITIONS, TOGETHER

AMBIENT: ContextVar[str] = ContextVar("ambient", default="nothing")


class Slow:
    """Answers what it knows of its caller's ambience, once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.done = asyncio.Event()

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        assert scope["path"] == "/knows"
        await self.may.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": AMBIENT.get().encode()})
        self.done.set()


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def http(slow: Slow) -> httpx2.AsyncClient:
    neighbourhood = AsgiNetwork()
    neighbourhood.register("slow.hall", slow)
    return httpx2.AsyncClient(transport=neighbourhood)


async def test_context_variables_do_not_cross_calls(http: httpx2.AsyncClient, slow: Slow) -> None:
    AMBIENT.set("a secret of the caller")
    slow.may.set()

    answer = await http.get("http://slow.hall/knows")

    assert answer.text == "nothing"


async def test_caller_timeout_does_not_undo_work(http: httpx2.AsyncClient, slow: Slow) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await http.get("http://slow.hall/knows")

    slow.may.set()

    async with asyncio.timeout(5):
        await slow.done.wait()


async def test_outside_addresses_are_unreachable(http: httpx2.AsyncClient) -> None:
    with pytest.raises(httpx2.ConnectError):
        await http.get("http://127.0.0.1/knows")


async def test_internal_error_is_a_response(http: httpx2.AsyncClient, slow: Slow) -> None:
    slow.may.set()

    assert (await http.get("http://slow.hall/other")).status_code == 500


def test_each_context_knows_only_its_dependencies() -> None:
    together, apart = PARTITIONS[TOGETHER], PARTITIONS[APART]
    blocks = {context: block for block in apart for context in block}

    assert remotes_of(together[0], together) == {}
    assert set(remotes_of(blocks["orders"], apart)) == set(context_names()) - {"orders"}
    assert remotes_of(blocks["inventory"], apart) == {
        context: address_of((context,)) for context in ("users", "orders")
    }
