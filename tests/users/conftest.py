"""The users context, wired by its own container, on memory and on Postgres."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from dependency_injector import providers

from markethall.shared.call import Actor, Call
from markethall.shared.clock import utc_now
from markethall.shared.db import Postgres
from markethall.shared.http import DAY, created
from markethall.shared.idempotency import Attempt
from markethall.shared.ids import new_id
from markethall.shared.pages import Cursors
from markethall.shared.passwords import Passwords
from markethall.shared.tokens import Signer, Verifier, generate_key
from markethall.users.container import UsersContainer
from markethall.users.contract import Account, Accounts, Register, Sessions, TokenPair, Users
from markethall.users.remote import RemoteUsers, router
from tests.remote import at_the_end_of_the_wire

ISSUER = "https://hall.example"
AUDIENCE = "markethall"
PASSWORD = "correct horse battery staple"
ANYONE = Call(request_id="test")


class Watch:
    """A clock that runs, and can be put forward."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now().astimezone(UTC) + self._ahead

    def forward(self, **time: float) -> None:
        self._ahead += timedelta(**time)


@dataclass
class House:
    """What a test asks, and the few things it has to hand."""

    accounts: Accounts
    sessions: Sessions
    users: Users
    verifier: Verifier
    watch: Watch
    container: UsersContainer

    async def register(self, name: str, password: str = PASSWORD) -> Account:
        """The next id that is made sorts after this one."""
        command = Register(username=name, email=f"{name}@example.com", password=password)
        account = await self.accounts.register(ANYONE, command, no_key())
        while new_id().int >> 80 <= account.user_id.int >> 80:
            continue  # ids of one millisecond sort by chance
        return account

    async def sign_in(self, name: str, password: str = PASSWORD) -> TokenPair:
        return await self.sessions.sign_in(ANYONE, name, password)

    async def call_of(self, name: str, password: str = PASSWORD) -> Call:
        """A call as the front makes it, of somebody who signs in."""
        pair = await self.sign_in(name, password)
        return Call(actor=self.actor(pair), request_id="test")

    def actor(self, pair: TokenPair) -> Actor:
        return self.verifier.verify(pair.access_token)


def no_key() -> Attempt:
    return Attempt("", new_id(), DAY, present)


present = created(lambda account: f"/users/{account.user_id}")


@pytest.fixture(scope="session")
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(cost=4, workers=2, queue=64)
    yield passwords
    passwords.close()


@pytest.fixture(params=["memory", "sql", "remote"])
def wiring(request: pytest.FixtureRequest, passwords: Passwords) -> tuple[str, House]:
    if request.param == "memory":
        return request.param, build("memory", passwords)
    return request.param, build("sql", passwords, request.getfixturevalue("postgres"))


@pytest.fixture
async def house(wiring: tuple[str, House]) -> AsyncIterator[House]:
    where, house = wiring
    if where != "remote":
        yield house
        return
    async with at_the_end_of_the_wire("users", router, house.users, RemoteUsers) as remote:
        yield replace(house, users=remote)


def build(storage: str, passwords: Passwords, postgres: Postgres | None = None) -> House:
    watch = Watch()
    signer = Signer(generate_key(), ISSUER, AUDIENCE, timedelta(minutes=15), watch)
    container = UsersContainer(
        config={"where": "local", "storage": storage, "idempotency_lease": 15.0},
        postgres=providers.Object(postgres),
        clock=providers.Object(watch),
        signer=providers.Object(signer),
        passwords=providers.Object(passwords),
        cursors=providers.Object(Cursors(b"a secret of the tests")),
    )
    return House(
        accounts=container.accounts(),
        sessions=container.sessions(),
        users=container.users(),
        verifier=Verifier(signer.jwks, ISSUER, AUDIENCE, watch),
        watch=watch,
        container=container,
    )
