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
from markethall.settings import read_settings
from markethall.shared.call import Actor
from markethall.shared.service_tokens import ServiceSigner
from markethall.shared.tokens import generate_key
from markethall.topology import CALLERS, Context
from tests.partitions.in_process import address_of, parted_hall, remotes_of
from tests.partitions.sets import PARTITIONS, TOGETHER, Block, Partition
from tests.remote import now
from tests.wire.contracts import CONTRACTS, METHODS, StandIn
from tests.wire.forgeries import Forger

# each of the three apart from its caller; no events go from one process to the other
HALVES: Final[Partition] = (
    (Context.USERS, Context.INVENTORY),
    (Context.ORDERS, Context.PAYMENTS),
)
LEAVES: Final = address_of(HALVES[0])
KEYS: Final = "/internal/keys.json"


@dataclass(frozen=True)
class Scene:
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
        good = signer.sign("orders", "users", "active", Actor(name="system:tests"))
        return Forger(good, self.pem, now().timestamp())

    async def knock(self, token: str, path: str = "/internal/users/active") -> httpx2.Response:
        body = {"user_id": str(CONTRACTS[Context.USERS].samples["active"][0])}
        headers = {"authorization": f"Bearer {token}"}
        return await self.http.post(f"{LEAVES}{path}", json=body, headers=headers)


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with _scene(tmp_path_factory.mktemp("inner")) as scene:
        yield scene


@asynccontextmanager
async def _scene(folder: Path) -> AsyncIterator[Scene]:
    pem = generate_key()
    async with parted_hall(HALVES, folder, storage="memory") as parted:
        signer = ServiceSigner(pem, now)
        parted.containers[Context.ORDERS].service_signer.override(providers.Object(signer))
        leaves = parted.containers[Context.USERS]
        behind = StandIn(CONTRACTS[Context.USERS])
        leaves.users.override(providers.Object(behind))
        person = {"username": "ada", "email": "ada@example.com", "password": "a long enough one"}
        await parted.http.post(f"{LEAVES}/users", json=person)
        answer = await parted.http.post(f"{LEAVES}/token", data=person | {"grant_type": "password"})
        token = answer.json()["access_token"]
        yield Scene(parted.http, pem, signer, token, behind)


def is_refused(answer: httpx2.Response) -> bool:
    """As RFC 6750 and RFC 9457 want it."""
    return (
        answer.status_code == 401
        and answer.headers["content-type"] == "application/problem+json"
        and answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        and answer.json()["code"] == "auth.unauthenticated"
    )


FORGERIES: Final = tuple(Forger(
    ServiceSigner(generate_key(), now).sign("orders", "users", "active", Actor()), generate_key(), 0
).all())  # fmt: skip


async def test_a_good_token_opens(scene: Scene) -> None:
    before = len(scene.behind.asked)

    answer = await scene.knock(scene.forger.signed())

    assert (answer.status_code, len(scene.behind.asked) - before) == (200, 1)


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forged_token_opens_nothing(scene: Scene, name: str) -> None:
    before = len(scene.behind.asked)

    answer = await scene.knock(scene.forger.all()[name])

    assert is_refused(answer)
    assert len(scene.behind.asked) == before


@pytest.mark.parametrize(
    ("target", "method"), [("inventory", "release"), ("users", "inactive"), ("payments", "active")]
)
async def test_a_token_for_another_method_opens_nothing(
    scene: Scene, target: str, method: str
) -> None:
    """Signed by the very caller who may call this one."""
    before = len(scene.behind.asked)

    answer = await scene.knock(scene.signer.sign("orders", target, method, Actor()))

    assert is_refused(answer)
    assert len(scene.behind.asked) == before


async def test_a_token_for_another_context_of_the_same_process_opens_nothing(scene: Scene) -> None:
    before = len(scene.behind.asked)

    answer = await scene.knock(scene.forger.signed(claims={"aud": "markethall:inventory"}))

    assert is_refused(answer)
    assert len(scene.behind.asked) == before


