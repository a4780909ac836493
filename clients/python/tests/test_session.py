"""Tokens: sign-in, renewal after 401, sign-out, against a real shop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2
import pytest

from markethall_client import (
    AsyncMarkethall,
    Markethall,
    MemoryTokenStorage,
    ProblemError,
    Tokens,
)
from markethall_client.operations import get_me
from tests.conftest import PASSWORD, Shop

USERNAME = "frida"


@pytest.fixture(scope="module")
def tokens(shop: Shop) -> MemoryTokenStorage:
    """The tokens of a registered customer, which every test replaces by expired ones."""
    storage = MemoryTokenStorage()
    shop.register(USERNAME)
    return storage


@pytest.fixture
def expired(shop: Shop, tokens: MemoryTokenStorage) -> MemoryTokenStorage:
    """A session whose access token has expired."""
    with Markethall(shop.base_url, token_storage=tokens) as client:
        client.login(USERNAME, PASSWORD)
    signed_in = tokens.load()
    assert signed_in is not None
    tokens.save(replace(signed_in, access_token="expired"))
    return tokens


class SentPaths:
    """Records the paths of requests, as an event hook of httpx2."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def record(self, request: httpx2.Request) -> None:
        self.paths.append(request.url.path)

    async def record_async(self, request: httpx2.Request) -> None:
        self.record(request)


def test_wrong_password_is_a_problem(shop: Shop) -> None:
    with Markethall(shop.base_url) as client, pytest.raises(ProblemError) as raised:
        client.login(USERNAME, "a wrong sentence")

    assert raised.value.code == "users.bad_credentials"


def test_threads_renew_an_expired_token_once(shop: Shop, expired: MemoryTokenStorage) -> None:
    sent = SentPaths()
    hooks = {"request": [sent.record]}
    with (
        Markethall(shop.base_url, token_storage=expired, event_hooks=hooks) as client,
        ThreadPoolExecutor(3) as threads,
    ):
        users = list(threads.map(lambda _: client.call(get_me()), range(3)))

    assert [user.username for user in users] == [USERNAME] * 3
    assert sent.paths.count("/token") == 1


async def test_tasks_renew_an_expired_token_once(shop: Shop, expired: MemoryTokenStorage) -> None:
    sent = SentPaths()
    hooks = {"request": [sent.record_async]}
    async with AsyncMarkethall(shop.base_url, token_storage=expired, event_hooks=hooks) as client:
        users = await asyncio.gather(*(client.call(get_me()) for _ in range(3)))

    assert [user.username for user in users] == [USERNAME] * 3
    assert sent.paths.count("/token") == 1


def test_session_ends_when_its_refresh_token_is_refused(shop: Shop) -> None:
    storage = MemoryTokenStorage(Tokens("expired", "unknown"))

    with (
        Markethall(shop.base_url, token_storage=storage) as client,
        pytest.raises(ProblemError) as raised,
    ):
        client.call(get_me())

    assert raised.value.status == 401
    assert storage.load() is None


def test_signing_out_revokes_the_refresh_token(shop: Shop, expired: MemoryTokenStorage) -> None:
    signed_in = expired.load()
    with Markethall(shop.base_url, token_storage=expired) as client:
        client.logout()
        expired.save(signed_in)
        with pytest.raises(ProblemError) as raised:
            client.call(get_me())

    assert raised.value.status == 401
