"""A slow provider does not block calls to other providers; one that is down gets no more calls."""

import asyncio
from asyncio import gather
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware

from markethall.payments.contract import PaymentInProgress, PaymentStatus
from markethall.payments.domain.operation import Outcome, Succeeded
from markethall.payments.ports import OperationRequest, OutcomePending, PaymentGateway
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.provider_connection import COOL_DOWN_SECONDS, ProviderLimits
from markethall.shared.http.admission import AdmissionLimits, AdmissionMiddleware
from markethall.shared.http.work_kinds import WorkKinds
from markethall.shared.kernel.errors import Overloaded, Unavailable
from tests.payments import test_router
from tests.payments.conftest import STAFF, PaymentsApp
from tests.payments.test_router import Client, app_of, client

__all__ = ["client"]

LIMITS = ProviderLimits(max_concurrent_calls=3, failure_threshold=2)


class SlowGateway(PaymentGateway):
    """A provider that answers a charge after `release` is set.

    While `is_down` is true, calls time out; while `is_undecided` is true, charges stay undecided.
    """

    provider = "slow"

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.is_down = False
        self.is_undecided = False
        self.calls = 0

    def accepts(self, method: str) -> bool:
        return method == "slow"

    async def charge(self, request: OperationRequest) -> Outcome:
        self.calls += 1
        if self.is_down:
            raise TimeoutError
        if self.is_undecided:
            raise OutcomePending
        await self.release.wait()
        return Succeeded(f"slow {request.operation_id}")

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        self.calls += 1
        raise TimeoutError

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        raise TimeoutError


class Watch:
    """A fake clock of the circuit breakers, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def slow(payments_app: PaymentsApp, watch: Watch) -> SlowGateway:
    slow = SlowGateway()
    client = ProviderClient([payments_app.gateway, slow], LIMITS, watch)
    payments_app.replace_provider_client(client)
    return slow


async def started(slow: SlowGateway, calls: int) -> None:
    async with asyncio.timeout(10):
        while slow.calls < calls:
            await asyncio.sleep(0)


async def test_slow_provider_blocks_no_other(payments_app: PaymentsApp, slow: SlowGateway) -> None:
    waiting = [await payments_app.open() for _ in range(3)]
    tasks = [asyncio.create_task(payments_app.confirm(payment, "slow")) for payment in waiting]
    await started(slow, 3)

    with pytest.raises(Overloaded):
        await payments_app.confirm(payment := await payments_app.open(), "slow")
    paid = await payments_app.confirm(payment)
    slow.release.set()

    assert (paid.status, paid.provider) == (PaymentStatus.CAPTURED, "sandbox")
    for done in await gather(*tasks):
        assert (done.status, done.provider) == (PaymentStatus.CAPTURED, "slow")


async def test_refused_confirm_records_nothing(
    payments_app: PaymentsApp, slow: SlowGateway, watch: Watch
) -> None:
    slow.is_down = True
    for _ in range(LIMITS.failure_threshold):
        unknown = await payments_app.confirm(await payments_app.open(), "slow")
        assert unknown.status is PaymentStatus.UNKNOWN
    payment = await payments_app.open()

    with pytest.raises(Unavailable) as error:
        await payments_app.confirm(payment, "slow")

    assert error.value.retry_after == COOL_DOWN_SECONDS
    assert slow.calls == LIMITS.failure_threshold
    assert await payments_app.current(payment) == payment
    slow.is_down = False
    slow.release.set()
    watch.now += COOL_DOWN_SECONDS
    assert (await payments_app.confirm(payment, "slow")).status is PaymentStatus.CAPTURED


async def test_provider_that_has_not_decided_is_still_called(
    payments_app: PaymentsApp, slow: SlowGateway
) -> None:
    slow.is_undecided = True

    for _ in range(LIMITS.failure_threshold + 1):
        unknown = await payments_app.confirm(await payments_app.open(), "slow")
        assert unknown.status is PaymentStatus.UNKNOWN


async def test_reconciler_spares_a_provider_that_is_down(
    payments_app: PaymentsApp, slow: SlowGateway
) -> None:
    slow.is_down = True
    open_payments = [await payments_app.open() for _ in range(20)]
    for payment in open_payments[: LIMITS.failure_threshold]:
        await payments_app.confirm(payment, "slow")
    other = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after")
    calls = slow.calls

    await payments_app.reconcile()

    assert slow.calls == calls
    assert (await payments_app.current(other)).status is PaymentStatus.CAPTURED
    with pytest.raises(PaymentInProgress):
        await payments_app.confirm(open_payments[0])


async def test_operation_names_its_provider(payments_app: PaymentsApp, slow: SlowGateway) -> None:
    slow.release.set()
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_declined")

    await payments_app.confirm(payment, "slow")

    balances = await payments_app.ledger.list_account_balances(STAFF)
    assert [one.account for one in balances] == ["customers:payments", "provider:slow"]
    report = await payments_app.ledger.verify(STAFF)
    assert report.intact


@pytest.mark.usefixtures("admitted")
async def test_slow_provider_leaves_the_slots_of_the_process(
    payments_app: PaymentsApp, slow: SlowGateway, client: Client
) -> None:
    """Other requests succeed while three wait for the provider, in a process with two slots."""
    payments = [await payments_app.open() for _ in range(3)]
    confirms = [asyncio.create_task(client.confirm(payment, "slow")) for payment in payments]
    await started(slow, 3)

    read = await client.get(f"/payments/{payments[0].payment_id}", payments[0].user_id)
    again = await client.confirm(await payments_app.open(), "sandbox_ok")
    slow.release.set()

    assert (read.status_code, again.status_code) == (200, 200)
    assert [response.status_code for response in await gather(*confirms)] == [200, 200, 200]


@pytest.fixture
def admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the admission middleware, with two slots, between the gateway and the routes."""
    limits = AdmissionLimits(requests=2, reads=2, searches=1, max_wait_seconds=5)
    admission = Middleware(AdmissionMiddleware, limits=limits, kinds=WorkKinds({}))

    def build(*arguments: Any) -> FastAPI:
        app = app_of(*arguments)
        app.user_middleware.append(admission)
        return app

    monkeypatch.setattr(test_router, "app_of", build)
