"""Remote JWKS: fetched when needed, cached, and used while the issuer is unavailable."""

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
from tests.rpc.tcp import raw_server
from tests.rpc_loopback import now

ISSUER = "https://markethall.example"
USER = Actor(user_id=new_id(), name="user", roles=("customer",), scopes=frozenset({"orders"}))


class FakeClock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Issuer:
    """A server that publishes keys. A test can replace the keys or make the server unavailable."""

    def __init__(self) -> None:
        self.signer = new_signer()
        self.response: Any = None
        self.requests = 0

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/.well-known/jwks.json"
        self.requests += 1
        await asyncio.sleep(0)
        if isinstance(self.response, Exception):
            raise self.response
        return self.response or httpx2.Response(200, json=self.signer.jwks())


def new_signer() -> AccessTokenSigner:
    return AccessTokenSigner(
        generate_private_key(), ISSUER, "markethall", timedelta(minutes=15), now
    )


def kid(signer: AccessTokenSigner) -> str:
    return str(signer.jwks()["keys"][0]["kid"])


def token_verifier_with(keys: Any) -> UserTokenVerifier:
    return UserTokenVerifier(AccessTokenVerifier(keys.get_key_set, ISSUER, "markethall", now), keys)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def jwks(issuer: Issuer, clock: FakeClock) -> RemoteJwks:
    transport = httpx2.MockTransport(issuer)
    http = httpx2.AsyncClient(transport=transport, base_url="http://users")
    return RemoteJwks("users", "/.well-known/jwks.json", http, clock=clock)


@pytest.fixture
def token_verifier(jwks: RemoteJwks) -> UserTokenVerifier:
    return token_verifier_with(jwks)


async def test_jwks_is_fetched_on_first_token(
    token_verifier: UserTokenVerifier, issuer: Issuer
) -> None:
    requests_before = issuer.requests
    user = await token_verifier.verify(issuer.signer.sign(USER))
    await token_verifier.verify(issuer.signer.sign(USER))

    assert (requests_before, issuer.requests, user.user_id) == (0, 1, USER.user_id)


async def test_concurrent_verifications_fetch_once(
    token_verifier: UserTokenVerifier, issuer: Issuer
) -> None:
    tokens = [issuer.signer.sign(USER) for _ in range(50)]

    found = await asyncio.gather(*(token_verifier.verify(token) for token in tokens))

    assert {actor.user_id for actor in found} == {USER.user_id}
    assert issuer.requests == 1


async def test_cancelled_waiter_does_not_cancel_fetch(
    token_verifier: UserTokenVerifier, issuer: Issuer
) -> None:
    token = issuer.signer.sign(USER)
    first, second = (asyncio.create_task(token_verifier.verify(token)) for _ in range(2))
    while not issuer.requests:
        await asyncio.sleep(0)

    first.cancel()

    assert (await second).user_id == USER.user_id
    assert issuer.requests == 1


async def test_unknown_keys_are_fetched_at_most_every_thirty_seconds(
    token_verifier: UserTokenVerifier, issuer: Issuer, clock: FakeClock
) -> None:
    await token_verifier.verify(issuer.signer.sign(USER))
    requests = []

    for clock.now in (1001, 1029, 1030, 1031, 1059, 1061):
        with pytest.raises(Unauthenticated):
            await token_verifier.verify(new_signer().sign(USER))
        requests.append(issuer.requests)

    assert requests == [1, 1, 2, 2, 2, 3]


async def test_new_key_is_fetched_with_its_first_token(
    token_verifier: UserTokenVerifier, issuer: Issuer, clock: FakeClock
) -> None:
    old = issuer.signer
    await token_verifier.verify(old.sign(USER))
    issuer.signer = new_signer()
    clock.now += 30

    user = await token_verifier.verify(issuer.signer.sign(USER))

    assert user.user_id == USER.user_id
    with pytest.raises(Unauthenticated):
        await token_verifier.verify(old.sign(USER))


async def test_withdrawn_key_is_dropped_after_refresh(
    token_verifier: UserTokenVerifier, jwks: RemoteJwks, issuer: Issuer, clock: FakeClock
) -> None:
    old = issuer.signer
    token = old.sign(USER)
    await token_verifier.verify(token)
    issuer.signer = new_signer()
    clock.now += 300

    await token_verifier.verify(token)
    async with asyncio.timeout(30):
        while jwks.has_key(kid(old)):
            await asyncio.sleep(0)

    with pytest.raises(Unauthenticated):
        await token_verifier.verify(token)


