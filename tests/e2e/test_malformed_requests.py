"""Whatever a client can send is answered, and never by a 500."""

import asyncio
import json
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from markethall.payments.gateway import SandboxWebhooks
from markethall.shared.http.problem_details import Problem
from markethall.shared.security.access_tokens import generate_private_key
from tests.e2e.attacks import Attack, World, attacks
from tests.e2e.dedicated_server import dedicated_database, dedicated_server, open_shop, port_of
from tests.e2e.forgeries import Mint
from tests.e2e.raw_http import CLOSED, HANGS, Reply, exchange, request
from tests.e2e.servers import RunningServer
from tests.e2e.shop import Person, Shop, good

AT_ONCE = 24
MOST_GROWTH = 200 * 1024  # KiB: pools, caches and prepared statements fill up once
PROBLEM = "application/problem+json"
# an ordinary run sends every fourth request, the full one sends all
FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
MEMBERS = {name for name in get_type_hints(Problem) if name != "errors"}


@dataclass(frozen=True)
class Siege:
    server: RunningServer
    shop: Shop
    pem: str
    secret: str

    @property
    def port(self) -> int:
        return port_of(self.server)


@dataclass
class Tally:
    """How the attacks ended."""

    total: int = 0
    bare: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    holes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        statuses = ", ".join(f"{status}: {n}" for status, n in sorted(self.statuses.items()))
        return f"{self.total} hostile requests, {self.bare} ended by the HTTP parser; {statuses}"


@pytest.fixture(scope="module", params=["memory", "postgres"])
async def attack_setup(
    request: pytest.FixtureRequest, scratch: Path, server_url: str, template: str
) -> AsyncIterator[Siege]:
    pem = generate_private_key()
    settings = {
        "access_token_private_key": pem,
        "secret_key": secrets.token_urlsafe(48),
        "body_timeout": "1",
    }
    settings["token_ttl"] = "7200"
    async with AsyncExitStack() as stack:
        arguments = ["--memory"]
        if request.param == "postgres":
            url = await stack.enter_async_context(dedicated_database(server_url, template))
            settings["database_url"], arguments = url, []
        name = f"besieged-{request.param}"
        server = stack.enter_context(dedicated_server(scratch, name, *arguments, **settings))
        yield Siege(
            server, await stack.enter_async_context(open_shop(server)), pem, settings["secret_key"]
        )


async def test_no_client_input_causes_server_error(
    attack_setup: Siege, capsys: pytest.CaptureFixture[str]
) -> None:
    world = await scouted(attack_setup)
    before = resident(attack_setup.server)

    tally = await besieged(attack_setup.port, islice(attacks(world), 0, None, 1 if FULL else 4))

    with capsys.disabled():
        print(f"\n{tally}")  # noqa: T201 - the count is part of the report
    assert not tally.holes, "\n".join([f"{len(tally.holes)} holes", *tally.holes[:40]])
    assert tally.total >= (20_000 if FULL else 6_000)
    assert tally.bare < tally.total / 20
    assert resident(attack_setup.server) - before < MOST_GROWTH
    assert failures(attack_setup.server) == []
    await still_sells(attack_setup.shop)


async def besieged(port: int, all_attacks: Iterator[Attack]) -> Tally:
    """All of them, so many at once."""
    tally = Tally()

    async def attack_on() -> None:
        for attack in all_attacks:
            reply = await exchange(port, attack.data)
            tally.total += 1
            tally.statuses[reply.status] += 1
            tally.bare += is_bare(reply)
            tally.holes += [f"{attack.name}: {hole}" for hole in holes(attack, reply)]

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(attack_on())
    return tally


def holes(attack: Attack, reply: Reply) -> Iterator[str]:
    if reply == HANGS:
        yield "no answer"
        return
    if is_bare(reply):
        if not attack.bare:
            yield f"bare {reply.status} {reply.body[:80]!r}"
        return
    if reply.status >= 500:
        yield f"{reply.status} {reply.body[:300]!r}"
    if attack.refused and reply.status < 400:
        yield f"let through: {reply.status} {reply.body[:120]!r}"
    if reply.headers.get("x-content-type-options") != "nosniff":
        yield "no X-Content-Type-Options"
    if reply.status >= 400:
        yield from wrong_in_refusal(attack, reply)


def is_bare(reply: Reply) -> bool:
    """The HTTP parser hung up, or answered before our code saw a request."""
    return reply.status == 0 or (reply.status == 400 and "x-request-id" not in reply.headers)


def wrong_in_refusal(attack: Attack, reply: Reply) -> Iterator[str]:
    for name, statuses in {"www-authenticate": {401}, "allow": {405}, "retry-after": {429}}.items():
        if reply.status in statuses and name not in reply.headers:
            yield f"{reply.status} without {name}"
    if reply.headers.get("content-type") != PROBLEM:
        yield f"{reply.status} is {reply.headers.get('content-type')}"
        return
    if attack.data.startswith(b"HEAD "):
        return
    yield from wrong_in_problem(reply, reply.json())