async def test_a_person_stays_outside_whoever_they_are(scene: Scene) -> None:
    before = len(scene.behind.asked)

    answer = await scene.knock(scene.access_token)

    assert is_refused(answer)
    assert len(scene.behind.asked) == before


async def test_without_a_token_one_is_asked_for(scene: Scene) -> None:
    answer = await scene.http.post(f"{LEAVES}/internal/users/active", json={"user_id": "x"})

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_service_does_not_pass_for_a_person(scene: Scene) -> None:
    actor = Actor(
        user_id=CONTRACTS[Context.USERS].samples["active"][0], scopes=frozenset({"profile"})
    )
    token = scene.signer.sign("orders", "users", "active", actor)
    headers = {"authorization": f"Bearer {token}"}

    answer = await scene.http.get(f"{LEAVES}/users/me", headers=headers)

    assert is_refused(answer)


async def test_the_same_person_gets_in_by_their_own_door(scene: Scene) -> None:
    headers = {"authorization": f"Bearer {scene.access_token}"}

    answer = await scene.http.get(f"{LEAVES}/users/me", headers=headers)

    assert answer.status_code == 200


# Where there is a door


def blocks() -> Iterator[tuple[str, Block]]:
    """(partition, process), of all of them."""
    yield from ((name, block) for name, partition in PARTITIONS.items() for block in partition)


def hall_of(partition: str, block: Block, folder: Path) -> Any:
    given: dict[str, Any] = {
        "serve": frozenset(block),
        "remotes": remotes_of(block, PARTITIONS[partition]),
        "data_dir": folder,
        "storage": "memory",
        "redis_url": "redis://127.0.0.1:1/0",
    }
    return create_app(read_settings(**given))


@pytest.mark.parametrize(("partition", "block"), list(blocks()))
def test_a_method_has_a_door_where_one_of_its_callers_is_outside(
    tmp_path: Path, partition: str, block: Block
) -> None:
    app = hall_of(partition, block, tmp_path)

    doors = {route.path for route in iter_route_contexts(app.app.routes)}

    expected = {
        f"/internal/{target}/{method}"
        for target in block
        for method, callers in CALLERS[target].items()
        if callers - set(block)
    }
    if any(calls_out_of(caller, block) for caller in block):
        expected.add(KEYS)
    assert {door for door in doors if door and door.startswith("/internal")} == expected


def calls_out_of(caller: Context, block: Block) -> bool:
    return any(
        caller in callers
        for target, methods in CALLERS.items()
        if target not in block
        for callers in methods.values()
    )


@pytest.mark.parametrize(("target", "method"), [*METHODS, ("", "keys.json")])
async def test_together_there_is_nothing_inside(tmp_path: Path, target: str, method: str) -> None:
    app = hall_of(TOGETHER, PARTITIONS[TOGETHER][0], tmp_path)
    path = f"/internal/{target}/{method}".replace("//", "/")
    token = ServiceSigner(generate_key(), now).sign("orders", target, method, Actor())
    transport = httpx2.ASGITransport(app)

    async with httpx2.AsyncClient(transport=transport, base_url="http://hall") as http:
        answers = [
            await http.request(verb, path, headers={"authorization": f"Bearer {token}"}, json=None)
            for verb in ("GET", "POST")
        ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (404, "request.not_found")
    ] * 2


async def test_the_keys_of_services_are_public_keys_and_nothing_else(scene: Scene) -> None:
    answer = await scene.http.get(address_of(HALVES[1]) + KEYS)

    assert answer.status_code == 200
    assert answer.json() == scene.signer.jwks()
    assert {name for key in answer.json()["keys"] for name in key} == {
        "kty", "crv", "use", "alg", "kid", "x",
    }  # fmt: skip
    assert "private" not in answer.text.lower()


async def test_what_is_inside_is_in_no_public_document(scene: Scene) -> None:
    for block in HALVES:
        document = (await scene.http.get(address_of(block) + "/openapi.json")).json()
        assert [path for path in document["paths"] if path.startswith("/internal")] == []
