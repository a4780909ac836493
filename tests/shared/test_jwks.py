"""Keys that somebody else publishes: asked for when needed, kept while they are away."""

import asyncio
import gzip
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.errors import Unauthenticated, Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.security.access_tokens import (
    AccessTokenSigner,
    AccessTokenVerifier,
    generate_private_key,
)
from markethall.shared.security.jwks import LocalJwks, RemoteJwks, UserTokenVerifier
from tests.rpc.tcp import bare
from tests.rpc_loopback import now

ISSUER = "https://markethall.example"
ADA = Actor(user_id=new_id(), name="user", roles=("customer",), scopes=frozenset({"orders"}))


class FakeClock:
    """A clock that goes only when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Publisher:
    """Who publishes keys, changes them, and may be away."""

    def __init__(self) -> None:
        self.signer = new_signer()
        self.answer: Any = None
        self.asked = 0

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/.well-known/jwks.json"
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or httpx2.Response(200, json=self.signer.jwks())


def new_signer() -> AccessTokenSigner:
    return AccessTokenSigner(
        generate_private_key(), ISSUER, "markethall", timedelta(minutes=15), now
    )


def kid(signer: AccessTokenSigner) -> str:
    return str(signer.jwks()["keys"][0]["kid"])


def token_verifier_with(keys: Any) -> UserTokenVerifier:
    return UserTokenVerifier(AccessTokenVerifier(keys.current, ISSUER, "markethall", now), keys)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def keyring(publisher: Publisher, clock: FakeClock) -> RemoteJwks:
    transport = httpx2.MockTransport(publisher)
    http = httpx2.AsyncClient(transport=transport, base_url="http://users")
    return RemoteJwks("users", "/.well-known/jwks.json", http, clock=clock)


@pytest.fixture
def token_verifier(keyring: RemoteJwks) -> UserTokenVerifier:
    return token_verifier_with(keyring)


async def test_jwks_is_fetched_on_first_token(
    token_verifier: UserTokenVerifier, publisher: Publisher
) -> None:
    before = publisher.asked
    ada = await token_verifier.verify(publisher.signer.sign(ADA))
    await token_verifier.verify(publisher.signer.sign(ADA))

    assert (before, publisher.asked, ada.user_id) == (0, 1, ADA.user_id)


async def test_concurrent_verifications_fetch_once(
    token_verifier: UserTokenVerifier, publisher: Publisher
) -> None:
    tokens = [publisher.signer.sign(ADA) for _ in range(50)]

    found = await asyncio.gather(*(token_verifier.verify(token) for token in tokens))

    assert {actor.user_id for actor in found} == {ADA.user_id}
    assert publisher.asked == 1


async def test_cancelled_waiter_does_not_cancel_fetch(
    token_verifier: UserTokenVerifier, publisher: Publisher
) -> None:
    token = publisher.signer.sign(ADA)
    first, second = (asyncio.create_task(token_verifier.verify(token)) for _ in range(2))
    while not publisher.asked:
        await asyncio.sleep(0)

    first.cancel()

    assert (await second).user_id == ADA.user_id
    assert publisher.asked == 1


async def test_unknown_keys_are_fetched_at_most_every_thirty_seconds(
    token_verifier: UserTokenVerifier, publisher: Publisher, clock: FakeClock
) -> None:
    await token_verifier.verify(publisher.signer.sign(ADA))
    asked = []

    for clock.now in (1001, 1029, 1030, 1031, 1059, 1061):
        with pytest.raises(Unauthenticated):
            await token_verifier.verify(new_signer().sign(ADA))
        asked.append(publisher.asked)

    assert asked == [1, 1, 2, 2, 2, 3]


async def test_new_key_is_fetched_with_its_first_token(
    token_verifier: UserTokenVerifier, publisher: Publisher, clock: FakeClock
) -> None:
    old = publisher.signer
    await token_verifier.verify(old.sign(ADA))
    publisher.signer = new_signer()
    clock.now += 30

    ada = await token_verifier.verify(publisher.signer.sign(ADA))

    assert ada.user_id == ADA.user_id
    with pytest.raises(Unauthenticated):
        await token_verifier.verify(old.sign(ADA))


async def test_withdrawn_key_is_dropped_after_refresh(
    token_verifier: UserTokenVerifier, keyring: RemoteJwks, publisher: Publisher, clock: FakeClock
) -> None:
    old = publisher.signer
    token = old.sign(ADA)
    await token_verifier.verify(token)
    publisher.signer = new_signer()
    clock.now += 300

    await token_verifier.verify(token)
    async with asyncio.timeout(30):
        while keyring.has_key(kid(old)):
            await asyncio.sleep(0)

    with pytest.raises(Unauthenticated):
        await token_verifier.verify(token)


async def test_known_keys_are_used_while_publisher_is_unavailable(
    token_verifier: UserTokenVerifier, publisher: Publisher, clock: FakeClock
) -> None:
    await token_verifier.verify(publisher.signer.sign(ADA))
    publisher.answer = httpx2.ConnectError("away")

    for clock.now in (1300, 2000, 100_000):
        assert (await token_verifier.verify(publisher.signer.sign(ADA))).user_id == ADA.user_id
        await asyncio.sleep(0)


@pytest.mark.parametrize("away", [httpx2.ConnectError("away"), OSError(107, "its socket is gone")])
async def test_unknown_key_is_unavailable_while_publisher_is_down(
    token_verifier: UserTokenVerifier, publisher: Publisher, clock: FakeClock, away: Exception
) -> None:
    publisher.answer = away
    for _ in range(10):
        with pytest.raises(Unavailable) as refusal:
            await token_verifier.verify(publisher.signer.sign(ADA))
    asked, publisher.answer = publisher.asked, None
    clock.now += 1

    ada = await token_verifier.verify(publisher.signer.sign(ADA))

    assert (refusal.value.details, asked) == ({"dependency": "users"}, 1)
    assert ada.user_id == ADA.user_id


async def test_later_outage_keeps_known_keys(
    token_verifier: UserTokenVerifier, publisher: Publisher, clock: FakeClock
) -> None:
    await token_verifier.verify(publisher.signer.sign(ADA))
    publisher.answer = httpx2.ConnectError("away")
    clock.now += 31

    with pytest.raises(Unavailable):
        await token_verifier.verify(new_signer().sign(ADA))

    assert (await token_verifier.verify(publisher.signer.sign(ADA))).user_id == ADA.user_id


@pytest.mark.parametrize("token", ["", "garbage", "a.b.c", "..", "[" * 4000])
async def test_malformed_token_triggers_no_fetch(
    token_verifier: UserTokenVerifier, publisher: Publisher, token: str
) -> None:
    with pytest.raises(Unauthenticated):
        await token_verifier.verify(token)

    assert publisher.asked == 0


async def test_local_keys_are_not_fetched() -> None:
    signer = new_signer()
    token_verifier = token_verifier_with(LocalJwks(signer.jwks))

    assert (await token_verifier.verify(signer.sign(ADA))).user_id == ADA.user_id
    with pytest.raises(Unauthenticated):
        await token_verifier.verify(new_signer().sign(ADA))


GOOD = new_signer()
KEY: Mapping[str, Any] = GOOD.jwks()["keys"][0]
HOSTILE = {
    "an error": httpx2.Response(500, json=GOOD.jwks()),
    "not there": httpx2.Response(404, text="nothing"),
    "a redirect": httpx2.Response(302, headers={"location": "http://evil.example/"}),
    "no JSON": httpx2.Response(200, content=b"{"),
    "no UTF-8": httpx2.Response(200, content=b"\xff\xfe{}"),
    "without end": httpx2.Response(200, content=b"[" * 60_000),
    "null": httpx2.Response(200, json=None),
    "a list": httpx2.Response(200, json=[KEY]),
    "no keys": httpx2.Response(200, json={}),
    "an empty set": httpx2.Response(200, json={"keys": []}),
    "keys are a text": httpx2.Response(200, json={"keys": "abc"}),
    "keys are numbers": httpx2.Response(200, json={"keys": [1, 2]}),
    "an RSA key": httpx2.Response(200, json={"keys": [{**KEY, "kty": "RSA"}]}),
    "a secret": httpx2.Response(200, json={"keys": [{**KEY, "kty": "oct", "k": "AAAA"}]}),
    "another curve": httpx2.Response(200, json={"keys": [{**KEY, "crv": "X25519"}]}),
    "a short key": httpx2.Response(200, json={"keys": [{**KEY, "x": "AAAA"}]}),
    "a key of numbers": httpx2.Response(200, json={"keys": [{**KEY, "x": 5}]}),
    "a key without a name": httpx2.Response(
        200, json={"keys": [{name: value for name, value in KEY.items() if name != "kid"}]}
    ),
    "too much": httpx2.Response(200, json={"keys": [KEY], "padding": "x" * 70_000}),
    "packed too much": httpx2.Response(
        200,
        content=gzip.compress(json.dumps({"keys": [KEY], "padding": "x" * 10**7}).encode()),
        headers={"content-encoding": "gzip"},
    ),
    "not unpacked": httpx2.Response(200, content=b"x", headers={"content-encoding": "gzip"}),
}


@pytest.mark.parametrize("answer", HOSTILE)
async def test_invalid_key_set_is_ignored(
    token_verifier: UserTokenVerifier, publisher: Publisher, clock: FakeClock, answer: str
) -> None:
    await token_verifier.verify(publisher.signer.sign(ADA))
    publisher.answer = HOSTILE[answer]
    clock.now += 31

    with pytest.raises(Unavailable):
        await token_verifier.verify(GOOD.sign(ADA))

    assert publisher.asked == 2
    assert (await token_verifier.verify(publisher.signer.sign(ADA))).user_id == ADA.user_id


async def test_unsupported_key_is_ignored(
    token_verifier: UserTokenVerifier, publisher: Publisher
) -> None:
    strange = {"kty": "RSA", "kid": "strange", "n": "AQAB", "e": "AQAB"}
    publisher.answer = httpx2.Response(200, json={"keys": [strange, KEY, {}]})

    assert (await token_verifier.verify(GOOD.sign(ADA))).user_id == ADA.user_id


async def test_slow_key_response_times_out() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with (
        bare(drip) as told,
        httpx2.AsyncClient(base_url=told.url, timeout=0.2) as http,
        asyncio.timeout(30),  # sixty thousand bytes would take ten minutes
    ):
        token_verifier = token_verifier_with(RemoteJwks("users", "/.well-known/jwks.json", http))
        with pytest.raises(Unavailable):
            await token_verifier.verify(GOOD.sign(ADA))
