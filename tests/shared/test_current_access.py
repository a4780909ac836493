"""Test that a process confirms the scopes of staff tokens with the token issuer, over HTTP."""

from datetime import datetime, timedelta

import httpx2
import pytest

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import DomainError, Unauthenticated, Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.scopes import PAYMENTS_MANAGE, PROFILE, STATS_READ
from markethall.shared.security.access_tokens import (
    AccessTokenSigner,
    AccessTokenVerifier,
    generate_private_key,
)
from markethall.shared.security.current_access import CurrentAccessVerifier, RemoteAccessSource
from markethall.shared.security.jwks import LocalJwks, UserTokenVerifier

ISSUER = "https://markethall.example"
STAFF = Actor(
    user_id=new_id(),
    name="user",
    scopes=frozenset({PROFILE, PAYMENTS_MANAGE, STATS_READ}),
    session_id=new_id(),
)
CUSTOMER = Actor(user_id=new_id(), name="user", scopes=frozenset({PROFILE}))


class Issuer:
    """A fake of the context users that signs tokens, and counts requests for current scopes."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self.questions = 0
        self.answer: httpx2.Response | Exception = current(PROFILE, PAYMENTS_MANAGE, STATS_READ)
        self.signer = AccessTokenSigner(
            generate_private_key(), ISSUER, "markethall", timedelta(minutes=15), self.clock
        )
        http = httpx2.AsyncClient(
            transport=httpx2.MockTransport(self._respond), base_url="http://users"
        )
        keys = LocalJwks(self.signer.jwks)
        tokens = AccessTokenVerifier(keys.get_key_set, ISSUER, "markethall", self.clock)
        self.verifier = CurrentAccessVerifier(
            UserTokenVerifier(tokens, keys),
            RemoteAccessSource("users", "/users/me/access", http),
            self.clock,
        )

    def clock(self) -> datetime:
        return utc_now() + self.ahead

    def wait(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)

    async def scopes(self, actor: Actor = STAFF) -> frozenset[str]:
        return (await self.verifier.verify(self.signer.sign(actor))).scopes

    async def error(self) -> type[DomainError]:
        with pytest.raises(DomainError) as error:
            await self.scopes()
        return error.type

    def _respond(self, request: httpx2.Request) -> httpx2.Response:
        self.questions += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        assert request.headers["authorization"].startswith("Bearer ey")
        return self.answer


def current(*scopes: str) -> httpx2.Response:
    return httpx2.Response(200, json={"scopes": scopes})


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


async def test_one_confirmation_serves_thirty_seconds(issuer: Issuer) -> None:
    for _ in range(5):
        assert await issuer.scopes() == STAFF.scopes
    issuer.wait(29)
    await issuer.scopes()
    before = issuer.questions
    issuer.wait(2)
    await issuer.scopes()

    assert (before, issuer.questions) == (1, 2)


async def test_lost_scopes_are_removed_and_new_ones_not_added(issuer: Issuer) -> None:
    issuer.answer = current(PROFILE, STATS_READ, "users:manage")

    assert await issuer.scopes() == {PROFILE, STATS_READ}


async def test_revoked_token_is_cached_too(issuer: Issuer) -> None:
    issuer.answer = httpx2.Response(401)

    errors = {await issuer.error() for _ in range(5)}

    assert (errors, issuer.questions) == ({Unauthenticated}, 1)


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("silent"),
        OSError("reset"),
        httpx2.Response(403),
        httpx2.Response(404),
        httpx2.Response(429),
        httpx2.Response(500),
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json={}),
        httpx2.Response(200, json={"scopes": None}),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, text="[" * 100_000),
        httpx2.Response(302, headers={"location": "http://elsewhere"}),
    ],
    ids=str,
)
async def test_without_answer_a_confirmation_serves_sixty_seconds(
    issuer: Issuer, answer: httpx2.Response | Exception
) -> None:
    await issuer.scopes()
    issuer.answer = answer
    issuer.wait(59)

    assert await issuer.scopes() == STAFF.scopes
    issuer.wait(2)
    assert await issuer.error() is Unavailable


async def test_first_token_is_refused_without_answer(issuer: Issuer) -> None:
    issuer.answer = httpx2.ConnectError("refused")

    assert await issuer.error() is Unavailable


async def test_clock_that_was_set_back_extends_nothing(issuer: Issuer) -> None:
    issuer.wait(600)
    await issuer.scopes()
    issuer.wait(-600)
    issuer.answer = httpx2.Response(401)

    assert await issuer.error() is Unauthenticated


async def test_each_session_is_confirmed(issuer: Issuer) -> None:
    await issuer.scopes()
    await issuer.scopes(STAFF.model_copy(update={"session_id": new_id()}))

    assert issuer.questions == 2


async def test_customer_is_not_confirmed(issuer: Issuer) -> None:
    issuer.answer = httpx2.Response(401)

    assert await issuer.scopes(CUSTOMER) == CUSTOMER.scopes
    assert issuer.questions == 0
