"""Test that the internal API of the real application accepts only valid service tokens."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from dependency_injector import providers
from fastapi.routing import iter_route_contexts
from structlog.testing import capture_logs

from markethall.app import create_app
from markethall.contexts import topology
from markethall.settings import read_settings
from markethall.shared.kernel.call_context import Actor
from markethall.shared.security.access_tokens import generate_private_key
from markethall.shared.security.service_tokens import ServiceSigner
from tests.containers import users_of
from tests.partitions.in_process import address_of, open_partitioned_app, remotes_of
from tests.partitions.partitions import MONOLITH, PARTITIONS, Block, Partition
from tests.rpc.contracts import CONTRACTS, METHODS, RecordingService
from tests.rpc.forgeries import Forger
from tests.rpc_loopback import now

# orders calls users and inventory in the other process
TWO_PROCESSES: Final[Partition] = (
    ("users", "inventory"),
    ("orders", "payments"),
)
USERS_URL: Final = address_of(TWO_PROCESSES[0])
JWKS_PATH: Final = "/internal/keys.json"


@dataclass(frozen=True)
class InternalApi:
    """An application of two processes. `signer` signs service tokens with the key of orders.

    `users` replaces the users service and records its calls.
    """

    http: httpx2.AsyncClient
    pem: str
    signer: ServiceSigner
    access_token: str
    users: RecordingService

    @property
    def forger(self) -> Forger:
        """Return a forger with a new token, so that no token is rejected for its age."""
        signer = ServiceSigner(self.pem, now)
        token = signer.sign("orders", "users", "get_active_customer", Actor(name="system:tests"))
        return Forger(token, self.pem, now().timestamp())

    async def post(
        self, token: str, path: str = "/internal/users/get_active_customer"
    ) -> httpx2.Response:
        body = {"user_id": str(CONTRACTS["users"].samples["get_active_customer"][0])}
        headers = {"authorization": f"Bearer {token}"}
        return await self.http.post(f"{USERS_URL}{path}", json=body, headers=headers)


@pytest.fixture(scope="module")
async def internal_api(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> AsyncIterator[InternalApi]:
    async with _open_internal_api(tmp_path_factory.mktemp("inner"), redis_url) as internal_api:
        yield internal_api


@asynccontextmanager
async def _open_internal_api(folder: Path, redis_url: str) -> AsyncIterator[InternalApi]:
    pem = generate_private_key()
    async with open_partitioned_app(
        TWO_PROCESSES, folder, storage="memory", redis_url=redis_url
    ) as processes:
        signer = ServiceSigner(pem, now)
        processes.containers["orders"].process.service_signer.override(signer)
        container = processes.containers["users"]
        users = RecordingService(CONTRACTS["users"])
        users_of(container).users.override(providers.Object(users))
        user = {"username": "ada", "email": "ada@example.com", "password": "a long enough one"}
        await processes.http.post(f"{USERS_URL}/users", json=user)
        response = await processes.http.post(
            f"{USERS_URL}/token", data=user | {"grant_type": "password"}
        )
        token = response.json()["access_token"]
        yield InternalApi(processes.http, pem, signer, token, users)


def is_unauthenticated(response: httpx2.Response) -> bool:
    """Tell whether the response is a 401 that conforms to RFC 6750 and RFC 9457."""
    return (
        response.status_code == 401
        and response.headers["content-type"] == "application/problem+json"
        and response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        and response.json()["code"] == "auth.unauthenticated"
    )


_ANY_TOKEN: Final = ServiceSigner(generate_private_key(), now).sign(
    "orders", "users", "get_active_customer", Actor()
)
FORGERIES: Final = tuple(Forger(_ANY_TOKEN, generate_private_key(), 0).all())


async def test_valid_service_token_is_accepted(internal_api: InternalApi) -> None:
    before = len(internal_api.users.calls)

    response = await internal_api.post(internal_api.forger.signed())

    assert (response.status_code, len(internal_api.users.calls) - before) == (200, 1)


@pytest.mark.parametrize("name", FORGERIES)
async def test_forged_token_is_rejected(internal_api: InternalApi, name: str) -> None:
    before = len(internal_api.users.calls)

    response = await internal_api.post(internal_api.forger.all()[name])

    assert is_unauthenticated(response)
    assert len(internal_api.users.calls) == before


@pytest.mark.parametrize(
    ("target", "method"),
    [("inventory", "release"), ("users", "inactive"), ("payments", "get_active_customer")],
)
async def test_token_for_other_method_is_rejected(
    internal_api: InternalApi, target: str, method: str
) -> None:
    before = len(internal_api.users.calls)

    response = await internal_api.post(internal_api.signer.sign("orders", target, method, Actor()))

    assert is_unauthenticated(response)
    assert len(internal_api.users.calls) == before


async def test_refused_service_tokens_are_logged(internal_api: InternalApi) -> None:
    other_method = internal_api.signer.sign("orders", "users", "inactive", Actor())
    forged = internal_api.forger.signed(claims={"aud": "markethall:elsewhere"})

    with capture_logs() as lines:
        await internal_api.post(other_method)
        await internal_api.post(forged)

    events = [line for line in lines if line["event"] == "security.token_rejected"]
    assert [(event["kind"], event["reason"]) for event in events] == [
        ("service", "scope"),
        ("service", "invalid"),
    ]
    assert all(event["request_id"] and not event["client_ip"] for event in events[:1])


async def test_token_for_other_context_is_rejected(internal_api: InternalApi) -> None:
    before = len(internal_api.users.calls)

    response = await internal_api.post(
        internal_api.forger.signed(claims={"aud": "markethall:inventory"})
    )

    assert is_unauthenticated(response)
    assert len(internal_api.users.calls) == before


async def test_user_tokens_are_rejected(internal_api: InternalApi) -> None:
    before = len(internal_api.users.calls)

    response = await internal_api.post(internal_api.access_token)

    assert is_unauthenticated(response)
    assert len(internal_api.users.calls) == before


async def test_missing_token_is_rejected(internal_api: InternalApi) -> None:
    response = await internal_api.http.post(
        f"{USERS_URL}/internal/users/get_active_customer", json={"user_id": "x"}
    )

    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


async def test_service_token_is_rejected_by_public_api(internal_api: InternalApi) -> None:
    actor = Actor(
        user_id=CONTRACTS["users"].samples["get_active_customer"][0],
        scopes=frozenset({"profile"}),
    )
    token = internal_api.signer.sign("orders", "users", "get_active_customer", actor)
    headers = {"authorization": f"Bearer {token}"}

    response = await internal_api.http.get(f"{USERS_URL}/users/me", headers=headers)

    assert is_unauthenticated(response)


async def test_user_token_is_accepted_by_public_api(internal_api: InternalApi) -> None:
    headers = {"authorization": f"Bearer {internal_api.access_token}"}

    response = await internal_api.http.get(f"{USERS_URL}/users/me", headers=headers)

    assert response.status_code == 200


# Where the internal API exists


def blocks() -> Iterator[tuple[str, Block]]:
    """Yield each process of each partition."""
    yield from ((name, block) for name, partition in PARTITIONS.items() for block in partition)


def app_of(partition: str, block: Block, folder: Path) -> Any:
    values: dict[str, Any] = {
        "contexts": frozenset(block),
        "context_urls": remotes_of(block, PARTITIONS[partition]),
        "data_dir": folder,
        "storage": "memory",
        "redis_url": "redis://127.0.0.1:1/0",
    }
    return create_app(read_settings(**values))


@pytest.mark.parametrize(("partition", "block"), list(blocks()))
def test_internal_route_exists_for_remote_callers(
    tmp_path: Path, partition: str, block: Block
) -> None:
    app = app_of(partition, block, tmp_path)

    paths = {route.path for route in iter_route_contexts(app.app.routes)}

    expected = {
        f"/internal/{target}/{method}"
        for target in block
        for method, callers in topology().allowed_calls[target].items()
        if callers - set(block)
    }
    if any(
        calls_out_of(context, block) or has_subscriber_out_of(context, block) for context in block
    ):
        expected.add(JWKS_PATH)
    assert {path for path in paths if path and path.startswith("/internal")} == expected


def calls_out_of(caller: str, block: Block) -> bool:
    return any(
        caller in callers
        for target, methods in topology().allowed_calls.items()
        if target not in block
        for callers in methods.values()
    )


def has_subscriber_out_of(publisher: str, block: Block) -> bool:
    """Tell whether another process subscribes to this publisher, and so verifies its events."""
    return any(
        source == publisher and subscriber not in block
        for source, subscriber in topology().event_pairs
    )


@pytest.mark.parametrize(("target", "method"), [*METHODS, ("", "keys.json")])
async def test_monolith_has_no_internal_routes(tmp_path: Path, target: str, method: str) -> None:
    app = app_of(MONOLITH, PARTITIONS[MONOLITH][0], tmp_path)
    path = f"/internal/{target}/{method}".replace("//", "/")
    token = ServiceSigner(generate_private_key(), now).sign("orders", target, method, Actor())
    transport = httpx2.ASGITransport(app)

    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as http:
        responses = [
            await http.request(verb, path, headers={"authorization": f"Bearer {token}"}, json=None)
            for verb in ("GET", "POST")
        ]

    assert [(response.status_code, response.json()["code"]) for response in responses] == [
        (404, "request.not_found")
    ] * 2


async def test_service_jwks_has_public_keys_only(internal_api: InternalApi) -> None:
    response = await internal_api.http.get(address_of(TWO_PROCESSES[1]) + JWKS_PATH)

    assert response.status_code == 200
    assert response.json() == internal_api.signer.jwks()
    assert {name for key in response.json()["keys"] for name in key} == {
        "kty", "crv", "use", "alg", "kid", "x",
    }  # fmt: skip
    assert "private" not in response.text.lower()


async def test_internal_routes_are_not_in_openapi(internal_api: InternalApi) -> None:
    for block in TWO_PROCESSES:
        document = (await internal_api.http.get(address_of(block) + "/openapi.json")).json()
        assert [path for path in document["paths"] if path.startswith("/internal")] == []


async def test_token_of_caller_without_known_keys_is_rejected(tmp_path: Path) -> None:
    settings = read_settings(
        environment="production",
        contexts="inventory",
        context_urls={"users": "http://users:8000"},
        database_url="postgresql://127.0.0.1:1/none",
        secret_key="a-secret-for-the-applications-of-tests-0123456789",
        data_dir=tmp_path,
        rate_limits="on",
    )
    token = ServiceSigner(generate_private_key(), now).sign(
        "orders", "inventory", "reserve", Actor(name="system:tests")
    )
    transport = httpx2.ASGITransport(create_app(settings), raise_app_exceptions=False)

    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as http:
        response = await http.post(
            "/internal/inventory/reserve", headers={"authorization": f"Bearer {token}"}, json={}
        )

    assert response.status_code == 401