def wrong_in_problem(reply: Reply, problem: Any) -> Iterator[str]:
    if missing := MEMBERS - problem.keys():
        yield f"no {sorted(missing)}"
        return
    Problem.model_validate(problem, strict=True)
    if problem["status"] != reply.status:
        yield f"says {problem['status']}, is {reply.status}"
    if problem["request_id"] != reply.headers.get("x-request-id"):
        yield "two request ids"
    if problem["code"] == "request.invalid" and not problem.get("errors"):
        yield f"422 without errors: {problem}"


async def scouted(attack_setup: Siege) -> World:
    """Things that exist, people who may do something, and what the hall says of itself."""
    shop = attack_setup.shop
    ids, customer = await everyday_life(shop)
    powers = ["customer", "admin"]
    people = {"customer": customer, "all": await appointed(shop, await shop.customer(), powers)}
    disabled = await shop.customer()
    await changed(shop, disabled, {"is_active": False})
    everyone = {**people, "disabled": disabled}
    document = good(await shop.get("/openapi.json"), 200)
    return World(
        document=document,
        ids=ids,
        tokens={name: person.token for name, person in everyone.items()},
        forged=list(Mint(people["all"].token, attack_setup.pem).forged()),
        webhooks=SandboxWebhooks(attack_setup.secret.encode()),
        cursors={path: await cursor(shop, path) for path in ("/products", "/users")},
    )


async def everyday_life(shop: Shop) -> tuple[dict[str, str], Person]:
    buyer, victim = await shop.customer(), await shop.customer()
    products = [await shop.product(stock=1_000_000) for _ in range(2)]
    order = good(await shop.place(buyer, products[0]["product_id"]), 201)
    good(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")
    parcel = {"carrier": "DHL", "tracking_number": "1"}
    sent = await shop.post(f"/orders/{order['order_id']}/fulfilments", shop.admin, json=parcel)
    open_order = good(await shop.place(buyer, products[0]["product_id"]), 201)
    return {
        "product_id": products[0]["product_id"],
        "sku": products[0]["sku"],
        "order_id": open_order["order_id"],
        "payment_id": open_order["payment"]["payment_id"],
        "fulfilment_id": good(sent, 201)["fulfilment_id"],
        "user_id": victim.user_id,
        "provider": "sandbox",
        "currency": "EUR",
    }, buyer


async def appointed(shop: Shop, person: Person, roles: list[str]) -> Person:
    await changed(shop, person, {"roles": roles})
    person.token = (await shop.sign_in(person.name, person.password))["access_token"]
    return person


async def changed(shop: Shop, person: Person, change: dict[str, Any]) -> None:
    path = f"/users/{person.user_id}"
    tag = (await shop.get(path, shop.admin)).headers["etag"]
    headers = {"If-Match": tag}
    good(await shop.send("PATCH", path, shop.admin, json=change, headers=headers), 200)


async def cursor(shop: Shop, path: str) -> str:
    found: str = good(await shop.get(f"{path}?limit=1", shop.admin), 200)["next_cursor"]
    return found


async def still_sells(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=2)
    order = good(await shop.place(buyer, product["product_id"]), 201)
    good(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")
    assert good(await shop.get("/ledger/verify", shop.admin), 200)["balanced"] is True


def failures(server: RunningServer) -> list[str]:
    """What our own code did not expect."""
    lines = server.log.read_text().splitlines()
    bad = (
        "request.failed",
        "worker.failed",
        "periodic_job.failed",
        "event.dead_lettered",
        "Traceback",
    )
    return [line[:2000] for line in lines if any(word in line for word in bad)]


def resident(server: RunningServer) -> int:
    """KiB of memory that the process holds."""
    status = Path(f"/proc/{server.pids[0]}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def test_slow_body_times_out(attack_setup: Siege) -> None:
    head = [(b"Content-Type", b"application/json"), (b"Content-Length", b"100")]

    reply = await exchange(attack_setup.port, request(b"POST", b"/users", head, b'{"username":'))

    assert reply.status == 408
    assert reply.json()["code"] == "request.timeout"


@pytest.mark.parametrize("half", [b"", b"GET /he", b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n"])
async def test_incomplete_request_head_times_out(attack_setup: Siege, half: bytes) -> None:
    reply = await exchange(attack_setup.port, half)

    assert reply == CLOSED


async def test_incomplete_second_request_head_times_out(attack_setup: Siege) -> None:
    whole = b"GET /health HTTP/1.1\r\nHost: hall\r\n\r\n"

    reply = await exchange(attack_setup.port, whole + b"GET /health HTTP/1.1\r\nHo")

    assert reply.status == 200


async def test_endless_headers_are_rejected(attack_setup: Siege) -> None:
    endless = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(500_000))

    reply = await exchange(attack_setup.port, endless)

    assert reply.status in {0, 431}


async def test_pipelined_requests_are_answered(attack_setup: Siege) -> None:
    get = b"GET /health HTTP/1.1\r\nHost: hall\r\n\r\n"

    reply = await exchange(attack_setup.port, get * 50 + request(b"GET", b"/health"))

    whole = json.dumps({"status": "ok"}, separators=(",", ":")).encode()
    assert reply.status == 200
    assert reply.body.count(whole) == 51
