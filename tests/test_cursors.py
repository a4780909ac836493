"""Test that every list responds with 422 to a cursor of another release."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import httpx2
import pytest
from pydantic import TypeAdapter

from markethall.app import Gateway
from markethall.container import ApplicationContainer
from markethall.local.demo import shop
from markethall.payments.contract import OpenPayment
from markethall.payments.contract.reconciliation import ReconciliationStatus, ReconciliationView
from markethall.payments.ports import Reconciliation
from markethall.secret_keys import ApplicationSecrets, load_or_create_secrets
from markethall.settings import Settings, read_settings
from markethall.shared.kernel.call_context import Actor, system_context
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.kernel.scopes import scopes_for_roles
from tests.containers import inventory_of, payments_of, users_of

K = TypeVar("K")

ID = UUID("0199c0de-0000-7000-8000-000000000001")
LISTS = [
    "/carts",
    "/categories",
    "/families",
    "/families?sort=name",
    "/families?sort=price",
    "/families?q=tea",
    f"/imports/{ID}/changes",
    f"/imports/{ID}/errors",
    f"/imports/{ID}/warnings",
    "/ledger/reconciliations",
    f"/ledger/reconciliations/{ID}/differences",
    "/media",
    "/orders",
    f"/orders/{ID}/fulfilments",
    f"/orders/{ID}/returns",
    "/payments",
    "/payments/refunds",
    f"/payments/{ID}/operations",
    f"/payments/{ID}/refunds",
    "/products",
    "/products?sort=name",
    "/products?sort=price",
    "/products?q=tea",
    "/promotions",
    "/promotions?code=SPRING",
    f"/products/{ID}/stock-movements",
    "/draft-orders",
    f"/reservations?order_id={ID}",
    "/saved-payment-methods",
    "/shipping-methods",
    "/tax-rates",
    "/transactions",
    "/users",
    "/warehouses",
]


class RecordingCursors(Cursors):
    """Records the name of the list whose cursor was decoded last."""

    list_name = ""

    def decode(self, list_name: str, cursor: str | None, keyset_type: TypeAdapter[K]) -> K | None:
        self.list_name = list_name
        return super().decode(list_name, cursor, keyset_type)


PAYMENT = OpenPayment(
    payment_id=ID,
    order_id=ID,
    user_id=ID,
    amount=Money(amount=1, currency="EUR"),
    expires_at=datetime.now(UTC) + timedelta(hours=1),
)
RECONCILIATION = Reconciliation(
    view=ReconciliationView(
        reconciliation_id=ID,
        provider="sandbox",
        status=ReconciliationStatus.RUNNING,
        starts_at=datetime(2026, 11, 20, tzinfo=UTC),
        ends_at=datetime(2026, 11, 21, tzinfo=UTC),
        started_at=datetime.now(UTC),
        attempts=1,
        listed_differences=0,
        matched=0,
        differences=0,
        differences_by_reason={},
        other_lines=0,
        edge_operations=0,
        sums=(),
    ),
    due_at=datetime.now(UTC),
)
CURSORS = RecordingCursors(b"a secret of the tests")


def recording_container(
    settings: Settings, application_secrets: ApplicationSecrets
) -> ApplicationContainer:
    container = ApplicationContainer(settings, application_secrets)
    for context in container.contexts.values():
        context.cursors.override(CURSORS)
    return container


@pytest.fixture(scope="module")
def app() -> Gateway:
    settings = read_settings(storage="memory", rate_limits="off")
    application_secrets = load_or_create_secrets(settings)
    return Gateway(settings, lambda: recording_container(settings, application_secrets))


@pytest.fixture(scope="module")
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    accounts = users_of(app.container).accounts()
    user = await accounts.create_staff("admin@example.com", "admin", "an admin's long password")
    admin = Actor(user_id=user.user_id, scopes=scopes_for_roles(("admin", "customer")))
    token = app.container.process.access_token_signer().sign(admin)
    async with (
        app.lifespan(),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app),
            base_url="http://shop.example",
            headers={"authorization": f"Bearer {token}"},
        ) as client,
    ):
        ctx, container = system_context("test"), app.container
        await shop.fill(
            inventory_of(container).catalogue(), inventory_of(container).stockroom(), ctx
        )
        await payments_of(container).payments().open(ctx, PAYMENT)
        async with payments_of(container).database().transaction() as store:
            await store.claim_reconciliation(RECONCILIATION, datetime.now(UTC))
        yield client


def test_every_list_is_covered(app: Gateway) -> None:
    lists = {
        path
        for path, operations in app.app.openapi()["paths"].items()
        for operation in operations.values()
        if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ()))
    }

    covered = {
        httpx2.URL(path).path.replace(str(ID), "ID").replace("sencha", "ID") for path in LISTS
    }
    assert {re.sub(r"\{\w+\}", "ID", path) for path in lists} == covered


@pytest.mark.parametrize("keyset", [[], [1, 2, 3, 4], {"after": "x"}, "x", [None, None]])
@pytest.mark.parametrize("path", LISTS)
async def test_cursor_of_another_release_is_rejected(
    http: httpx2.AsyncClient, path: str, keyset: object
) -> None:
    await http.get(path)
    cursor = CURSORS.encode(CURSORS.list_name, keyset)

    response = await http.get(httpx2.URL(path).copy_merge_params({"cursor": cursor}))

    assert (response.status_code, response.json()["code"]) == (422, "request.cursor_invalid")