async def test_known_keys_are_used_while_issuer_is_unavailable(
    token_verifier: UserTokenVerifier, issuer: Issuer, clock: FakeClock
) -> None:
    await token_verifier.verify(issuer.signer.sign(USER))
    issuer.response = httpx2.ConnectError("refused")

    for clock.now in (1300, 2000, 100_000):
        assert (await token_verifier.verify(issuer.signer.sign(USER))).user_id == USER.user_id
        await asyncio.sleep(0)


@pytest.mark.parametrize("outage", [httpx2.ConnectError("refused"), OSError(107, "socket closed")])
async def test_unknown_key_is_unavailable_while_issuer_is_down(
    token_verifier: UserTokenVerifier, issuer: Issuer, clock: FakeClock, outage: Exception
) -> None:
    issuer.response = outage
    for _ in range(10):
        with pytest.raises(Unavailable) as raised:
            await token_verifier.verify(issuer.signer.sign(USER))
    requests, issuer.response = issuer.requests, None
    clock.now += 1

    user = await token_verifier.verify(issuer.signer.sign(USER))

    assert (raised.value.details, requests) == ({"dependency": "users"}, 1)
    assert user.user_id == USER.user_id


async def test_later_outage_keeps_known_keys(
    token_verifier: UserTokenVerifier, issuer: Issuer, clock: FakeClock
) -> None:
    await token_verifier.verify(issuer.signer.sign(USER))
    issuer.response = httpx2.ConnectError("refused")
    clock.now += 31

    with pytest.raises(Unavailable):
        await token_verifier.verify(new_signer().sign(USER))

    assert (await token_verifier.verify(issuer.signer.sign(USER))).user_id == USER.user_id


@pytest.mark.parametrize("token", ["", "garbage", "a.b.c", "..", "[" * 4000])
async def test_malformed_token_triggers_no_fetch(
    token_verifier: UserTokenVerifier, issuer: Issuer, token: str
) -> None:
    with pytest.raises(Unauthenticated):
        await token_verifier.verify(token)

    assert issuer.requests == 0


async def test_local_keys_are_not_fetched() -> None:
    signer = new_signer()
    token_verifier = token_verifier_with(LocalJwks(signer.jwks))

    assert (await token_verifier.verify(signer.sign(USER))).user_id == USER.user_id
    with pytest.raises(Unauthenticated):
        await token_verifier.verify(new_signer().sign(USER))


OTHER_SIGNER = new_signer()
KEY: Mapping[str, Any] = OTHER_SIGNER.jwks()["keys"][0]
INVALID_RESPONSES = {
    "an error": httpx2.Response(500, json=OTHER_SIGNER.jwks()),
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


@pytest.mark.parametrize("response", INVALID_RESPONSES)
async def test_invalid_key_set_is_ignored(
    token_verifier: UserTokenVerifier, issuer: Issuer, clock: FakeClock, response: str
) -> None:
    await token_verifier.verify(issuer.signer.sign(USER))
    issuer.response = INVALID_RESPONSES[response]
    clock.now += 31

    with pytest.raises(Unavailable):
        await token_verifier.verify(OTHER_SIGNER.sign(USER))

    assert issuer.requests == 2
    assert (await token_verifier.verify(issuer.signer.sign(USER))).user_id == USER.user_id


async def test_unsupported_key_is_ignored(
    token_verifier: UserTokenVerifier, issuer: Issuer
) -> None:
    rsa_key = {"kty": "RSA", "kid": "strange", "n": "AQAB", "e": "AQAB"}
    issuer.response = httpx2.Response(200, json={"keys": [rsa_key, KEY, {}]})

    assert (await token_verifier.verify(OTHER_SIGNER.sign(USER))).user_id == USER.user_id


async def test_slow_key_response_times_out() -> None:
    async def send_slowly(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with (
        raw_server(send_slowly) as server,
        httpx2.AsyncClient(base_url=server.url, timeout=0.2) as http,
        asyncio.timeout(30),  # the whole response would take ten minutes
    ):
        token_verifier = token_verifier_with(RemoteJwks("users", "/.well-known/jwks.json", http))
        with pytest.raises(Unavailable):
            await token_verifier.verify(OTHER_SIGNER.sign(USER))
