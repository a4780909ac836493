"""Fixtures for the `users` context: services in memory, on Postgres, and over internal HTTP."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from markethall.shared.composition.settings import read_one
from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_DEFAULT, created_response
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.security.access_tokens import (
    AccessTokenSigner,
    AccessTokenVerifier,
    generate_private_key,
)
from markethall.shared.security.passwords import Passwords
from markethall.testing import context_tools
from markethall.users.container import UsersContainer
from markethall.users.contract import Accounts, Register, Sessions, TokenPair, Users, UserView
from markethall.users.remote import RemoteUsers, routes
from markethall.users.settings import UsersSettings
from tests.rpc_loopback import over_rpc

ISSUER = "https://markethall.example"
AUDIENCE = "markethall"
PASSWORD = "correct horse battery staple"
ANONYMOUS = CallContext(request_id="test")


class AdvancingClock:
    """The system clock plus an offset, which a test can increase."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now().astimezone(UTC) + self._ahead

    def advance(self, **time: float) -> None:
        self._ahead += timedelta(**time)


@dataclass
class UsersApp:
    """The services of users, with their clock and methods for tests."""

    accounts: Accounts
    sessions: Sessions
    users: Users
    verifier: AccessTokenVerifier
    clock: AdvancingClock
    container: UsersContainer

    async def register(self, name: str, password: str = PASSWORD) -> UserView:
        """Register a user. Wait for the next millisecond, so that a later user has a greater id."""
        command = Register(username=name, email=f"{name}@example.com", password=password)
        account = await self.accounts.register(ANONYMOUS, command, attempt_without_key())
        while new_id().int >> 80 <= account.user_id.int >> 80:
            continue  # RFC 9562 requires order only between different milliseconds
        return account

    async def sign_in(self, name: str, password: str = PASSWORD) -> TokenPair:
        return await self.sessions.sign_in(ANONYMOUS, name, password)

    async def sign_in_context(self, name: str, password: str = PASSWORD) -> CallContext:
        """Sign in, and build the call context that the gateway would build for this user."""
        pair = await self.sign_in(name, password)
        return CallContext(actor=self.actor(pair), request_id="test")

    def actor(self, pair: TokenPair) -> Actor:
        return self.verifier.verify(pair.access_token)


def attempt_without_key() -> IdempotentCommand:
    return IdempotentCommand("", new_id(), IDEMPOTENCY_RETENTION_DEFAULT, to_response)


to_response = created_response(lambda account: f"/users/{account.user_id}")


@pytest.fixture(scope="session")
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(cost=4, workers=2, queue=64)
    yield passwords
    passwords.close()


@pytest.fixture(params=["memory", "sql", "remote"])
def wiring(request: pytest.FixtureRequest, passwords: Passwords) -> tuple[str, UsersApp]:
    if request.param == "memory":
        return request.param, build_users_app("memory", passwords)
    return request.param, build_users_app("sql", passwords, request.getfixturevalue("postgres"))


@pytest.fixture
async def users_app(wiring: tuple[str, UsersApp]) -> AsyncIterator[UsersApp]:
    where, users_app = wiring
    if where != "remote":
        yield users_app
        return
    async with over_rpc("users", routes.router, users_app.users, RemoteUsers) as remote:
        yield replace(users_app, users=remote)


def build_users_app(
    storage: str, passwords: Passwords, postgres: Postgres | None = None, **settings: str
) -> UsersApp:
    clock = AdvancingClock()
    signer = AccessTokenSigner(
        generate_private_key(), ISSUER, AUDIENCE, timedelta(minutes=15), clock
    )
    tools = context_tools(clock=clock, postgres=postgres, signer=signer)
    container = UsersContainer(
        settings=read_one(UsersSettings, {"storage": storage, **settings}),
        tools=tools,
        passwords=passwords,
    )
    return UsersApp(
        accounts=container.accounts(),
        sessions=container.sessions(),
        users=container.users(),
        verifier=AccessTokenVerifier(signer.jwks, ISSUER, AUDIENCE, clock),
        clock=clock,
        container=container,
    )
