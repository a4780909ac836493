"""Keys that somebody else publishes: asked for when needed, kept while they are away."""

import asyncio
import gzip
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from markethall.shared.call import Actor
from markethall.shared.errors import Unauthenticated, Unavailable
from markethall.shared.ids import new_id
from markethall.shared.keyring import Keyring, OwnKeys, People
from markethall.shared.tokens import Signer, Verifier, generate_key
from tests.remote import now
from tests.wire.tcp import bare

ISSUER = "https://hall.example"
ADA = Actor(user_id=new_id(), name="user", roles=("customer",), scopes=frozenset({"orders"}))


class Hands:
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


def new_signer() -> Signer:
    return Signer(generate_key(), ISSUER, "markethall", timedelta(minutes=15), now)


def kid(signer: Signer) -> str:
    return str(signer.jwks()["keys"][0]["kid"])


def people_with(keys: Any) -> People:
    return People(Verifier(keys.current, ISSUER, "markethall", now), keys)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def keyring(publisher: Publisher, hands: Hands) -> Keyring:
    transport = httpx2.MockTransport(publisher)
    http = httpx2.AsyncClient(transport=transport, base_url="http://users")
    return Keyring("users", "/.well-known/jwks.json", http, clock=hands)


@pytest.fixture
def people(keyring: Keyring) -> People:
    return people_with(keyring)


async def test_nothing_is_asked_before_the_first_token(
    people: People, publisher: Publisher
) -> None:
    before = publisher.asked
    ada = await people.verify(publisher.signer.sign(ADA))
    await people.verify(publisher.signer.sign(ADA))

    assert (before, publisher.asked, ada.user_id) == (0, 1, ADA.user_id)


async def test_many_who_come_at_once_ask_once(people: People, publisher: Publisher) -> None:
    tokens = [publisher.signer.sign(ADA) for _ in range(50)]

    found = await asyncio.gather(*(people.verify(token) for token in tokens))

    assert {actor.user_id for actor in found} == {ADA.user_id}
    assert publisher.asked == 1


async def test_who_gives_up_does_not_take_the_answer_from_the_others(
    people: People, publisher: Publisher
) -> None:
    token = publisher.signer.sign(ADA)
    first, second = (asyncio.create_task(people.verify(token)) for _ in range(2))
    while not publisher.asked:
        await asyncio.sleep(0)

    first.cancel()

    assert (await second).user_id == ADA.user_id
    assert publisher.asked == 1


async def test_tokens_of_unknown_keys_cost_one_question_in_thirty_seconds(
    people: People, publisher: Publisher, hands: Hands
) -> None:
    await people.verify(publisher.signer.sign(ADA))
    asked = []

    for hands.now in (1001, 1029, 1030, 1031, 1059, 1061):
        with pytest.raises(Unauthenticated):
            await people.verify(new_signer().sign(ADA))
        asked.append(publisher.asked)

    assert asked == [1, 1, 2, 2, 2, 3]


async def test_a_new_key_is_found_when_its_first_token_comes(
    people: People, publisher: Publisher, hands: Hands
) -> None:
    old = publisher.signer
    await people.verify(old.sign(ADA))
    publisher.signer = new_signer()
    hands.now += 30

    ada = await people.verify(publisher.signer.sign(ADA))

    assert ada.user_id == ADA.user_id
    with pytest.raises(Unauthenticated):
        await people.verify(old.sign(ADA))


async def test_a_key_that_was_withdrawn_is_forgotten_after_a_while(
    people: People, keyring: Keyring, publisher: Publisher, hands: Hands
) -> None:
    old = publisher.signer
    token = old.sign(ADA)
    await people.verify(token)
    publisher.signer = new_signer()
    hands.now += 300

    await people.verify(token)
    async with asyncio.timeout(30):
        while keyring.knows(kid(old)):
            await asyncio.sleep(0)

    with pytest.raises(Unauthenticated):
        await people.verify(token)


async def test_known_keys_go_on_while_nobody_answers(
    people: People, publisher: Publisher, hands: Hands
) -> None:
    await people.verify(publisher.signer.sign(ADA))
    publisher.answer = httpx2.ConnectError("away")

    for hands.now in (1300, 2000, 100_000):
        assert (await people.verify(publisher.signer.sign(ADA))).user_id == ADA.user_id
        await asyncio.sleep(0)


@pytest.mark.parametrize("away", [httpx2.ConnectError("away"), OSError(107, "its socket is gone")])
async def test_a_token_of_an_unknown_key_is_not_called_bad_while_nobody_can_say(
    people: People, publisher: Publisher, hands: Hands, away: Exception
) -> None:
    publisher.answer = away
    for _ in range(10):
        with pytest.raises(Unavailable) as refusal:
            await people.verify(publisher.signer.sign(ADA))
    asked, publisher.answer = publisher.asked, None
    hands.now += 1

    ada = await people.verify(publisher.signer.sign(ADA))

    assert (refusal.value.details, asked) == ({"dependency": "users"}, 1)
    assert ada.user_id == ADA.user_id


async def test_known_keys_are_kept_and_unknown_ones_not_decided_when_they_go_away_later(
    people: People, publisher: Publisher, hands: Hands
) -> None:
    await people.verify(publisher.signer.sign(ADA))
    publisher.answer = httpx2.ConnectError("away")
    hands.now += 31

    with pytest.raises(Unavailable):
        await people.verify(new_signer().sign(ADA))

    assert (await people.verify(publisher.signer.sign(ADA))).user_id == ADA.user_id


@pytest.mark.parametrize("token", ["", "garbage", "a.b.c", "..", "[" * 4000])
async def test_garbage_asks_nobody(people: People, publisher: Publisher, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await people.verify(token)

    assert publisher.asked == 0


async def test_ones_own_keys_are_asked_of_nobody() -> None:
    signer = new_signer()
    people = people_with(OwnKeys(signer.jwks))

    assert (await people.verify(signer.sign(ADA))).user_id == ADA.user_id
    with pytest.raises(Unauthenticated):
        await people.verify(new_signer().sign(ADA))


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
async def test_what_is_no_key_set_changes_nothing(
    people: People, publisher: Publisher, hands: Hands, answer: str
) -> None:
    await people.verify(publisher.signer.sign(ADA))
    publisher.answer = HOSTILE[answer]
    hands.now += 31

    with pytest.raises(Unavailable):
        await people.verify(GOOD.sign(ADA))

    assert publisher.asked == 2
    assert (await people.verify(publisher.signer.sign(ADA))).user_id == ADA.user_id


async def test_a_key_of_another_kind_beside_a_good_one_does_no_harm(
    people: People, publisher: Publisher
) -> None:
    strange = {"kty": "RSA", "kid": "strange", "n": "AQAB", "e": "AQAB"}
    publisher.answer = httpx2.Response(200, json={"keys": [strange, KEY, {}]})

    assert (await people.verify(GOOD.sign(ADA))).user_id == ADA.user_id


async def test_keys_that_drip_are_not_waited_for() -> None:
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
        people = people_with(Keyring("users", "/.well-known/jwks.json", http))
        with pytest.raises(Unavailable):
            await people.verify(GOOD.sign(ADA))
