"""The inner door of a real hall: services only, with a good token, where there is such a door."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from dependency_injector import providers
from fastapi.routing import iter_route_contexts

from markethall.app import create_app
from markethall.contexts import topology
from markethall.settings import read_settings
from markethall.shared.kernel.call_context import Actor
from markethall.shared.security.access_tokens import generate_private_key
from markethall.shared.security.service_tokens import ServiceSigner
from tests.partitions.in_process import address_of, open_partitioned_app, remotes_of
from tests.partitions.partitions import MONOLITH, PARTITIONS, Block, Partition
from tests.rpc.contracts import CONTRACTS, METHODS, StandIn
from tests.rpc.forgeries import Forger
from tests.rpc_loopback import now

# each of the three apart from its caller; no events go from one process to the other
HALVES: Final[Partition] = (
    ("users", "inventory"),
    ("orders", "payments"),
)
LEAVES: Final = address_of(HALVES[0])
KEYS: Final = "/internal/keys.json"


@dataclass(frozen=True)
class InternalApi:
    """A hall in two processes, the tokens of both, and what stands behind the inner door."""

    http: httpx2.AsyncClient
    pem: str
    signer: ServiceSigner
    access_token: str
    behind: StandIn

    @property
    def forger(self) -> Forger:
        """With a token of this very moment, so that none is refused for its age."""
        signer = ServiceSigner(self.pem, now)
        good = signer.sign("orders", "users", "get_active_customer", Actor(name="system:tests"))
        return Forger(good, self.pem, now().timestamp())

    async def knock(
        self, token: str, path: str = "/internal/users/get_active_customer"
    ) -> httpx2.Response:
        body = {"user_id": str(CONTRACTS["users"].samples["get_active_customer"][0])}
        headers = {"authorization": f"Bearer {token}"}
        return await self.http.post(f"{LEAVES}{path}", json=body, headers=headers)


@pytest.fixture(scope="module")
async def internal_api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InternalApi]:
    async with _scene(tmp_path_factory.mktemp("inner")) as internal_api:
        yield internal_api


@asynccontextmanager
async def _scene(folder: Path) -> AsyncIterator[InternalApi]:
    pem = generate_private_key()
    async with open_partitioned_app(HALVES, folder, storage="memory") as parted:
        signer = ServiceSigner(pem, now)
        parted.containers["orders"].service_signer.override(providers.Object(signer))
        leaves = parted.containers["users"]
        behind = StandIn(CONTRACTS["users"])
        leaves.users.override(providers.Object(behind))
        person = {"username": "ada", "email": "ada@example.com", "password": "a long enough one"}
        await parted.http.post(f"{LEAVES}/users", json=person)
        answer = await parted.http.post(f"{LEAVES}/token", data=person | {"grant_type": "password"})
        token = answer.json()["access_token"]
        yield InternalApi(parted.http, pem, signer, token, behind)


def is_refused(answer: httpx2.Response) -> bool:
    """As RFC 6750 and RFC 9457 want it."""
    return (
        answer.status_code == 401
        and answer.headers["content-type"] == "application/problem+json"
        and answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        and answer.json()["code"] == "auth.unauthenticated"
    )


FORGERIES: Final = tuple(Forger(
    ServiceSigner(generate_private_key(), now).sign("orders", "users", "get_active_customer", Actor()), generate_private_key(), 0
).all())  # fmt: skip


async def test_valid_service_token_is_accepted(internal_api: InternalApi) -> None:
    before = len(internal_api.behind.asked)

    answer = await internal_api.knock(internal_api.forger.signed())

    assert (answer.status_code, len(internal_api.behind.asked) - before) == (200, 1)


@pytest.mark.parametrize("name", FORGERIES)
async def test_forged_token_is_rejected(internal_api: InternalApi, name: str) -> None:
    before = len(internal_api.behind.asked)

    answer = await internal_api.knock(internal_api.forger.all()[name])

    assert is_refused(answer)
    assert len(internal_api.behind.asked) == before


@pytest.mark.parametrize(
    ("target", "method"),
    [("inventory", "release"), ("users", "inactive"), ("payments", "get_active_customer")],
)
async def test_token_for_other_method_is_rejected(
    internal_api: InternalApi, target: str, method: str
) -> None:
    """Signed by the very caller who may call this one."""
    before = len(internal_api.behind.asked)

    answer = await internal_api.knock(internal_api.signer.sign("orders", target, method, Actor()))

    assert is_refused(answer)
    assert len(internal_api.behind.asked) == before


async def test_token_for_other_context_is_rejected(internal_api: InternalApi) -> None:
    before = len(internal_api.behind.asked)

    answer = await internal_api.knock(
        internal_api.forger.signed(claims={"aud": "markethall:inventory"})
    )

    assert is_refused(answer)
    assert len(internal_api.behind.asked) == before


async def test_user_tokens_are_rejected(internal_api: InternalApi) -> None:
    before = len(internal_api.behind.asked)

    answer = await internal_api.knock(internal_api.access_token)

    assert is_refused(answer)
    assert len(internal_api.behind.asked) == before


async def test_missing_token_is_rejected(internal_api: InternalApi) -> None:
    answer = await internal_api.http.post(
        f"{LEAVES}/internal/users/get_active_customer", json={"user_id": "x"}
    )

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_service_token_is_rejected_by_public_api(internal_api: InternalApi) -> None:
    actor = Actor(
        user_id=CONTRACTS["users"].samples["get_active_customer"][0],
        scopes=frozenset({"profile"}),
    )
    token = internal_api.signer.sign("orders", "users", "get_active_customer", actor)
    headers = {"authorization": f"Bearer {token}"}

    answer = await internal_api.http.get(f"{LEAVES}/users/me", headers=headers)

    assert is_refused(answer)


async def test_user_token_is_accepted_by_public_api(internal_api: InternalApi) -> None:
    headers = {"authorization": f"Bearer {internal_api.access_token}"}

    answer = await internal_api.http.get(f"{LEAVES}/users/me", headers=headers)

    assert answer.status_code == 200


# Where there is a door


def blocks() -> Iterator[tuple[str, Block]]:
    """(partition, process), of all of them."""
    yield from ((name, block) for name, partition in PARTITIONS.items() for block in partition)


def hall_of(partition: str, block: Block, folder: Path) -> Any:
    given: dict[str, Any] = {
        "contexts": frozenset(block),
        "context_urls": remotes_of(block, PARTITIONS[partition]),
        "data_dir": folder,
        "storage": "memory",
        "redis_url": "redis://127.0.0.1:1/0",
    }
    return create_app(read_settings(**given))


@pytest.mark.parametrize(("partition", "block"), list(blocks()))
def test_internal_route_exists_for_remote_callers(
    tmp_path: Path, partition: str, block: Block
) -> None:
    app = hall_of(partition, block, tmp_path)

    doors = {route.path for route in iter_route_contexts(app.app.routes)}

    expected = {
        f"/internal/{target}/{method}"
        for target in block
        for method, callers in topology().allowed_calls[target].items()
        if callers - set(block)
    }
    if any(calls_out_of(caller, block) for caller in block):
        expected.add(KEYS)
    assert {door for door in doors if door and door.startswith("/internal")} == expected


def calls_out_of(caller: str, block: Block) -> bool:
    return any(
        caller in callers
        for target, methods in topology().allowed_calls.items()
        if target not in block
        for callers in methods.values()
    )


@pytest.mark.parametrize(("target", "method"), [*METHODS, ("", "keys.json")])
async def test_monolith_has_no_internal_routes(tmp_path: Path, target: str, method: str) -> None:
    app = hall_of(MONOLITH, PARTITIONS[MONOLITH][0], tmp_path)
    path = f"/internal/{target}/{method}".replace("//", "/")
    token = ServiceSigner(generate_private_key(), now).sign("orders", target, method, Actor())
    transport = httpx2.ASGITransport(app)

    async with httpx2.AsyncClient(transport=transport, base_url="http://hall") as http:
        answers = [
            await http.request(verb, path, headers={"authorization": f"Bearer {token}"}, json=None)
            for verb in ("GET", "POST")
        ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (404, "request.not_found")
    ] * 2


async def test_service_jwks_has_public_keys_only(internal_api: InternalApi) -> None:
    answer = await internal_api.http.get(address_of(HALVES[1]) + KEYS)

    assert answer.status_code == 200
    assert answer.json() == internal_api.signer.jwks()
    assert {name for key in answer.json()["keys"] for name in key} == {
        "kty", "crv", "use", "alg", "kid", "x",
    }  # fmt: skip
    assert "private" not in answer.text.lower()


async def test_internal_routes_are_not_in_openapi(internal_api: InternalApi) -> None:
    for block in HALVES:
        document = (await internal_api.http.get(address_of(block) + "/openapi.json")).json()
        assert [path for path in document["paths"] if path.startswith("/internal")] == []
