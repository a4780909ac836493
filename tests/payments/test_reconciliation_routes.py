"""The HTTP API of the stored comparisons with the reports of providers."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from markethall.payments.contract.api import PaymentView
from markethall.payments.ports import ReportLine
from markethall.shared.kernel.ids import new_id
from tests.payments.conftest import START, PaymentsApp
from tests.payments.test_router import Client, assert_problem, client

__all__ = ["client"]

LIST = "/ledger/reconciliations"
STAFF_ROLE = "staff:payments"
UNKNOWN = "0199c0de-0000-7000-8000-000000000001"


async def compare_day(payments_app: PaymentsApp) -> list[PaymentView]:
    """Store the comparison of a day with three payments that the report does not have."""

    async def empty_report(start: datetime, end: datetime) -> AsyncIterator[ReportLine]:
        return
        yield

    payments = [await payments_app.paid() for _ in range(3)]
    payments_app.gateway.report = empty_report  # type: ignore[method-assign]  # the report of the provider
    payments_app.clock.now = START.replace(hour=0) + timedelta(days=1, hours=3)
    await payments_app.container.daily_reconciliation().run_due()
    return payments


async def test_staff_read_the_day_and_its_differences(client: Client) -> None:
    payments = await compare_day(client.payments_app)

    (day,) = (await client.get(LIST, role=STAFF_ROLE)).json()["items"]
    path = f"{LIST}/{day['reconciliation_id']}"
    one = await client.get(path, role=STAFF_ROLE)
    first = await client.get(f"{path}/differences?limit=2", role=STAFF_ROLE)
    cursor = first.json()["next_cursor"]
    rest = await client.get(f"{path}/differences?limit=2&cursor={cursor}", role=STAFF_ROLE)

    assert one.json() == day
    assert (day["provider"], day["status"], day["matched"]) == ("sandbox", "completed", 0)
    assert day["differences_by_reason"] == {"missing_there": 3}
    assert day["sums"] == [
        {
            "ours": {"amount": 3 * 1999, "currency": "EUR"},
            "theirs": {"amount": 0, "currency": "EUR"},
            "difference": {"amount": 3 * 1999, "currency": "EUR"},
            "fees": {"amount": 0, "currency": "EUR"},
        }
    ]
    differences = first.json()["items"] + rest.json()["items"]
    assert [found["payment_id"] for found in differences] == [
        str(payment.payment_id) for payment in payments
    ]
    assert differences[0]["theirs"] is None
    assert rest.json()["next_cursor"] is None


async def test_filters_select(client: Client) -> None:
    await compare_day(client.payments_app)

    async def count(path: str) -> int:
        return len((await client.get(path, role=STAFF_ROLE)).json()["items"])

    (day,) = (await client.get(LIST, role=STAFF_ROLE)).json()["items"]
    differences = f"{LIST}/{day['reconciliation_id']}/differences"
    assert await count(f"{LIST}?provider=sandbox&status=completed") == 1
    assert await count(f"{LIST}?provider=stripe") == 0
    assert await count(f"{LIST}?status=failed") == 0
    assert await count(f"{differences}?reason=missing_there") == 3
    assert await count(f"{differences}?reason=duplicate") == 0


@pytest.mark.parametrize("path", ["", f"/{UNKNOWN}", f"/{UNKNOWN}/differences"])
async def test_customers_may_not_read(client: Client, path: str) -> None:
    assert (await client.get(LIST + path)).status_code == 401
    assert (await client.get(LIST + path, new_id())).status_code == 403


@pytest.mark.parametrize("path", ["", "/differences"])
async def test_unknown_id_is_not_found(client: Client, path: str) -> None:
    response = await client.get(f"{LIST}/{UNKNOWN}{path}", role=STAFF_ROLE)

    assert_problem(response, 404, "payments.reconciliation_not_found")


@pytest.mark.parametrize("query", ["?status=other", "?provider=%00", "?sort=x", "?limit=0"])
async def test_invalid_filter_is_rejected(client: Client, query: str) -> None:
    assert_problem(await client.get(LIST + query, role=STAFF_ROLE), 422, "request.invalid")
