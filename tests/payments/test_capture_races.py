"""Races of captures, voids and the expiry of authorizations, at each provider.

`make test-payments` runs all rounds.
"""

import os
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import Final

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentStatus,
    RefundExceedsCaptured,
)
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.errors import CaptureExceedsAuthorized
from markethall.payments.contract.internal import RefundView
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.shared.persistence.postgres import Postgres
from tests.payments.money_shops import (
    POOL,
    PROVIDERS,
    MoneyShop,
    open_money_shop,
    run_concurrently,
)

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
ROUNDS: Final = 200 if FULL else 20
# the number of payments that race at the same time
BATCH: Final = 10
REJECTIONS: Final = (
    PaymentInProgress,
    InvalidPaymentTransition,
    CaptureExceedsAuthorized,
    RefundExceedsCaptured,
)
ENDED: Final = {PaymentStatus.CAPTURED, PaymentStatus.VOIDED, PaymentStatus.EXPIRED}


@pytest.fixture(params=["memory", "sql"])
def postgres(request: pytest.FixtureRequest) -> Postgres | None:
    return None if request.param == "memory" else request.getfixturevalue("sql_postgres")


@pytest.fixture
async def sql_postgres(database_url: str) -> AsyncIterator[Postgres]:
    postgres = Postgres(database_url, POOL)
    yield postgres
    await postgres.close()


@pytest.fixture(params=PROVIDERS)
async def shop(
    request: pytest.FixtureRequest, postgres: Postgres | None
) -> AsyncIterator[MoneyShop]:
    storage = "sql" if postgres else "memory"
    async with open_money_shop(
        request.param, storage, postgres, payments_capture="on_fulfilment"
    ) as shop:
        yield shop


async def test_captures_voids_and_expiry_never_take_too_much(shop: MoneyShop) -> None:
    """Whichever command is first, each payment ends with the captured amount of the provider."""
    found: list[PaymentView] = []
    for number in range(ROUNDS // BATCH):
        batch = [await authorized(shop, 1000) for _ in range(BATCH)]
        # the expiry comes first, in the middle, or last
        calls = [commands(shop, payment) for payment in batch]
        calls.insert(number % 3 * BATCH // 2, [expire(shop)])
        check_results(await run_concurrently(*calls))
        found += batch

    ended = await end_all(shop, found)

    assert {payment.status for payment in ended} <= ENDED
    await shop.assert_agrees(*found)
    for payment in ended:
        assert payment.captured.amount == await captured_by_operations(shop, payment)
        assert payment.authorized == payment.captured
        assert (payment.status is PaymentStatus.CAPTURED) == (payment.captured.amount > 0)


async def test_refunds_never_exceed_concurrent_captures(shop: MoneyShop) -> None:
    payment = await authorized(shop, 1000)
    refunds = (shop.app.refund(payment, 300) for _ in range(BATCH))
    captures = (shop.app.capture(payment, 400) for _ in range(BATCH))

    check_results(await run_concurrently(captures, refunds, [shop.app.refund(payment)]))

    (ended,) = await end_all(shop, [payment])
    assert ended.refunded.amount <= ended.captured.amount <= 1000
    await shop.assert_agrees(payment)


async def authorized(shop: MoneyShop, amount: int) -> PaymentView:
    payment = await shop.app.confirm(await shop.app.open(amount), shop.ok)
    assert payment.status is PaymentStatus.AUTHORIZED
    return payment


def commands(shop: MoneyShop, payment: PaymentView) -> list[Awaitable[object]]:
    return [
        shop.app.capture(payment, 600),
        shop.app.void(payment),
        shop.app.capture(payment, 500),
        shop.app.capture(payment),
    ]


async def expire(shop: MoneyShop) -> None:
    """Let all authorizations become overdue, and run the job that ends them."""
    shop.app.clock.advance(timedelta(days=7).total_seconds())
    await shop.app.container.change_authorization().expire_overdue()


def check_results(results: list[object]) -> None:
    """Check that each command had an effect or a documented rejection."""
    for result in results:
        if isinstance(result, BaseException):
            assert isinstance(result, REJECTIONS), repr(result)
        else:
            assert isinstance(result, PaymentView | RefundView | None)


async def end_all(shop: MoneyShop, payments: list[PaymentView]) -> list[PaymentView]:
    """Advance the clock by seven days, so that open authorizations expire, and reconcile."""
    shop.app.clock.advance(timedelta(days=7).total_seconds())
    return await shop.settle(*payments)


async def captured_by_operations(shop: MoneyShop, payment: PaymentView) -> int:
    return sum(
        operation.amount.amount
        for operation in await shop.operations(payment)
        if operation.kind is OperationKind.CAPTURE and operation.status is OperationStatus.SUCCEEDED
    )
