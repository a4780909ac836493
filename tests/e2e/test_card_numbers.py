"""A card number is refused in every position of every request, and is not stored or logged."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from markethall.payments.gateway.sandbox_webhooks import SIGNATURE_HEADER, SandboxWebhooks
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.ids import new_id
from tests.card_numbers import CARD_NUMBERS
from tests.e2e.attacks import Attack, AttackContext, Operation, operations
from tests.e2e.dedicated_server import (
    DatabaseReader,
    dedicated_database,
    dedicated_server,
    open_shop,
    port_of,
)
from tests.e2e.malformed_inputs import FORM, JSON
from tests.e2e.raw_http import Reply, exchange
from tests.e2e.schema_samples import with_value
from tests.e2e.servers import RunningServer
from tests.e2e.shop import Shop, expect_status

# an ordinary run sends one brand in each position, in turn; a full run sends all brands in each
FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
HEADERS = ("Idempotency-Key", "X-Request-ID", "User-Agent", "If-Match", "If-None-Match")
VISA = CARD_NUMBERS["Visa"]
# a number in a range that Canada Post and Visa share
CANADA_POST = "4002600000000007"
# bodies that are not checked: signed events of a provider, and images, which are stored as pixels
# only
UNCHECKED_BODIES = {"/payments/webhooks/{provider}", "/media"}
# fields whose valid values may have the form of a card number
UNCHECKED = {("/orders/{order_id}/fulfilments", "/tracking_number")}


@dataclass(frozen=True)
class CardServer:
    server: RunningServer
    shop: Shop
    database: DatabaseReader

    @property
    def log(self) -> str:
        return self.server.log.read_text()

    async def context(self) -> AttackContext:
        document = expect_status(await self.shop.get("/openapi.json"), 200)
        tokens = {"all": self.shop.admin.token}
        return AttackContext(document, {"provider": "sandbox"}, tokens, [], _WEBHOOKS, {})

    async def rows_with(self, texts: list[str]) -> list[str]:
        """Return the rows of all tables that contain one of the texts."""
        tables = await self.database.fetch_all(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        assert len(tables) > 40
        found = []
        for table in tables:
            sql = f"SELECT t::text FROM {table['name']} t WHERE t::text LIKE ANY($1)"
            rows = await self.database.fetch_all(sql, [f"%{text}%" for text in texts])
            found += [f"{table['name']}: {row[0]}" for row in rows]
        return found


_WEBHOOK_SECRET = "the secret of the webhooks of this test"
_WEBHOOKS = SandboxWebhooks(_WEBHOOK_SECRET.encode())


@pytest.fixture(scope="module")
async def card_server(scratch: Path, server_url: str, template: str) -> AsyncIterator[CardServer]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        settings = {"database_url": url, "sandbox_webhook_secret": _WEBHOOK_SECRET}
        server = stack.enter_context(dedicated_server(scratch, "cards", **settings))
        shop = await stack.enter_async_context(open_shop(server))
        yield CardServer(server, shop, DatabaseReader(url))


@dataclass(frozen=True)
class Position:
    """A request with a card number, and the field that the answer must name."""

    attack: Attack
    field: str


async def test_card_number_is_refused_in_every_position(
    card_server: CardServer, capsys: pytest.CaptureFixture[str]
) -> None:
    count, faults = 0, []
    for position in positions(await card_server.context()):
        reply = await exchange(port_of(card_server.server), position.attack.data)
        count += 1
        faults += [f"{position.attack.name}: {fault}" for fault in find_faults(position, reply)]

    assert not faults, "\n".join([f"{len(faults)} faults of {count}", *faults[:40]])
    assert count > (6_000 if FULL else 700)
    numbers = [text for number in CARD_NUMBERS.values() for text in (number, in_groups(number))]
    assert [number for number in numbers if number in card_server.log] == []
    assert await card_server.rows_with(numbers) == []
    with capsys.disabled():
        print(f"\n{count} requests with a card number, all refused; log and tables have none")


async def test_webhook_is_stored_without_its_card_number(card_server: CardServer) -> None:
    event = {
        "event_id": "evt_card",
        "type": "charge.succeeded",
        "data": {"operation_id": str(new_id()), "card": [in_groups(VISA), int(VISA)], VISA: 1},
    }
    body = json.dumps(event).encode()
    headers = {
        SIGNATURE_HEADER: _WEBHOOKS.compute_signature(body, utc_now()),
        "Content-Type": JSON,
    }

    answers = [
        await card_server.shop.send(
            "POST", "/payments/webhooks/sandbox", content=body, headers=headers
        )
        for _ in range(2)
    ]

    assert [answer.json() for answer in answers] == [
        {"event_id": "evt_card", "duplicate": False},
        {"event_id": "evt_card", "duplicate": True},
    ]
    assert len(await card_server.rows_with(["evt_card"])) == 1
    assert await card_server.rows_with([VISA, in_groups(VISA)]) == []
    assert VISA not in card_server.log


async def test_tracking_number_may_have_the_form_of_a_card_number(card_server: CardServer) -> None:
    shop = card_server.shop
    buyer, product = await shop.customer(), await shop.product()
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    await shop.confirm(buyer, order["payment"]["payment_id"])
    await shop.wait_for_status(buyer, order["order_id"], status="processing")
    parcel = {"carrier": "Canada Post", "tracking_number": CANADA_POST}

    sent = await shop.post(f"/orders/{order['order_id']}/fulfilments", shop.admin, json=parcel)

    assert expect_status(sent, 201)["tracking_number"] == CANADA_POST
    assert CANADA_POST not in card_server.log


def find_faults(position: Position, reply: Reply) -> Iterator[str]:
    if reply.status != 422:
        yield f"{reply.status} {reply.body[:200]!r}"
        return
    problem = reply.json()
    if problem["code"] != "request.card_number":
        yield f"{problem}"
    elif (field := problem["errors"][0]["field"]) != position.field:
        yield f"the field is {field!r}, not {position.field!r}"
    answer = reply.body.decode() + str(reply.headers)
    if any(number in answer for number in CARD_NUMBERS.values()):
        yield f"the answer contains the number: {answer}"


def positions(context: AttackContext) -> Iterator[Position]:
    brands = cycle(CARD_NUMBERS.values())
    for operation in operations(context):
        for build in (in_path, in_query, in_headers, in_body):
            yield from build(operation, brands)


def numbers_of(brands: Iterator[str]) -> list[str]:
    return list(CARD_NUMBERS.values()) if FULL else [next(brands)]


def in_path(op: Operation, brands: Iterator[str]) -> Iterator[Position]:
    for parameter in op.parameters("path"):
        for number in numbers_of(brands):
            target = op.target(**{parameter["name"]: f"x{quote(in_groups(number))}"})
            yield Position(op.attack("in the path", target=target), "/path")


def in_query(op: Operation, brands: Iterator[str]) -> Iterator[Position]:
    names = [parameter["name"] for parameter in op.parameters("query")]
    for name in [*names, "unknown"]:
        for number in numbers_of(brands):
            target = op.target(query=f"?{name}={in_groups(number).replace(' ', '+')}")
            yield Position(op.attack(f"in {name}", target=target), f"/query/{name}")
    for number in numbers_of(brands):
        yield Position(op.attack("a name", target=op.target(query=f"?{number}=1")), "/query")


def in_headers(op: Operation, brands: Iterator[str]) -> Iterator[Position]:
    for name in HEADERS:
        for number in numbers_of(brands):
            attack = op.attack(f"in {name}", headers=((name.encode(), number.encode()),))
            yield Position(attack, f"/header/{name.lower()}")


def in_body(op: Operation, brands: Iterator[str]) -> Iterator[Position]:
    if op.path in UNCHECKED_BODIES:
        return
    if op.media == JSON:
        yield from in_json(op, brands)
    elif op.media == FORM:
        for name in op.bodies()[0][0]:
            for number in numbers_of(brands):
                body = op.encode(op.bodies()[0][0] | {name: in_groups(number)})
                yield Position(op.attack(f"in {name}", body=body), f"/{name}")
    elif op.media:
        for number in numbers_of(brands):
            rows = f'sku,name\r\n"A","a"\r\n"B","{number}"\r\n'.encode()
            yield Position(op.attack("in a row", body=rows), "/line/3")


def in_json(op: Operation, brands: Iterator[str]) -> Iterator[Position]:
    for good, schema in op.bodies():
        for position in op.samples.positions(schema, good):
            pointer = "".join(f"/{part}" for part in position.path)
            if (op.path, pointer) in UNCHECKED:
                continue
            for number in numbers_of(brands):
                for value, field in json_values(number, pointer):
                    body = json.dumps(with_value(good, position.path, value)).encode()
                    yield Position(op.attack(f"{pointer} is {value}", body=body), field)


def json_values(number: str, pointer: str) -> list[tuple[Any, str]]:
    return [
        (f"my card: {in_groups(number)}", pointer),
        (int(number), pointer),
        ({number: 1}, pointer),
        ([{"x": number}], f"{pointer}/0/x"),
    ]


def in_groups(number: str) -> str:
    """Return the digits in groups, as printed on a card."""
    if len(number) < 16:
        return f"{number[:4]} {number[4:10]} {number[10:]}"
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))
